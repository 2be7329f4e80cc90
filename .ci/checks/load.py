"""loadgen against the gateway."""

import json
import os
import subprocess

from .expect import require
from .stack import BINARIES


def check_load(stack):
    """Runs it for ten seconds, with its own spans exported too; gives the records of all requests."""
    report, records = stack.scratch / "report.json", stack.scratch / "records.jsonl"
    command = [BINARIES / "loadgen", "--host", f"http://{stack.address('gateway')}", "--users", "10",
               "--run-time", "10s", "--grace", "60s", "--json", report, "--records", records]
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{stack.address('collector-grpc')}",
                   "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    load = subprocess.run(command, cwd=stack.scratch, text=True, capture_output=True, timeout=120, env=environment)
    require(load.returncode == 0, f"loadgen ended with {load.returncode}: {load.stdout}{load.stderr}")
    print(load.stdout)
    records = [json.loads(line) for line in records.read_text().splitlines()]
    spans = json.loads(report.read_text())["client_spans"]
    require(spans["created"] == spans["exported"] == len(records), f"{len(records)} requests have client spans {spans}")
    return records
