//! Which pages of a browser may call the API and read its answers. Off unless origins are configured: without these
//! headers a browser keeps every page out.
//!
//! The key is sent by the page itself, as a header; no cookie and no login of the browser counts here, so nothing is
//! allowed "with credentials".

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue};

use crate::config::Cors;

/// What a page may read of an answer beside its body: everything that we put into it.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, \
     x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, ratelimit-policy, ratelimit, \
     retry-after, retry-after-ms, x-should-retry",
);
/// How long a browser may remember a preflight: Chromium's own ceiling, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// What the answer to one request tells a browser.
#[derive(Debug)]
pub(super) struct CrossOrigin {
    /// The page is allowed: who it is, or `*`.
    allowed: Option<HeaderValue>,
    /// The answer depends on who asks, so no cache may hand it to another.
    varies: bool,
    preflight: bool,
    wanted_headers: Option<HeaderValue>,
}

impl CrossOrigin {
    /// Reads a request's headers. `None`: not configured, nothing is said.
    pub(super) fn of(cors: &Cors, headers: &HeaderMap) -> Option<Self> {
        if cors.origins.is_empty() {
            return None;
        }
        let anyone = cors.origins.iter().any(|origin| origin == "*");
        let origin = headers.get(ORIGIN);
        let allowed = match origin {
            Some(_) if anyone => Some(HeaderValue::from_static("*")),
            Some(origin) => {
                cors.origins.iter().any(|known| known.as_bytes() == origin.as_bytes()).then(|| origin.clone())
            }
            None => None,
        };
        Some(Self {
            allowed,
            varies: !anyone,
            preflight: origin.is_some() && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD),
            wanted_headers: headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned(),
        })
    }

    /// Writes what the browser has to know; `methods` are those of the route.
    pub(super) fn write(self, methods: &HeaderValue, headers: &mut HeaderMap) {
        if self.varies {
            headers.append(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(allowed) = self.allowed else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if !self.preflight {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            return;
        }
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
        headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        // SDKs send headers of their own, each another set. None of them means anything here, so all may come.
        if let Some(wanted) = self.wanted_headers {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
            headers.append(VARY, HeaderValue::from_static("Access-Control-Request-Headers"));
        }
    }
}
