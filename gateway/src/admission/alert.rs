//! Soft alerts: an operator is told once when a tenant nears a limit, reaches it, or uses unusually much without one.
//!
//! Decided when the ledger looks at an account, never while a call waits. What was told is kept with the account,
//! so a restart tells nothing twice; a new billing period begins with nothing told. Alerts refuse nobody.

use relais_policies::TenantPolicy;
use relais_policies::limit::{AlertLevel, Limit};
use relais_policies::tenant::Metered;
use serde::{Deserialize, Serialize};

use crate::admission::books::Books;

/// How much was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// 80 per cent of the limit.
    Near,
    /// All of it.
    Reached,
    /// More than the limit, where it is reported and not enforced.
    Over,
    /// Without a limit: ten times what the largest limited plan grants (ENF-9).
    Soft,
}

impl Level {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Near => "80",
            Self::Reached => "100",
            Self::Over => "over",
            Self::Soft => "soft",
        }
    }
}

/// What is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Watched {
    /// Budget tokens of the monthly grant.
    Tokens,
    /// Monthly calls.
    Calls,
    /// Monthly conversations.
    Conversations,
    /// Humans seen in the month.
    Seats,
}

impl Watched {
    /// The metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Calls => "calls",
            Self::Conversations => "conversations",
            Self::Seats => "seats",
        }
    }
}

/// An alert that was given in this period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Of what.
    pub watched: Watched,
    /// How much of it.
    pub level: Level,
}

/// An alert to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// What was crossed.
    pub told: Told,
    /// Used in this period.
    pub used: u64,
    /// The limit, or the soft level.
    pub limit: u64,
}

/// From how much on an unlimited tenant is worth a look.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SoftLevels {
    tokens: Option<u64>,
    calls: Option<u64>,
    conversations: Option<u64>,
}

impl SoftLevels {
    pub(super) fn of(policy: &TenantPolicy) -> Self {
        Self {
            tokens: policy.soft_level(Metered::Tokens),
            calls: policy.soft_level(Metered::Calls),
            conversations: policy.soft_level(Metered::Conversations),
        }
    }
}

impl Books {
    /// Alerts that are due, each once.
    pub(super) fn alerts(&mut self) -> Vec<Alert> {
        let mut due = Vec::new();
        let tokens = self.wallet.grant_use().map_or(self.spent, |grant| grant.used);
        let (limits, soft) = (self.limits(), self.soft());
        let (conversations, seats) = (self.conversations_counted(), self.seats());
        for (watched, limit, soft, used) in [
            (Watched::Tokens, limits.tokens_per_month, soft.tokens, tokens),
            (Watched::Calls, limits.calls_per_month, soft.calls, self.calls.used()),
            (Watched::Conversations, limits.conversations_per_month, soft.conversations, conversations),
            (Watched::Seats, limits.seats, None, seats),
        ] {
            let (most, levels): (u64, &[Level]) = match (limit, soft) {
                // Nothing granted: nothing to be near to.
                (Limit::AtMost(0), _) | (Limit::Unlimited, None) => continue,
                // Who has all the seats of the plan has what was bought.
                (Limit::AtMost(most), _) if watched == Watched::Seats && used > most => (most, &[Level::Over]),
                (Limit::AtMost(_), _) if watched == Watched::Seats => continue,
                (Limit::AtMost(most), _) => match limit.alert(used) {
                    AlertLevel::Quiet => continue,
                    AlertLevel::Near => (most, &[Level::Near]),
                    AlertLevel::Reached => (most, &[Level::Near, Level::Reached]),
                },
                (Limit::Unlimited, Some(soft)) if used >= soft => (soft, &[Level::Soft]),
                (Limit::Unlimited, Some(_)) => continue,
            };
            for level in levels {
                let told = Told { watched, level: *level };
                if !self.told.contains(&told) {
                    self.told.push(told);
                    due.push(Alert { told, used, limit: most });
                }
            }
        }
        due
    }
}
