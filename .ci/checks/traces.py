"""Every request's trace is in Jaeger, whole, and can be found there by what was slow or went wrong."""

import collections

from .expect import require, settled, until
from .jaeger import ENGINE, GATEWAY
from .serving import REFUSALS, TRACE_ID

PHASES = ["receive", "tokenize", "queue", "prefill", "decode", "deliver"]

SERVER_ATTRIBUTES = {"http.request.method", "http.route", "http.response.status_code", "gateway.request_id"}
OPERATION_ATTRIBUTES = {
    "gateway.outcome", "gateway.stall_ms", "gateway.preempted_ms", "gateway.interference_ms",
    "gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.request.max_tokens",
    "gen_ai.request.stream", "gen_ai.response.id", "gen_ai.response.model", "gen_ai.response.finish_reasons",
    "gen_ai.response.time_to_first_chunk", "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens",
}
STEP_ATTRIBUTES = {
    "engine.step.number", "engine.step.batch_size", "engine.step.prefill_tokens", "engine.step.decode_tokens",
    "engine.step.plan_ms", "engine.step.forward_ms", "engine.step.sample_ms", "engine.kv.usage",
    "engine.memory_bandwidth.utilization", "engine.compute.utilization",
}
# An engine's step links no more requests, and a phase no more steps, than this.
LINKS = {"engine.step": 128, "prefill": 32, "decode": 32}


def check_traces(jaeger, records):
    """Gives the traces of the records by id, each of them one whole tree."""
    return {record["trace_id"]: settled(lambda: tree(jaeger, record)) for record in records}


def tree(jaeger, record):
    """The spans: client → server → operation → the phases, each a microsecond after the one before."""
    trace_id = record["trace_id"]
    spans = jaeger.trace(trace_id)
    by_kind = collections.defaultdict(list)
    for span in spans:
        by_kind[span.kind].append(span)
    require(len(by_kind["CLIENT"]) == 1, f"trace {trace_id} has {len(by_kind['CLIENT'])} client spans, not one")
    require(len(by_kind["SERVER"]) == 1, f"trace {trace_id} has {len(by_kind['SERVER'])} server spans, not one")
    client, server = by_kind["CLIENT"][0], by_kind["SERVER"][0]
    require(client.service == "loadgen" and client.parent == "", f"the root of {trace_id} is not loadgen's: {client}")
    require(server.parent == client.span_id, f"trace {trace_id}: the server's parent is not the client's span")
    require_attributes(server, SERVER_ATTRIBUTES)
    operations = [span for span in by_kind["INTERNAL"] if span.parent == server.span_id]
    require(len(operations) == 1, f"trace {trace_id} has {len(operations)} operations below the server's span")
    operation = operations[0]
    phases = sorted((span for span in spans if span.parent == operation.span_id),
                    key=lambda span: (span.start, PHASES.index(span.name)))
    require(len(phases) + 3 == len(spans), f"trace {trace_id} has orphans: {spans}")
    names = [span.name for span in phases]
    require(names == PHASES[:len(names)], f"trace {trace_id} has the phases {names}")
    if "finish_reason" in record:
        require(names == PHASES, f"trace {trace_id} of a whole answer has only the phases {names}")
        require_attributes(operation, OPERATION_ATTRIBUTES)
        require("first_token" in operation.events, f"trace {trace_id} does not say when its first token came")
    starts = [server.start, *(span.end + 1000 for span in phases)]
    require([span.start for span in phases] == starts[:-1] and phases[-1].end == server.end,
            f"trace {trace_id}: the phases do not fill the server's span: {phases}")
    for span in (server, *phases):
        models = [key for key in span.attributes if key.startswith("gen_ai.")]
        require(not models, f"'{span.name}' of trace {trace_id} has what only the operation should: {models}")
    return spans


def require_attributes(span, wanted):
    missing = wanted - span.attributes.keys()
    require(not missing, f"'{span.name}' of trace {span.trace_id} lacks {sorted(missing)}")


def check_steps(jaeger, traces):
    """Steps link the requests that they served, and these the steps that they were in."""
    servers = {(span.trace_id, span.span_id) for spans in traces.values() for span in spans if span.kind == "SERVER"}
    steps = jaeger.search(ENGINE, "engine.step")
    require(steps, "Jaeger has no engine.step")
    served = collections.defaultdict(set)
    for step in steps:
        require(step.parent == "", f"a step is not the root of its own trace: {step}")
        require_attributes(step, STEP_ATTRIBUTES)
        require(len(step.links) <= LINKS["engine.step"], f"a step has {len(step.links)} links")
        served[step.trace_id, step.span_id] |= set(step.links)
    linked = set().union(*served.values())
    require(linked & servers, "no step links a request of the load")
    for trace_id, span_id in linked - servers:
        kinds = [span.kind for span in jaeger.trace(trace_id) if span.span_id == span_id]
        require(kinds == ["SERVER"], f"a step links span {span_id} of trace {trace_id}, which is {kinds}")
    for phase in ("prefill", "decode"):
        require_steps_of(phase, traces, served)


def require_steps_of(phase, traces, served):
    """Every step that such a phase links has a link back to the request; some do."""
    links = 0
    for spans in traces.values():
        server = next(span for span in spans if span.kind == "SERVER")
        for span in spans:
            if span.name != phase:
                continue
            require(len(span.links) <= LINKS[phase], f"a {phase} has {len(span.links)} links")
            for step in span.links:
                require(step in served, f"trace {span.trace_id}: {phase} links {step}, which is no step in Jaeger")
                require((server.trace_id, server.span_id) in served[step],
                        f"trace {span.trace_id}: {phase} links step {step}, which does not link it back")
            links += len(span.links)
    require(links, f"no {phase} links a step")


def check_search(jaeger, traces):
    """What someone looks for: which services and operations there are, what was slow, what went wrong."""
    require(set(jaeger.services()) >= {GATEWAY, ENGINE, "loadgen"}, f"services: {jaeger.services()}")
    operations = jaeger.operations(GATEWAY)
    require(not any(name == "engine.step" for name, _ in operations), "steps are among the gateway's requests")
    wanted = {("POST /generate", "server"), ("text_completion demo", "internal"),
              *((phase, "internal") for phase in PHASES)}
    require(wanted <= operations, f"operations: {sorted(operations)} lack {sorted(wanted - operations)}")

    durations = {trace_id: span.end - span.start
                 for trace_id, spans in traces.items() for span in spans if span.kind == "SERVER"}
    limit = sorted(durations.values())[len(durations) * 9 // 10]
    slow = {trace_id for trace_id, duration in durations.items() if duration >= limit}
    found = {span.trace_id for span in jaeger.search(GATEWAY, "POST /generate", longer_than=limit)}
    # Jaeger keeps microseconds where it compares.
    edge = {trace_id for trace_id, duration in durations.items() if abs(duration - limit) < 1000}
    require((found & traces.keys()) - edge == slow - edge,
            f"{len(slow)} requests took {limit} ns or more; the search found {len(found & traces.keys())}")

    outcomes = collections.defaultdict(set)
    for trace_id, spans in traces.items():
        for span in spans:
            if outcome := span.attributes.get("gateway.outcome"):
                outcomes[outcome].add(trace_id)
    for outcome, ids in outcomes.items():
        found = jaeger.with_attributes(GATEWAY, {"gateway.outcome": outcome}) & traces.keys()
        require(found == ids, f"{len(ids)} requests ended as {outcome}; the search found {len(found)}")
    for _, trace_id, _, kind in REFUSALS:
        found = jaeger.with_attributes(GATEWAY, {"error.type": kind})
        require(trace_id in found, f"the search for error.type={kind} does not find the request refused so: {found}")
    require(any(span.kind == "SERVER" for span in jaeger.trace(TRACE_ID)), "the trace of a curl is not there by its id")


def check_monitor(jaeger, traces):
    """The Monitor tab has percentiles, which Jaeger reads from Prometheus and the collector counted: right ones, of
    phases of microseconds too."""
    until("percentiles in the Monitor tab", lambda: jaeger.percentiles(GATEWAY).get("POST /generate"))
    for phase in PHASES:
        points = until(f"percentiles of {phase}", lambda: jaeger.percentiles(GATEWAY, "internal").get(phase))
        shown = [point["gaugeValue"]["doubleValue"] for point in points if "gaugeValue" in point]
        took = sorted(span.end - span.start for spans in traces.values() for span in spans if span.name == phase)
        actual = took[len(took) * 95 // 100] / 1e6
        # A bucket's border is twice the one before, or so.
        require(actual / 3 < shown[-1] < actual * 3, f"p95 of {phase} is {actual} ms; the Monitor tab shows {shown[-1]}")
