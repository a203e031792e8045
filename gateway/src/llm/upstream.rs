//! Who answers a model's name, and sending it there.
//!
//! What can be worked out once per upstream is: addresses, the authorisation header, metric handles. Choosing is
//! by the operator's list alone; nothing a client sends can name a host, a key or a path. Answers are bounded and
//! checked before a byte of them reaches a client: redirects, encodings we did not ask for and refusals of our
//! own key are the upstream's failure, not the client's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus::IntCounter;
use relais_policies::limit::model_matches;
use secrecy::ExposeSecret as _;

use crate::config;
use crate::error::{Error, Reason, Retry};
use crate::http::client::{Client, SendError};
use crate::llm::endpoint::Endpoint;
use crate::metrics::Metrics;

/// The models we can reach.
#[derive(Debug)]
pub struct Upstreams {
    /// In the order they are preferred.
    list: Vec<Arc<Upstream>>,
}

/// One upstream, with all that can be worked out beforehand.
#[derive(Debug)]
pub struct Upstream {
    name: Arc<str>,
    config: Arc<config::Upstream>,
    addresses: [Uri; 4],
    authorization: Option<HeaderValue>,
    /// Bytes of a request's body per prompt token, in thousandths: a moving average of what it told.
    bytes_per_token_milli: AtomicU64,
    ok: IntCounter,
    refused: IntCounter,
    busy: IntCounter,
    failed: IntCounter,
    timeout: IntCounter,
}

/// What a request starts with before anything was learnt: four bytes a token, the usual figure for English.
const BYTES_PER_TOKEN_MILLI: u64 = 4_000;

impl Upstreams {
    /// Prepares the configured upstreams.
    pub fn new(configured: &[Arc<config::Upstream>], metrics: &Metrics) -> Result<Self, Error> {
        let mut list = configured
            .iter()
            .map(|upstream| Upstream::new(upstream, metrics).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        // Stable: the file's order decides among equals.
        list.sort_by_key(|upstream| upstream.config.priority);
        Ok(Self { list })
    }

    /// Who serves this model.
    pub fn choose(&self, model: &str) -> Option<&Arc<Upstream>> {
        self.list.iter().find(|upstream| upstream.serves(model))
    }

    /// The models that are named, for `/v1/models`: exact names and aliases, each with its upstream's name.
    pub fn named_models(&self) -> Vec<(&str, &str)> {
        let mut models: Vec<(&str, &str)> = self
            .list
            .iter()
            .flat_map(|upstream| {
                let exact = upstream.config.models.iter().map(String::as_str).filter(|model| !model.ends_with('*'));
                let aliases = upstream.config.aliases.keys().map(String::as_str);
                exact.chain(aliases).map(|model| (model, &**upstream.name()))
            })
            .collect();
        models.sort_unstable();
        models.dedup_by_key(|(model, _)| *model);
        models
    }
}

impl Upstream {
    fn new(config: &Arc<config::Upstream>, metrics: &Metrics) -> Result<Self, Error> {
        let wrong = |what: &'static str| Error::new(Reason::Internal, what);
        let base = config.base_url.to_string();
        let address = |endpoint: Endpoint| {
            format!("{}{}", base.trim_end_matches('/'), endpoint.path())
                .parse::<Uri>()
                .map_err(|error| wrong("An upstream's base_url is not an address.").caused_by(error))
        };
        let addresses = [
            address(Endpoint::Chat)?,
            address(Endpoint::Responses)?,
            address(Endpoint::Completions)?,
            address(Endpoint::Embeddings)?,
        ];
        let authorization = match &config.api_key {
            None => None,
            Some(key) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret()))
                    .map_err(|_| wrong("An upstream's api_key holds characters that no header may hold."))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let counter = |outcome| metrics.upstream_requests.with_label_values(&[config.name.as_str(), outcome]);
        Ok(Self {
            name: config.name.as_str().into(),
            addresses,
            authorization,
            bytes_per_token_milli: AtomicU64::new(BYTES_PER_TOKEN_MILLI),
            ok: counter("ok"),
            refused: counter("refused"),
            busy: counter("busy"),
            failed: counter("failed"),
            timeout: counter("timeout"),
            config: Arc::clone(config),
        })
    }

    /// Its name, for logs.
    pub fn name(&self) -> &Arc<str> {
        &self.name
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

    fn serves(&self, model: &str) -> bool {
        self.config.aliases.contains_key(model)
            || self.config.models.iter().any(|pattern| model_matches(pattern, model))
    }

    /// Prompt tokens that a body of this size will probably be.
    pub fn estimate(&self, body_bytes: usize) -> u64 {
        let per_token = self.bytes_per_token_milli.load(Ordering::Relaxed).max(1);
        (body_bytes as u64).saturating_mul(1000).div_ceil(per_token)
    }

    /// Learns from a call how many bytes a token is: an eighth of the difference.
    pub fn learn(&self, body_bytes: usize, input_tokens: u64) {
        if input_tokens < 16 {
            return;
        }
        let seen = (body_bytes as u64).saturating_mul(1000) / input_tokens;
        let now = self.bytes_per_token_milli.load(Ordering::Relaxed);
        // Between half a byte and 64 bytes: beyond is an upstream that lies, or images sent inline.
        let next = (now - now / 8 + seen / 8).clamp(500, 64_000);
        self.bytes_per_token_milli.store(next, Ordering::Relaxed);
    }

    fn address(&self, endpoint: Endpoint) -> &Uri {
        let [chat, responses, completions, embeddings] = &self.addresses;
        match endpoint {
            Endpoint::Chat => chat,
            Endpoint::Responses => responses,
            Endpoint::Completions => completions,
            Endpoint::Embeddings => embeddings,
        }
    }

    /// Sends a call and waits for the head of the answer. An answer that comes back is a 2xx, or a refusal of the
    /// request itself, which is the client's to read.
    pub async fn send(
        &self,
        client: &Client,
        endpoint: Endpoint,
        body: Bytes,
        wait: Duration,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.address(endpoint).clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("relais/", env!("CARGO_PKG_VERSION"))));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        match client.send(request, wait).await {
            Ok(response) => self.judge(response),
            Err(error @ SendError::Timeout(_)) => {
                self.timeout.inc();
                Err(Error::new(Reason::UpstreamTimeout, "The model did not answer in time.").caused_by(error))
            }
            Err(error) => {
                self.failed.inc();
                Err(Error::new(Reason::UpstreamFailed, "The model could not be reached.").caused_by(error))
            }
        }
    }

    fn judge(&self, response: Response<Incoming>) -> Result<Response<Incoming>, Error> {
        let status = response.status();
        let headers = response.headers();
        if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            self.failed.inc();
            return Err(Error::new(
                Reason::UpstreamFailed,
                "The model's answer came compressed, which was not asked for.",
            ));
        }
        match status {
            _ if status.is_success() => {
                self.ok.inc();
                Ok(response)
            }
            StatusCode::TOO_MANY_REQUESTS => {
                self.busy.inc();
                let error = Error::new(Reason::UpstreamBusy, "The model is limiting this gateway. Try again later.");
                Err(error.retry(Retry::AfterMs(retry_after_ms(headers).unwrap_or(1_000))))
            }
            // Ours to mend: the client's key is not the one that was refused.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PAYMENT_REQUIRED => {
                self.failed.inc();
                Err(Error::new(Reason::UpstreamFailed, "The model refused this gateway's own credentials."))
            }
            _ if status.is_client_error() => {
                self.refused.inc();
                Ok(response)
            }
            _ => {
                self.failed.inc();
                Err(Error::new(Reason::UpstreamFailed, format!("The model failed with status {}.", status.as_u16())))
            }
        }
    }
}

/// Their wait: `retry-after-ms`, or `Retry-After` in seconds, at most ten minutes. A date is not worth parsing.
fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    number("retry-after-ms")
        .or_else(|| number(RETRY_AFTER.as_str()).map(|seconds| seconds.saturating_mul(1000)))
        .map(|ms| ms.min(600_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(name: &str, models: &[&str], priority: u32) -> Arc<config::Upstream> {
        Arc::new(config::Upstream {
            name: name.into(),
            base_url: "http://127.0.0.1:1/v1".parse().unwrap(),
            api_key: None,
            models: models.iter().map(|model| (*model).into()).collect(),
            aliases: [("alias".to_owned(), format!("{name}-real"))].into(),
            priority,
            weight: 1,
            limit_field: config::LimitField::MaxTokens,
            connections_max: 1,
        })
    }

    #[test]
    fn the_operator_s_list_chooses() {
        let metrics = Metrics::new().unwrap();
        let upstreams =
            Upstreams::new(&[upstream("all", &["*"], 1), upstream("first", &["gpt-*", "x"], 0)], &metrics).unwrap();
        for (model, name) in [("gpt-4o", "first"), ("x", "first"), ("xx", "all"), ("alias", "first")] {
            assert_eq!(upstreams.choose(model).unwrap().name().as_ref(), name, "{model}");
        }
        assert_eq!(upstreams.choose("alias").unwrap().model("alias"), "first-real");
        assert_eq!(upstreams.named_models(), [("alias", "all"), ("x", "first")]);
    }

    #[test]
    fn an_estimate_follows_what_was_told() {
        let metrics = Metrics::new().unwrap();
        let one = Upstream::new(&upstream("one", &["*"], 0), &metrics).unwrap();
        assert_eq!(one.estimate(400), 100);
        for _ in 0..50 {
            one.learn(2_000, 1_000);
        }
        assert!((190..=200).contains(&one.estimate(400)), "{}", one.estimate(400));
        one.learn(usize::MAX, 16);
        one.learn(1, u64::MAX);
        assert!(one.estimate(400) >= 6);
    }
}
