"""What the collector keeps with the shipped policies, and that it counts what it does not.

The traces are made up here, so that each is slow, failed or neither by construction.
"""

import time

from .expect import require, until
from .jaeger import Jaeger
from .metrics import counted_spans
from .requests import post
from .stack import start_collector

ORDINARY = 6000
SECOND = 1_000_000_000


class Made:
    """Traces of one service, named for what they are."""

    def __init__(self, service):
        self.service, self.spans, self.traces = service, [], 0

    def request(self, seconds=0.1, first_token=0.05, failed=False):
        """A server's span and an operation below it; gives the trace's id."""
        server = self.span("POST /generate", 2, seconds)
        operation = self.span("text_completion", 1, seconds, parent=server)
        operation["status"] = {"code": 2 if failed else 0}
        operation["attributes"].append(attribute("gen_ai.response.time_to_first_chunk", {"doubleValue": first_token}))
        return server["traceId"]

    def step(self):
        return self.span("engine.step", 1, 0.001)["traceId"]

    def span(self, name, kind, seconds, parent=None):
        self.traces += parent is None
        now = time.time_ns()
        # Consecutive ids, spread as random ones are.
        spread = (self.traces * 0x9E3779B97F4A7C15F39CC0605CEDC834) % (1 << 128)
        span = {"traceId": f"{spread:032x}", "spanId": f"{len(self.spans) + 1:016x}", "name": name, "kind": kind,
                "startTimeUnixNano": str(now - int(seconds * SECOND)), "endTimeUnixNano": str(now),
                "attributes": []}
        if parent:
            span["parentSpanId"] = parent["spanId"]
        self.spans.append(span)
        return span

    def send(self, port):
        resource = {"attributes": [attribute("service.name", {"stringValue": self.service})]}
        body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": self.spans}]}]}
        response = post(port, "/v1/traces", body)
        require(response.status == 200, f"the collector answers {response.status}: {response.read()}")


def attribute(key, value):
    return {"key": key, "value": value}


def check_sampling(stack):
    start_collector(stack, "sampler")
    jaeger, port = Jaeger(stack.port("jaeger")), stack.port("sampler-http")

    quiet = Made("quiet")
    alone = quiet.request()
    quiet.send(port)
    until("a lone trace in Jaeger", lambda: jaeger.trace(alone))

    busy = Made("busy")
    kept = {"failed": [busy.request(failed=True) for _ in range(20)],
            "slow": [busy.request(seconds=6) for _ in range(20)],
            "late": [busy.request(seconds=2, first_token=1.5) for _ in range(20)],
            "steps": [busy.step() for _ in range(20)]}
    ordinary = {busy.request() for _ in range(ORDINARY)}
    busy.send(port)
    for what, ids in kept.items():
        until(f"all {what} in Jaeger", lambda: all(jaeger.trace(trace_id) for trace_id in ids))
    found = {span.trace_id for span in jaeger.search("busy", "POST /generate")} & ordinary
    require(ORDINARY // 20 < len(found) < ORDINARY // 2, f"{len(found)} of {ORDINARY} ordinary traces were kept")
    for trace_id in found:
        require(len(jaeger.trace(trace_id)) == 2, f"only a part of trace {trace_id} was kept")

    requests = ORDINARY + 61
    until("spans counted", lambda: counted_spans(stack, "sampler").get("engine.step") == 20)
    counted = counted_spans(stack, "sampler")
    require(counted["POST /generate"] == requests, f"{requests} requests were sent, {counted} counted")
    stack.kill("sampler")
    return len(found)
