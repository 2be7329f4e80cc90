"""The gateway on an emulated GPU, which answers slowly: served, measured, and failing."""

import json
import os
import pathlib
import signal
import sys
import tempfile

from .expect import require, until
from .requests import events, generate, get
from .serving import require_exact_sum
from .stack import start_gateway, started

SHORT = {"prompt": "What is TTFT?", "temperature": 0, "max_tokens": 6, "ignore_eos": True}
# Kernels of the start, and of some answers: one after these fails.
HEALTHY_LAUNCHES = 4000


def start(stack, name, **environment):
    """A gateway on the GPU, ready."""
    process = start_gateway(stack, name, "--device=cuda", OTEL_SDK_DISABLED="true", OTEL_EXPORTER_OTLP_ENDPOINT="",
                            **environment)
    stack.answers(name, name, "/health/ready")
    return process


def check_answers(port):
    """Whole and streamed, the same text; phases that sum exactly though steps overlap."""
    whole = json.loads(generate(port, SHORT).read())
    require(whole["usage"]["completion_tokens"] == 6, f"not six tokens: {whole}")
    require_exact_sum(whole["timings"])
    *pieces, last, done = events(generate(port, {**SHORT, "stream": True}))
    require(done == "[DONE]", f"the stream ends with {done}")
    text = "".join(json.loads(piece)["text"] for piece in pieces)
    require(text == whole["text"], f"streamed {text!r}, whole {whole['text']!r}")
    require_exact_sum(json.loads(last)["timings"])


def check_metrics(port):
    _, text = get(port, "/metrics")
    for metric in ("hw_gpu_memory_usage_bytes", "hw_gpu_memory_limit_bytes", "hw_gpu_memory_utilization_ratio",
                   "engine_memory_bandwidth_utilization_ratio", "engine_compute_utilization_ratio"):
        values = [line.split()[1] for line in text.splitlines() if line.startswith(metric)]
        require(len(values) == 1 and float(values[0]) > 0, f"{metric} is {values}")


def check_stop(process):
    process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=45)
    require(code == 0, f"the gateway ended with {code} after SIGTERM")


def check_failure(stack):
    """A kernel faults: the request is told, others too, and the gateway says that only a restart helps."""
    process = start(stack, "failing", EMULATOR_FAIL_LAUNCH=str(HEALTHY_LAUNCHES))
    port = stack.port("failing")

    def failed():
        response = generate(port, {**SHORT, "max_tokens": 16})
        answer = json.loads(response.read())
        return response.status == 500 and answer["error"]["code"] == "engine_failed"

    until("a failed request", failed, seconds=120)
    until("health that says so", lambda: get(port, "/health/ready") == (503, "failed"))
    require(failed(), "a request after the failure is not refused")
    check_stop(process)


def check_absence(stack):
    """Without a driver, --device cuda is an error that says why, and auto serves on the CPU and says so once."""
    without = {"LD_LIBRARY_PATH": ""}
    process = start_gateway(stack, "refused", "--device=cuda", **without)
    require(process.wait(timeout=60) != 0, "--device cuda serves without a driver")
    log = (stack.scratch / "refused.log").read_text()
    require("no CUDA driver on this machine" in log and "--device cpu" in log, f"the error is {log}")
    start_gateway(stack, "automatic", "--device=auto", OTEL_SDK_DISABLED="true", **without)
    stack.answers("automatic", "automatic", "/health/ready")
    log = (stack.scratch / "automatic.log").read_text()
    require(log.count("the CPU computes") == 1, f"it is said {log.count('the CPU computes')} times: {log}")


def main():
    require("cuda-emulator" in os.environ.get("LD_LIBRARY_PATH", ""), "start this with engine/cuda/emulate")
    with tempfile.TemporaryDirectory() as directory, started(pathlib.Path(directory), None) as stack:
        process = start(stack, "gateway")
        check_answers(stack.port("gateway"))
        check_metrics(stack.port("gateway"))
        check_stop(process)
        print("ok served by an emulated GPU")
        check_failure(stack)
        print("ok a GPU that fails")
        check_absence(stack)
        print("ok no GPU")


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(f"gpu: {type(error).__name__}: {error}")
