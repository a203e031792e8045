"""The sidecar's tests on PostgreSQL: the same tests as `make test` runs on SQLite, on Debian's server.

A server of its own in a folder of its own, on a free port of 127.0.0.1, ended with the script. It
does not run as root, so as root it is started as an unprivileged user. Nothing is installed here:
CI installs the package, and where it is missing the check is a SKIP.

Standard library only.
"""

import glob
import json
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile

from processes import LOGS, ROOT, children, end_on_signals, free_ports
from report import Skip, Suite

TEST_SECONDS = 540

suite = Suite("billing")


def programs() -> pathlib.Path:
    """The folder with the newest initdb and postgres on this machine."""
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), key=lambda path: int(path.split("/")[4]))
    path = found[-1] if found else shutil.which("initdb")
    if not path:
        raise Skip("no PostgreSQL server on this machine (Debian: apt-get install postgresql)")
    return pathlib.Path(path).resolve().parent


def unprivileged(directory: str) -> list[str]:
    """What to put before a command so that it does not run as root; gives the folder to that user."""
    if os.getuid() != 0:
        return []
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        user = pwd.getpwnam("nobody")
    os.chown(directory, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def test_programs() -> list[str]:
    """The sidecar's tests as `make test` built them. Naming the package alone would build all it uses once more."""
    cargo = [os.environ.get("CARGO", "cargo"), "test", "--workspace", "--locked", "--no-run", "--message-format=json"]
    built = subprocess.run(cargo, cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=TEST_SECONDS)
    parts = [json.loads(line) for line in built.stdout.splitlines() if line.startswith(b"{")]
    of_billing = [part for part in parts if part.get("manifest_path") == str(ROOT / "billing" / "Cargo.toml")]
    return [part["executable"] for part in of_billing if part.get("executable") and part["profile"]["test"]]


@suite.check("the sidecar's tests pass on PostgreSQL")
def tests_on_postgres():
    where = programs()
    programs_built = test_programs()
    # Below /tmp: the unprivileged user may have no way into this checkout.
    with tempfile.TemporaryDirectory(prefix="relais-postgres-") as directory, children() as start:
        before = unprivileged(directory)
        data = f"{directory}/data"
        init = [*before, where / "initdb", "-D", data, "-U", "relais", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(init, check=True, capture_output=True, cwd="/", env={**os.environ, "LC_ALL": "C.UTF-8"})
        (port,) = free_ports(1)
        settings = ["listen_addresses=127.0.0.1", "fsync=off", "max_connections=200", f"unix_socket_directories={directory}"]
        options = [part for setting in settings for part in ("-c", setting)]
        server = start("postgres", [*before, where / "postgres", "-D", data, "-p", port, *options], cwd="/")
        ready = [where / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        server.wait_ready(lambda: subprocess.run(ready).returncode == 0, "PostgreSQL takes connections")

        log = LOGS / "billing-tests.log"
        environment = {**os.environ, "RELAIS_POSTGRES": f"postgres://relais@127.0.0.1:{port}/postgres"}
        with open(log, "wb") as file:
            codes = [
                subprocess.run(
                    [program], cwd=ROOT / "billing", env=environment, stdout=file, stderr=subprocess.STDOUT,
                    timeout=TEST_SECONDS,
                ).returncode
                for program in programs_built
            ]
        said = log.read_text(encoding="utf-8", errors="replace")
        passed = sum(int(line.split()[3]) for line in said.splitlines() if line.startswith("test result: ok."))
        print(f"{passed} tests passed on PostgreSQL", flush=True)
        assert not any(codes), " | ".join(said.splitlines()[-8:])
        assert passed > 30, f"only {passed} tests ran"


if __name__ == "__main__":
    end_on_signals()
    suite.run()
