//! `POST /chatwoot/{tenant}` and `POST /chatwoot/{tenant}/{path_token}`: a 200 means that the delivery is on disk.
//!
//! Verified on the raw bytes, before anything is parsed. What verifies is answered 2xx even if it is of no use to
//! us: to Chatwoot a failed delivery of any message, our own echo included, means that its bot is broken, and it
//! hands the conversation to a human. The work is done later, from the inbox.
//!
//! Client leaves: detached.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use crate::Gateway;
use crate::auth::signature;
use crate::chatwoot::event::{self, Event, EventKind, Message, Parsed};
use crate::config::Channel;
use crate::error::Error;
use crate::http::body::{self, Body};
use crate::inbox::{Accepted, ConversationKey, Delivery, Sameness};
use crate::ingress::Trace;

/// The same over all attempts of one delivery.
const DELIVERY: &str = "x-chatwoot-delivery";

/// Takes one delivery.
pub async fn receive(
    gateway: &Gateway,
    trace: &mut Trace,
    request: Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let began = Instant::now();
    let config = gateway.config();
    let metrics = &gateway.metrics.inbox;
    let (head, body) = request.into_parts();
    let body = body::read_bounded(body, config.limits.webhook_body_bytes_max, config.timeouts.body_stall).await?;
    let received_at_ms = gateway.clock.now_ms();

    let (tenant, path_token) = address(head.uri.path());
    let tenant = gateway.store.tenant(tenant);
    let channels = tenant.as_ref().map(|tenant| tenant.channels.as_slice()).unwrap_or_default();
    let channel = match path_token {
        None => signature::verify(channels, &head.headers, &body, received_at_ms)?,
        Some(token) => by_token(channels, token, &head.headers, &body, received_at_ms)?,
    };
    let Some(tenant) = &tenant else { return Err(signature::unverified()) };
    trace.tenant(&tenant.id);

    let event = match event::parse(&body) {
        Ok(Parsed::Event(event)) if event.account_id == channel.account_id => event,
        Ok(Parsed::Event(_)) => return Ok(not_kept(gateway, channel, "it is of another account than the channel's")),
        Ok(Parsed::Ignored(why)) => return Ok(not_kept(gateway, channel, why)),
        Err(error) => {
            tracing::warn!(%error, channel = channel.name, "A verified delivery cannot be read.");
            return Ok(not_kept(gateway, channel, "it cannot be read"));
        }
    };
    if !matters(&event) {
        return Ok(not_kept(gateway, channel, "it changes nothing"));
    }
    let delivery_uuid = head.headers.get(DELIVERY).and_then(|id| Uuid::parse_str(id.to_str().ok()?).ok());
    let conversation = ConversationKey {
        tenant: Arc::clone(&tenant.id),
        channel: channel.name.as_str().into(),
        account_id: event.account_id,
        conversation_id: event.conversation.id,
    };
    let delivery = delivery(conversation, &event, delivery_uuid, body, received_at_ms);
    match gateway.inbox.accept(delivery).await? {
        Accepted::New => metrics.ack.observe(began.elapsed().as_secs_f64()),
        Accepted::Duplicate => tracing::debug!(channel = channel.name, "A delivery came again."),
    }
    Ok(Response::new(Body::empty()))
}

/// Tenant and path token of `/chatwoot/{tenant}[/{path_token}]`.
fn address(path: &str) -> (&str, Option<&str>) {
    let rest = path.strip_prefix("/chatwoot/").unwrap_or_default();
    rest.split_once('/').map_or((rest, None), |(tenant, token)| (tenant, Some(token)))
}

/// A channel named by an unguessable address. If it has a secret too, both must be right.
fn by_token<'a>(
    channels: &'a [Arc<Channel>],
    token: &str,
    headers: &HeaderMap,
    body: &[u8],
    now_ms: i64,
) -> Result<&'a Arc<Channel>, Error> {
    // Every channel is compared, so that time tells neither whether nor where one matched.
    let mut named = None;
    for channel in channels {
        let expected = channel.path_token.as_ref().map(|token| token.expose_secret().as_bytes()).unwrap_or_default();
        if bool::from(expected.ct_eq(token.as_bytes())) && !expected.is_empty() {
            named = Some(channel);
        }
    }
    match named {
        Some(channel) if channel.webhook_secrets.is_empty() => Ok(channel),
        named => signature::verify(named, headers, body, now_ms),
    }
}

fn not_kept(gateway: &Gateway, channel: &Channel, why: &'static str) -> Response<Body> {
    tracing::debug!(channel = channel.name, why, "A delivery was acknowledged and not kept.");
    gateway.metrics.inbox.ignored.inc();
    Response::new(Body::empty())
}

/// Messages are kept when they are created; of their updates only those that say something new: an answer to
/// buttons or a form, a transcript, a deletion, a failed delivery. The rest is ticks and read marks, several a message.
fn matters(event: &Event) -> bool {
    match (&event.kind, &event.message) {
        (EventKind::MessageUpdated, Some(message)) => {
            !message.submitted.is_empty()
                || message.deleted
                || message.external_error
                || message.attachments.iter().any(|attachment| attachment.transcript.is_some())
        }
        (EventKind::MessageUpdated, None) => false,
        _ => true,
    }
}

fn delivery(
    conversation: ConversationKey,
    event: &Event,
    delivery_uuid: Option<Uuid>,
    body: bytes::Bytes,
    received_at_ms: i64,
) -> Delivery {
    let message_id = event.message.as_ref().map(|message| message.id);
    let name = event.kind.as_str();
    match (&event.kind, &event.message) {
        (EventKind::MessageCreated, Some(_)) => {
            Delivery::new(conversation, name, message_id, Sameness::Message, delivery_uuid, body, received_at_ms)
        }
        (EventKind::MessageUpdated, Some(message)) => {
            let parts = said(message);
            let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
            let sameness = Sameness::Content(&parts);
            Delivery::new(conversation, name, message_id, sameness, delivery_uuid, body, received_at_ms)
        }
        _ => Delivery::new(conversation, name, message_id, Sameness::Delivery, delivery_uuid, body, received_at_ms),
    }
}

/// What an update says, to tell it from another of the same message.
fn said(message: &Message) -> Vec<String> {
    let mut parts = vec![format!("{}{}", u8::from(message.deleted), u8::from(message.external_error))];
    parts.extend(message.content.clone());
    parts.extend(message.submitted.iter().cloned());
    parts.extend(message.attachments.iter().filter_map(|attachment| attachment.transcript.clone()));
    parts
}
