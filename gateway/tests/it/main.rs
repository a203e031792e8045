//! Relais as a whole: the real gateway on port 0, in this process, against steerable fakes.
//!
//! A module a behaviour. Bytes are spoken at the edge; nothing here knows the inside.

mod support;

mod chat;
mod endpoints;
mod ledger;
mod reload;
