//! Relais as a whole: the real gateway on port 0, in this process, against steerable fakes.
//!
//! A module a behaviour. Bytes are spoken at the edge; nothing here knows the inside.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that panics has failed, which is what it is for"
)]

mod support;

mod chat;
mod endpoints;
mod exact;
mod ledger;
mod reload;
mod upstream_answers;
mod upstreams;
