//! Limits that are counted and not enforced, so that an operator can see whom a limit would refuse before it does.
//!
//! Only what a caller can run into by using much can be in shadow; what a plan opens or closes cannot.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A limit that can be in shadow, by its key in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Shadowed {
    /// Calls admitted each minute.
    CallsPerMinute,
    /// Calls admitted each billing month.
    CallsPerMonth,
    /// Calls running at one time.
    CallsInFlight,
    /// Budget tokens each billing month.
    TokensPerMonth,
    /// Conversations the AI agent answers each billing month on a managed channel.
    ConversationsPerMonth,
}

impl Shadowed {
    /// All of them.
    pub const ALL: [Shadowed; 5] = [
        Shadowed::CallsPerMinute,
        Shadowed::CallsPerMonth,
        Shadowed::CallsInFlight,
        Shadowed::TokensPerMonth,
        Shadowed::ConversationsPerMonth,
    ];

    fn bit(self) -> u8 {
        match self {
            Shadowed::CallsPerMinute => 1,
            Shadowed::CallsPerMonth => 2,
            Shadowed::CallsInFlight => 4,
            Shadowed::TokensPerMonth => 8,
            Shadowed::ConversationsPerMonth => 16,
        }
    }
}

/// A set of limits: those in shadow, or those that would have refused a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shadow(u8);

impl Shadow {
    /// No limit.
    pub const NONE: Shadow = Shadow(0);

    /// Whether this limit is one of them.
    pub fn has(self, limit: Shadowed) -> bool {
        self.0 & limit.bit() != 0
    }

    /// Adds a limit.
    pub fn add(&mut self, limit: Shadowed) {
        self.0 |= limit.bit();
    }

    /// The limits in it, in the order of [`Shadowed::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Shadowed> {
        Shadowed::ALL.into_iter().filter(move |limit| self.has(*limit))
    }
}

impl FromIterator<Shadowed> for Shadow {
    fn from_iter<I: IntoIterator<Item = Shadowed>>(limits: I) -> Shadow {
        let mut shadow = Shadow::NONE;
        limits.into_iter().for_each(|limit| shadow.add(limit));
        shadow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in() {
        for (index, limit) in Shadowed::ALL.into_iter().enumerate() {
            let shadow: Shadow = [limit, limit].into_iter().collect();
            for (other_index, other) in Shadowed::ALL.into_iter().enumerate() {
                assert_eq!(shadow.has(other), index == other_index);
            }
            assert_eq!(shadow.iter().collect::<Vec<_>>(), [limit]);
        }
        assert_eq!(Shadowed::ALL.into_iter().collect::<Shadow>().iter().collect::<Vec<_>>(), Shadowed::ALL);
        assert_eq!(Shadow::NONE.iter().count(), 0);
    }
}
