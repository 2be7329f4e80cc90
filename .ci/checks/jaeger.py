"""Jaeger's query API: traces by id, search, services and operations.

Everything comes from `/api/v3`, by the parameter names that each of its versions knows, but for the search by
attributes, which this version of it lacks: that one is asked as Jaeger's own pages ask.
"""

import dataclasses
import datetime
import json
import time
import urllib.parse

from .expect import require
from .requests import get

KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT"}
GATEWAY = "llm-inference-api"
ENGINE = "llm-inference-engine"


@dataclasses.dataclass
class Span:
    """A span as it came back; times are nanoseconds."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent: str
    start: int
    end: int
    failed: bool
    attributes: dict
    events: list
    links: list  # of (trace id, span id)


class Jaeger:
    """The API on `port`; searches look at what began after this object was made."""

    def __init__(self, port):
        self.port = port
        self.since = time.time() - 1

    def ask(self, path, **parameters):
        status, text = get(self.port, f"{path}?{urllib.parse.urlencode(parameters)}")
        require(status in (200, 404), f"{path} with {parameters} got {status}: {text}")
        return json.loads(text) if status == 200 else {}

    def services(self):
        return self.ask("/api/v3/services").get("services", [])

    def operations(self, service):
        """Of (name, kind)."""
        found = self.ask("/api/v3/operations", service=service).get("operations", [])
        return {(operation["name"], operation["spanKind"]) for operation in found}

    def trace(self, trace_id):
        """The spans of a trace; none if there is no such trace."""
        return spans_of(self.ask(f"/api/v3/traces/{trace_id}"))

    def search(self, service, operation, longer_than=0):
        """The spans of all traces with such an operation that took so many nanoseconds."""
        now = time.time() + 1
        return spans_of(self.ask("/api/v3/traces", **{
            "query.service_name": service, "query.operation_name": operation, "query.num_traces": 100_000,
            "query.start_time_min": rfc3339(self.since), "query.start_time_max": rfc3339(now),
            "query.duration_min": f"{longer_than}ns"}))

    def with_attributes(self, service, attributes):
        """The ids of the traces with a span that has all of these attributes."""
        found = self.ask("/api/traces", service=service, tags=json.dumps(attributes), limit=100_000,
                         start=int(self.since * 1e6), end=int((time.time() + 1) * 1e6))
        return {trace["traceID"] for trace in found.get("data", [])}

    def percentiles(self, service, kind="server"):
        """Operation → points of its p95, as the Monitor tab shows them."""
        found = self.ask("/api/metrics/latencies", service=service, quantile=0.95, endTs=int(time.time() * 1000),
                         lookback=600_000, step=5_000, ratePer=600_000, spanKind=kind, groupByOperation="true")
        labels = ((dict((label["name"], label["value"]) for label in metric["labels"]), metric["metricPoints"])
                  for metric in found.get("metrics", []))
        return {label["operation"]: points for label, points in labels}


def rfc3339(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).isoformat()


def spans_of(answer):
    spans = []
    for resource in answer.get("result", {}).get("resourceSpans", []):
        service = values(resource["resource"]).get("service.name")
        for scope in resource["scopeSpans"]:
            spans.extend(span_of(service, span) for span in scope["spans"])
    return spans


def span_of(service, span):
    return Span(
        service=service, name=span["name"], kind=KINDS.get(span.get("kind")), trace_id=span["traceId"],
        span_id=span["spanId"], parent=span.get("parentSpanId", ""), start=int(span["startTimeUnixNano"]),
        end=int(span["endTimeUnixNano"]), failed=span.get("status", {}).get("code") == 2, attributes=values(span),
        events=[event["name"] for event in span.get("events", [])],
        links=[(link["traceId"], link["spanId"]) for link in span.get("links", [])])


def values(of):
    return {pair["key"]: next(iter(pair["value"].values()), None) for pair in of.get("attributes", [])}
