//! Relais as a whole: the real gateway on port 0, in this process, against steerable fakes.
//!
//! A module a behaviour. Bytes are spoken at the edge; nothing here knows the inside.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers are tests: what is missing fails the test"
)]

mod support;

mod agents;
mod chat;
mod conversations;
mod endpoints;
mod exact;
mod inbox;
mod inbox_report;
mod ledger;
mod limits;
mod neighbours;
mod onboarding;
mod relay;
mod reload;
mod swagger;
mod sweep;
mod upstream_answers;
mod upstreams;
