"""/metrics, and the metrics that the collector makes of spans."""

import re
import subprocess

from .expect import require, until
from .requests import get


def check_metrics(stack):
    status, text = get(stack.port("gateway"), "/metrics")
    require(status == 200, f"/metrics answers {status}")
    lint = subprocess.run([stack.tools / "promtool", "check", "metrics"], input=text, text=True, capture_output=True)
    require(lint.returncode == 0, f"promtool check metrics: {lint.stdout}{lint.stderr}")


def span_counts(port):
    text = get(port, "/metrics")[1]
    found = re.findall(r'gateway_telemetry_spans_total\{[^}]*outcome="(\w+)"[^}]*\} (\d+)', text)
    return {outcome: int(count) for outcome, count in found}


def check_spans(stack):
    """Every span that was made has arrived, and the collector has counted each phase."""

    def all_exported():
        counts = span_counts(stack.port("gateway"))
        require(counts["dropped"] == counts["failed"] == 0, f"spans were lost: {counts}")
        return counts["created"] == counts["exported"] > 0

    until("all spans exported", all_exported)
    wanted = {"POST /generate", "receive", "tokenize", "queue", "prefill", "decode", "deliver"}
    until(f"spans {wanted} counted by the collector", lambda: wanted <= counted_spans(stack, "collector").keys())


def counted_spans(stack, collector):
    """Span name → how many the collector has seen."""
    text = get(stack.port(f"{collector}-metrics"), "/metrics")[1]
    counts = {}
    for name, count in re.findall(r'calls_total\{[^}]*span_name="([^"]+)"[^}]*\} (\d+)', text):
        counts[name] = counts.get(name, 0) + int(count)
    return counts
