//! Relais as a whole: the real gateway on port 0, in this process, against steerable fakes.
//!
//! A module a behaviour. Bytes are spoken at the edge; nothing here knows the inside.

mod support;

mod chat;
mod endpoints;
mod exact;
mod inbox;
mod relay;
mod reload;
mod upstream_answers;
mod upstreams;
