//! What a tenant has left, and the response headers that say it.
//!
//! Three sets of names for the same figures: OpenAI's `x-ratelimit-*` (its SDKs and many dashboards read
//! them), and the IETF pair `RateLimit-Policy` / `RateLimit` (draft 11), which can tell more than one limit.
//! The figures are those that are enforced, read under the same lock as the decision.

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

/// One limit: how much, how much is left, and when it is whole again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// How much in all.
    pub limit: u64,
    /// How much is left.
    pub remaining: u64,
    /// ms until it is whole again if nothing more is used.
    pub reset_ms: u64,
}

/// Every limit a call met. `None`: unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Calls per minute: the tighter of the tenant's and the key's.
    pub minute: Option<Window>,
    /// Calls per month.
    pub calls: Option<Window>,
    /// Budget tokens in this period, packs included.
    pub tokens: Option<Window>,
}

const LIMIT_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");
const LIMIT_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-limit-tokens");
const REMAINING_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-tokens");
const RESET_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-reset-tokens");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The month's length in the policy header: its windows are billing months, told as 30 days.
const MONTH_SECONDS: u64 = 30 * 86_400;

impl Standing {
    /// Writes the headers. `requests` are the calls per minute or, without such a limit, per month.
    pub fn write(&self, headers: &mut HeaderMap) {
        let mut text = Text::new();
        if let Some(requests) = self.minute.or(self.calls) {
            headers.insert(LIMIT_REQUESTS, HeaderValue::from(requests.limit));
            headers.insert(REMAINING_REQUESTS, HeaderValue::from(requests.remaining));
            headers.insert(RESET_REQUESTS, text.duration(requests.reset_ms));
        }
        if let Some(tokens) = self.tokens {
            headers.insert(LIMIT_TOKENS, HeaderValue::from(tokens.limit));
            headers.insert(REMAINING_TOKENS, HeaderValue::from(tokens.remaining));
            headers.insert(RESET_TOKENS, text.duration(tokens.reset_ms));
        }
        let named =
            [("minute", 60, self.minute), ("calls", MONTH_SECONDS, self.calls), ("tokens", MONTH_SECONDS, self.tokens)];
        text.clear();
        for (name, seconds, window) in named {
            let Some(window) = window else { continue };
            text.item(name);
            text.field(";q=", window.limit);
            text.field(";w=", seconds);
        }
        if let Some(value) = text.value() {
            headers.insert(RATELIMIT_POLICY, value);
        }
        text.clear();
        for (name, _, window) in named {
            let Some(window) = window else { continue };
            text.item(name);
            text.field(";r=", window.remaining);
            text.field(";t=", window.reset_ms.div_ceil(1000));
        }
        if let Some(value) = text.value() {
            headers.insert(RATELIMIT, value);
        }
    }
}

/// A header's value, built in one buffer.
struct Text(String);

impl Text {
    fn new() -> Self {
        Self(String::with_capacity(160))
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn item(&mut self, name: &str) {
        if !self.0.is_empty() {
            self.0.push_str(", ");
        }
        self.0.push('"');
        self.0.push_str(name);
        self.0.push('"');
    }

    fn field(&mut self, name: &str, value: u64) {
        self.0.push_str(name);
        self.number(value);
    }

    fn number(&mut self, value: u64) {
        let mut digits = [b'0'; 20];
        let mut rest = value;
        let mut used = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
            used += 1;
            if rest == 0 {
                break;
            }
        }
        self.0.push_str(digits.get(20 - used..).and_then(|digits| std::str::from_utf8(digits).ok()).unwrap_or("0"));
    }

    fn value(&self) -> Option<HeaderValue> {
        (!self.0.is_empty()).then(|| HeaderValue::from_str(&self.0).ok()).flatten()
    }

    /// As OpenAI writes them: `120ms`, `1.5s`, `6m0s`, `26h3m0s`.
    fn duration(&mut self, ms: u64) -> HeaderValue {
        self.clear();
        if ms < 1000 {
            self.number(ms);
            self.0.push_str("ms");
        } else {
            let seconds = ms.div_ceil(1000);
            let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
            if hours > 0 {
                self.number(hours);
                self.0.push('h');
            }
            if hours > 0 || minutes > 0 {
                self.number(minutes);
                self.0.push('m');
            }
            self.number(seconds);
            self.0.push('s');
        }
        HeaderValue::from_str(&self.0).unwrap_or(HeaderValue::from_static("0ms"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_openai_writes_them() {
        for (ms, expected) in [(0, "0ms"), (999, "999ms"), (1_001, "2s"), (60_000, "1m0s"), (93_784_000, "26h3m4s")] {
            assert_eq!(Text::new().duration(ms), expected);
        }
    }

    #[test]
    fn every_limit_is_told_in_each_language() {
        let standing = Standing {
            minute: Some(Window { limit: 100, remaining: 99, reset_ms: 600 }),
            calls: Some(Window { limit: 1_000_000, remaining: 999_999, reset_ms: 1_000 }),
            tokens: Some(Window { limit: 20_000, remaining: 12_345, reset_ms: 86_400_000 }),
        };
        let mut headers = HeaderMap::new();
        standing.write(&mut headers);
        assert_eq!(headers["x-ratelimit-limit-requests"], "100");
        assert_eq!(headers["x-ratelimit-remaining-requests"], "99");
        assert_eq!(headers["x-ratelimit-reset-requests"], "600ms");
        assert_eq!(headers["x-ratelimit-remaining-tokens"], "12345");
        assert_eq!(headers["x-ratelimit-reset-tokens"], "24h0m0s");
        assert_eq!(
            headers["ratelimit-policy"],
            r#""minute";q=100;w=60, "calls";q=1000000;w=2592000, "tokens";q=20000;w=2592000"#
        );
        assert_eq!(headers["ratelimit"], r#""minute";r=99;t=1, "calls";r=999999;t=1, "tokens";r=12345;t=86400"#);
    }

    #[test]
    fn unlimited_is_silence() {
        let mut headers = HeaderMap::new();
        Standing::default().write(&mut headers);
        assert!(headers.is_empty());
    }
}
