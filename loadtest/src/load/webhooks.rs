//! Deliveries as Chatwoot makes them: signed over timestamp and raw body, a new delivery id and a growing message
//! number each, spread over many conversations, of the size and shape real ones have.
//!
//! They play customers that write; nobody answers them, and the conversations need not exist in any Chatwoot. A gateway
//! that serves the channel takes them for real: it asks its agent and posts what it says.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use uuid::Uuid;

use super::connections::{Connections, Lease};
use super::flags::{NamedChannel, WebhookFlags};
use super::tally::Outcome;
use crate::fakes::chatwoot::sign;

/// Bytes of an answer read at most. Nothing is expected in it.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Stand in the body's pattern where a delivery's own numbers go; no text of ours contains them.
const MESSAGE: &str = "9000000000000001";
const CONVERSATION: &str = "9000000000000002";
const AT: &str = "9000000000000003";

/// One channel that deliveries are made for.
#[derive(Debug)]
struct Channel {
    connections: Arc<Connections>,
    path: Uri,
    secret: Option<String>,
    pattern: Pattern,
}

/// Everything about the deliveries of a run.
#[derive(Debug)]
pub(super) struct Webhooks {
    channels: Vec<Channel>,
    conversations: u64,
    first_message: u64,
}

/// A body with gaps for the numbers.
#[derive(Debug)]
struct Pattern(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Text(String),
    Message,
    Conversation,
    At,
}

impl Webhooks {
    pub(super) fn new(flags: &WebhookFlags, channels: Vec<(NamedChannel, Arc<Connections>)>) -> anyhow::Result<Self> {
        let channels = channels
            .into_iter()
            .map(|(channel, connections)| {
                let path = channel.url.path_and_query().map_or("/", |path| path.as_str()).parse()?;
                let pattern = Pattern::new(&body(channel.account, flags.text_bytes, flags.open));
                Ok(Channel { connections, path, secret: channel.secret, pattern })
            })
            .collect::<anyhow::Result<_>>()?;
        // A second has room for as many messages as no run sends in it, so numbers grow from run to run.
        let fresh = jiff::Timestamp::now().as_second().unsigned_abs() * 100_000;
        Ok(Self { channels, conversations: flags.conversations, first_message: flags.first_message.unwrap_or(fresh) })
    }

    /// The connections the delivery with this number goes by.
    pub(super) fn connections(&self, number: u64) -> (usize, Option<&Arc<Connections>>) {
        let target = target_of(number, self.channels.len());
        (target, self.channels.get(target).map(|channel| &channel.connections))
    }

    /// Makes one delivery.
    pub(super) async fn deliver(&self, number: u64, target: usize, mut lease: Lease<'_>) -> Outcome {
        let Some(channel) = self.channels.get(target) else { return Outcome::NotSent };
        let Some(request) = self.request(number, channel) else { return Outcome::NotSent };
        let answer = match lease.send(request).await {
            Ok(answer) => answer,
            Err(outcome) => return outcome,
        };
        let status = answer.status();
        if http_body_util::Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.is_err() {
            return Outcome::Broken;
        }
        lease.give_back();
        if status.is_success() { Outcome::Ok } else { Outcome::Status(status.as_u16()) }
    }

    fn request(&self, number: u64, channel: &Channel) -> Option<Request<Full<Bytes>>> {
        let now = jiff::Timestamp::now().as_second();
        let of_channel = number / u64::try_from(self.channels.len()).ok()?.max(1);
        // Conversations begin at 1 in each channel, and take turns.
        let conversation = 1 + of_channel % self.conversations;
        let body = Bytes::from(channel.pattern.with(self.first_message + number, conversation, now));
        let mut request = Request::post(channel.path.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .header("x-chatwoot-delivery", Uuid::now_v7().to_string());
        if let Some(secret) = &channel.secret {
            let timestamp = now.to_string();
            let signature = sign(secret, &timestamp, &body);
            request = request.header("x-chatwoot-timestamp", timestamp).header("x-chatwoot-signature", signature);
        }
        request.body(Full::new(body)).ok()
    }
}

/// Whose turn it is.
pub(super) fn target_of(number: u64, targets: usize) -> usize {
    let targets = u64::try_from(targets).unwrap_or(u64::MAX).max(1);
    usize::try_from(number % targets).unwrap_or(0)
}

impl Pattern {
    fn new(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text;
        let marks = [MESSAGE, CONVERSATION, AT];
        while let Some((at, mark)) = marks.iter().filter_map(|mark| Some((rest.find(mark)?, *mark))).min() {
            let (before, after) = rest.split_at(at);
            pieces.push(Piece::Text(before.to_owned()));
            pieces.push(match mark {
                MESSAGE => Piece::Message,
                CONVERSATION => Piece::Conversation,
                _ => Piece::At,
            });
            rest = after.strip_prefix(mark).unwrap_or_default();
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Self(pieces)
    }

    fn with(&self, message: u64, conversation: u64, at: i64) -> String {
        use std::fmt::Write as _;
        let mut body = String::with_capacity(4096);
        for piece in &self.0 {
            // Writing to a string does not fail.
            let _ = match piece {
                Piece::Text(text) => body.write_str(text),
                Piece::Message => write!(body, "{message}"),
                Piece::Conversation => write!(body, "{conversation}"),
                Piece::At => write!(body, "{at}"),
            };
        }
        body
    }
}

/// A `message_created` of a customer, with the marks where numbers go.
fn body(account_id: u64, text_bytes: usize, open: bool) -> String {
    let number = |mark: &str| mark.parse::<u64>().unwrap_or_default();
    let (message, conversation, at) = (number(MESSAGE), number(CONVERSATION), number(AT));
    let question = "Where is my parcel with the number ";
    let mut text = question.repeat(text_bytes / question.len() + 1);
    text.truncate(text_bytes.max(1));
    let account = json!({ "id": account_id, "name": "Load" });
    let created = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
    let customer = json!({
        "additional_attributes": { "city": "", "country": "", "country_code": "", "created_at_ip": "192.0.2.10" },
        "custom_attributes": {}, "email": "load@example.com", "id": 501, "identifier": null, "name": "Load Test",
        "phone_number": null, "thumbnail": "", "blocked": false,
    });
    let mut of_message = customer.clone();
    let mut of_conversation = customer;
    if let (Some(of_message), Some(of_conversation)) = (of_message.as_object_mut(), of_conversation.as_object_mut()) {
        of_message.insert("account".to_owned(), account.clone());
        of_message.insert("avatar".to_owned(), "".into());
        of_conversation.insert("type".to_owned(), "contact".into());
    }
    let source = "5f0e7c1a-3b1d-4c62-9d0f-7a1b2c3d4e5f";
    let pushed = json!({
        "id": message, "content": text, "account_id": account_id, "inbox_id": 21, "conversation_id": conversation,
        "message_type": 0, "created_at": at, "updated_at": created, "private": false, "status": "sent",
        "source_id": null, "content_type": "text", "content_attributes": {}, "sender_type": "Contact",
        "sender_id": 501, "external_source_ids": {}, "additional_attributes": {}, "processed_message_content": text,
        "sentiment": {}, "sender": of_conversation, "conversation": {
            "assignee_id": null, "unread_count": 1, "last_activity_at": at, "contact_inbox": { "source_id": source },
        },
    });
    json!({
        "account": account, "additional_attributes": {}, "content_attributes": {}, "content_type": "text",
        "content": text, "created_at": created, "id": message, "inbox": { "id": 21, "name": "Website" },
        "message_type": "incoming", "private": false, "sender": of_message, "source_id": null,
        "event": "message_created",
        "conversation": {
            "additional_attributes": { "browser": { "device_name": "Unknown", "browser_name": "Firefox" } },
            "can_reply": true, "channel": "Channel::WebWidget",
            "contact_inbox": {
                "id": 901, "contact_id": 501, "inbox_id": 21, "source_id": source, "created_at": created,
                "updated_at": created, "hmac_verified": false, "pubsub_token": "load",
            },
            "id": conversation, "inbox_id": 21, "messages": [pushed], "labels": [],
            "meta": {
                "sender": of_conversation, "assignee": null, "assignee_type": null, "team": null,
                "hmac_verified": false,
            },
            "status": if open { "open" } else { "pending" }, "custom_attributes": {}, "snoozed_until": null,
            "unread_count": 1, "first_reply_created_at": null, "priority": null, "waiting_since": at,
            "agent_last_seen_at": 0, "contact_last_seen_at": 0, "last_activity_at": at, "timestamp": at,
            "created_at": at, "updated_at": at, "account": account,
        },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_stands_where_it_belongs() {
        let body = Pattern::new(&body(3, 120, false)).with(77, 5, 1_781_774_100);
        assert!([MESSAGE, CONVERSATION, AT].iter().all(|mark| !body.contains(mark)));
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["id"], 77);
        assert_eq!(value["account"]["id"], 3);
        assert_eq!(value["conversation"]["id"], 5);
        assert_eq!(value["conversation"]["messages"][0]["id"], 77);
        assert_eq!(value["conversation"]["messages"][0]["conversation_id"], 5);
        assert_eq!(value["conversation"]["created_at"], 1_781_774_100);
        assert_eq!(value["content"].as_str().unwrap().len(), 120);
        // Chatwoot's own are 2.6 KB in the median.
        assert!((2000..3500).contains(&body.len()), "{}", body.len());
    }
}
