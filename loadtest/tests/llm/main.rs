//! The fake model seen from outside, over real connections: what a client gets, and what the fake
//! says happened. Whatever a gateway's test will rely on is proven here without a gateway.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test's helpers are tests: what is missing fails the test"
)]

mod client;
mod faults;
mod leaving;
mod shapes;
mod streams;
