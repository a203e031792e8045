//! What an upstream's answer comes to, judged by its head: passed on, or a failure, and whether to try again.
//!
//! **A try that may have produced something is not repeated**: the operator would pay for two answers and the client
//! get one. So nothing follows a deadline (it may be generating) or a 2xx that we cannot use. A refused connection,
//! a connection that broke before the head, and the statuses by which servers say that they did nothing, may be
//! tried again; where only this one upstream is at fault (our key, its limit), elsewhere only.

use http::header::{CONTENT_ENCODING, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use jiff::fmt::rfc2822;

use super::breaker;
use crate::error::{Error, Reason, Retry};
use crate::http::client::SendError;

/// The longest that another's word makes us wait: ten minutes.
const REST_MS_MAX: u64 = 600_000;
/// What a client is told when the upstream named no time.
const BUSY_MS: u64 = 1_000;

/// A try that failed.
#[derive(Debug)]
pub(super) struct Failed {
    /// What the client is told, if this was the last.
    pub(super) error: Error,
    pub(super) outcome: Outcome,
    pub(super) again: Again,
    /// What it says of the upstream; `None`: nothing against it.
    pub(super) against: Option<breaker::Failure>,
    /// The upstream asked to be left alone for so long.
    pub(super) rest_ms: Option<u64>,
}

/// Where a failed call may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    Anywhere,
    Elsewhere,
    Nowhere,
}

/// A try, as the metric's `outcome`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    Refused,
    Busy,
    Full,
    Failed,
    Timeout,
}

impl Outcome {
    pub(super) const ALL: [Self; 6] = [Self::Ok, Self::Refused, Self::Busy, Self::Full, Self::Failed, Self::Timeout];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
        }
    }
}

impl Failed {
    fn new(error: Error, again: Again, against: breaker::Failure) -> Self {
        let outcome = if error.reason == Reason::UpstreamTimeout { Outcome::Timeout } else { Outcome::Failed };
        Self { error, outcome, again, against: Some(against), rest_ms: None }
    }
}

/// No head came.
pub(super) fn no_answer(error: SendError) -> Failed {
    let certain = breaker::Failure::Certain;
    let (reason, message, again) = match &error {
        SendError::Timeout(_) => (Reason::UpstreamTimeout, "The model did not answer in time.", Again::Nowhere),
        SendError::Connect(_) => (Reason::UpstreamFailed, "The model could not be reached.", Again::Anywhere),
        // Most often a kept connection that the other side was closing. If the answer's head was not HTTP we cannot
        // tell it from here; the budget bounds what that costs.
        SendError::Broken(_) => {
            (Reason::UpstreamFailed, "The connection to the model broke before an answer.", Again::Anywhere)
        }
    };
    Failed::new(Error::new(reason, message).caused_by(error), again, certain)
}

/// A head came. What may be passed on is a 2xx, or a refusal of the request itself, which is the client's to read.
pub(super) fn judge<B>(response: &Response<B>, now_ms: i64) -> Result<Outcome, Failed> {
    let (status, headers) = (response.status(), response.headers());
    let failed = |message: &'static str, again, against| {
        Err(Failed::new(Error::new(Reason::UpstreamFailed, message), again, against))
    };
    let (certain, doubtful) = (breaker::Failure::Certain, breaker::Failure::Doubtful);
    let rest_ms = retry_after_ms(headers, now_ms);
    match status.as_u16() {
        200..=299 | 400 | 404..=428 | 430..=499 if is_encoded(headers) => {
            failed("The model's answer came compressed, which was not asked for.", Again::Nowhere, certain)
        }
        200..=299 => Ok(Outcome::Ok),
        // Ours to mend: the client's key is not the one that was refused. A 403 may be about one model only.
        401 | 402 => failed("The model refused this gateway's own credentials.", Again::Elsewhere, certain),
        403 => failed("The model refused this gateway's own credentials.", Again::Elsewhere, doubtful),
        429 => Err(busy(rest_ms)),
        400..=499 => Ok(Outcome::Refused),
        300..=399 => failed("The model answered with a redirect, which is not followed.", Again::Elsewhere, certain),
        503 | 529 if rest_ms.is_some() => Err(Failed { against: Some(certain), ..busy(rest_ms) }),
        500 => Err(Failed::new(status_error(status), Again::Anywhere, doubtful)),
        // 529 is how some providers say that they have too much to do.
        502 | 503 | 504 | 529 => Err(Failed::new(status_error(status), Again::Anywhere, certain)),
        _ => Err(Failed::new(status_error(status), Again::Nowhere, doubtful)),
    }
}

fn status_error(status: StatusCode) -> Error {
    if status == StatusCode::GATEWAY_TIMEOUT {
        return Error::new(Reason::UpstreamTimeout, "The model's own gateway timed out.");
    }
    Error::new(Reason::UpstreamFailed, format!("The model failed with status {}.", status.as_u16()))
}

/// It says that it has too much to do. If it names a time it rests until then. If not it does not: some providers
/// answer 429 to a single request that is too large for them, and one client's must not keep out the others'.
fn busy(rest_ms: Option<u64>) -> Failed {
    let error = Error::new(Reason::UpstreamBusy, "The model is limiting this gateway. Try again later.")
        .retry(Retry::AfterMs(rest_ms.unwrap_or(BUSY_MS)));
    Failed { error, outcome: Outcome::Busy, again: Again::Elsewhere, against: None, rest_ms }
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Their wait: `retry-after-ms`, or `Retry-After` in seconds or as a date; at most ten minutes.
fn retry_after_ms(headers: &HeaderMap, now_ms: i64) -> Option<u64> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let exact = text("retry-after-ms").and_then(|value| value.parse::<u64>().ok());
    let ms = exact.or_else(|| {
        let value = text(RETRY_AFTER.as_str())?;
        match value.parse::<u64>() {
            Ok(seconds) => Some(seconds.saturating_mul(1_000)),
            Err(_) => {
                let until = rfc2822::parse(value).ok()?.timestamp().as_millisecond();
                Some(u64::try_from(until.saturating_sub(now_ms)).unwrap_or(0))
            }
        }
    })?;
    Some(ms.min(REST_MS_MAX)).filter(|ms| *ms > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use breaker::Failure::{Certain, Doubtful};

    /// 2026-11-10T00:00:00Z.
    const NOW_MS: i64 = 1_794_268_800_000;

    fn judged(status: u16, headers: &[(&'static str, &str)]) -> Result<Outcome, Failed> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        for (name, value) in headers {
            response.headers_mut().append(*name, value.parse().unwrap());
        }
        judge(&response, NOW_MS)
    }

    #[test]
    fn what_is_passed_on() {
        for status in [200, 201, 299] {
            assert_eq!(judged(status, &[("content-encoding", "Identity")]).unwrap(), Outcome::Ok);
        }
        for status in [400, 404, 405, 408, 409, 413, 422, 499] {
            assert_eq!(judged(status, &[]).unwrap(), Outcome::Refused, "{status}");
        }
    }

    #[test]
    fn what_is_a_failure_and_where_it_may_be_tried_again() {
        for (status, reason, again, against) in [
            (101, Reason::UpstreamFailed, Again::Nowhere, Doubtful),
            (300, Reason::UpstreamFailed, Again::Elsewhere, Certain),
            (307, Reason::UpstreamFailed, Again::Elsewhere, Certain),
            (401, Reason::UpstreamFailed, Again::Elsewhere, Certain),
            (402, Reason::UpstreamFailed, Again::Elsewhere, Certain),
            (403, Reason::UpstreamFailed, Again::Elsewhere, Doubtful),
            (500, Reason::UpstreamFailed, Again::Anywhere, Doubtful),
            (501, Reason::UpstreamFailed, Again::Nowhere, Doubtful),
            (502, Reason::UpstreamFailed, Again::Anywhere, Certain),
            (503, Reason::UpstreamFailed, Again::Anywhere, Certain),
            (504, Reason::UpstreamTimeout, Again::Anywhere, Certain),
            (524, Reason::UpstreamFailed, Again::Nowhere, Doubtful),
            (529, Reason::UpstreamFailed, Again::Anywhere, Certain),
            (999, Reason::UpstreamFailed, Again::Nowhere, Doubtful),
        ] {
            let failed = judged(status, &[]).unwrap_err();
            assert_eq!(
                (failed.error.reason, failed.again, failed.against, failed.rest_ms),
                (reason, again, Some(against), None),
                "{status}"
            );
        }
    }

    #[test]
    fn an_encoding_is_refused_in_any_spelling() {
        for headers in
            [&[("content-encoding", "gzip")][..], &[("content-encoding", "identity"), ("content-encoding", "BR")]]
        {
            for status in [200, 400, 404] {
                assert_eq!(judged(status, headers).unwrap_err().again, Again::Nowhere);
            }
        }
    }

    #[test]
    fn their_wait_is_understood_and_bounded() {
        for (headers, wanted) in [
            (&[("retry-after", "7")][..], Some(7_000)),
            (&[("retry-after", " 7 "), ("retry-after-ms", "250")], Some(250)),
            (&[("retry-after-ms", "soon"), ("retry-after", "2")], Some(2_000)),
            (&[("retry-after", "Tue, 10 Nov 2026 00:00:30 GMT")], Some(30_000)),
            (&[("retry-after", "Tue, 10 Nov 2020 00:00:30 GMT")], None),
            (&[("retry-after", "99999999999999999999")], None),
            (&[("retry-after", "18446744073709551615")], Some(REST_MS_MAX)),
            (&[("retry-after", "-1")], None),
            (&[("retry-after", "0")], None),
            (&[("retry-after", "whenever")], None),
            (&[], None),
        ] {
            let failed = judged(429, headers).unwrap_err();
            assert_eq!((failed.rest_ms, failed.against), (wanted, None), "{headers:?}");
            assert_eq!(failed.error.retry, Some(Retry::AfterMs(wanted.unwrap_or(BUSY_MS))));
            assert_eq!(failed.error.reason, Reason::UpstreamBusy);
        }
        let failed = judged(503, &[("retry-after", "3")]).unwrap_err();
        assert_eq!((failed.rest_ms, failed.against), (Some(3_000), Some(Certain)));
    }
}
