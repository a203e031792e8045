//! One upstream: what can be worked out beforehand, how it has been lately, and one try at it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus::{Histogram, IntCounter};
use relais_policies::limit::model_matches;
use secrecy::ExposeSecret as _;

use super::breaker::{Breaker, State};
use super::verdict::{self, Failed, Outcome};
use crate::clock::Clock;
use crate::config;
use crate::error::{Error, Reason};
use crate::http::client::{Client, Way};
use crate::http::slots::Slot;
use crate::llm::endpoint::Endpoint;
use crate::metrics::Metrics;

/// What a request starts with before anything was learnt: four bytes a token, the usual figure for English.
const BYTES_PER_TOKEN_MILLI: u64 = 4_000;

/// One upstream, with all that can be worked out beforehand.
#[derive(Debug)]
pub struct Upstream {
    pub(super) name: Arc<str>,
    pub(super) config: Arc<config::Upstream>,
    pub(super) health: Arc<Health>,
    addresses: Addresses,
    authorization: Option<HeaderValue>,
    outcomes: [IntCounter; Outcome::ALL.len()],
    pub(super) retries: IntCounter,
    wait: Histogram,
}

/// How an upstream has been lately. Kept over a reload that leaves its name and address.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) breaker: Breaker,
    clock: Clock,
    /// It asked to be left alone until then, in ms of the monotonic clock; 0: it did not.
    rests_until_ms: AtomicU64,
    /// Bytes of a request's body per prompt token, in thousandths: a moving average of what it told.
    bytes_per_token_milli: AtomicU64,
}

/// Why an upstream is not tried now, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Away {
    /// It asked for it.
    Rests(Duration),
    /// It keeps failing.
    Fails(Duration),
}

impl Health {
    fn new(name: &Arc<str>, clock: &Clock) -> Self {
        Self {
            breaker: Breaker::new(Arc::clone(name), clock.clone()),
            clock: clock.clone(),
            rests_until_ms: AtomicU64::new(0),
            bytes_per_token_milli: AtomicU64::new(BYTES_PER_TOKEN_MILLI),
        }
    }

    /// Why it is not to be tried now, if so.
    pub(super) fn away(&self) -> Option<Away> {
        let until = self.rests_until_ms.load(Ordering::Relaxed);
        if until > 0 {
            let wait_ms = until.saturating_sub(self.now_ms());
            if wait_ms > 0 {
                return Some(Away::Rests(Duration::from_millis(wait_ms)));
            }
        }
        self.breaker.wait().map(Away::Fails)
    }

    /// It asked to be left alone for so long. The later of two ends holds.
    pub(super) fn rest(&self, ms: u64) {
        self.rests_until_ms.fetch_max(self.now_ms().saturating_add(ms), Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Where each call goes.
#[derive(Debug)]
struct Addresses {
    chat: Uri,
    responses: Uri,
    completions: Uri,
    embeddings: Uri,
}

impl Addresses {
    fn below(base_url: &Uri) -> Result<Self, http::uri::InvalidUri> {
        let base_url = base_url.to_string();
        let base_url = base_url.trim_end_matches('/');
        let at = |endpoint: Endpoint| format!("{base_url}{}", endpoint.path()).parse();
        Ok(Self {
            chat: at(Endpoint::Chat)?,
            responses: at(Endpoint::Responses)?,
            completions: at(Endpoint::Completions)?,
            embeddings: at(Endpoint::Embeddings)?,
        })
    }

    fn of(&self, endpoint: Endpoint) -> &Uri {
        match endpoint {
            Endpoint::Chat => &self.chat,
            Endpoint::Responses => &self.responses,
            Endpoint::Completions => &self.completions,
            Endpoint::Embeddings => &self.embeddings,
        }
    }
}

impl Upstream {
    /// `before`: the upstream of this name until now, if there was one.
    pub(super) fn new(
        config: &Arc<config::Upstream>,
        clock: &Clock,
        metrics: &Metrics,
        before: Option<&Self>,
    ) -> Result<Self, Error> {
        let wrong = |what: &'static str| Error::new(Reason::Internal, what);
        let addresses = Addresses::below(&config.base_url)
            .map_err(|error| wrong("An upstream's base_url is not an address.").caused_by(error))?;
        let authorization = match &config.api_key {
            None => None,
            Some(key) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
                    .map_err(|_| wrong("An upstream's api_key holds characters that no header may hold."))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let name: Arc<str> = config.name.as_str().into();
        let metrics = &metrics.upstreams;
        let known = before.filter(|before| before.config.base_url == config.base_url);
        Ok(Self {
            health: known.map_or_else(|| Arc::new(Health::new(&name, clock)), |known| Arc::clone(&known.health)),
            addresses,
            authorization,
            outcomes: Outcome::ALL.map(|outcome| metrics.requests.with_label_values(&[&*name, outcome.as_str()])),
            retries: metrics.retries.with_label_values(&[&*name]),
            wait: metrics.wait.with_label_values(&[&*name]),
            config: Arc::clone(config),
            name,
        })
    }

    /// Its name, for logs.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether it is used now.
    pub fn state(&self) -> State {
        self.health.breaker.state()
    }

    /// What it calls the model that the client calls `model`.
    pub fn model<'a>(&'a self, model: &'a str) -> &'a str {
        self.config.aliases.get(model).map_or(model, String::as_str)
    }

    /// The field that carries an output limit to it.
    pub fn limit_field(&self) -> &'static str {
        match self.config.limit_field {
            config::LimitField::MaxTokens => "max_tokens",
            config::LimitField::MaxCompletionTokens => "max_completion_tokens",
        }
    }

    pub(super) fn serves(&self, model: &str) -> bool {
        self.config.aliases.contains_key(model)
            || self.config.models.iter().any(|pattern| model_matches(pattern, model))
    }

    /// Prompt tokens that a body of this size will probably be.
    pub fn estimate(&self, body_bytes: usize) -> u64 {
        let per_token = self.health.bytes_per_token_milli.load(Ordering::Relaxed).max(1);
        (body_bytes as u64).saturating_mul(1000).div_ceil(per_token)
    }

    /// Learns from a call how many bytes a token is: an eighth of the difference.
    pub fn learn(&self, body_bytes: usize, input_tokens: u64) {
        if input_tokens < 16 {
            return;
        }
        let seen = (body_bytes as u64).saturating_mul(1000) / input_tokens;
        let now = self.health.bytes_per_token_milli.load(Ordering::Relaxed);
        // Between half a byte and 64 bytes: beyond is an upstream that lies, or images sent inline.
        let next = (now - now / 8 + seen / 8).clamp(500, 64_000);
        self.health.bytes_per_token_milli.store(next, Ordering::Relaxed);
    }

    /// Sends once and waits for the head of the answer, at most `wait`. Of the client's request only `body` goes
    /// along: address, key and headers are the operator's.
    pub(super) async fn ask(
        &self,
        client: &Client,
        slot: &Slot,
        endpoint: Endpoint,
        body: Bytes,
        wait: Duration,
    ) -> Result<Response<Incoming>, Failed> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.addresses.of(endpoint).clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("relais/", env!("CARGO_PKG_VERSION"))));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let sent = Instant::now();
        let way = Way { group: slot.group(), http2: self.config.http2 };
        let answered = client.send_by(way, request, wait).await;
        self.wait.observe(sent.elapsed().as_secs_f64());
        let judged = answered.map_err(verdict::no_answer).and_then(|response| {
            let outcome = verdict::judge(&response, self.health.clock.now_ms())?;
            Ok((response, outcome))
        });
        self.count(judged.as_ref().map_or_else(|failed| failed.outcome, |(_, outcome)| *outcome));
        judged.map(|(response, _)| response)
    }

    pub(super) fn count(&self, outcome: Outcome) {
        if let Some(counter) = self.outcomes.get(outcome as usize) {
            counter.inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(base_url: &str) -> Upstream {
        let config = config::Upstream {
            name: "one".into(),
            base_url: base_url.parse().unwrap(),
            api_key: None,
            models: vec!["*".into()],
            aliases: [].into(),
            priority: 0,
            weight: 1,
            limit_field: config::LimitField::MaxTokens,
            connections_max: 1,
            http2: false,
        };
        Upstream::new(&Arc::new(config), &Clock::manual(0), &Metrics::new().unwrap(), None).unwrap()
    }

    #[test]
    fn addresses_are_below_the_base() {
        for base_url in ["https://host.example/some/v1", "https://host.example/some/v1/"] {
            let addresses = upstream(base_url).addresses;
            for (endpoint, path) in [
                (Endpoint::Chat, "chat/completions"),
                (Endpoint::Responses, "responses"),
                (Endpoint::Completions, "completions"),
                (Endpoint::Embeddings, "embeddings"),
            ] {
                assert_eq!(addresses.of(endpoint).to_string(), format!("https://host.example/some/v1/{path}"));
            }
        }
    }

    #[test]
    fn an_estimate_follows_what_was_told() {
        let one = upstream("http://127.0.0.1:1/v1");
        assert_eq!(one.estimate(400), 100);
        for _ in 0..50 {
            one.learn(2_000, 1_000);
        }
        assert!((190..=200).contains(&one.estimate(400)), "{}", one.estimate(400));
        one.learn(usize::MAX, 16);
        one.learn(1, u64::MAX);
        assert!(one.estimate(400) >= 6);
    }

    #[test]
    fn of_two_rests_the_later_end_holds() {
        let clock = Clock::manual(0);
        let health = Health::new(&"one".into(), &clock);
        assert_eq!(health.away(), None);
        health.rest(2_000);
        health.rest(500);
        assert_eq!(health.away(), Some(Away::Rests(Duration::from_secs(2))));
        clock.advance(Duration::from_secs(2));
        assert_eq!(health.away(), None);
    }
}
