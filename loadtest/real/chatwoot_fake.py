"""The fake Chatwoot's control address, as the checks use it: play a customer, see what came back.

The fake is a process of its own (`relais-load chatwoot`), because a real Chatwoot cannot be run
here; it speaks signed webhooks and Chatwoot's REST to the gateway like the real thing.
"""

import json
import urllib.request

from processes import wait_until

# A tiny model on one busy thread, after the pause in which a customer may go on writing.
ANSWER_SECONDS = 90


def call_json(method: str, url: str, body=None):
    """One request with JSON both ways; raises on an error status."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read()
    return json.loads(text) if text else None


class Conversation:
    """One conversation of one customer."""

    def __init__(self, address: str):
        self._control = f"{address}/control"
        made = call_json("POST", f"{self._control}/conversations", {})
        self.id = made["conversation_id"]

    def _get(self, what: str):
        return call_json("GET", f"{self._control}/conversations/{self.id}{what}")

    def says(self, text: str) -> int:
        """The customer writes; gives the message's id."""
        made = call_json(
            "POST", f"{self._control}/conversations/{self.id}/acts", {"act": "customer_says", "text": text}
        )
        return made["message_id"]

    def replies(self) -> list[str]:
        """What the customer was shown by the bot, in order."""
        return [
            seen["content"]
            for seen in self._get("/seen")
            if seen["message_type"] == "outgoing" and "bot" in (seen["by"] or {})
        ]

    def status(self) -> str:
        return self._get("")["status"]

    def notes(self) -> list[str]:
        """The private notes, which the customer does not see."""
        return [message["content"] for message in self._get("")["messages"] if message["private"]]

    def deliveries(self) -> list[dict]:
        """The webhooks about this conversation."""
        found = call_json("GET", f"{self._control}/deliveries")
        return [delivery for delivery in found if delivery["conversation_id"] == self.id]

    def acknowledged(self, message_id: int) -> bool:
        """Whether the gateway has taken responsibility for this message."""
        return any(
            delivery["message_id"] == message_id
            and delivery["event"] == "message_created"
            and delivery["outcome"] == "accepted"
            for delivery in self.deliveries()
        )

    def wait_acknowledged(self, message_id: int) -> None:
        wait_until(lambda: self.acknowledged(message_id), "the webhook is acknowledged", 30, every=0.01)

    def wait_outcome(self, replies_before: int) -> str:
        """Waits until the customer is answered or a human has the conversation: `replied` or `open`."""

        def outcome():
            if self.status() == "open":
                return "open"
            return "replied" if len(self.replies()) > replies_before else ""

        return wait_until(outcome, "a reply, or a human", ANSWER_SECONDS)
