//! The edge against example deliveries, damaged ones, and a fake Chatwoot.

mod client;
mod damage;
mod examples;

use serde_json::{Value, json};

/// A delivery about a customer's message, with every field that is read.
fn message_created() -> Value {
    json!({
        "event": "message_created",
        "account": { "id": 7, "name": "Example Store" },
        "id": 90_002,
        "content": "Can I change my plan?",
        "content_type": "text",
        "content_attributes": { "in_reply_to": null },
        "additional_attributes": {},
        "message_type": "incoming",
        "private": false,
        "created_at": "2026-06-18T09:15:00.123Z",
        "sender": { "id": 3391, "name": "Ada", "account": { "id": 7 }, "avatar": "" },
        "attachments": [{ "id": 1, "file_type": "audio", "transcribed_text": "" }],
        "conversation": {
            "id": 1042,
            "inbox_id": 22,
            "status": "pending",
            "can_reply": true,
            "channel": "Channel::Whatsapp",
            "labels": ["vip"],
            "additional_attributes": { "browser": { "browser_language": "fr" } },
            "contact_inbox": { "id": 1, "pubsub_token": "a-credential" },
            "messages": [{
                "id": 90_003,
                "message_type": 1,
                "created_at": 1_781_774_100,
                "content_attributes": {
                    "relay_turn_id": "0192f0c0-0000-7000-8000-000000000001",
                    "relay_part": 2,
                },
                "sender": { "id": 7, "type": "agent_bot" },
            }],
            "meta": {
                "sender": {
                    "id": 3391,
                    "name": "Ada",
                    "email": "ada@example.com",
                    "phone_number": "+12025550143",
                    "custom_attributes": { "plan": "standard", "orders": 3, "nested": { "a": 1 }, "none": null },
                    "type": "contact",
                },
                "assignee": { "id": 12, "type": "user" },
                "assignee_type": "User",
                "team": { "id": 3, "name": "billing" },
                "hmac_verified": true,
            },
        },
    })
}
