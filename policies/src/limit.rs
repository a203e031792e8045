//! How much of something is allowed: one limit, the set of them a tenant has, and changes to it.
//!
//! A limit is a whole number or *unlimited*, and the two are different things all the way down:
//! "no limit" is never a zero and never a very large number, so nothing can overflow into it or
//! be compared with it by accident. The field names of [`Limits`] and [`Overrides`] are the keys
//! of the configuration file and of the synced policies, word for word.
//!
//! Counting what is used is not done here: see [`crate::meter`] and [`crate::wallet`].

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::plan::Feature;
use crate::shadow::Shadow;

/// The word that stands for [`Limit::Unlimited`] in files and messages.
const UNLIMITED: &str = "unlimited";

/// An upper bound, in whatever unit the field it stands in names.
///
/// Written as an integer or as the string `"unlimited"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// This many and no more. Zero means none at all.
    AtMost(u64),
    /// No bound.
    Unlimited,
}

/// How near a count is to its limit: what operators are told at 80 and 100 per cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AlertLevel {
    /// Under 80 per cent.
    Quiet,
    /// 80 per cent or more.
    Near,
    /// All of it.
    Reached,
}

/// Every limit a tenant has, after plans and overrides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Budget tokens granted each billing month.
    pub tokens_per_month: Limit,
    /// `/v1` calls admitted each billing month.
    pub calls_per_month: Limit,
    /// `/v1` calls admitted each minute.
    pub calls_per_minute: Limit,
    /// `/v1` calls running at one time.
    pub calls_in_flight: Limit,
    /// Budget tokens one call may spend.
    pub tokens_per_call: Limit,
    /// Conversations the AI agent may answer each billing month on a managed channel.
    pub conversations_per_month: Limit,
    /// Human seats on a managed channel.
    pub seats: Limit,
    /// Conversation threads kept.
    pub threads: Limit,
    /// Storage, in gigabytes.
    pub storage_gb: Limit,
    /// AI agents of the catalogue one may use; a tenant's own come on top (`custom_agents`).
    pub agents: Limit,
}

/// Limits of one API key, below its tenant's. `Unlimited`: the tenant's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLimits {
    /// Calls admitted each minute.
    pub calls_per_minute: Limit,
    /// Calls admitted each billing month.
    pub calls_per_month: Limit,
    /// Calls running at one time.
    pub calls_in_flight: Limit,
    /// Budget tokens each billing month.
    pub tokens_per_month: Limit,
    /// Budget tokens one call may spend.
    pub tokens_per_call: Limit,
    /// Those of the key's own limits that are counted and not enforced.
    pub shadow: Shadow,
}

impl KeyLimits {
    /// No limits but the tenant's.
    pub const NONE: KeyLimits = KeyLimits {
        calls_per_minute: Limit::Unlimited,
        calls_per_month: Limit::Unlimited,
        calls_in_flight: Limit::Unlimited,
        tokens_per_month: Limit::Unlimited,
        tokens_per_call: Limit::Unlimited,
        shadow: Shadow::NONE,
    };
}

/// Changes on top of a set of limits: what a plan says about its family's limits, or what a
/// contract says about a tenant's. A limit that is not named stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Overrides {
    /// Budget tokens granted each billing month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_month: Option<Limit>,
    /// `/v1` calls admitted each billing month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_per_month: Option<Limit>,
    /// `/v1` calls admitted each minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_per_minute: Option<Limit>,
    /// `/v1` calls running at one time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_in_flight: Option<Limit>,
    /// Budget tokens one call may spend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_call: Option<Limit>,
    /// Conversations the AI agent may answer each billing month on a managed channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversations_per_month: Option<Limit>,
    /// Human seats on a managed channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seats: Option<Limit>,
    /// Conversation threads kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<Limit>,
    /// Storage, in gigabytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_gb: Option<Limit>,
    /// AI agents of the catalogue one may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agents: Option<Limit>,
    /// Features added to those of the plans.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<Feature>,
    /// Features taken away, also from those added above.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<Feature>,
    /// Models that may be called: a name, a name that ends in `*`, or `*`. Not given: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
}

impl Limit {
    /// None at all.
    pub const ZERO: Limit = Limit::AtMost(0);

    /// Whether `more` fits on top of what is `used`. A sum beyond 2^64 does not.
    pub fn allows(self, used: u64, more: u64) -> bool {
        match self {
            Limit::AtMost(most) => used.checked_add(more).is_some_and(|sum| sum <= most),
            Limit::Unlimited => true,
        }
    }

    /// What is left beside `used`; `None` when there is no bound.
    pub fn remaining(self, used: u64) -> Option<u64> {
        match self {
            Limit::AtMost(most) => Some(most.saturating_sub(used)),
            Limit::Unlimited => None,
        }
    }

    /// The stricter of the two.
    pub fn min(self, other: Limit) -> Limit {
        match (self, other) {
            (Limit::AtMost(a), Limit::AtMost(b)) => Limit::AtMost(a.min(b)),
            (Limit::Unlimited, bounded) | (bounded, Limit::Unlimited) => bounded,
        }
    }

    /// How near `used` is. A limit of zero is always reached, no limit never.
    pub fn alert(self, used: u64) -> AlertLevel {
        match self {
            Limit::Unlimited => AlertLevel::Quiet,
            Limit::AtMost(most) if used >= most => AlertLevel::Reached,
            Limit::AtMost(most) if u128::from(used) * 100 >= u128::from(most) * 80 => AlertLevel::Near,
            Limit::AtMost(_) => AlertLevel::Quiet,
        }
    }
}

impl Limits {
    /// What a tenant has before any plan says otherwise: nothing, except that one call may
    /// spend as much as there is.
    pub const NOTHING: Limits = Limits {
        tokens_per_month: Limit::ZERO,
        calls_per_month: Limit::ZERO,
        calls_per_minute: Limit::ZERO,
        calls_in_flight: Limit::ZERO,
        tokens_per_call: Limit::Unlimited,
        conversations_per_month: Limit::ZERO,
        seats: Limit::ZERO,
        threads: Limit::ZERO,
        storage_gb: Limit::ZERO,
        agents: Limit::ZERO,
    };

    /// These limits with the named ones replaced.
    #[must_use]
    pub fn with(self, changes: &Overrides) -> Limits {
        Limits {
            tokens_per_month: changes.tokens_per_month.unwrap_or(self.tokens_per_month),
            calls_per_month: changes.calls_per_month.unwrap_or(self.calls_per_month),
            calls_per_minute: changes.calls_per_minute.unwrap_or(self.calls_per_minute),
            calls_in_flight: changes.calls_in_flight.unwrap_or(self.calls_in_flight),
            tokens_per_call: changes.tokens_per_call.unwrap_or(self.tokens_per_call),
            conversations_per_month: changes.conversations_per_month.unwrap_or(self.conversations_per_month),
            seats: changes.seats.unwrap_or(self.seats),
            threads: changes.threads.unwrap_or(self.threads),
            storage_gb: changes.storage_gb.unwrap_or(self.storage_gb),
            agents: changes.agents.unwrap_or(self.agents),
        }
    }
}

/// Whether a pattern (a name, a name that ends in `*`, or `*`) names this model.
pub fn model_matches(pattern: &str, model: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => model.starts_with(prefix),
        None => pattern == model,
    }
}

/// Whether this text is such a pattern.
pub fn is_model_pattern(pattern: &str) -> bool {
    !pattern.is_empty() && !pattern.strip_suffix('*').unwrap_or(pattern).contains('*')
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::AtMost(most) => write!(f, "{most}"),
            Limit::Unlimited => f.write_str(UNLIMITED),
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Limit::AtMost(most) => serializer.serialize_u64(*most),
            Limit::Unlimited => serializer.serialize_str(UNLIMITED),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Limit, D::Error> {
        deserializer.deserialize_any(LimitVisitor)
    }
}

struct LimitVisitor;

impl de::Visitor<'_> for LimitVisitor {
    type Value = Limit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0, or \"unlimited\"")
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Limit, E> {
        Ok(Limit::AtMost(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Limit, E> {
        u64::try_from(value)
            .map(Limit::AtMost)
            .map_err(|_negative| E::invalid_value(de::Unexpected::Signed(value), &self))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Limit, E> {
        if value == UNLIMITED {
            return Ok(Limit::Unlimited);
        }
        Err(E::invalid_value(de::Unexpected::Str(value), &self))
    }
}

impl JsonSchema for Limit {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Limit")
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A whole number from 0, or \"unlimited\".",
            "oneOf": [{ "type": "integer", "minimum": 0 }, { "const": UNLIMITED }]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_are_written_as_in_the_configuration_file() {
        #[derive(Deserialize)]
        struct File {
            overrides: Overrides,
        }
        let file: File =
            toml::from_str("overrides = { tokens_per_month = 20000, calls_per_minute = \"unlimited\" }").unwrap();
        assert_eq!(file.overrides.tokens_per_month, Some(Limit::AtMost(20_000)));
        assert_eq!(file.overrides.calls_per_minute, Some(Limit::Unlimited));
        assert_eq!(file.overrides.seats, None);
        let again: Overrides = toml::from_str(&toml::to_string(&file.overrides).unwrap()).unwrap();
        assert_eq!(again, file.overrides);
    }

    #[test]
    fn what_is_not_a_limit_is_refused_with_the_reason() {
        for (text, says) in [
            ("tokens_per_month = -1", "a whole number from 0"),
            ("tokens_per_month = 1.5", "a whole number from 0"),
            ("tokens_per_month = \"lots\"", "\"unlimited\""),
            ("tokens_per_moth = 1", "tokens_per_month"),
            ("features = [\"teleport\"]", "teleport"),
        ] {
            let error = toml::from_str::<Overrides>(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn limits_at_their_edges() {
        assert!(Limit::AtMost(10).allows(9, 1));
        assert!(!Limit::AtMost(10).allows(9, 2));
        assert!(!Limit::AtMost(u64::MAX).allows(u64::MAX, 1));
        assert!(Limit::Unlimited.allows(u64::MAX, u64::MAX));
        assert_eq!(Limit::AtMost(3).remaining(5), Some(0));
        assert_eq!(Limit::Unlimited.remaining(5), None);
        assert_eq!(Limit::Unlimited.min(Limit::AtMost(4)), Limit::AtMost(4));
        assert_eq!(Limit::AtMost(3).min(Limit::AtMost(4)), Limit::AtMost(3));
    }

    #[test]
    fn alerts_at_80_and_100_per_cent() {
        use AlertLevel::{Near, Quiet, Reached};
        for (limit, used, level) in [
            (500, 399, Quiet),
            (500, 400, Near),
            (500, 499, Near),
            (500, 500, Reached),
            (0, 0, Reached),
            (u64::MAX, u64::MAX - 1, Near),
        ] {
            assert_eq!(Limit::AtMost(limit).alert(used), level, "{used} of {limit}");
        }
        assert_eq!(Limit::Unlimited.alert(u64::MAX), Quiet);
    }

    #[test]
    fn the_schema_says_integer_or_the_word() {
        let schema = serde_json::to_value(schemars::schema_for!(Overrides)).unwrap();
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["$defs"]["Limit"]["oneOf"][1]["const"], "unlimited");
    }
}
