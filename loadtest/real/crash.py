"""`kill -9` of the gateway under load, again and again; then its books against the model's own.

    crash.py [SEED]            RELAIS_CRASH_KILLS=10 kills, the seed draws their moments

The fake model counts every token it generates, per call, and is never killed: that is the truth.
After each kill and restart
  - what `relais usage` prints and what `GET /v1/limits` enforces are the same figures;
  - what was charged lacks at most what the last moments before the kill generated (the ledger is
    written once a second), and exceeds the truth by at most what running calls had reserved.
Figures are printed for each kill. No earlier kill can hide in a later one: each is judged by what
was added since the one before.

Standard library only.
"""

import dataclasses
import http.client
import json
import os
import random
import secrets
import shutil
import subprocess
import sys
import threading
import time
import urllib.request

from chatwoot_fake import call_json
from gateway_config import Gateway
from processes import CACHE, answers, binary, children, end_on_signals, free_ports, wait_until
from report import Suite

KILLS = int(os.environ.get("RELAIS_CRASH_KILLS", 10))
SEED = int(sys.argv[1]) if len(sys.argv) > 1 else 1
MODEL = "fake-model"
WORKERS = 16
TOKENS, GAP_MS = 60, 4
LOAD_SECONDS = (2.0, 3.4)
# The ledger is written once a second; the rest is for a write that waits on a busy machine.
WINDOW_SECONDS = 1.0 + 0.5
OVERRIDES = {
    "tokens_per_month": 1_000_000_000,
    "calls_per_month": 1_000_000,
    "calls_per_minute": 1_000_000,
    "calls_in_flight": 1_000,
}

suite = Suite("crash")


@dataclasses.dataclass
class Call:
    """A call as its client saw it."""

    began: float
    ended: float = float("inf")
    # When each frame of a stream came; None for a call that answers at once.
    frames: list | None = None


class Load:
    """Threads that call without a pause until there is nobody to call."""

    def __init__(self, gateway: Gateway, number: int):
        self._gateway = gateway
        self._number = number
        self._over = threading.Event()
        # By the name that both the client and the model know a call by.
        self.calls: dict[str, Call] = {}
        # What `GET /v1/limits` says is reserved: when, how much.
        self.reserved: list[tuple[float, int]] = []
        work = [threading.Thread(target=self._work, args=(worker,), daemon=True) for worker in range(WORKERS)]
        self._threads = [*work, threading.Thread(target=self._watch, daemon=True)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a call hangs although the gateway is gone"

    def _work(self, worker: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._gateway.public_port, timeout=30)
        stream = worker % 2 == 0
        count = 0
        while not self._over.is_set():
            count += 1
            name = f"{self._number}-{worker}-{count}"
            call = self.calls[name] = Call(time.monotonic(), frames=[] if stream else None)
            messages = [{"role": "user", "content": "Tell me all about your teas. " * 4}]
            body = {"model": MODEL, "user": name, "stream": stream, "max_tokens": TOKENS * 2, "messages": messages}
            headers = {"Authorization": f"Bearer {self._gateway.keys['acme']}", "Content-Type": "application/json"}
            try:
                connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
                answer = connection.getresponse()
                while stream and (line := answer.readline()):
                    if b'"content"' in line:
                        call.frames.append(time.monotonic())
                answer.read()
            except (OSError, http.client.HTTPException, ValueError):
                return  # killed
            call.ended = time.monotonic()

    def _watch(self) -> None:
        while not self._over.is_set():
            try:
                reserved = limits(self._gateway)["tokens"]["reserved"]
            except OSError:
                return
            self.reserved.append((time.monotonic(), reserved))
            time.sleep(0.02)


def limits(gateway: Gateway) -> dict:
    """What is left and used, as it is enforced."""
    headers = {"Authorization": f"Bearer {gateway.keys['acme']}"}
    request = urllib.request.Request(f"{gateway.public}/v1/limits", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["remaining"]


def enforced(gateway: Gateway) -> tuple[int, int] | None:
    """Calls and budget tokens used, as they are enforced; None while calls hold some."""
    left = limits(gateway)
    if left["tokens"]["reserved"] or left["tokens"]["debt"]:
        return None
    calls = left["calls_per_month"]["limit"] - left["calls_per_month"]["remaining"]
    return calls, OVERRIDES["tokens_per_month"] - left["tokens"]["remaining"]


def recorded(gateway: Gateway) -> tuple[int, int]:
    """Calls and budget tokens, as `relais usage` prints them."""
    command = [binary("relais"), "usage", "--by", "tenant", "--tenant", "acme", "--format", "json"]
    done = subprocess.run(
        [*command, "--config", gateway.directory / "relais.toml"],
        env=os.environ | gateway.secret_variables(),
        cwd=gateway.directory,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = json.loads(done.stdout)
    return (lines[0]["calls"], lines[0]["budget_tokens"]) if lines else (0, 0)


def agreed(gateway: Gateway) -> tuple[int, int] | None:
    """Both, once they are the same."""
    printed = recorded(gateway)
    return printed if enforced(gateway) == printed else None


def tokens(call: dict) -> int:
    return call["prompt_tokens"] + call["completion_tokens"]


def generated_since(load: Load, truth: dict[str, dict], moment: float) -> int:
    """The most that was generated from then on: of a stream what came later and what never came, with the prompt if it
    began later; of a call that answers at once, all."""
    total = 0
    for name, call in load.calls.items():
        if call.ended < moment or name not in truth:
            continue
        if call.frames is None or call.began >= moment:
            total += tokens(truth[name])
        else:
            came_before = sum(at < moment for at in call.frames)
            total += truth[name]["completion_tokens"] - min(came_before, truth[name]["completion_tokens"])
    return total


class World:
    """A gateway that can be crashed, and a model that sees it all."""

    def __init__(self, start):
        self._start = start
        public, admin, chatwoot, model = free_ports(4)
        key = secrets.token_hex(16)
        self.model_address = f"http://127.0.0.1:{model}"
        directory = CACHE / "crash"
        shutil.rmtree(directory, ignore_errors=True)
        self.gateway = Gateway(
            directory=directory,
            public_port=public,
            admin_port=admin,
            upstream_address=self.model_address,
            upstream_key=key,
            upstream_models=[MODEL],
            agent_model=MODEL,
            chatwoot_port=chatwoot,
            overrides=OVERRIDES,
        )
        self.gateway.write()
        self.gateway.secrets_file()
        command = [binary("relais-load"), "llm", "--port", model, "--tokens", TOKENS, "--gap-ms", GAP_MS]
        fake = start("crash-model", [*command, "--calls-max", 100_000], env={"RELAIS_LOAD_LLM_KEY": key})
        fake.wait_ready(lambda: answers(f"{self.model_address}/control"), "the fake model listens")
        self._starts = 0
        self.up()

    def up(self) -> None:
        self._starts += 1
        self._process = self.gateway.start(self._start, name=f"gateway-crash-{self._starts}")

    def crash(self) -> None:
        self._process.kill()

    def truth(self) -> dict[str, dict]:
        """Every call by its name, once none runs any more."""

        def quiet():
            seen = call_json("GET", f"{self.model_address}/control/truth")
            return seen if seen["totals"]["in_flight"] == 0 else None

        seen = wait_until(quiet, "the model notices that its callers are gone", 30)
        assert seen["calls_forgotten"] == 0
        return {call["user"]: call for call in seen["calls"]}


def register(world: World) -> None:
    gateway = world.gateway

    @suite.check(f"killed {KILLS} times under load (seed {SEED}): the books are the model's own, but for D4's second")
    def books_after_kills():
        draw = random.Random(SEED)
        before, truth_before = (0, 0), 0
        for number in range(1, KILLS + 1):
            load = Load(gateway, number)
            time.sleep(draw.uniform(*LOAD_SECONDS))  # the drawn moment itself, not a wait for something
            moment = time.monotonic()
            world.crash()
            load.end()
            calls = world.truth()
            world.up()
            after = wait_until(lambda: agreed(gateway), "what is recorded and what is enforced are one", 20)
            truth = sum(map(tokens, calls.values()))
            off = (after[1] - before[1]) - (truth - truth_before)
            missing_max = generated_since(load, calls, moment - WINDOW_SECONDS)
            reserved = [held for at, held in load.reserved if at >= moment - WINDOW_SECONDS]
            finished = sum(call.ended < moment for call in load.calls.values())
            print(
                f"kill {number:2}: {finished:4} calls through, {len(load.calls) - finished} cut off; generated "
                f"{truth - truth_before}, charged {after[1] - before[1]}: {off:+} "
                f"(may miss {missing_max}, held {max(reserved, default=0)})",
                flush=True,
            )
            assert finished > 0 and reserved, "there was no load"
            assert -missing_max <= off <= max(reserved), f"kill {number}: {off:+} tokens"
            assert after[0] >= before[0] and after[0] <= len(calls), f"{after[0]} calls, {len(calls)} were sent"
            before, truth_before = after, truth
        print(f"in all: generated {truth_before}, charged {before[1]}, {before[0]} calls charged")

    @suite.check("and a start after them that nothing cut short changes no figure")
    def quiet_restart():
        before = wait_until(lambda: agreed(gateway), "what is recorded and what is enforced are one", 20)
        world.crash()
        world.up()
        after = wait_until(lambda: agreed(gateway), "what is recorded and what is enforced are one", 20)
        assert after == before, f"{before} became {after}"


if __name__ == "__main__":
    end_on_signals()
    with children() as start:
        register(World(start))
        suite.run()
