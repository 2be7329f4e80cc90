"""Checks that hold, or end the run with what did not."""

import contextlib
import http.client
import time


class Failure(Exception):
    """A check that did not hold; its text says which and why."""


def require(holds, otherwise):
    if not holds:
        raise Failure(otherwise)


def until(what, check, seconds=60):
    """Polls `check` until it returns something true, and returns that."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if result := check():
                return result
        require(time.monotonic() < deadline, f"{what}: not within {seconds} s")
        time.sleep(0.1)


def settled(check, seconds=10):
    """Repeats a check of something that arrives bit by bit; past the time, its own failure stands."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except Failure:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
