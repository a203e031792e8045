"""Asks the local model's own counters whether it is still working on a call.

This is how a check sees from outside that a client who left was noticed: the gateway must close
its call upstream, and llama.cpp then stops generating.
"""

import os
import time
import urllib.request

from report import Skip

# A client that leaves is to be noticed within 1.5 s; the rest is room for a busy machine. The
# answer that is cut off would take several times longer, so the wait still tells them apart.
IDLE_WAIT_SECONDS = 6.0


def calls_in_work() -> int:
    """How many calls the model is generating for right now."""
    return int(counter("llamacpp:requests_processing"))


def counter(name: str) -> float:
    """One of llama.cpp's counters."""
    address = os.environ.get("RELAIS_MODEL_ADDRESS", "")
    if not address:
        raise Skip("RELAIS_MODEL_ADDRESS is not set")
    request = urllib.request.Request(f"{address}/metrics")
    request.add_header("authorization", f"Bearer {os.environ.get('RELAIS_MODEL_KEY', '')}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            words = line.split()
            if len(words) == 2 and words[0] == name:
                return float(words[1])
    raise AssertionError(f"the model server shows no {name}")


def wait_until_idle() -> None:
    """Returns once no call is in work; fails when that takes too long."""
    deadline = time.monotonic() + IDLE_WAIT_SECONDS
    while calls_in_work() > 0:
        if time.monotonic() > deadline:
            raise AssertionError("the model still generates for a client that has left")
        time.sleep(0.05)
