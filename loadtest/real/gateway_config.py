"""The gateway's configuration for the checks: one main tenant, and one for each kind of refusal.

It has the shape of a real operator's file: secrets come from the environment, from a file and
written out, each at least once, and there is an alias for a model.
"""

import dataclasses
import json
import os
import pathlib
import secrets

from processes import Child, answers, binary

MODEL = "smollm2-135m"
MODEL_ALIAS = "gpt-4o"

# One second tenant for each refusal and each client, so that no check uses up another's room:
# name, plans, overrides.
REFUSED_TENANTS = [
    ("rate", ["app.business", "api.pro"], {"calls_per_minute": 6}),
    ("calls", ["app.business", "api.pro"], {"calls_per_month": 2}),
    ("tokens", ["app.business", "api.pro"], {"tokens_per_month": 400}),
    ("no_api", ["app.starter"], {}),
]
CLIENTS = ["python", "node"]


def _text(value) -> str:
    """A TOML string, array or integer: for what we write they look as in JSON."""
    return json.dumps(value)


def _tenant_id(name: str, client: str) -> str:
    return f"{name}-{client}".replace("_", "-")


@dataclasses.dataclass
class Gateway:
    """One gateway: where it lives, what it knows, how to start it."""

    directory: pathlib.Path
    public_port: int
    admin_port: int
    upstream_address: str
    upstream_key: str
    upstream_models: list[str]
    agent_model: str
    chatwoot_port: int
    # The main tenant's, where a check needs more room than its plans give.
    overrides: dict[str, int] = dataclasses.field(default_factory=dict)
    keys: dict[str, str] = dataclasses.field(default_factory=dict)
    bot_token: str = dataclasses.field(default_factory=lambda: secrets.token_hex(16))
    webhook_secret: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(24))

    @property
    def public(self) -> str:
        return f"http://127.0.0.1:{self.public_port}"

    @property
    def admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def webhook_address(self) -> str:
        return f"{self.public}/chatwoot/acme"

    @property
    def chatwoot_address(self) -> str:
        return f"http://127.0.0.1:{self.chatwoot_port}"

    def tenants(self) -> list[str]:
        """The ids of all tenants."""
        return ["acme", *(_tenant_id(name, client) for name, _, _ in REFUSED_TENANTS for client in CLIENTS)]

    def new_key(self, name: str) -> str:
        """A key as customers get them: a public name of twelve characters, then the secret."""
        self.keys[name] = f"rk_test_{len(self.keys) + 1:012d}_{secrets.token_hex(32)}"
        return self.keys[name]

    def write(self) -> None:
        """Writes the configuration and what it points to."""
        (self.directory / "prompts").mkdir(parents=True, exist_ok=True)
        prompt = "You answer customers of a small tea shop in one or two short sentences."
        (self.directory / "prompts" / "support.md").write_text(prompt + "\n", encoding="utf-8")
        key_file = self.directory / "upstream.key"
        key_file.touch(mode=0o600)
        key_file.write_text(self.upstream_key + "\n", encoding="utf-8")
        file = self.directory / "relais.toml"
        file.touch(mode=0o600)
        file.write_text(self._toml(), encoding="utf-8")

    def start(self, start, name: str = "gateway") -> Child:
        """Starts the gateway and returns when it is ready for work."""
        child = start(
            name,
            [binary("relais"), "--config", self.directory / "relais.toml"],
            env=self.secret_variables(),
            cwd=self.directory,
        )
        child.wait_ready(lambda: answers(f"{self.admin}/readyz"), "the gateway is ready")
        return child

    def secret_variables(self) -> dict[str, str]:
        """What the configuration takes from the environment: every `relais` that reads it needs them."""
        return {"CHATWOOT_BOT_TOKEN": self.bot_token, "CHATWOOT_WEBHOOK_SECRET": self.webhook_secret}

    def start_chatwoot(self, start, name: str = "chatwoot") -> Child:
        """Starts the fake Chatwoot, whose bot sends its webhooks to this gateway."""
        child = start(
            name,
            [
                *(binary("relais-load"), "chatwoot", "--port", self.chatwoot_port),
                *("--gateway-url", self.webhook_address, "--account", 1, "--bot", 7),
            ],
            env={"RELAIS_LOAD_BOT_TOKEN": self.bot_token, "RELAIS_LOAD_SECRET": self.webhook_secret},
        )
        child.wait_ready(lambda: answers(f"{self.chatwoot_address}/control/world"), "the fake Chatwoot listens")
        return child

    def _toml(self) -> str:
        lines = [
            "[listen]",
            f'public = "127.0.0.1:{self.public_port}"',
            f'admin = "127.0.0.1:{self.admin_port}"',
            "[storage]",
            'dir = "data"',
            "[[upstream]]",
            'name = "main"',
            f"base_url = {_text(self.upstream_address + '/v1')}",
            f"api_key = {_text(f'file:{self.directory}/upstream.key')}",
            f"models = {_text(self.upstream_models)}",
            f"aliases = {{ {_text(MODEL_ALIAS)} = {_text(self.agent_model)} }}",
            "[[agent]]",
            'id = "default"',
            'kind = "openai"',
            'upstream = "main"',
            f"model = {_text(self.agent_model)}",
            'system_prompt = "file:prompts/support.md"',
            # Answers nobody here, and has its metrics.
            "[[agent]]",
            'id = "docs"',
            'kind = "knowledge"',
            'dir = "prompts"',
        ]
        lines += self._tenant("acme", ["app.business", "api.pro", "chatwoot.pro"], self.overrides, self.new_key("acme"))
        lines += [
            "[[tenant.chatwoot]]",
            'channel = "main"',
            f"url = {_text(self.chatwoot_address)}",
            "account_id = 1",
            "bot_id = 7",
            'bot_token = "env:CHATWOOT_BOT_TOKEN"',
            'webhook_secret = "env:CHATWOOT_WEBHOOK_SECRET"',
            'agent = "default"',
        ]
        for name, plans, overrides in REFUSED_TENANTS:
            for client in CLIENTS:
                lines += self._tenant(_tenant_id(name, client), plans, overrides, self.new_key(f"{name}-{client}"))
        return "\n".join(lines) + "\n"

    @staticmethod
    def _tenant(name: str, plans: list, overrides: dict, key: str) -> list[str]:
        lines = ["[[tenant]]", f"id = {_text(name)}", f"plans = {_text(plans)}"]
        if overrides:
            pairs = ", ".join(f"{field} = {value}" for field, value in overrides.items())
            lines.append(f"overrides = {{ {pairs} }}")
        return [*lines, "[[tenant.key]]", 'name = "checks"', f"secret = {_text(key)}"]

    def environment(self, client: str) -> dict[str, str]:
        """What an SDK suite needs to know; see sdk_python.py."""
        refused = {f"RELAIS_KEY_{name.upper()}": self.keys[f"{name}-{client}"] for name, _, _ in REFUSED_TENANTS}
        return refused | {
            "RELAIS_BASE_URL": f"{self.public}/v1",
            "RELAIS_API_KEY": self.keys["acme"],
            "RELAIS_MODEL": self.agent_model,
            "RELAIS_MODEL_ALIAS": MODEL_ALIAS,
        }

    def secrets(self) -> list[str]:
        """Everything that must never be shown anywhere."""
        parts = [key.rsplit("_", 1)[1] for key in self.keys.values()]
        return [*parts, self.bot_token, self.webhook_secret, self.upstream_key]

    def secrets_file(self) -> pathlib.Path:
        """The same, one a line, for the check that looks for them."""
        path = self.directory / "secrets.txt"
        path.touch(mode=0o600)
        path.write_text("\n".join(self.secrets()) + "\n", encoding="utf-8")
        return path


if __name__ == "__main__":
    # To look at the file that the checks use: gateway_config.py DIRECTORY
    import sys

    shown = Gateway(pathlib.Path(sys.argv[1]), 8080, 9090, "http://127.0.0.1:8000", "key", [MODEL], MODEL, 3000)
    shown.write()
    print(os.fspath(shown.directory / "relais.toml"))
