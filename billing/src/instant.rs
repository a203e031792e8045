//! An instant as the API writes it: RFC 3339, UTC, to the millisecond. Inside it is Unix ms.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Unix milliseconds, written as text such as `2026-01-31T00:00:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub i64);

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = Timestamp::from_millisecond(self.0).unwrap_or(Timestamp::UNIX_EPOCH);
        write!(f, "{instant:.3}")
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let instant: Timestamp =
            text.parse().map_err(|_| de::Error::custom("expected an instant such as \"2026-01-31T00:00:00Z\""))?;
        Ok(Self(instant.as_millisecond()))
    }
}

impl JsonSchema for Instant {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("Instant")
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "description": "An instant, RFC 3339.", "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        let json = serde_json::to_string(&Instant(1_767_225_600_123)).unwrap();
        assert_eq!(json, "\"2026-01-01T00:00:00.123Z\"");
        assert_eq!(serde_json::from_str::<Instant>(&json).unwrap(), Instant(1_767_225_600_123));
        assert_eq!(
            serde_json::from_str::<Instant>("\"2026-01-01T01:00:00+01:00\"").unwrap(),
            Instant(1_767_225_600_000)
        );
        assert!(serde_json::from_str::<Instant>("\"tomorrow\"").is_err());
    }
}
