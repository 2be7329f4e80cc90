#!/usr/bin/env python3
"""The text processing of `engine/cuda/measure` and `engine/cuda/bundle`.

    report.py executables MESSAGES        cargo's JSON messages -> lines of kind and path: the engine's tests
    report.py words PROBE.json TOKENS     words whose prompt has that many tokens, by a run of loadgen with some
    report.py load-line REPORT.json       loadgen's report in one line, without its rows
    report.py summary RESULTS PARTS       what a measurement found, beside its targets
"""

import collections
import json
import pathlib
import re
import sys

# Shares of what the machine can do at most that a row is to reach: run, mode, batch.
TARGETS = {
    ("bf16", "decode", 1): 0.80,
    ("bf16", "decode", 10): 0.65,
    ("bf16", "decode", 25): 0.65,
    ("bf16", "decode", 50): 0.65,
    ("prefill", "prefill", 1): 0.60,
    ("q4", "decode", 1): 0.50,
    ("fp8", "decode", 1): 0.65,
}
# The share of a step's time, one sequence alone, in which the model is not computed: of all that the engine does.
MOST_OVERHEAD = 0.05
# Time to first token that counts as good, in ms, and the load it is asked at.
GOOD_TTFT_MS, MOST_USERS = 500, 50
# The limit that a row is held against.
LIMITS = {"decode": "bandwidth_share", "prefill": "compute_share"}
FAILURES_SHOWN = 12


def executables(messages):
    for line in pathlib.Path(messages).read_text().splitlines():
        message = json.loads(line)
        if message.get("reason") != "compiler-artifact" or message["target"]["name"] != "engine":
            continue
        if message["executable"] and message["profile"]["test"]:
            print(message["target"]["kind"][0], message["executable"])


def words(probe, tokens):
    report = json.loads(pathlib.Path(probe).read_text())
    tokens_per_prompt = report["tokens"]["input"] / report["requests"]["succeeded"]
    print(max(1, round(int(tokens) * report["config"]["prompt_words"] / tokens_per_prompt)))


def load_line(path):
    report = json.loads(pathlib.Path(path).read_text())
    report.pop("rows", None)
    print(json.dumps(report))


def table(header, rows):
    """Columns as wide as their widest cell, numbers to the right."""
    rows = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = [cell.ljust(width) if at == 0 else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths))]
        print("  " + "  ".join(cells).rstrip())


def lines_of(path):
    """A file's lines; none of one that a part did not come to write."""
    return path.read_text(errors="replace").splitlines() if path.exists() else []


def number(value, digits=1):
    return "-" if value is None else f"{value:,.{digits}f}"


def percent(share):
    return "-" if share is None else f"{share * 100:.1f}%"


def verdict(met):
    return "met" if met else "MISSED"


def print_parts(parts):
    print("\nParts")
    table(["part", "result", "seconds", "allowed"], parts)


def print_machine(results):
    names = [line for line in lines_of(results / "machine.txt") if line.startswith(("GPU: ", "commit: "))]
    print("\n".join(names))


def print_tests(results):
    lines = lines_of(results / "tests.log")
    outcomes = [match.groups() for match in map(re.compile(r"^test (\S+) \.\.\. (?:.* )?(\w+)$").match, lines) if match]
    counts = collections.Counter(outcome for _, outcome in outcomes)
    print(f"\nTests: {counts['ok']} passed, {counts['FAILED']} failed, {counts['ignored']} ignored")
    for name in [name for name, outcome in outcomes if outcome == "FAILED"][:FAILURES_SHOWN]:
        print(f"  FAILED {name}")
    panics = [index for index, line in enumerate(lines) if " panicked at " in line]
    for index in panics[:FAILURES_SHOWN]:
        print("  " + " ".join(lines[index : index + 2])[:300])


def print_sanitizer(results):
    """Each tool's own sums, and the first of what it found; one that was stopped has no sum."""
    kept = re.compile(r"^(Tool: .*|========= (ERROR|RACECHECK) SUMMARY.*|========= (Error|Invalid|Uninit|Race).*|test result: .*)$")
    lines = [line for line in lines_of(results / "sanitizer.log") if kept.match(line)]
    print("\nSanitizer")
    for line in lines[: 2 * FAILURES_SHOWN]:
        print(f"  {line[:200]}")


def speed_row(run, row):
    share = row.get(LIMITS[row["mode"]])
    target = TARGETS.get((run, row["mode"], row["batch"]))
    ratio = row.get("peer_ratio")
    return [run, row["mode"], row["batch"], row["prompt"], number(row["tokens_per_s"]),
            number(row.get("floor_tokens_per_s")), percent(share), percent(target),
            "" if target is None or share is None else verdict(share >= target),
            percent(row.get("host_overhead_share")), number(row.get("peer_tokens_per_s")), number(ratio, 2)]


def limits_text(limits):
    compute = ("compute_tflop_s", "TFLOP/s") if "compute_tflop_s" in limits else ("compute_gop_s", "GOP/s")
    rate = f"{limits.get('compute_of', '8-bit')} {number(limits.get(compute[0]))} {compute[1]}"
    return f"memory {number(limits['bandwidth_gb_s'])} GB/s, {rate}"


def device_text(device):
    return (f"{device['name']}, compute capability {device['capability']}, {device['multiprocessors']} multiprocessors at "
            f"up to {device['clock_mhz']} MHz, memory at up to {device['memory_clock_mhz']} MHz, driver for CUDA "
            f"{device['driver']}")


def print_overhead(rows):
    """Of the whole engine, where a run measured it."""
    for run, row in rows:
        if "overhead_share" not in row:
            continue
        judged = verdict(row["overhead_share"] < MOST_OVERHEAD) if row["batch"] == 1 else ""
        print(f"  {run}: the whole engine, batch {row['batch']}: {number(row['engine_tokens_per_s'])} tok/s, "
              f"{percent(row['overhead_share'])} of a step besides the model, target {percent(MOST_OVERHEAD)} {judged}")


def print_speed(results):
    runs = [json.loads(line) for line in lines_of(results / "bench.jsonl")]
    print("\nSpeed, against the limits measured beside each row; the peer is engine/peer/huggingface.py")
    rows = [(run["run"], row) for run in runs for row in run["report"]["rows"]]
    for device in dict.fromkeys(device_text(run["report"]["device"]) for run in runs if "device" in run["report"]):
        print(f"  {device}")
    for run in runs:
        print(f"  {run['run']}: {limits_text(run['report']['limits'])}")
    header = ["run", "mode", "batch", "prompt", "tok/s", "floor tok/s", "of limit", "target", "", "host", "peer tok/s", "ratio"]
    table(header, [speed_row(run, row) for run, row in rows])
    print_overhead(rows)
    measured = {(run, row["mode"], row["batch"]) for run, row in rows}
    for run, mode, batch in sorted(TARGETS.keys() - measured):
        print(f"  not measured: {run}, {mode}, batch {batch}, target {percent(TARGETS[run, mode, batch])}")


def load_row(report):
    users, requests = report["config"]["users"], report["requests"]
    ttft, tpot = report["latencies_ms"]["ttft"], report["latencies_ms"]["tpot"]
    prompt = report["tokens"]["input"] / max(1, requests["succeeded"])
    judged = verdict(ttft["p95"] < GOOD_TTFT_MS) if users == MOST_USERS else ""
    return [users, requests["succeeded"], requests["failed"], number(prompt, 0), number(ttft["p50"]), number(ttft["p95"]),
            judged, number(tpot["p50"], 2), number(tpot["p95"], 2), number(report["throughput"]["output_tokens_per_s"], 0)]


def print_load(results):
    reports = [json.loads(line) for line in lines_of(results / "load.jsonl")]
    print(f"\nLoad through the gateway; times in ms, TTFT p95 at {MOST_USERS} users is to be below {GOOD_TTFT_MS}")
    header = ["users", "requests", "failed", "prompt", "TTFT p50", "p95", "", "TPOT p50", "p95", "output tok/s"]
    table(header, [load_row(report) for report in reports])


SECTIONS = {
    print_tests: {"tests"},
    print_sanitizer: {"memcheck", "racecheck"},
    print_speed: {"bf16", "prefill", "q4", "fp8", "host"},
    print_load: {"serve"},
}


def summary(results, parts):
    """Every section that a part which was asked for has a say in."""
    results, parts = pathlib.Path(results), [line.split("\t") for line in lines_of(pathlib.Path(parts))]
    print_machine(results)
    print_parts(parts)
    for section, sources in SECTIONS.items():
        if sources & {name for name, *_ in parts}:
            section(results)


COMMANDS = {"executables": executables, "words": words, "load-line": load_line, "summary": summary}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
