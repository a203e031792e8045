"""How the Python checks report: one line a check, one row a check for the table at the end.

A check is a function with a name in words. It passes by returning, fails by raising, and skips by
raising `Skip` (what it needs is not there). Rows go to the file named by RELAIS_RESULTS as
`suite <tab> check <tab> PASS|FAIL|SKIP <tab> detail`; `run.sh` prints them together.

It is no test framework: no fixtures, no discovery. The same lines come from `report.mjs`.
"""

import os
import sys
import time
import traceback


class Skip(Exception):
    """What this check needs is not there; the text says what."""


def need(name: str) -> str:
    """The environment variable `name`, or a skip that names it."""
    value = os.environ.get(name, "")
    if not value:
        raise Skip(f"{name} is not set")
    return value


class Suite:
    """The checks of one script, run in the order in which they are written."""

    def __init__(self, name: str):
        self.name = name
        self._checks = []

    def check(self, title: str, *, gateway: bool = False):
        """Registers a check. `gateway` marks one that a bare model server cannot pass."""

        def register(function):
            self._checks.append((title, gateway, function))
            return function

        return register

    def run(self, *, direct: bool = False) -> None:
        """Runs all checks and exits: 0 if none failed, and none was skipped where that is fatal."""
        counts = {"PASS": 0, "FAIL": 0, "SKIP": 0}
        for title, gateway, function in self._checks:
            started = time.monotonic()
            outcome, detail = "PASS", ""
            try:
                if direct and gateway:
                    raise Skip("needs the gateway")
                function()
            except Skip as why:
                outcome, detail = "SKIP", str(why)
            except Exception as error:  # whatever a client raises is a finding, not a crash of ours
                outcome, detail = "FAIL", f"{type(error).__name__}: {error}"
                traceback.print_exc(limit=-2)
            counts[outcome] += 1
            self._row(title, outcome, detail)
            print(f"{outcome} {title} ({time.monotonic() - started:.2f} s) {detail}"[:600], flush=True)
        print(f"{counts['PASS']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped", flush=True)
        fatal = os.environ.get("RELAIS_SKIPS") == "fatal" and not direct
        sys.exit(1 if counts["FAIL"] or (fatal and counts["SKIP"]) else 0)

    def _row(self, title: str, outcome: str, detail: str) -> None:
        path = os.environ.get("RELAIS_RESULTS")
        if not path:
            return
        flat = " ".join(detail.split())[:200]
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{self.name}\t{title}\t{outcome}\t{flat}\n")
