"""Chatwoot's own Python client against our fake: does a client nobody here wrote read what the fake answers?

The fake runs as a process of its own. What this client does not know (agent bots as a list, assignments, typing,
custom attributes, priority by itself, webhooks, the public API) it cannot check; `make test` holds our own calls
against Chatwoot's description. It does not read the answer to a bot's handoff, whose `success` is null.
"""

import os
import secrets

from processes import answers, binary, children, end_on_signals, free_ports
from report import Suite

suite = Suite("chatwoot-sdk")
ACCOUNT = 1


class Stage:
    """The fake, a client of an administrator, one of the bot, and a conversation."""

    def __init__(self, address: str, user_token: str, bot_token: str):
        from chatwoot import ChatwootClient

        from chatwoot_fake import Conversation, call_json

        self.user = ChatwootClient(base_url=address, api_token=user_token)
        self.bot = ChatwootClient(base_url=address, api_token=bot_token)
        self.world = call_json("GET", f"{address}/control/world")
        self.customer = Conversation(address)


stage: Stage


@suite.check("profile: who the administrator is, and where")
def profile():
    found = stage.user.profile.get()
    assert found.role.value == "administrator" and found.accounts[0].id == ACCOUNT, found


@suite.check("inboxes: list, one, its bot, another one made with a bot and without")
def inboxes():
    listed = stage.user.inboxes.list(ACCOUNT)
    assert [inbox.channel_type for inbox in listed] == ["Channel::WebWidget"], listed
    found = stage.user.inboxes.get(ACCOUNT, listed[0].id)
    assert (found.id, found.name) == (listed[0].id, listed[0].name)
    bot = stage.user.inboxes.get_agent_bot(ACCOUNT, found.id)
    assert bot["agent_bot"]["id"] == stage.world["bot_id"], bot
    made = stage.user.inboxes.create(ACCOUNT, name="API", channel_type="api", webhook_url="")
    assert made.channel_type == "Channel::Api", made
    stage.user.inboxes.set_agent_bot(ACCOUNT, made.id, stage.world["bot_id"])
    assert stage.user.inboxes.get_agent_bot(ACCOUNT, made.id)["agent_bot"]["id"] == stage.world["bot_id"]
    assert stage.user.inboxes.update(ACCOUNT, made.id, name="API 2").name == "API 2"


@suite.check("messages: the customer's and the bot's, in order, types and senders")
def messages():
    conversation = stage.customer.id
    stage.customer.says("Which teas do you sell?")
    sent = stage.bot.messages.create(ACCOUNT, conversation, content="Green and black.")
    assert sent.conversation_id == conversation and sent.sender.type == "agent_bot", sent
    note = stage.bot.messages.create(ACCOUNT, conversation, content="Asked for teas.", private=True)
    assert note.private, note
    listed = stage.user.messages.list(ACCOUNT, conversation)
    assert [message.message_type for message in listed] == [0, 1, 1], listed
    assert [message.id for message in listed][1:] == [sent.id, note.id]


@suite.check("conversations: the list and the one agree, with status, customer and channel")
def conversations():
    listed = stage.user.conversations.list(ACCOUNT, status="pending")
    found = stage.bot.conversations.get(ACCOUNT, stage.customer.id)
    assert [conversation.id for conversation in listed] == [found.id]
    assert found.status.value == "pending" and found.meta.sender.name, found


@suite.check("labels: replaced, not added to, whatever the client calls it")
def labels():
    assert stage.bot.conversations.labels.add(ACCOUNT, stage.customer.id, ["a", "b"]) == ["a", "b"]
    assert stage.bot.conversations.labels.add(ACCOUNT, stage.customer.id, ["c"]) == ["c"]
    assert stage.user.conversations.labels.list(ACCOUNT, stage.customer.id) == ["c"]


@suite.check("toggle status: resolved, pending, open by a user")
def status():
    for wanted in ("resolved", "pending", "open"):
        told = stage.user.conversations.toggle_status(ACCOUNT, stage.customer.id, status=wanted)
        assert told.success and told.current_status.value == wanted == stage.customer.status(), told


@suite.check("refusals: a bot's token where it may not, a wrong token, what is not there")
def refusals():
    from chatwoot import ChatwootClient
    from chatwoot.exceptions import ChatwootAuthError, ChatwootNotFoundError

    stranger = ChatwootClient(base_url=os.environ["RELAIS_SDK_ADDRESS"], api_token="wrong")
    for refused, call in [
        (ChatwootAuthError, lambda: stage.bot.messages.list(ACCOUNT, stage.customer.id)),
        (ChatwootAuthError, lambda: stage.bot.inboxes.list(ACCOUNT)),
        (ChatwootAuthError, lambda: stranger.profile.get()),
        (ChatwootNotFoundError, lambda: stage.user.conversations.get(ACCOUNT, 1)),
    ]:
        try:
            call()
        except refused:
            continue
        raise AssertionError(f"no {refused.__name__}")


def main() -> None:
    global stage
    end_on_signals()
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    os.environ["RELAIS_SDK_ADDRESS"] = address
    user_token, bot_token = secrets.token_hex(12), secrets.token_hex(12)
    with children() as start:
        tokens = {"RELAIS_LOAD_USER_TOKEN": user_token, "RELAIS_LOAD_BOT_TOKEN": bot_token}
        fake = start("chatwoot-sdk-fake", [binary("relais-load"), "chatwoot", "--port", port], env=tokens)
        fake.wait_ready(lambda: answers(f"{address}/control/world"), "the fake Chatwoot listens")
        stage = Stage(address, user_token, bot_token)
        suite.run()


if __name__ == "__main__":
    main()
