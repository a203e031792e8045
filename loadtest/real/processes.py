"""Starting real programs beside each other, and ending exactly those.

Every child has a log file of its own, is known by its process id, and is ended when the block that
started it ends, whatever happened in between. Nothing is ever ended by name.

Standard library only: these scripts also run where the virtual environment could not be made.
"""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "real"
LOGS = CACHE / "logs"
VENV_PYTHON = CACHE / "python" / "bin" / "python"

# A debug build on a busy machine; programs that are up sooner are noticed sooner.
START_SECONDS = 60
# The gateway may finish open work before it goes; afterwards it is ended the hard way.
STOP_SECONDS = 40


def binary(name: str) -> pathlib.Path:
    """One of our programs, where cargo put it (RELAIS_BIN_DIR names another folder)."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return pathlib.Path(os.environ.get("RELAIS_BIN_DIR", target / "debug")) / name


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_until(condition, what: str, seconds: float, every: float = 0.05):
    """The first true value of `condition`; fails with `what` when it takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(every)


def answers(url: str) -> bool:
    """Whether a GET there succeeds."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return 200 <= answer.status < 300
    except (urllib.error.URLError, OSError):
        return False


class Child:
    """One running program."""

    def __init__(self, name: str, command: list, *, env: dict | None = None, cwd=None):
        LOGS.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = LOGS / f"{name}.log"
        with open(self.log, "ab") as log:
            # A session of its own: a Ctrl-C reaches us, and we end the children in order.
            self.process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | (env or {}),
                cwd=cwd,
                start_new_session=True,
            )

    def wait_ready(self, ready, what: str) -> None:
        """Returns when `ready` is true; fails at once if the program ends before."""

        def ready_or_dead():
            if self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}: {self.last_words()}")
            return ready()

        wait_until(ready_or_dead, what, START_SECONDS)

    def stop(self) -> int:
        """Asks it to end, insists after a while, gives its exit code (negative: a signal)."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self.process.wait()

    def kill(self) -> None:
        """kill -9: no chance to tidy up."""
        self.process.kill()
        self.process.wait()

    def last_words(self, lines: int = 8) -> str:
        """The end of its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return " | ".join(text.splitlines()[-lines:])


@contextlib.contextmanager
def children():
    """Gives a function that starts programs; all of them are ended with the block, last first."""
    started: list[Child] = []

    def start(name: str, command: list, **more) -> Child:
        child = Child(name, command, **more)
        started.append(child)
        return child

    try:
        yield start
    finally:
        for child in reversed(started):
            with contextlib.suppress(Exception):
                child.stop()


def end_on_signals() -> None:
    """Turns SIGTERM and SIGHUP into an orderly exit, so that `children` does its work."""

    def leave(number, _frame):
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


def start_model(start, key: str) -> str:
    """Starts the local model and gives its address."""
    address_file = CACHE / "model.address"
    address_file.unlink(missing_ok=True)
    here = pathlib.Path(__file__).resolve().parent
    model = start("model", [VENV_PYTHON, here / "model_server.py", "--key", key, "--address-file", address_file])
    model.wait_ready(address_file.exists, "the local model listens")
    return address_file.read_text(encoding="utf-8").strip()
