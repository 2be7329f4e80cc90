"""Each query of Grafana's dashboards has an answer in Prometheus."""

import json
import math
import urllib.parse

from .expect import require, until
from .requests import get
from .stack import ROOT


def queries():
    """(dashboard, panel, expression) of each query."""
    for path in sorted((ROOT / "docker/grafana/dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                if expression := target.get("expr"):
                    yield path.stem, panel["title"], expression


def filled_in(expression):
    """The expression with values for Grafana's variables."""
    return expression.replace("$__rate_interval", "1m").replace("$__range", "5m")


def answer(port, expression):
    """The numbers it gives now."""
    query = urllib.parse.urlencode({"query": filled_in(expression)})
    reply = json.loads(get(port, f"/api/v1/query?{query}")[1])
    require(reply["status"] == "success", f"{expression}: {reply}")
    values = (float(series["value"][1]) for series in reply["data"]["result"])
    return [value for value in values if not math.isnan(value)]


def check_dashboards(port, alerts=False):
    """Asks those about alerts, or all others: a healthy gateway has no alerts."""
    asked = 0
    for dashboard, panel, expression in queries():
        if ("ALERTS" in expression) == alerts:
            until(f"data for '{panel}' of {dashboard} ({expression})", lambda: answer(port, expression), 20)
            asked += 1
    require(asked, "no dashboard has such a query")
    return asked
