"""A client of the gateway and of whatever else speaks HTTP on this machine."""

import http.client
import json


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.read().decode()


def post(port, path, body, headers=()):
    """Sends `body` as JSON; the response is open, its body unread."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json", **dict(headers)})
    return connection.getresponse()


def generate(port, body, headers=()):
    return post(port, "/generate", body, headers)


def traceparent(trace_id):
    return {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}


def events(response):
    """The data of a stream's events, as they come."""
    for line in response:
        if line.startswith(b"data: "):
            yield line[6:].strip().decode()
