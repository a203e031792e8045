"""What conversations cost: how fast deliveries become durable, what a turn takes, what ten thousand of them weigh.

    conversations.py intake [--rate 5000] [--seconds 20] [--open]
    conversations.py turns [--turns 2000]
    conversations.py flight [--conversations 10000] [--http2]

The release build of the gateway as a process, with its inbox on the disk this repository is on, `relais-load` and
the fakes beside it on the same machine. RELAIS_BIN_DIR names another folder of programs. Each prints its figures, the
goal, and how busy the machine was; the exit status is 1 when a goal was missed, whoever's fault it was.

It starts and ends its own processes only, and talks to 127.0.0.1 only.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import resource
import secrets
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "loadtest" / "real"))
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
os.environ.setdefault("RELAIS_BIN_DIR", str(TARGET / "release"))

from processes import answers, binary, children, end_on_signals, free_ports, wait_until  # noqa: E402

WORK = ROOT / ".cache" / "bench"
# Anything here is over by then, or something hangs.
PATIENCE_SECONDS = 300
TICKS = os.sysconf("SC_CLK_TCK")
MIB = 1 << 20


class World:
    """A gateway for one tenant with one channel, a fake model and a fake Chatwoot."""

    def __init__(self, start, name: str, relay: str = "", model: tuple = (), upstream: str = ""):
        public, admin, chatwoot, llm = free_ports(4)
        self.secret, self.token = secrets.token_hex(16), secrets.token_hex(16)
        self.webhooks = f"http://127.0.0.1:{public}/chatwoot/bench"
        self.admin, self.chatwoot = f"http://127.0.0.1:{admin}", f"http://127.0.0.1:{chatwoot}"
        self.dir = WORK / name
        shutil.rmtree(self.dir, ignore_errors=True)
        self.dir.mkdir(parents=True)
        config = self.dir / "relais.toml"
        config.write_text(
            f"""[listen]
public = "127.0.0.1:{public}"
admin = "127.0.0.1:{admin}"
[storage]
dir = "data"
[relay]
chatwoot_calls_per_minute = 6000000
loop_turns_max = 1000000
loop_flips_max = 1000000
{relay}
[[upstream]]
name = "main"
base_url = "http://127.0.0.1:{llm}/v1"
models = ["*"]
{upstream}
[[agent]]
id = "default"
kind = "openai"
upstream = "main"
model = "fake-model"
system_prompt = "You answer customers. Be brief."
[[tenant]]
id = "bench"
plans = ["app.business", "chatwoot.pro"]
[[tenant.chatwoot]]
channel = "main"
url = "{self.chatwoot}"
account_id = 1
bot_id = 7
bot_token = "{self.token}"
webhook_secret = "{self.secret}"
agent = "default"
""",
            encoding="utf-8",
        )
        load = binary("relais-load")
        fake = start("bench-llm", [load, "llm", "--port", llm, "--calls-max", 0, *model])
        fake.wait_ready(lambda: answers(f"http://127.0.0.1:{llm}/health"), "the fake model listens")
        fake = start(
            "bench-chatwoot",
            [load, "chatwoot", "--port", chatwoot, "--gateway-url", self.webhooks],
            env={"RELAIS_LOAD_BOT_TOKEN": self.token, "RELAIS_LOAD_SECRET": self.secret},
        )
        fake.wait_ready(lambda: answers(f"{self.chatwoot}/control/world"), "the fake Chatwoot listens")
        self.gateway = start("bench-relais", [binary("relais"), "--config", config])
        self.gateway.wait_ready(lambda: answers(f"{self.admin}/readyz"), "the gateway is ready")

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=30) as page:
            lines = page.read().decode().splitlines()
        named = [line for line in lines if line.startswith((name + " ", name + "{"))]
        return sum(float(line.rsplit(" ", 1)[1]) for line in named)

    def cpu_seconds(self) -> float:
        """User and system time of the gateway's process, all its threads."""
        stat = pathlib.Path(f"/proc/{self.gateway.process.pid}/stat").read_text(encoding="ascii")
        fields = stat.rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory_mib(self, what: str = "VmRSS") -> float:
        status = pathlib.Path(f"/proc/{self.gateway.process.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith(what + ":"))

    def load(self, *flags) -> dict:
        """A run of `relais-load run webhooks`, as its JSON."""
        command = [binary("relais-load"), "run", "webhooks", "--url", self.webhooks, "--quiet", "--json", "-", *flags]
        env = os.environ | {"RELAIS_LOAD_SECRET": self.secret}
        command = [str(part) for part in command]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        if done.returncode != 0:
            sys.exit(f"relais-load ended with {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)


def disk() -> dict:
    """The disk's own fdatasync, on the same file system."""
    command = [str(binary("relais-load")), "disk", "--dir", str(WORK), "--for", "4s", "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def machine() -> None:
    busy = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"machine: {os.cpu_count()} cores, load average {busy}")


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def intake(args) -> bool:
    """Deliveries a second that are on disk before they are acknowledged, kept and single connections apart."""
    met = True
    machine()
    for name, connection in (("kept connections", []), ("a connection each", ["--connection-each"])):
        # The model never answers: as many turns run as may, the other deliveries wait in the inbox.
        with children() as start:
            world = World(start, "intake", model=("--hang",))
            before = disk()
            cpu = world.cpu_seconds()
            run = world.load(
                "--rate", args.rate, "--ramp", "3s", "--for", f"{args.seconds}s", "--conversations", 5000,
                *(["--open"] if args.open else []), *connection,
            )
            cpu = world.cpu_seconds() - cpu
            after = disk()
            kept, sheds = world.metric("relais_inbox_commit_seconds_count"), run["outcomes"]
        sync = {key: statistics.mean((before[key], after[key])) for key in ("p50_ms", "p99_ms")}
        latency, late = run["times"]["latency"], run["times"]["late"]
        p50_max, p99_max = max(2 * sync["p50_ms"], 5), max(4 * sync["p99_ms"], 35)
        all_there = run["errors"] == 0 and run["rate"] >= 0.98 * args.rate
        good = latency["p50_ms"] <= p50_max and latency["p99_ms"] <= p99_max and all_there
        met &= good
        print(f"\n{name}: {args.rate} a second offered, {run['rate']:.0f} acknowledged, outcomes {sheds}")
        print(f"  fdatasync       p50 {sync['p50_ms']:8.3f} ms   p99 {sync['p99_ms']:8.3f} ms   (before and after)")
        print(f"  acknowledgement p50 {latency['p50_ms']:8.3f} ms   p99 {latency['p99_ms']:8.3f} ms   from when due")
        print(f"  of that, late   p50 {late['p50_ms']:8.3f} ms   p99 {late['p99_ms']:8.3f} ms   the load generator's own")
        print(f"  goal            p50 {p50_max:8.3f} ms   p99 {p99_max:8.3f} ms   {verdict(good)}")
        all_requests = max(run["requests"] + run["ramped"], 1)
        print(f"  {kept:.0f} commits, {cpu / all_requests * 1e6:.0f} µs of the gateway's CPU a delivery, its turn begun")
    machine()
    return met


def turns(args) -> bool:
    """The gateway's CPU for a turn: a customer's message in, the agent asked, the reply posted."""
    machine()
    warm = args.turns // 10
    with children() as start:
        world = World(start, "turns", relay="burst_ms = 50\nburst_max_ms = 200")

        def write(count: int) -> None:
            def one(number: int) -> None:
                body = json.dumps({"text": f"Where is my parcel number {number}?"}).encode()
                request = urllib.request.Request(f"{world.chatwoot}/control/conversations", body, method="POST")
                urllib.request.urlopen(request, timeout=60).read()

            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                list(pool.map(one, range(count)))

        def ended(count: int) -> bool:
            return world.metric('relais_turns_total{outcome="replied"}') >= count

        write(warm)
        wait_until(lambda: ended(warm), "the first turns end", PATIENCE_SECONDS)
        idle = world.cpu_seconds()
        time.sleep(5)
        idle = (world.cpu_seconds() - idle) / 5
        begun, cpu = time.monotonic(), world.cpu_seconds()
        write(args.turns)
        wait_until(lambda: ended(warm + args.turns), "all turns end", PATIENCE_SECONDS, every=0.5)
        took, cpu = time.monotonic() - begun, world.cpu_seconds() - cpu
        deliveries, calls = world.metric("relais_inbox_deliveries_total"), world.metric("relais_chatwoot_requests_total")
    each = cpu / args.turns * 1000
    done = warm + args.turns
    print(f"{args.turns} turns in {took:.1f} s; for each {deliveries / done:.1f} deliveries came in, each on a connection")
    print(f"of its own, and {calls / done:.1f} calls went to Chatwoot and one to the model.")
    print(f"  CPU of the gateway a turn: {each:.3f} ms, all of that and reading /metrics included ({idle * 1000:.1f} ms/s idle)")
    print(f"  goal: 1 ms   {verdict(each < 1)}")
    machine()
    return each < 1


def flight(args) -> bool:
    """The gateway's memory while so many conversations wait for the model at once."""
    machine()
    count = args.conversations
    relay = f"lanes_max = {2 * count}\nturns_max = {count}\nturns_per_tenant_max = {count}\nagent_wait_ms = 600000"
    with children() as start:
        upstream = f"connections_max = {count}\nhttp2 = {str(args.http2).lower()}"
        world = World(start, "flight", relay=relay, model=("--hang",), upstream=upstream)
        fresh = world.memory_mib()
        world.load("--rate", 500, "--for", "600s", "--requests", count, "--conversations", count, "--connection-each")
        wait_until(
            lambda: world.metric("relais_turns_running") >= count, "all turns run", PATIENCE_SECONDS, every=0.5
        )
        # Whatever was still on its way to the model, and what the burst of deliveries left behind.
        time.sleep(3)
        memory, peak = world.memory_mib(), world.memory_mib("VmHWM")
    each = (memory - fresh) * 1024 / count
    how = "on HTTP/2, a hundred to a connection" if args.http2 else "each on a connection of its own"
    print(f"{count} conversations waiting for the model, {how}:")
    print(f"  resident {memory:.0f} MiB (peak {peak:.0f}), {fresh:.0f} MiB before; {each:.1f} KiB a conversation")
    # The goal is in MB.
    good = memory * MIB < 200e6
    print(f"  goal: 200 MB = {200e6 / MIB:.0f} MiB   {verdict(good)}")
    machine()
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("intake", help=intake.__doc__)
    command.add_argument("--rate", type=int, default=5000)
    command.add_argument("--seconds", type=int, default=20)
    command.add_argument("--open", action="store_true", help="a human has the conversations: the relay has little to do")
    command.set_defaults(run=intake)
    command = commands.add_parser("turns", help=turns.__doc__)
    command.add_argument("--turns", type=int, default=2000)
    command.set_defaults(run=turns)
    command = commands.add_parser("flight", help=flight.__doc__)
    command.add_argument("--conversations", type=int, default=10_000)
    command.add_argument("--http2", action="store_true", help="the model speaks HTTP/2")
    command.set_defaults(run=flight)
    args = parser.parse_args()
    end_on_signals()
    WORK.mkdir(parents=True, exist_ok=True)
    # Ten thousand conversations are as many connections to the model.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return 0 if args.run(args) else 1


if __name__ == "__main__":
    sys.exit(main())
