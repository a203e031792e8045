//! The sidecar as a whole: the real server on port 0, in this process, spoken to over a socket.
//!
//! Every answer to a described operation is held against the OpenAPI document on its way (see `support`). With
//! `RELAIS_POSTGRES` the same tests run on PostgreSQL.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helpers are tests: what is missing fails the test"
)]

mod support;

mod access;
mod bounds;
mod described;
mod journey;
mod repeated;
