//! The one error at the edge: why a request is not served, whose fault that is, and what we may tell.
//!
//! Every handler ends in a reply or in an [`Error`]. The *reason* is the metric label and the `code` a
//! client reads; the *fault* says where an operator should look; the public message is written for the
//! person who made the request and holds nothing secret. What went wrong inside travels as the source and
//! is logged once, where the error becomes a response.
//!
//! It does not choose a status: the same reason is one status for `/v1` and another for Chatwoot, and both
//! tables stand in `http::respond`.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The caller has to change something, pay, or wait.
    Client,
    /// What stands behind us failed.
    Upstream,
    /// We failed.
    Gateway,
}

impl Fault {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $fault:ident;)*) => {
        /// Why a request is not served. The list is closed, so it can be a metric label.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word a client reads as `code` and Prometheus as `reason`.
            pub fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// Whose fault it is.
            pub fn fault(self) -> Fault {
                match self { $(Self::$name => Fault::$fault,)* }
            }
        }
    };
}

reasons! {
    /// No key, an unknown key or a wrong secret: never told apart.
    BadKey = "invalid_api_key", Client;
    /// A webhook that does not verify: unknown tenant or channel, wrong, stale or missing signature, never told apart.
    BadSignature = "bad_signature", Client;
    /// The tenant is suspended.
    PaymentRequired = "payment_required", Client;
    /// The plan has no such feature.
    FeatureNotInPlan = "feature_not_in_plan", Client;
    /// The key or plan may not use this model.
    ModelNotAllowed = "model_not_allowed", Client;
    /// No such address.
    UnknownRoute = "unknown_route", Client;
    /// The address exists, the method does not.
    MethodNotAllowed = "method_not_allowed", Client;
    /// No upstream serves this model.
    UnknownModel = "model_not_found", Client;
    /// The request cannot be read.
    Malformed = "invalid_request", Client;
    /// The body is over the limit.
    TooLarge = "request_too_large", Client;
    /// The body did not arrive in time.
    BodyTimeout = "request_timeout", Client;
    /// Asked for something we do not do.
    Unsupported = "unsupported_parameter", Client;
    /// Calls per minute used up.
    RateLimited = "rate_limited", Client;
    /// Too many calls at once.
    TooManyInFlight = "too_many_in_flight", Client;
    /// Monthly calls used up.
    CallsUsedUp = "quota_exceeded", Client;
    /// Token budget used up.
    TokensUsedUp = "token_budget_exhausted", Client;
    /// This gateway has no room now.
    Overloaded = "overloaded", Gateway;
    /// This gateway is stopping.
    Draining = "draining", Gateway;
    /// The disk does not take what must be durable.
    Disk = "storage_unavailable", Gateway;
    /// The upstream did not answer in time.
    UpstreamTimeout = "upstream_timeout", Upstream;
    /// The upstream cannot be reached or answered nonsense.
    UpstreamFailed = "upstream_failed", Upstream;
    /// The upstream is limiting us.
    UpstreamBusy = "upstream_busy", Upstream;
    /// A bug of ours.
    Internal = "internal_error", Gateway;
}

/// When the caller may come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// After this many ms.
    AfterMs(u64),
    /// Not by itself: something has to change first, or a period has to end (told in the reset headers).
    Never,
}

/// Why a request is not served.
#[derive(Debug)]
pub struct Error {
    /// The reason: metric label and `code`.
    pub reason: Reason,
    /// Written for the caller. Holds no secret and nothing of the request's text.
    pub message: Cow<'static, str>,
    /// The request's field at fault, as OpenAI's `param`.
    pub param: Option<&'static str>,
    /// When to come back, where that can be said.
    pub retry: Option<Retry>,
    /// What went wrong inside.
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure with a message for the caller.
    pub fn new(reason: Reason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, message: message.into(), param: None, retry: None, source: None }
    }

    /// Names the field at fault.
    #[must_use]
    pub fn param(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    /// Says when to come back.
    #[must_use]
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = Some(retry);
        self
    }

    /// Keeps the cause, for the log.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The causes, joined, for the one log line.
    pub fn causes(&self) -> String {
        self.source.as_deref().map(|source| chain(source)).unwrap_or_default()
    }
}

/// An error with its causes, for one log line.
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_words() {
        let mut codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Reason::ALL.len());
    }

    #[test]
    fn the_chain_is_joined_once() {
        let inner = std::io::Error::other("the socket closed");
        let error = Error::new(Reason::UpstreamFailed, "The model could not be reached.").caused_by(inner);
        assert_eq!(error.to_string(), "The model could not be reached.");
        assert_eq!(error.causes(), "the socket closed");
    }
}
