"""Disk, descriptors and clock fail under the real gateway; it says so, loses nothing, and comes back by itself.

    faults.py

The faults are put under one process by a small preloaded library (`fault_shim.c`, built here with the C compiler):
a full disk, a sync that fails or takes its time, a wall clock that jumps; each for `inbox.db` or `usage.db` alone.
Descriptors run out by a lower limit and held connections. Deliveries are signed and sent here, one at a time or all
at once, so that every acknowledgement is known; at the end, after a `kill -9`, each of them has to be in the inbox.

What it cannot show: pages that a kernel drops after a failed sync, and a disk that lies about a good one.
"""

import concurrent.futures
import hashlib
import hmac
import http.client
import json
import mmap
import os
import pathlib
import resource
import secrets
import shutil
import socket
import sqlite3
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request

from chatwoot_fake import Conversation, call_json
from gateway_config import Gateway
from processes import CACHE, Child, answers, binary, children, end_on_signals, free_ports, wait_until
from report import Skip, Suite

MODEL = "fake-model"
PLACES = ["inbox_full", "inbox_sync_fails", "inbox_sync_ms", "usage_full", "usage_sync_fails", "usage_sync_ms"]
PLACES += ["clock_ms", "faults_done", "syncs_done"]
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS
# So much may be charged while usage.db takes nothing; a call is charged a few dozen.
UNLEDGERED_MAX = 300
# The gateway's own word: later than this it says 429.
ACK_WAIT_SECONDS = 1.0
# Chatwoot gives up after it.
CHATWOOT_WAIT_SECONDS = 5.0

suite = Suite("faults")


class Faults:
    """What the library does, changed while the process runs."""

    def __init__(self, directory: pathlib.Path):
        compiler = shutil.which("gcc") or shutil.which("cc")
        if not compiler:
            raise Skip("there is no C compiler")
        self.library = directory / "fault_shim.so"
        source = pathlib.Path(__file__).resolve().parent / "fault_shim.c"
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", self.library, source, "-ldl"], check=True)
        self.file = directory / "faults"
        self.file.write_bytes(bytes(8 * len(PLACES)))
        with open(self.file, "r+b") as file:
            self._places = mmap.mmap(file.fileno(), 0)

    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "RELAIS_FAULTS": str(self.file)}

    def set(self, **values: int) -> None:
        for name, value in values.items():
            struct.pack_into("<q", self._places, 8 * PLACES.index(name), value)

    def clear(self) -> None:
        self.set(**dict.fromkeys(PLACES[:-2], 0))

    def get(self, name: str) -> int:
        return struct.unpack_from("<q", self._places, 8 * PLACES.index(name))[0]


class World:
    """The gateway on a disk and a clock that fail, with its fake neighbours."""

    def __init__(self, start):
        self._start = start
        public, admin, chatwoot, model = free_ports(4)
        key = secrets.token_hex(16)
        self.model_address = f"http://127.0.0.1:{model}"
        directory = CACHE / "faults"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.faults = Faults(directory)
        self.gateway = Gateway(
            directory=directory,
            public_port=public,
            admin_port=admin,
            upstream_address=self.model_address,
            upstream_key=key,
            upstream_models=[MODEL],
            agent_model=MODEL,
            chatwoot_port=chatwoot,
        )
        self.gateway.write()
        with open(directory / "relais.toml", "a", encoding="utf-8") as file:
            file.write(f"[usage]\nflush_ms = 100\nunledgered_tokens_max = {UNLEDGERED_MAX}\n[relay]\nburst_ms = 200\n")
        self.gateway.secrets_file()
        command = [binary("relais-load"), "llm", "--port", model, "--tokens", 20]
        fake = start("faults-model", command, env={"RELAIS_LOAD_LLM_KEY": key})
        fake.wait_ready(lambda: answers(f"{self.model_address}/control"), "the fake model listens")
        self.gateway.start_chatwoot(start, name="faults-chatwoot")
        self._starts = 0
        self._numbers = iter(range(1, 1_000_000))
        self.acknowledged: set[int] = set()
        self.process: Child
        self.up()

    def up(self) -> None:
        self._starts += 1

        def with_faults(name, command, env, cwd):
            return self._start(name, command, env=env | self.faults.environment(), cwd=cwd)

        self.process = self.gateway.start(with_faults, name=f"gateway-faults-{self._starts}")

    def restart_hard(self) -> None:
        self.process.kill()
        self.up()

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"{self.gateway.admin}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)

    def ready(self) -> bool:
        return answers(f"{self.gateway.admin}/readyz")

    def webhook(self, *, number: int | None = None, skew_ms: int = 0, connection=None) -> tuple[int, float]:
        """Sends one customer's message as Chatwoot would; the status and the seconds it took."""
        number = number or 1_000_000 + next(self._numbers)
        conversation = {"id": number, "status": "pending", "inbox_id": 1, "messages": [], "meta": {"assignee": None}}
        sender = {"id": 1, "type": "contact", "name": "A customer"}
        message = {"event": "message_created", "id": number, "message_type": "incoming", "content": "Tell me about cats"}
        message |= {"content_type": "text", "private": False, "account": {"id": 1}, "sender": sender}
        body = json.dumps(message | {"conversation": conversation, "inbox": {"id": 1}}).encode()
        seconds = str(int(time.time() + skew_ms / 1000))
        signed = hmac.new(self.gateway.webhook_secret.encode(), f"{seconds}.".encode() + body, hashlib.sha256)
        headers = {"Content-Type": "application/json", "X-Chatwoot-Timestamp": seconds}
        headers["X-Chatwoot-Signature"] = f"sha256={signed.hexdigest()}"
        began = time.monotonic()
        to = connection or http.client.HTTPConnection("127.0.0.1", self.gateway.public_port, timeout=10)
        to.request("POST", "/chatwoot/acme", body, headers)
        answer = to.getresponse()
        answer.read()
        if answer.status == 200:
            self.acknowledged.add(number)
        if connection is None:
            to.close()
        return answer.status, time.monotonic() - began

    def webhooks(self, count: int) -> list[tuple[int, float]]:
        """So many at once."""
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            return [done.result() for done in [pool.submit(self.webhook) for _ in range(count)]]

    def call(self, key: str = "acme", connection=None) -> int:
        """One `/v1` call; its status."""
        to = connection or http.client.HTTPConnection("127.0.0.1", self.gateway.public_port, timeout=20)
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Tell me about cats"}]})
        headers = {"Authorization": f"Bearer {self.gateway.keys[key]}", "Content-Type": "application/json"}
        to.request("POST", "/v1/chat/completions", body, headers)
        answer = to.getresponse()
        answer.read()
        return answer.status

    def stored(self) -> set[int]:
        """The messages in the inbox, whatever became of them."""
        database = sqlite3.connect(f"file:{self.gateway.directory}/data/inbox.db?mode=ro", uri=True, timeout=10)
        try:
            return {row[0] for row in database.execute("SELECT message_id FROM deliveries")}
        finally:
            database.close()

    def back(self, seconds: float = 20) -> None:
        """Takes deliveries again, without a restart."""
        assert self.process.process.poll() is None, "it ended"
        wait_until(lambda: self.webhook()[0] == 200, "deliveries are taken again", seconds)
        wait_until(self.ready, "it is ready again", seconds)


def statuses(answered: list[tuple[int, float]]) -> set[int]:
    return {status for status, _ in answered}


def longest(answered: list[tuple[int, float]]) -> float:
    return max(seconds for _, seconds in answered)


def register(world: World) -> None:
    faults = world.faults

    def check(title: str):
        def healed(function):
            def run():
                try:
                    function()
                finally:
                    # Whatever came of it: the next check begins on a good disk, at the right time.
                    faults.clear()
                    if world.process.process.poll() is not None:
                        world.up()

            return suite.check(title)(run)

        return healed

    @check("disk full: every delivery 500 well within Chatwoot's patience, /v1 serves, not ready; back by itself")
    def disk_full():
        world.back()
        faults.set(inbox_full=1)
        answered = world.webhooks(20) + [world.webhook() for _ in range(5)]
        calls = [world.call() for _ in range(5)]
        wait_until(lambda: not world.ready(), "it says that it is not ready", 5)
        healthy = world.metric("relais_inbox_healthy")
        faults.set(inbox_full=0)
        assert faults.get("faults_done") > 0, "no fault was put under it"
        assert statuses(answered) == {500}, statuses(answered)
        assert longest(answered) < ACK_WAIT_SECONDS, f"{longest(answered):.3f} s"
        assert calls == [200] * 5, calls
        assert healthy == 0, "the metric says that all is well"
        # Nobody sends anything to one that is not ready: it has to find out by itself.
        wait_until(world.ready, "it is ready again", 20)
        print(f"disk full: 25 deliveries refused, the slowest in {longest(answered) * 1000:.0f} ms")
        world.back()

    @check("a failed sync: never acknowledged, refused until checked anew, back by itself")
    def sync_fails():
        faults.set(inbox_sync_fails=1)
        answered = world.webhooks(20)
        time.sleep(1.2)  # two tries to open it anew
        answered += [world.webhook() for _ in range(5)]
        ready, calls = world.ready(), [world.call() for _ in range(5)]
        faults.set(inbox_sync_fails=0)
        assert statuses(answered) == {500}, statuses(answered)
        assert longest(answered) < ACK_WAIT_SECONDS + 1, f"{longest(answered):.3f} s"
        assert not ready and calls == [200] * 5, (ready, calls)
        world.back()

    @check("one sync in the middle of the load fails: what was acknowledged is there, also after a kill")
    def one_sync_fails():
        over, done = threading.Event(), faults.get("faults_done")

        def customer() -> list[tuple[int, float]]:
            sent = []
            while not over.is_set():
                sent.append(world.webhook())
            return sent

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            running = [pool.submit(customer) for _ in range(8)]
            wait_until(lambda: len(world.acknowledged) > 50, "there is load", 20)
            faults.set(inbox_sync_fails=1)
            wait_until(lambda: faults.get("faults_done") > done, "a sync fails", 20, every=0.001)
            faults.set(inbox_sync_fails=0)
            world.back()
            over.set()
            answered = [sent for customer in running for sent in customer.result()]
        assert statuses(answered) == {200, 500}, statuses(answered)
        world.restart_hard()
        missing = world.acknowledged - world.stored()
        assert not missing, f"{len(missing)} acknowledged deliveries are gone"
        assert world.metric("relais_inbox_lost_commits_total") == 0

    @check("slow syncs, 200 ms: all acknowledged in groups, /v1 serves")
    def slow_syncs():
        faults.set(inbox_sync_ms=200)
        before = faults.get("syncs_done")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            sent = pool.submit(world.webhooks, 60)
            calls = [world.call() for _ in range(5)]
            answered = sent.result()
        syncs = faults.get("syncs_done") - before
        faults.set(inbox_sync_ms=0)
        assert statuses(answered) == {200}, statuses(answered)
        assert syncs < 60, f"{syncs} syncs for 60 deliveries: no groups"
        assert calls == [200] * 5, calls
        print(f"slow syncs: 60 deliveries in {syncs} syncs, the slowest in {longest(answered):.2f} s")

    @check("syncs slower than the cap: 429, never 503, within Chatwoot's patience; coming again is safe")
    def too_slow_syncs():
        faults.set(inbox_sync_ms=2_500)
        numbers = [2_000_000 + number for number in range(10)]
        with concurrent.futures.ThreadPoolExecutor(10) as pool:
            answered = list(pool.map(lambda number: world.webhook(number=number), numbers))
        faults.set(inbox_sync_ms=0)
        assert statuses(answered) == {429}, statuses(answered)
        assert ACK_WAIT_SECONDS <= longest(answered) < CHATWOOT_WAIT_SECONDS, f"{longest(answered):.3f} s"
        world.back()
        again = [world.webhook(number=number) for number in numbers]
        assert statuses(again) == {200}, statuses(again)
        rows = [number for number in world.stored() if number in numbers]
        assert sorted(rows) == numbers, rows

    @check("usage.db takes nothing: /v1 goes on up to the unledgered bound, then 503; back by itself")
    def usage_full():
        assert world.call() == 200
        faults.set(usage_full=1)
        seen = []

        def refused():
            seen.append(world.call())
            return seen[-1] != 200

        wait_until(refused, "the bound is reached", 30)
        webhook = world.webhook()
        faults.set(usage_full=0)
        assert seen[-1] == 503 and len(seen) > 2, seen
        assert webhook[0] == 200, "trouble on one file stopped the other"
        wait_until(lambda: world.call() == 200, "/v1 serves again", 20)
        assert world.metric("relais_ledger_errors_total") > 0
        print(f"usage.db full: {len(seen) - 1} calls served before the first 503")

    @check("usage.db's syncs fail: the same")
    def usage_sync_fails():
        faults.set(usage_sync_fails=1)
        seen = []
        wait_until(lambda: seen.append(world.call()) or seen[-1] != 200, "the bound is reached", 30)
        faults.set(usage_sync_fails=0)
        assert seen[-1] == 503, seen
        wait_until(lambda: world.call() == 200, "/v1 serves again", 20)

    @check("no descriptors left: what is open goes on, no spinning, and those who waited are served after")
    def descriptors():
        pid = world.process.process.pid
        keep_alive = http.client.HTTPConnection("127.0.0.1", world.gateway.public_port, timeout=20)
        assert world.call(connection=keep_alive) == 200
        failures = world.metric("relais_accept_failures_total")
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = len(os.listdir(f"/proc/{pid}/fd"))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 8, before[1]))
        held = []
        try:
            for _ in range(64):
                held.append(socket.create_connection(("127.0.0.1", world.gateway.public_port), timeout=10))
            wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) >= used + 8, "its descriptors are used up", 10)
            cpu, began = cpu_seconds(pid), time.monotonic()
            webhooks = [world.webhook(connection=keep_alive)[0] for _ in range(20)]
            time.sleep(2)  # the time over which it might spin
            spent = (cpu_seconds(pid) - cpu) / (time.monotonic() - began)
            assert webhooks == [200] * 20, webhooks
            assert spent < 0.5, f"{spent:.0%} of a core while it cannot accept"
        finally:
            for each in held:
                each.close()
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        wait_until(lambda: world.webhook()[0] == 200, "a new connection is served", 20)
        assert world.call(connection=keep_alive) == 200, "/v1 does not come back"
        assert world.metric("relais_accept_failures_total") > failures, "no metric tells"
        print(f"no descriptors: {spent:.0%} of a core")
        world.back()

    @check("after it all, a kill: every acknowledged delivery is there, none damaged")
    def all_there():
        world.restart_hard()
        missing = world.acknowledged - world.stored()
        assert not missing, f"{len(missing)} of {len(world.acknowledged)} acknowledged deliveries are gone"
        assert world.metric("relais_inbox_lost_commits_total") == 0
        assert world.metric("relais_inbox_quarantined_total") == 0
        print(f"all {len(world.acknowledged)} acknowledged deliveries are there")

    @check("the clock jumps 40 days ahead: signatures by its clock, /v1 and conversations go on")
    def clock_ahead():
        conversation = Conversation(world.gateway.chatwoot_address)
        faults.set(clock_ms=40 * DAY_MS)
        assert world.webhook(skew_ms=40 * DAY_MS)[0] == 200
        assert world.webhook()[0] == 401, "a signature 40 days old is good"
        assert world.call() == 200
        faults.set(clock_ms=0)
        conversation.says("When do you open?")
        assert conversation.wait_outcome(replies_before=0) == "replied", "handed over instead of answered"

    @check("the clock goes back eight minutes while a customer waits: answered all the same")
    def clock_back_in_a_turn():
        conversation = Conversation(world.gateway.chatwoot_address)
        # On both sides of the right time, within the signatures' window: what is further off is refused.
        faults.set(clock_ms=4 * MINUTE_MS)
        conversation.wait_acknowledged(conversation.says("When do you open?"))
        faults.set(clock_ms=-4 * MINUTE_MS)
        outcome = conversation.wait_outcome(replies_before=0)
        faults.set(clock_ms=0)
        assert outcome == "replied", "handed over instead of answered"

    @check("the clock goes back and forth: a used-up month stays used up, the next one comes once")
    def clock_and_periods():
        key = "calls-python"  # two calls a month
        assert [world.call(key) for _ in range(3)] == [200, 200, 429]
        faults.set(clock_ms=-HOUR_MS)
        assert world.call(key) == 429, "an hour back refills"
        faults.set(clock_ms=-40 * DAY_MS)
        assert world.call(key) == 429, "a month back refills"
        faults.set(clock_ms=40 * DAY_MS)
        assert [world.call(key) for _ in range(3)] == [200, 200, 429], "the next month is another"
        faults.set(clock_ms=0)
        assert world.call(key) == 429, "going back refills"
        faults.set(clock_ms=40 * DAY_MS)
        assert world.call(key) == 429, "the next month comes twice"
        # And after a crash the ledger says the same.
        time.sleep(0.5)  # several of its flushes
        world.restart_hard()
        assert world.call(key) == 429, "a restart refills"
        faults.set(clock_ms=0)
        assert world.call(key) == 429, "going back over a restart refills"


def cpu_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    end_on_signals()
    with children() as start:
        try:
            register(World(start))
        except Skip as why:
            reason = str(why)

            @suite.check("faults of disk, descriptors and clock")
            def skipped():
                raise Skip(reason)

        suite.run()
