//! What is counted by the billing month: conversations and seats of each tenant.

use jiff::Timestamp;
use serde::Serialize;

use super::{aligned, printable, quoted};
use crate::admission::AccountState;

/// A tenant's billing month, as it was last written.
#[derive(Debug, Serialize)]
pub(super) struct Month {
    tenant: String,
    /// When it began.
    period: String,
    /// Conversations counted in it.
    conversations: u64,
    /// Humans seen in it.
    seats: u64,
}

const TITLES: [&str; 4] = ["tenant", "period", "conversations", "seats"];

impl Month {
    pub(super) fn of(tenant: String, state: &AccountState) -> Self {
        let began = Timestamp::from_millisecond(state.since_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        let seats = u64::try_from(state.humans.len()).unwrap_or(u64::MAX);
        Self { tenant, period: began.to_string(), conversations: state.conversations, seats }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.conversations == 0 && self.seats == 0
    }

    fn numbers(&self) -> [String; 2] {
        [self.conversations.to_string(), self.seats.to_string()]
    }
}

pub(super) fn table(months: &[Month]) -> String {
    let mut rows = vec![TITLES.map(str::to_owned).to_vec()];
    rows.extend(months.iter().map(|month| {
        let words = [printable(&month.tenant), month.period.clone()];
        words.into_iter().chain(month.numbers()).collect()
    }));
    aligned(&rows, 2)
}

pub(super) fn csv(months: &[Month]) -> String {
    let mut text = TITLES.join(",") + "\r\n";
    for month in months {
        let [conversations, seats] = month.numbers();
        let cells = [quoted(&month.tenant), month.period.clone(), conversations, seats];
        text += &(cells.join(",") + "\r\n");
    }
    text
}
