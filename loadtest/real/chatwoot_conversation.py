"""A customer's conversation in Chatwoot, answered by the local model through the gateway.

    RELAIS_CHATWOOT_ADDRESS=http://127.0.0.1:3000 RELAIS_MODEL_ADDRESS=… RELAIS_MODEL_KEY=… chatwoot_conversation.py

What it shows: webhook, durable inbox, agent, real model and reply work together as processes. It
does not judge the words: a model of this size may even hand over of its own accord, so the first
check tries a few customers; but not one of them may be left without an answer or a human.
"""

import upstream_idle
from chatwoot_fake import Conversation
from processes import wait_until
from report import Suite, need

QUESTIONS = [
    "Hello! Which teas do you sell?",
    "Is green tea good in the morning?",
    "Can you recommend a tea for a cold evening?",
]

suite = Suite("chatwoot")


def new_conversation() -> Conversation:
    return Conversation(need("RELAIS_CHATWOOT_ADDRESS"))


@suite.check("a customer's question is answered by the local model")
def answered():
    outcomes = []
    for question in QUESTIONS:
        conversation = new_conversation()
        generated = upstream_idle.counter("llamacpp:tokens_predicted_total")
        message = conversation.says(question)
        outcomes.append(conversation.wait_outcome(replies_before=0))
        assert conversation.acknowledged(message)
        if outcomes[-1] == "replied":
            assert all(text.strip() for text in conversation.replies()), "an empty reply"
            assert upstream_idle.counter("llamacpp:tokens_predicted_total") > generated, "not the model's words"
            assert conversation.status() == "pending", conversation.status()
            return
    raise AssertionError(f"the model answered none of {len(QUESTIONS)} customers: {outcomes}")


@suite.check("two customers at once: each has an answer or a human")
def two_at_once():
    conversations = [new_conversation() for _ in range(2)]
    for conversation, question in zip(conversations, QUESTIONS):
        conversation.says(question)
    for conversation in conversations:
        conversation.wait_outcome(replies_before=0)


@suite.check("asking for a human: note, message, open")
def handoff():
    conversation = new_conversation()
    conversation.says("I want to talk to a human, please.")
    wait_until(lambda: conversation.status() == "open", "the conversation is open", 60)
    assert conversation.notes(), "no private note for the human"
    assert conversation.replies(), "the customer was told nothing"


@suite.check("every webhook was acknowledged at its first attempt")
def acknowledged():
    conversation = new_conversation()
    conversation.says(QUESTIONS[0])
    conversation.wait_outcome(replies_before=0)

    def settled():
        return all(delivery["outcome"] != "pending" for delivery in conversation.deliveries())

    wait_until(settled, "no webhook is under way", 30)
    for delivery in conversation.deliveries():
        assert delivery["outcome"] == "accepted", f"{delivery['event']}: {delivery['outcome']}"
        assert [attempt["status"] for attempt in delivery["attempts"]] == [200], delivery["attempts"]


if __name__ == "__main__":
    suite.run()
