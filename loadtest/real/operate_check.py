"""What an operator deploys from docker/: rules, dashboard, compose file, image, units.

    RELAIS_ADMIN_URL=http://127.0.0.1:9090 operate_check.py

To be run after some traffic: names are held against those that /metrics really has. No image is
built and no unit is started: this machine has no Docker engine and no systemd.
"""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import urllib.request

import yaml

from processes import CACHE, binary
from report import Skip, Suite, need

DOCKER = pathlib.Path(__file__).resolve().parents[2] / "docker"
NAME = re.compile(r"\b(?:relais|process)_[a-z0-9_]+\b")
SUFFIX = re.compile(r"_(?:bucket|sum|count)$")

suite = Suite("operate")


def promtool(*arguments: str) -> None:
    program = CACHE / "prometheus" / "promtool"
    if not program.exists():
        raise Skip("no promtool here")
    run = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, cwd=DOCKER / "prometheus")
    assert run.returncode == 0, run.stdout + run.stderr


def families() -> set[str]:
    with urllib.request.urlopen(f"{need('RELAIS_ADMIN_URL')}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")}


def known(expression: str, names: set[str]) -> list[str]:
    """The names in an expression that the gateway has not."""
    used = set(NAME.findall(expression))
    return sorted(name for name in used if name not in names and SUFFIX.sub("", name) not in names)


def compose() -> dict:
    return yaml.safe_load((DOCKER / "compose.yaml").read_text(encoding="utf-8"))


@suite.check("promtool takes the scrape configuration and the rules")
def rules():
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "alerts.yml")


@suite.check("each alert that guards a promise fires on what it is for")
def rules_fire():
    promtool("test", "rules", "alerts_test.yml")


@suite.check("alerts speak of metrics that there are")
def alert_names():
    names = families()
    groups = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    alerts = [rule for group in groups for rule in group["rules"]]
    assert alerts
    unknown = {rule["alert"]: known(rule["expr"], names) for rule in alerts}
    unknown = {alert: missing for alert, missing in unknown.items() if missing}
    assert not unknown, unknown
    for rule in alerts:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"].keys() == {"summary", "action"}, rule["alert"]


@suite.check("the dashboard speaks of metrics that there are")
def dashboard_names():
    names = families()
    dashboard = json.loads((DOCKER / "grafana" / "dashboards" / "relais.json").read_text(encoding="utf-8"))
    graphs = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    unknown = {
        panel["title"]: missing
        for panel in graphs
        for target in panel["targets"]
        if (missing := known(target["expr"], names))
    }
    assert graphs and not unknown, unknown
    # The variable that every expression filters by.
    assert all('instance=~"$instance"' in target["expr"] for panel in graphs for target in panel["targets"])


@suite.check("every expression of the dashboard is one that Prometheus can parse")
def dashboard_expressions():
    dashboard = json.loads((DOCKER / "grafana" / "dashboards" / "relais.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    rules = [
        {"record": f"dashboard:{number}", "expr": text.replace("$__rate_interval", "1m")}
        for number, text in enumerate(expressions)
    ]
    path = CACHE / "dashboard_rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # YAML understands JSON
    promtool("check", "rules", str(path))


@suite.check("the compose file names only what there is")
def compose_paths():
    config = compose()
    services, volumes, networks = config["services"], config["volumes"], config["networks"]
    for name, service in services.items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (DOCKER / source).exists() if source.startswith(".") else source in volumes, f"{name}: {source}"
        assert set(service.get("networks", [])) <= set(networks), name
        assert set(service.get("depends_on", [])) <= set(services), name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name} publishes {port} to everybody"
        if "image" in service and name != "relais":
            assert ":" in service["image"] and not service["image"].endswith(":latest"), f"{name}: {service['image']}"
    build = services["relais"]["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).is_file()
    # What compose asks for by name is in the example.
    example = (DOCKER / "example.env").read_text(encoding="utf-8")
    for variable in set(re.findall(r"\$\{([A-Z_]+)", (DOCKER / "compose.yaml").read_text(encoding="utf-8"))):
        assert re.search(rf"^{variable}=", example, re.M), variable


@suite.check("the image copies only what .dockerignore lets in, and what the build needs")
def image():
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    ignore = (DOCKER.parent / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    members = re.search(r"^members = \[(.*?)\]", (DOCKER.parent / "Cargo.toml").read_text(), re.M | re.S)
    assert members, "the workspace's members"
    needed = {"Cargo.toml", "Cargo.lock", *re.findall(r'"([a-z/-]+)"', members.group(1))}
    assert needed <= allowed, f"kept from the builder: {needed - allowed}"
    for source in re.findall(r"^COPY (?!--from)(?:--\S+ )*(\S+) ", text, re.M):
        assert source == "." or source in allowed, source
    final = text.rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER (?!0|root)", final, re.M), "it runs as root"


@suite.check("the example configuration of the image is good")
def configuration():
    environment = os.environ | {
        name: "x" for name in ("UPSTREAM_API_KEY", "CHATWOOT_BOT_TOKEN", "CHATWOOT_WEBHOOK_SECRET")
    }
    for path in (DOCKER / "relais.toml", DOCKER.parent / "relais.example.toml"):
        run = subprocess.run(
            [binary("relais"), "--config", path, "check"], env=environment, capture_output=True, text=True, timeout=30
        )
        assert run.returncode == 0, run.stdout + run.stderr


def passed_socket() -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    listener.set_inheritable(True)
    return listener


@suite.check("sockets passed by systemd are served, and a restart refuses nobody")
def socket_activation():
    directory = CACHE / "activation"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "relais.toml").write_text(f'[storage]\ndir = "{directory / "data"}"\n')
    notify_path = str(directory / "notify")
    pathlib.Path(notify_path).unlink(missing_ok=True)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(notify_path)
    notify.settimeout(30)
    public, admin = passed_socket(), passed_socket()
    address = f"http://127.0.0.1:{public.getsockname()[1]}"
    launcher = [sys.executable, pathlib.Path(__file__).with_name("as_systemd.py"), notify_path]
    command = [*launcher, "2", binary("relais"), "--config", directory / "relais.toml"]
    descriptors = (public.fileno(), admin.fileno())

    def start():
        process = subprocess.Popen(
            [str(part) for part in command],
            env=os.environ | {"RELAIS_PASSED": ",".join(map(str, descriptors))},
            pass_fds=descriptors,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert notify.recv(4096).startswith(b"READY=1")
        return process

    first = start()
    try:
        with urllib.request.urlopen(f"{address}/openapi.json", timeout=10) as answer:
            assert answer.status == 200
        first.terminate()
        assert first.wait(60) == 0
        assert notify.recv(4096).startswith(b"STOPPING=1")
        # Nobody serves it, and yet it is not refused: it waits in the kernel's queue.
        waiting = socket.create_connection(("127.0.0.1", public.getsockname()[1]), timeout=60)
        waiting.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        second = start()
        try:
            assert waiting.recv(12) == b"HTTP/1.1 200"
        finally:
            second.terminate()
            assert second.wait(60) == 0
    finally:
        if first.poll() is None:
            first.kill()
    notify.close()
    public.close()
    admin.close()


if __name__ == "__main__":
    suite.run()
