//! A lot: tokens from one source, with a place in the spend order and a time to live.
//!
//! What a lot still has is never stored. It is its limit less what was spent from it and what
//! running calls hold of it, so there is no second figure to disagree with the first.

use std::cmp::Ordering;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limit::Limit;
use crate::period::Period;

/// Names a lot inside one wallet. Zero names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LotId(pub u64);

/// Where a lot comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LotKind {
    /// Comes with a plan.
    Grant,
    /// A gift.
    Promo,
    /// Bought.
    Pack,
    /// Put right by an operator.
    Adjustment,
}

/// Tokens to be credited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLot {
    /// Where it comes from.
    pub kind: LotKind,
    /// Budget tokens.
    pub granted: u64,
    /// Lower is spent first. Default by kind: grant 10, promo and adjustment 20, pack 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// From when it may be spent, Unix milliseconds. Default: at once. In a file `effective_at`,
    /// as text such as `"2026-01-31T00:00:00Z"`.
    #[serde(rename = "effective_at", default, with = "instant", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub effective_at_ms: Option<i64>,
    /// Until when it may be spent, Unix milliseconds, exclusive. Default: for ever. In a file
    /// `expires_at`, as text.
    #[serde(rename = "expires_at", default, with = "instant", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub expires_at_ms: Option<i64>,
    /// What it was credited for, unique in the wallet: crediting it again changes nothing.
    pub source: String,
}

/// Where a lot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not effective yet: neither granted nor available.
    Pending,
    /// May be spent.
    Open,
    /// Past its time: only calls that hold a part of it may still spend that part.
    Expired,
    /// Taken back: what calls still hold of it will be owed.
    Refunded,
}

/// A lot in a wallet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lot {
    /// Its name in this wallet.
    pub id: LotId,
    /// Where it comes from.
    pub kind: LotKind,
    /// Tokens it allows. Only the monthly grant may be unlimited, or change.
    pub limit: Limit,
    /// Lower is spent first.
    pub priority: u8,
    /// From when it may be spent, Unix milliseconds.
    pub effective_at_ms: i64,
    /// Until when it may be spent, Unix milliseconds, exclusive; `None`: for ever.
    pub expires_at_ms: Option<i64>,
    /// What it was credited for.
    pub source: String,
    /// Whether it is the plan's grant for one period.
    pub monthly: bool,
    /// Where it is in its life.
    pub phase: Phase,
    /// Tokens spent from it.
    pub spent: u64,
    /// Tokens of it that running calls hold.
    pub reserved: u64,
    /// Those of `reserved` whose calls did not live through a restart.
    #[serde(skip)]
    pub(super) orphaned: u64,
}

impl LotKind {
    /// The priority of this kind unless a lot says otherwise.
    pub fn priority(self) -> u8 {
        match self {
            LotKind::Grant => 10,
            LotKind::Promo | LotKind::Adjustment => 20,
            LotKind::Pack => 30,
        }
    }
}

impl Lot {
    /// Spent and held. Cannot overflow: every draw is bounded by [`Lot::available`].
    pub(super) fn used(&self) -> u64 {
        self.spent.saturating_add(self.reserved)
    }

    /// Tokens that may be drawn now. An unlimited lot gives until its count is full.
    pub fn available(&self) -> u64 {
        match (self.phase, self.limit) {
            (Phase::Open, Limit::AtMost(limit)) => limit.saturating_sub(self.used()),
            (Phase::Open, Limit::Unlimited) => u64::MAX - self.used(),
            (Phase::Pending | Phase::Expired | Phase::Refunded, _) => 0,
        }
    }

    /// Tokens granted so far: the limit, or what was used where that is more (the limit came
    /// down later) or where there is no limit.
    pub fn granted(&self) -> u64 {
        match (self.phase, self.limit) {
            (Phase::Pending, _) => 0,
            (_, Limit::AtMost(limit)) => limit.max(self.used()),
            (_, Limit::Unlimited) => self.used(),
        }
    }

    /// Tokens lost by time.
    pub fn expired(&self) -> u64 {
        match (self.phase, self.limit) {
            (Phase::Expired, Limit::AtMost(limit)) => limit.saturating_sub(self.used()),
            _ => 0,
        }
    }

    /// Whether its time and the period share an instant.
    pub(super) fn overlaps(&self, period: &Period) -> bool {
        self.effective_at_ms < period.end_ms && self.expires_at_ms.is_none_or(|end_ms| period.start_ms < end_ms)
    }

    /// Whether more is used than the limit now allows.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.limit, Limit::AtMost(limit) if self.used() > limit)
    }

    /// Whether nothing can happen to it any more, a refund apart.
    pub(super) fn is_done(&self) -> bool {
        self.reserved == 0
            && match self.phase {
                Phase::Pending => false,
                Phase::Open => !self.monthly && self.available() == 0,
                Phase::Expired | Phase::Refunded => true,
            }
    }

    /// The spend order: lower priority, then earlier expiry (none last), then older. The source
    /// decides between equals, so the order in which lots arrive never does.
    pub(super) fn spend_order(&self, other: &Lot) -> Ordering {
        let expiry = |lot: &Lot| (lot.expires_at_ms.is_none(), lot.expires_at_ms);
        self.priority
            .cmp(&other.priority)
            .then_with(|| expiry(self).cmp(&expiry(other)))
            .then_with(|| self.effective_at_ms.cmp(&other.effective_at_ms))
            .then_with(|| self.source.cmp(&other.source))
    }
}

/// An instant as RFC 3339 text in files, Unix milliseconds in memory.
mod instant {
    use super::{Deserializer, InstantVisitor, Serializer, Timestamp};

    // The signature is serde's: `with` hands over a reference to the field.
    pub(super) fn serialize<S: Serializer>(instant_ms: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
        match instant_ms.map(|ms| (ms, Timestamp::from_millisecond(ms))) {
            Some((_, Ok(instant))) => serializer.collect_str(&instant),
            Some((ms, Err(_beyond_the_calendar))) => serializer.serialize_i64(ms),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
        deserializer.deserialize_any(InstantVisitor).map(Some)
    }
}

struct InstantVisitor;

impl de::Visitor<'_> for InstantVisitor {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an instant such as \"2026-01-31T00:00:00Z\", or Unix milliseconds")
    }

    fn visit_i64<E: de::Error>(self, instant_ms: i64) -> Result<i64, E> {
        Ok(instant_ms)
    }

    fn visit_u64<E: de::Error>(self, instant_ms: u64) -> Result<i64, E> {
        i64::try_from(instant_ms).map_err(|_too_large| E::invalid_value(de::Unexpected::Unsigned(instant_ms), &self))
    }

    fn visit_str<E: de::Error>(self, instant: &str) -> Result<i64, E> {
        match instant.parse::<Timestamp>() {
            Ok(parsed) => Ok(parsed.as_millisecond()),
            Err(_unreadable) => Err(E::invalid_value(de::Unexpected::Str(instant), &self)),
        }
    }
}
