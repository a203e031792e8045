"""The gateway's /metrics as those see it who live on it: promtool's lint and a real Prometheus.

    RELAIS_ADMIN_URL=http://127.0.0.1:9090 RELAIS_SECRETS_FILE=… RELAIS_TENANTS=acme,… metrics_check.py

To be run after some traffic, so that the series with labels are there. Standard library only;
both programs are Debian's, unpacked by setup.sh.
"""

import json
import pathlib
import shutil
import subprocess
import urllib.parse
import urllib.request

from processes import CACHE, answers, children, free_ports, wait_until
from report import Skip, Suite, need

# At a scrape a second: the first is done within two.
SCRAPE_WAIT_SECONDS = 30

suite = Suite("metrics")


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def program(name: str) -> pathlib.Path:
    path = CACHE / "prometheus" / name
    if not path.exists():
        raise Skip(f"no {name} here")
    return path


def metrics() -> bytes:
    return get(f"{need('RELAIS_ADMIN_URL')}/metrics")


@suite.check("promtool has nothing to say")
def promtool():
    lint = subprocess.run([program("promtool"), "check", "metrics"], input=metrics(), capture_output=True, timeout=30)
    said = (lint.stdout + lint.stderr).decode().strip()
    assert lint.returncode == 0 and not said, said


@suite.check("our own names, with help and type")
def names():
    families = {line.split()[2] for line in metrics().decode().splitlines() if line.startswith("# TYPE ")}
    ours = {name for name in families if name.startswith("relais_")}
    assert ours, "no metric of ours"
    stray = {name for name in families - ours if not name.startswith("process_")}
    assert not stray, f"names without our prefix: {sorted(stray)}"


@suite.check("no tenant, key or secret in a label")
def labels():
    text = metrics().decode()
    for secret in pathlib.Path(need("RELAIS_SECRETS_FILE")).read_text().split():
        assert secret not in text, "a secret is in the metrics"
    for tenant in need("RELAIS_TENANTS").split(","):
        assert f'"{tenant}"' not in text, f"the tenant {tenant} is a label"


@suite.check("a Prometheus scrapes it")
def scrape():
    server = program("prometheus")
    target = urllib.parse.urlparse(need("RELAIS_ADMIN_URL")).netloc
    directory = CACHE / "prometheus" / "run"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    config = directory / "prometheus.yml"
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
                "scrape_configs": [{"job_name": "relais", "static_configs": [{"targets": [target]}]}],
            }
        )  # YAML understands JSON
    )
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"

    def query(expression: str) -> float:
        found = json.loads(get(f"{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"))
        result = found["data"]["result"]
        return float(result[0]["value"][1]) if result else 0.0

    with children() as start:
        running = start(
            "prometheus",
            [
                server,
                f"--config.file={config}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
        )
        running.wait_ready(lambda: answers(f"{address}/-/ready"), "Prometheus is ready")
        # A sample it cannot read fails the whole scrape, and then `up` is 0.
        wait_until(lambda: query('up{job="relais"}') == 1, "a scrape succeeded", SCRAPE_WAIT_SECONDS)
        stored = query('count({job="relais", __name__=~"relais_.+"})')
    assert stored > 0, "scraped, but nothing of ours was stored"


if __name__ == "__main__":
    suite.run()
