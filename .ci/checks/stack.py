"""The processes under test, their ports and their logs.

Each is started with the configuration under docker/ and an overlay that moves it to ports of this run.
"""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess

from .expect import require, until
from .requests import get

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARIES = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / os.environ.get("SMOKE_PROFILE", "debug")
RULES = ROOT / "docker/prometheus/rules.yml"


class Stack:
    """A directory, free ports and the processes; they end when the `with` block does."""

    def __init__(self, scratch, tools):
        self.scratch, self.tools, self.processes, self.ports = scratch, tools, {}, {}

    def port(self, name):
        """The port of that name, chosen when it is first asked for."""
        while name not in self.ports:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            if port not in self.ports.values():
                self.ports[name] = port
        return self.ports[name]

    def address(self, name):
        return f"127.0.0.1:{self.port(name)}"

    def start(self, name, *command, **environment):
        environment = {**os.environ, **environment}
        with open(self.scratch / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, env=environment)
        self.processes[name] = process
        return process

    def kill(self, *names):
        for name in names:
            self.processes[name].kill()
        for name in names:
            self.processes.pop(name).wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill(*self.processes)

    def write(self, name, content):
        path = self.scratch / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def answers(self, name, port, path):
        """Waits until `name` answers 200 there; fails at once if it ends instead."""

        def ready():
            code = self.processes[name].poll()
            require(code is None, f"{name} ended with {code} while starting")
            return get(self.port(port), path)[0] == 200

        until(f"{name} ready", ready)


def start_jaeger(stack):
    """Jaeger; `jaeger` is the port of its API, `jaeger-otlp` that of its receiver."""
    overlay = {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": stack.address("jaeger-otlp")}}}},
        "extensions": {
            "jaeger_query": {"http": {"endpoint": stack.address("jaeger")},
                             "grpc": {"endpoint": stack.address("jaeger-grpc")}},
            "jaeger_storage": {"metric_backends": {"spanmetrics": {"prometheus": {
                "endpoint": f"http://{stack.address('prometheus')}"}}}},
            "healthcheckv2": {"http": {"endpoint": stack.address("jaeger-health")}},
        },
        "service": {"telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}}},
    }
    stack.start("jaeger", stack.tools / "jaeger", "--config=docker/jaeger/config.yaml",
                f"--config={stack.write('jaeger.json', overlay)}")
    stack.answers("jaeger", "jaeger-health", "/status")


def start_collector(stack, name="collector", **environment):
    """A collector that passes traces on to Jaeger; its ports are `<name>-grpc`, `-http` and `-metrics`."""
    overlay = {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": stack.address(f"{name}-grpc")},
                                             "http": {"endpoint": stack.address(f"{name}-http")}}}},
        "connectors": {"span_metrics": {"metrics_flush_interval": "1s"}},
        "exporters": {"prometheus": {"endpoint": stack.address(f"{name}-metrics")}},
        "extensions": {"health_check": {"endpoint": stack.address(f"{name}-health")}},
        "service": {"telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}}},
    }
    stack.start(name, stack.tools / "otelcol", "--config=docker/collector/config.yaml",
                f"--config={stack.write(f'{name}.json', overlay)}",
                JAEGER_OTLP=stack.address("jaeger-otlp"), **environment)
    stack.answers(name, f"{name}-health", "/")


def start_prometheus(stack, name="prometheus", gateways=("gateway",), rules=None):
    """A Prometheus that scrapes those gateways each second, with the shipped rules unless others are given."""
    text = (ROOT / "docker/prometheus/prometheus.yml").read_text()
    targets = '", "'.join(map(stack.address, gateways))
    for service, address in (("gateway:8000", targets), ("collector:8889", stack.address("collector-metrics")),
                             ("localhost:9090", stack.address(name))):
        require(service in text, f"prometheus.yml does not scrape {service}")
        text = text.replace(service, address)
    text = re.sub(r"(\w+_(interval|timeout)): \ds", r"\1: 1s", text)
    text = text.replace("[rules.yml]", json.dumps([str(rules or RULES)]))
    stack.start(name, stack.tools / "prometheus", f"--config.file={stack.write(f'{name}.yml', text)}",
                f"--storage.tsdb.path={stack.scratch}/{name}", f"--web.listen-address={stack.address(name)}")
    stack.answers(name, name, "/-/ready")


def start_gateway(stack, name="gateway", *flags, **environment):
    """A gateway on the demo model that exports to the collector, unless its environment says otherwise."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{stack.address('collector-grpc')}",
                   "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", **environment}
    return stack.start(name, BINARIES / "gateway", f"--port={stack.port(name)}", *flags, **environment)


@contextlib.contextmanager
def started(scratch, tools):
    """A stack that prints the last lines of its logs when the block fails."""
    with Stack(scratch, tools) as stack:
        try:
            yield stack
        except Exception:
            for log in sorted(scratch.glob("*.log")):
                lines = log.read_text(errors="replace").splitlines()[-20:]
                print(f"--- last lines of {log.name}", *(line[:300] for line in lines), sep="\n")
            raise
