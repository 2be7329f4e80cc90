"""Answers whole and streamed, refusals, and the end of the process."""

import json
import signal
import time

from .expect import require
from .requests import events, generate, traceparent

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"

# What is wrong with a request → the trace it asks to be part of, the field named, and `error.type`.
REFUSALS = (
    ({"prompt": "x", "max_tokens": -1}, "5bf92f3577b34da6a3ce929d0e0e4736", "max_tokens", "invalid_value"),
    ({"prompt": "x", "promt": 1}, "6bf92f3577b34da6a3ce929d0e0e4736", "promt", "unknown_field"),
)


def require_exact_sum(timings):
    total = sum(timings["phases"].values())
    require(abs(total - timings["total_ms"]) <= 0.01, f"phases sum to {total}, not to total_ms: {timings}")


def check_generate(port):
    started = time.monotonic()
    headers = {**traceparent(TRACE_ID), "x-request-id": "smoke-1"}
    response = generate(port, {"prompt": "What is TTFT?", "temperature": 0}, headers)
    answer = json.loads(response.read())
    measured = (time.monotonic() - started) * 1000
    require(response.status == 200, f"status {response.status}: {answer}")
    require(answer["text"].strip(), f"no text: {answer}")
    require(answer["usage"]["completion_tokens"] > 0, f"no tokens: {answer}")
    require(answer["trace_id"] == TRACE_ID, f"the caller's trace was not continued: {answer}")
    require(response.headers["x-request-id"] == "smoke-1", "the caller's request id was not returned")
    require("prefill" in response.headers["server-timing"], "no Server-Timing")
    require_exact_sum(answer["timings"])
    require(answer["timings"]["total_ms"] <= measured, f"the ledger counts more than passed ({measured} ms): {answer}")
    return answer["text"]


def check_stream(port, whole):
    response = generate(port, {"prompt": "What is TTFT?", "temperature": 0, "stream": True})
    require(response.headers.get_content_type() == "text/event-stream", "not an event stream")
    *pieces, last, done = events(response)
    require(done == "[DONE]", f"the stream ends with {done}")
    text = "".join(json.loads(piece)["text"] for piece in pieces)
    require(text == whole, f"streamed {text!r}, whole {whole!r}")
    last = json.loads(last)
    require(last["finish_reason"] in ("stop", "length"), f"ended with {last}")
    require_exact_sum(last["timings"])


def check_refusals(port):
    for body, trace_id, field, _ in REFUSALS:
        response = generate(port, body, traceparent(trace_id))
        error = response.read().decode()
        require(response.status == 400 and field in error, f"{body} got {response.status}: {error}")


def check_drain(port, gateway):
    """Told to stop in the middle of a stream, the gateway finishes it."""
    response = generate(port, {"prompt": "What is TTFT?", "stream": True, "ignore_eos": True, "max_tokens": 200})
    stream = events(response)
    next(stream)
    gateway.send_signal(signal.SIGTERM)
    *_, last, done = stream
    require(done == "[DONE]", f"the stream was cut: it ends with {done}")
    usage = json.loads(last)["usage"]
    require(usage["completion_tokens"] == 200, f"the stream was cut short: {usage}")
    code = gateway.wait(timeout=45)
    require(code == 0, f"the gateway ended with {code} after SIGTERM")
