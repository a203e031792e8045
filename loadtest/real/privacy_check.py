"""What must not be in the gateway's logs: keys, tokens, secrets, and what people said.

    RELAIS_LOG_FILES=a.log:b.log RELAIS_SECRETS_FILE=… RELAIS_PHRASES_FILE=… privacy_check.py

To be run last. The logs are those of a whole run with refusals, faults and a crash in it; the
phrases are pieces of prompts and messages that the other checks have sent.
"""

import os
import pathlib

from report import Suite, need

suite = Suite("privacy")


def logs() -> dict[str, str]:
    files = [pathlib.Path(name) for name in need("RELAIS_LOG_FILES").split(os.pathsep)]
    return {file.name: file.read_text(encoding="utf-8", errors="replace") for file in files if file.exists()}


def look_for(needles: list[str], kind: str) -> None:
    assert needles, f"no {kind} to look for"
    for name, text in logs().items():
        for number, needle in enumerate(needles, 1):
            assert needle not in text, f"{name} shows {kind} number {number}"


@suite.check("the logs are there")
def there():
    assert logs() and all(logs().values()), "an empty log proves nothing"


@suite.check("no key, token or secret in a log")
def secrets():
    look_for(pathlib.Path(need("RELAIS_SECRETS_FILE")).read_text().split(), "secret")


@suite.check("no prompt and no message in a log")
def phrases():
    look_for(pathlib.Path(need("RELAIS_PHRASES_FILE")).read_text().splitlines(), "phrase")


if __name__ == "__main__":
    suite.run()
