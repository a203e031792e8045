"""What an independent suite finds in the gateway, against what it finds in the bare model.

Most of what a small model's server lacks is not ours to mend, so what counts is the difference:
the gateway must pass every check that the model passes by itself. Two suites are compared: the
schema checks of `llm-comply` (chat and responses), and our own run of the official client, whose
rows through the gateway `sdk_python.py` has written before.

The model draws its words. A check that goes wrong only behind the gateway is therefore run again,
on both sides; a fault of the gateway's does not go away by itself.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from report import Skip, Suite, need

FORMATS = ["openai-chat", "open-responses"]
# So often must the bare model pass and the gateway fail, one after the other.
TRIES = 3
CHECK_SECONDS = 90

suite = Suite("comply")
DIRECT = (need("RELAIS_MODEL_ADDRESS") + "/v1", need("RELAIS_MODEL_KEY"))
THROUGH = (need("RELAIS_BASE_URL"), need("RELAIS_API_KEY"))


def comply(where: tuple[str, str], form: str, only: str = "") -> dict[str, dict]:
    """What llm-comply says of an address: its results by the check's name."""
    base_url, key = where
    command = [sys.executable, "-m", "llm_comply.cli", "--json", "--format", form]
    command += ["--base-url", base_url, "--model", need("RELAIS_MODEL"), "--timeout", str(CHECK_SECONDS)]
    command += ["--filter", only] if only else []
    # The key in the environment: no secret stands in a list of processes.
    env = os.environ | {"OPENRESPONSES_API_KEY": key}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=540)
    try:
        results = json.loads(done.stdout)["results"]
    except (json.JSONDecodeError, KeyError) as error:
        raise AssertionError(f"no report: {error}: {done.stderr[-500:]}") from error
    return {result["id"]: result for result in results}


def passed(result: dict) -> bool:
    return result["status"] == "passed"


def register_comply(form: str) -> None:
    """One row for each of its checks, and one that says how many there were."""
    direct, through = comply(DIRECT, form), comply(THROUGH, form)
    counts = [sum(map(passed, side.values())) for side in (direct, through)]
    print(f"{form}: the bare model passes {counts[0]} of {len(direct)}, the gateway {counts[1]}", flush=True)

    @suite.check(f"llm-comply {form}: both ran the same checks, and some passed")
    def same_checks():
        assert direct.keys() == through.keys() and counts[0] > 0, f"{counts}, {direct.keys() ^ through.keys()}"

    for name in direct:

        def no_worse(name=name):
            bare, ours = direct[name], through.get(name, {"status": "missing"})
            for _ in range(1, TRIES):
                if passed(ours) or not passed(bare):
                    break
                bare, ours = comply(DIRECT, form, name)[name], comply(THROUGH, form, name)[name]
            print(f"     bare {bare['status']}, gateway {ours['status']}: {ours.get('errors', '')}"[:400])
            assert passed(ours) or not passed(bare), f"passes only without the gateway: {ours.get('errors')}"

        suite.check(f"llm-comply {form}: {name} is no worse than without")(no_worse)


def rows(path: pathlib.Path, of: str) -> dict[str, str]:
    """The outcomes of a suite, by check."""
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return {check: outcome for name, check, outcome, *_ in lines if name == of}


@suite.check("the official Python client: every check the bare model passes, the gateway passes")
def official_client():
    through = rows(pathlib.Path(need("RELAIS_RESULTS")), "openai-python")
    if not through:
        raise Skip("the suite openai-python has to run before")
    with tempfile.TemporaryDirectory() as directory:
        results = pathlib.Path(directory) / "direct.tsv"
        base_url, key = DIRECT
        env = os.environ | {"RELAIS_BASE_URL": base_url, "RELAIS_API_KEY": key, "RELAIS_RESULTS": str(results)}
        subprocess.run([sys.executable, "sdk_python.py", "--direct"], env=env, capture_output=True, timeout=400)
        direct = rows(results, "openai-python")
    good = [check for check, outcome in direct.items() if outcome == "PASS"]
    worse = [check for check in good if through.get(check) != "PASS"]
    better = [check for check, outcome in direct.items() if outcome == "FAIL" and through.get(check) == "PASS"]
    own = sum(outcome == "SKIP" for outcome in direct.values())
    print(f"     {len(good)} pass without the gateway, {own} need it; better with it: {better or 'none'}")
    assert good, "the bare model passed nothing: that compares nothing"
    assert not worse, f"pass only without the gateway: {worse}"


if __name__ == "__main__":
    for form in FORMATS:
        register_comply(form)
    suite.run()
