//! Webhooks out: signed, on a connection each, retried as Chatwoot retries.
//!
//! A bot's delivery is tried three times in all, and again only after 429 or exactly 500. Anything
//! else that is not a 2xx, a timeout and a refused connection included, ends it at once; if it was
//! about a message and the conversation is pending, the conversation opens. The delivery id stays
//! the same over the tries, timestamp and signature are made anew. Account webhooks and API inboxes
//! get one try; a failed one to an API inbox marks the message as failed. A delivery whose contact
//! link is gone when its turn comes is dropped without a word.
//!
//! Not imitated: HTTPS, and the basic authorization in a URL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, Uri};
use http_body_util::Full;
use sha2::Sha256;

use super::Shared;
use super::emit::Subject;
use super::fault::{DeliveryEffect, Draw};
use super::model::ConversationKey;
use super::reach::{REDIRECTS_MAX, redirected, refusal};
use super::record::{Attempt, Happening, Outcome, Route};
use super::state::{State, now_ms};
use crate::http::{ExchangeError, exchange, read_all};

/// Bytes of an answer read at most: Chatwoot's cap is its upload limit, 40 MB.
const ANSWER_BYTES_MAX: usize = 40 * 1024 * 1024;
/// How long a delivery that is held back waits for another one to overtake it.
const HOLD_MS_MAX: u64 = 300;

/// What a webhook carries.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// Built at the event.
    Built(Bytes),
    /// To be built when its job runs.
    Later(Subject),
}

/// One webhook on its way.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    /// Its number in the record.
    pub(super) record: u64,
    pub(super) delivery_id: String,
    pub(super) route: Route,
    pub(super) url: String,
    pub(super) secret: Option<String>,
    pub(super) event: &'static str,
    pub(super) key: ConversationKey,
    pub(super) message_id: Option<u64>,
    /// The contact's link to the inbox, which the body shows.
    pub(super) link_id: Option<u64>,
    pub(super) body: Body,
    pub(super) attempt: u32,
    pub(super) attempts_max: u32,
}

/// What is to be done once the lock is free.
pub(super) enum Task {
    /// Deliver after a delay, then deliver the one it overtook.
    Deliver { outgoing: Box<Outgoing>, delay_ms: u64, then: Option<Box<Outgoing>> },
    /// Stop holding a delivery back if nothing has overtaken it by then.
    Release { hold: u64 },
}

impl State {
    /// Takes what waits to be sent, with the faults that are on applied.
    pub(super) fn drain(&mut self) -> Vec<Task> {
        let mut tasks = Vec::new();
        for outgoing in std::mem::take(&mut self.outbox) {
            let effect = self.delivery_effect(&outgoing);
            if effect == Some(DeliveryEffect::Drop)
                || self.deliveries_waiting >= self.settings.bounds.deliveries_waiting_max
            {
                self.lose(&outgoing);
                continue;
            }
            self.deliveries_waiting += 1;
            if effect == Some(DeliveryEffect::Reorder) && self.held.is_none() {
                self.holds_count += 1;
                self.held = Some((self.holds_count, Box::new(outgoing)));
                tasks.push(Task::Release { hold: self.holds_count });
                continue;
            }
            if effect == Some(DeliveryEffect::Duplicate) {
                self.deliveries_waiting += 1;
                let outgoing = Box::new(self.duplicate(&outgoing));
                tasks.push(Task::Deliver { outgoing, delay_ms: 0, then: None });
            }
            let delay_ms = if let Some(DeliveryEffect::DelayMs(delay_ms)) = effect { delay_ms } else { 0 };
            let then = self.held.take().map(|(_, held)| held);
            tasks.push(Task::Deliver { outgoing: Box::new(outgoing), delay_ms, then });
        }
        tasks
    }

    fn delivery_effect(&mut self, outgoing: &Outgoing) -> Option<DeliveryEffect> {
        let conversation = self.conversations.get_mut(&outgoing.key)?;
        conversation.deliveries_count += 1;
        let draw = Draw {
            seed: self.settings.seed,
            conversation_id: outgoing.key.conversation_id,
            number: conversation.deliveries_count,
        };
        self.faults.on_delivery(outgoing.event, draw)
    }

    fn duplicate(&mut self, outgoing: &Outgoing) -> Outgoing {
        let mut twin = outgoing.clone();
        if let Some(mut record) = self.deliveries.get_mut(outgoing.record).cloned() {
            record.duplicate = true;
            twin.record = self.deliveries.push(record);
        }
        twin
    }

    fn lose(&mut self, outgoing: &Outgoing) {
        self.settle(outgoing, Outcome::Lost);
        let (delivery_id, event) = (outgoing.delivery_id.clone(), outgoing.event);
        self.tell(outgoing.key, &Happening::WebhookLost { delivery_id, event });
    }

    /// A worker takes it up: gives the body to send, or drops it because what it shows is gone.
    fn take_up(&mut self, outgoing: &mut Outgoing) -> Option<Bytes> {
        let linked = outgoing.link_id.is_none_or(|link_id| self.links.contains_key(&link_id));
        let body = match &outgoing.body {
            Body::Built(body) => Some(body.clone()),
            Body::Later(subject) => self.body_of(outgoing.key, outgoing.event, subject),
        };
        let Some(body) = body.filter(|_| linked) else {
            self.deliveries_waiting -= 1;
            self.lose(outgoing);
            return None;
        };
        outgoing.body = Body::Built(body.clone());
        let delivery_id = outgoing.delivery_id.clone();
        let happening = Happening::WebhookSent { delivery_id, event: outgoing.event, attempt: outgoing.attempt };
        self.tell(outgoing.key, &happening);
        Some(body)
    }

    /// What giving up means: a pending conversation opens, or the message of an API inbox failed.
    fn give_up(&mut self, outgoing: &Outgoing, why: &str) {
        let (delivery_id, event) = (outgoing.delivery_id.clone(), outgoing.event);
        self.tell(outgoing.key, &Happening::WebhookFailed { delivery_id, event });
        let Some(message_id) = outgoing.message_id else { return };
        match outgoing.route {
            Route::Bot(_) => self.bot_failed(outgoing.key),
            Route::ApiInbox => self.message_failed(outgoing.key, message_id, why),
            Route::Account => {}
        }
    }

    fn settle(&mut self, outgoing: &Outgoing, outcome: Outcome) {
        if let Some(record) = self.deliveries.get_mut(outgoing.record) {
            record.outcome = outcome;
        }
    }
}

impl Shared {
    /// Sets the tasks going. Each ends by itself or with the fake.
    pub(super) fn run(self: &Arc<Self>, tasks: Vec<Task>) {
        for task in tasks {
            let shared = Arc::clone(self);
            match task {
                Task::Deliver { outgoing, delay_ms, then } => self.spawn(async move {
                    if delay_ms > 0 {
                        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                    }
                    deliver(&shared, *outgoing).await;
                    if let Some(overtaken) = then {
                        deliver(&shared, *overtaken).await;
                    }
                }),
                Task::Release { hold } => self.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(HOLD_MS_MAX)).await;
                    let held = shared.change(|state| state.held.take_if(|(number, _)| *number == hold));
                    if let Some((_, outgoing)) = held {
                        deliver(&shared, *outgoing).await;
                    }
                }),
            }
        }
    }
}

/// Tries a delivery until it is accepted or given up, and does what giving up means.
async fn deliver(shared: &Arc<Shared>, mut outgoing: Outgoing) {
    loop {
        let Some(tried) = attempt(shared, &mut outgoing).await else { return };
        let accepted = tried.status.is_some_and(|status| (200..300).contains(&status));
        let retryable = matches!(tried.status, Some(429 | 500)) && outgoing.attempt < outgoing.attempts_max;
        let why = tried.error.clone().unwrap_or_else(|| format!("HTTP {}", tried.status.unwrap_or_default()));
        shared.change(|state| {
            let happening = Happening::WebhookAnswered {
                delivery_id: outgoing.delivery_id.clone(),
                event: outgoing.event,
                attempt: outgoing.attempt,
                status: tried.status,
                error: tried.error.clone(),
                answer_us: tried.answer_us,
            };
            state.tell(outgoing.key, &happening);
            if let Some(record) = state.deliveries.get_mut(outgoing.record) {
                record.attempts.push(tried);
            }
            if accepted || !retryable {
                state.deliveries_waiting -= 1;
                state.settle(&outgoing, if accepted { Outcome::Accepted } else { Outcome::Failed });
            }
            if !accepted && !retryable {
                state.give_up(&outgoing, &why);
            }
        });
        if accepted || !retryable {
            return;
        }
        outgoing.attempt += 1;
        // Rails spreads retries by up to 15 %.
        let wait_ms = shared.settings.retry_wait_ms;
        let spread_ms = shared.change(|state| state.random_u64()) % (wait_ms * 15 / 100 + 1);
        tokio::time::sleep(Duration::from_millis(wait_ms + spread_ms)).await;
    }
}

/// One try, holding one of the workers while it lasts. `None`: there is nothing to send any more.
async fn attempt(shared: &Arc<Shared>, outgoing: &mut Outgoing) -> Option<Attempt> {
    // Closed never: an error here would mean the semaphore is gone with the fake.
    let _worker = shared.workers.acquire().await;
    let body = shared.change(|state| state.take_up(outgoing))?;
    let (at_ms, begun) = (now_ms(), Instant::now());
    let answered = send(shared, outgoing, &body).await;
    let answer_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    Some(match answered {
        Ok(status) => Attempt { at_ms, status: Some(status), error: None, answer_us },
        Err(error) => Attempt { at_ms, status: None, error: Some(error), answer_us },
    })
}

/// Sends it, and again to wherever the answer redirects: the same POST, signed once.
async fn send(shared: &Shared, outgoing: &Outgoing, body: &Bytes) -> Result<u16, String> {
    let timeout = Duration::from_millis(shared.settings.webhook_timeout_ms);
    let timestamp = (now_ms() / 1000).to_string();
    let signature = outgoing.secret.as_ref().map(|secret| sign(secret, &timestamp, body));
    let mut url = outgoing.url.clone();
    for _ in 0..=REDIRECTS_MAX {
        let at: Uri = url.parse().map_err(|error| format!("{error}"))?;
        if !shared.settings.private_network_allowed
            && let Some(why) = refusal(&at).await
        {
            return Err(why);
        }
        let request = request(outgoing, &at, body, &timestamp, signature.as_deref());
        let request = request.map_err(|error| error.to_string())?;
        let response = exchange(request, timeout).await.map_err(|error| described(&error))?;
        match redirected(&at, response.status().as_u16(), response.headers()) {
            Some(next) => url = next,
            None => return finished(response, timeout).await,
        }
    }
    Err(format!("Got {REDIRECTS_MAX} redirects fetching {}", outgoing.url))
}

async fn finished(response: http::Response<hyper::body::Incoming>, timeout: Duration) -> Result<u16, String> {
    let status = response.status().as_u16();
    // The body is read and ignored; one that stalls is a failure all the same.
    match tokio::time::timeout(timeout, read_all(response.into_body(), ANSWER_BYTES_MAX)).await {
        Ok(Ok(_)) => Ok(status),
        Ok(Err(error)) => Err(described(&error)),
        Err(_) => Err("the answer's body did not end in time".to_owned()),
    }
}

fn described(error: &ExchangeError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn request(
    outgoing: &Outgoing,
    at: &Uri,
    body: &Bytes,
    timestamp: &str,
    signature: Option<&str>,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(at)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .header("x-chatwoot-delivery", &outgoing.delivery_id);
    if let Some(signature) = signature {
        request = request.header("x-chatwoot-timestamp", timestamp).header("x-chatwoot-signature", signature);
    }
    request.body(Full::new(body.clone()))
}

/// `X-Chatwoot-Signature` of a body: the secret's bytes as the key, timestamp, dot and body as the message.
#[must_use]
pub fn sign(secret: &str, timestamp: &str, body: &[u8]) -> String {
    // HMAC takes a key of any length, so making it cannot fail; an empty signature would not verify.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    let digest = mac.finalize().into_bytes();
    digest.iter().fold("sha256=".to_owned(), |mut text, byte| {
        text.extend([byte >> 4, byte & 15].map(|digit| char::from_digit(u32::from(digit), 16).unwrap_or('0')));
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_a_known_vector() {
        let body = br#"{"event":"message_created","id":90001,"content":"a \u003c b"}"#;
        assert_eq!(
            sign("example-secret", "1781774100", body),
            "sha256=1aa680ac5174d1d8edfb3c79b803685262900f4762a1f896708e0c74496aec4d"
        );
    }
}
