//! The refusals: which limit, in words for the caller, what is left, and when to come back.
//!
//! A refusal is an outcome, not a failure: it is not logged as an error and has cost nothing.

use std::borrow::Cow;
use std::time::Duration;

use crate::admission::books::Books;
use crate::admission::{KeySlot, Standing, Window};
use crate::clock::Clock;
use crate::error::{Error, Reason, Retry};

/// A refusal: which limit, what is left, when to come back.
#[derive(Debug)]
pub struct Denied {
    /// Which limit.
    pub reason: Reason,
    /// For the caller.
    pub message: Cow<'static, str>,
    /// When to come back.
    pub retry: Retry,
    /// What is left of every limit.
    pub standing: Standing,
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        Error::new(denied.reason, denied.message).retry(denied.retry)
    }
}

impl Books {
    pub(super) fn too_many_in_flight(&self, slot: KeySlot, clock: &Clock) -> Denied {
        Denied {
            reason: Reason::TooManyInFlight,
            message: Cow::Borrowed("Too many calls at once: wait for one to end."),
            // One of the running calls has to end; nobody knows when. A second is what SDKs wait at first.
            retry: Retry::AfterMs(1_000),
            standing: self.standing(slot, self.look(slot), clock),
        }
    }

    pub(super) fn rate_limited(&self, slot: KeySlot, window: Window, wait: Duration, clock: &Clock) -> Denied {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
        Denied {
            reason: Reason::RateLimited,
            message: Cow::Owned(format!(
                "Calls per minute used up (limit {}). Try again in {} ms.",
                window.limit, wait_ms
            )),
            retry: Retry::AfterMs(wait_ms),
            standing: self.standing(slot, Some(window), clock),
        }
    }

    pub(super) fn calls_used_up(&self, slot: KeySlot, clock: &Clock) -> Denied {
        Denied {
            reason: Reason::CallsUsedUp,
            message: Cow::Borrowed("The month's calls are used up. They start again with the next billing period."),
            retry: Retry::Never,
            standing: self.standing(slot, self.look(slot), clock),
        }
    }

    pub(super) fn tokens_used_up(&self, slot: KeySlot, clock: &Clock) -> Denied {
        Denied {
            reason: Reason::TokensUsedUp,
            message: Cow::Borrowed(
                "The token budget does not cover this call. It is renewed with the next billing period; a token pack adds to it at once.",
            ),
            retry: Retry::Never,
            standing: self.standing(slot, self.look(slot), clock),
        }
    }

    pub(super) fn not_recorded(&self, slot: KeySlot, clock: &Clock) -> Denied {
        Denied {
            reason: Reason::Disk,
            message: Cow::Borrowed("What calls use cannot be recorded at the moment. Try again soon."),
            // The ledger tries again every second.
            retry: Retry::AfterMs(1_000),
            standing: self.standing(slot, self.look(slot), clock),
        }
    }
}

/// A permit is consumed by its reservation, so this is never said; it is an answer rather than a panic.
pub(super) fn spent_permit(standing: Standing) -> Denied {
    Denied {
        reason: Reason::Internal,
        message: Cow::Borrowed("The call was reserved for twice."),
        retry: Retry::Never,
        standing,
    }
}
