//! The fake Chatwoot behaves as the real one does.
//!
//! Everything is seen from outside: webhooks as a receiver gets them, REST as a caller does. What
//! cannot be seen there is asked of the handle. Nothing is timed; every wait has a deadline that
//! only a failure meets.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends where it goes wrong; clippy.toml exempts only the test functions themselves"
)]

mod control;
mod faults;
mod harness;
mod machine;
mod onboarding;
mod page;
mod payloads;
mod rest;
mod routes;
mod scenes;
mod templates;
mod webhooks;
