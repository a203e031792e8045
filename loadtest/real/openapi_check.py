"""schemathesis against a gateway: does the server do what its `openapi.json` says, and nothing else?

    openapi_check.py [EXAMPLES]

The document is fetched from the gateway itself. Requests are drawn from it, good ones and bad
ones, so many for each endpoint, the same ones every time; the model is our fake, because it
answers every good request and its own refusals are no finding. What schemathesis checks: no
answer but those described, each with the headers and the shape described; bad requests refused and
good ones not; a method that is not named is 405; no key, no answer.
"""

import os
import re
import secrets
import shutil
import subprocess
import sys

from gateway_config import Gateway
from processes import CACHE, VENV_PYTHON, answers, binary, children, end_on_signals, free_ports
from report import Suite

EXAMPLES = int(sys.argv[1]) if len(sys.argv) > 1 else 100
SECONDS_MAX = 300
MODEL = "fake-model"
# Checks that need what an API of calls has not: resources that are made and deleted again.
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
]

suite = Suite("openapi")


class Unlimited(Gateway):
    """The usual gateway, and a tenant whom no number of requests brings to a limit that is not the checks' matter."""

    def _toml(self) -> str:
        overrides = {
            "tokens_per_month": '"unlimited"',
            "calls_per_month": '"unlimited"',
            "calls_per_minute": '"unlimited"',
            "calls_in_flight": 64,
        }
        return super()._toml() + "\n".join(
            self._tenant("openapi", ["app.business", "api.pro"], overrides, self.new_key("openapi"))
        )


@suite.check("schemathesis finds nothing in openapi.json that the server does otherwise")
def schemathesis():
    directory = CACHE / "openapi"
    shutil.rmtree(directory, ignore_errors=True)
    public, admin, chatwoot, model = free_ports(4)
    model_address = f"http://127.0.0.1:{model}"
    with children() as start:
        fake = start("openapi-model", [binary("relais-load"), "llm", "--port", model, "--calls-max", 0])
        fake.wait_ready(lambda: answers(f"{model_address}/control"), "the fake model listens")
        gateway = Unlimited(
            directory=directory,
            public_port=public,
            admin_port=admin,
            upstream_address=model_address,
            upstream_key=secrets.token_hex(16),
            upstream_models=["*", MODEL],
            agent_model=MODEL,
            chatwoot_port=chatwoot,
        )
        gateway.write()
        gateway.secrets_file()
        gateway.start(start, name="gateway-openapi")
        command = [
            VENV_PYTHON.parent / "schemathesis",
            "--config-file",
            os.fspath(directory / "schemathesis.toml"),
            "run",
            f"{gateway.public}/openapi.json",
        ]
        # In a file, so that the key is in no list of processes.
        (directory / "schemathesis.toml").touch(mode=0o600)
        (directory / "schemathesis.toml").write_text(configuration(gateway.keys["openapi"]), encoding="utf-8")
        done = subprocess.run(
            [os.fspath(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=directory,
            timeout=SECONDS_MAX,
            env=os.environ | {"NO_COLOR": "1"},
        )
    text = done.stdout.decode(errors="replace").replace(gateway.keys["openapi"], "rk_…")
    print(text)
    made = re.search(r"(\d+) generated", text)
    assert done.returncode == 0, f"exit code {done.returncode}; see the log"
    assert made and int(made.group(1)) > 300, f"only {made and made.group(1)} requests were made"


def configuration(key: str) -> str:
    on = "\n".join(f"{name}.enabled = true" for name in CHECKS)
    return f"""
workers = 1
continue-on-failure = true
request-timeout = 20.0
headers = {{ Authorization = "Bearer {key}" }}
[phases]
stateful.enabled = false
[generation]
max-examples = {EXAMPLES}
deterministic = true
[checks]
enabled = false
{on}
[[operations]]
# `best_of` may not be less than `n`, and not be streamed: no schema can say that.
include-path = "/v1/completions"
checks.positive_data_acceptance.enabled = false
"""


if __name__ == "__main__":
    end_on_signals()
    suite.run()
