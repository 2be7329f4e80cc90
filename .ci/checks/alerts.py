"""Each alert, provoked in a running gateway, and none in a healthy one.

One Prometheus watches all of them, with the shipped rules at a faster pace: thresholds are the shipped ones.
"""

import contextlib
import dataclasses
import http.client
import json
import re
import threading
import typing

from .expect import Failure, require, until
from .requests import generate, get
from .stack import RULES, start_gateway, start_prometheus

# Uses a whole slot for as long as the demo model's context lasts.
LONG = {"prompt": "What is TTFT?", "max_tokens": 1900, "ignore_eos": True}
SHORT = {"prompt": "What is TTFT?", "max_tokens": 4}


@dataclasses.dataclass
class Scenario:
    """A gateway, what is asked of it, and the alert that must come of it."""

    alert: typing.Optional[str]
    flags: tuple = ()
    body: typing.Optional[dict] = None
    clients: int = 1
    joining: float = 0.0  # seconds between two clients
    environment: dict = dataclasses.field(default_factory=dict)

    @property
    def name(self):
        return self.alert or "healthy"


SCENARIOS = (
    Scenario(None, body=SHORT),
    # Whoever is not first waits for whole answers of others.
    Scenario("TtftHigh", ("--max-batch=1",), LONG, clients=16),
    Scenario("ErrorRateHigh", ("--max-batch=1", "--max-queue=1"), LONG, clients=8),
    # One answer of 1900 steps at a time, and a new client each tenth of a second.
    Scenario("QueueGrowing", ("--max-batch=1",), LONG, clients=250, joining=0.1),
    # Room for one whole sequence; each of these grows to one.
    Scenario("KvCacheFull", ("--kv-memory=2MiB", "--max-batch=8"), LONG, clients=8),
    Scenario("SpansDropped", body=SHORT, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}),
)


class Load:
    """Clients that ask again as soon as they are answered, until the block ends."""

    def __init__(self):
        self.ended = threading.Event()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.set()

    def put(self, scenario, port):
        """Starts the scenario's clients, each joining in its turn."""
        for number in range(scenario.clients):
            threading.Thread(target=self.ask, args=(scenario, port, number), daemon=True).start()

    def ask(self, scenario, port, number):
        self.ended.wait(number * scenario.joining)
        while not self.ended.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                generate(port, scenario.body).read()
            # A refusal comes at once; its client need not.
            self.ended.wait(0.05)


def faster(rules):
    """The same rules with minutes turned into seconds."""
    rules = re.sub(r"\[\d+m\]", "[10s]", rules)
    return re.sub(r"for: \d+m", "for: 2s", rules)


def firing(port):
    """(alert, instance) of each that fires."""
    reply = json.loads(get(port, "/api/v1/alerts")[1])
    return {(alert["labels"]["alertname"], alert["labels"]["instance"])
            for alert in reply["data"]["alerts"] if alert["state"] == "firing"}


def check_alerts(stack):
    """Starts all gateways and their clients, sees each alert fire, and gives the port of Prometheus."""
    names = [scenario.name for scenario in SCENARIOS]
    rules = stack.write("rules.yml", faster(RULES.read_text()))
    for scenario in SCENARIOS:
        start_gateway(stack, scenario.name, "--threads=1", *scenario.flags, **scenario.environment)
    for name in names:
        stack.answers(name, name, "/health/ready")
    start_prometheus(stack, "alerting", gateways=(*names, "GatewayDown"), rules=rules)
    wanted = {(name, stack.address(name)) for name in (*names[1:], "GatewayDown")}
    seen = set()

    def all_seen():
        seen.update(firing(stack.port("alerting")))
        return wanted <= seen

    with Load() as load:
        for scenario in SCENARIOS:
            load.put(scenario, stack.port(scenario.name))
        try:
            until("all alerts", all_seen, 120)
        except Failure as failure:
            raise Failure(f"{failure}; silent: {sorted(name for name, _ in wanted - seen)}") from None
    # All gateways share these cores, so that the healthy one may be slow.
    healthy = {name for name, instance in seen if instance == stack.address("healthy")} - {"TtftHigh"}
    require(not healthy, f"a healthy gateway raises {healthy}")
    return stack.port("alerting")
