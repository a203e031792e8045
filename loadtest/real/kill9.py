"""`kill -9` of the gateway between its acknowledgement and its reply; the customer is answered.

    kill9.py [ROUNDS] [SEED]

What it shows: an acknowledged message is on disk, and a start takes up what a crash left. The
agent's model is our fake, because it must be slow exactly as long as we want; gateway and Chatwoot
are processes. First two crashes at known moments, then some at drawn ones; the seed is printed.

That there is no second reply cannot be had by waiting for something, so here is a real pause: a
doubled reply would come within one turn's time, and the pause is several of them.
"""

import random
import secrets
import shutil
import sys
import time

from chatwoot_fake import Conversation, call_json
from gateway_config import Gateway
from processes import CACHE, Child, answers, binary, children, end_on_signals, free_ports, wait_until
from report import Suite

ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 else 5
SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 1
MODEL = "fake-model"
# Longer than any check waits: a call that hangs until it is told not to.
FOR_EVER_MS = 600_000
# Drawn crashes fall into the time that a turn takes with this much thinking.
THINKING_MS = 400
CRASH_WITHIN_SECONDS = 2.5
# Several times what a turn takes with that much thinking.
QUIET_SECONDS = 4.0

suite = Suite("kill9")


class World:
    """A gateway that can be crashed and started again, with its fake neighbours."""

    def __init__(self, start):
        self._start = start
        public, admin, chatwoot, model = free_ports(4)
        key = secrets.token_hex(16)
        self.model_address = f"http://127.0.0.1:{model}"
        directory = CACHE / "kill9"
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
        )
        self.gateway.write()
        self.gateway.secrets_file()
        fake = start(
            "kill9-model", [binary("relais-load"), "llm", "--port", model], env={"RELAIS_LOAD_LLM_KEY": key}
        )
        fake.wait_ready(lambda: answers(f"{self.model_address}/control"), "the fake model listens")
        self.gateway.start_chatwoot(start, name="kill9-chatwoot")
        self._starts = 0
        self._process: Child | None = None
        self.up()

    def up(self) -> None:
        self._starts += 1
        self._process = self.gateway.start(self._start, name=f"gateway-kill9-{self._starts}")

    def crash(self) -> None:
        self._process.kill()

    def model_thinks(self, milliseconds: int) -> None:
        call_json("POST", f"{self.model_address}/control", {"first_byte_ms": milliseconds})

    def model_calls(self) -> int:
        """Calls that reached the model so far."""
        return call_json("GET", f"{self.model_address}/control/truth")["totals"]["started"]

    def new_conversation(self) -> Conversation:
        return Conversation(self.gateway.chatwoot_address)


def replies_after_a_while(conversation: Conversation) -> int:
    """How many replies there are once whatever is still under way has had its time."""
    time.sleep(QUIET_SECONDS)
    return len(conversation.replies())


def expect_one_reply_then_another(conversation: Conversation) -> None:
    """The first question has one reply, and the conversation goes on as if nothing had happened."""
    assert conversation.wait_outcome(replies_before=0) == "replied", "handed over instead of answered"
    assert replies_after_a_while(conversation) == 1, f"{len(conversation.replies())} replies to one question"
    conversation.says("And in the afternoon?")
    assert conversation.wait_outcome(replies_before=1) == "replied", "handed over instead of answered"
    assert conversation.status() == "pending", conversation.status()


def register(world: World) -> None:
    @suite.check("killed right after the acknowledgement: answered once")
    def after_the_acknowledgement():
        world.model_thinks(FOR_EVER_MS)
        conversation = world.new_conversation()
        message = conversation.says("When do you open?")
        conversation.wait_acknowledged(message)
        world.crash()
        assert conversation.replies() == [], "replied before the crash"
        world.model_thinks(0)
        world.up()
        expect_one_reply_then_another(conversation)

    @suite.check("killed while the model was thinking: answered once")
    def while_thinking():
        world.model_thinks(FOR_EVER_MS)
        conversation = world.new_conversation()
        calls = world.model_calls()
        message = conversation.says("When do you open?")
        conversation.wait_acknowledged(message)
        wait_until(lambda: world.model_calls() > calls, "the agent asks the model", 60)
        world.crash()
        assert conversation.replies() == [], "replied before the crash"
        world.model_thinks(0)
        world.up()
        expect_one_reply_then_another(conversation)

    @suite.check(f"killed at {ROUNDS} drawn moments (seed {SEED}): one reply or a human, never silence")
    def at_drawn_moments():
        draw = random.Random(SEED)
        replied = 0
        for number in range(1, ROUNDS + 1):
            world.model_thinks(THINKING_MS)
            conversation = world.new_conversation()
            message = conversation.says(f"Question number {number}: when do you open?")
            conversation.wait_acknowledged(message)
            moment = draw.uniform(0, CRASH_WITHIN_SECONDS)
            time.sleep(moment)  # the drawn moment itself, not a wait for something
            world.crash()
            world.up()
            conversation.wait_outcome(replies_before=0)
            count, status = replies_after_a_while(conversation), conversation.status()
            where = f"round {number}, seed {SEED}, killed {moment:.3f} s after the acknowledgement"
            if status == "pending":
                assert count == 1, f"{where}: {count} replies"
                replied += 1
            else:
                # A crash between a reply and its echo makes Chatwoot open the conversation itself;
                # a reply whose fate nobody knows goes to a human, who is announced to the customer.
                assert status == "open" and count <= 2, f"{where}: {status}, {count} replies"
        assert replied > 0, "every round ended with a human: that is no answer"


if __name__ == "__main__":
    end_on_signals()
    with children() as start:
        register(World(start))
        suite.run()
