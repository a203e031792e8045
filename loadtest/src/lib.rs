//! Fakes of what Relais talks to, as real servers with a handle to steer them, the load generator, and
//! the demo that starts the fakes beside the real gateway.
//!
//! It is for tests (in process), for `relais-load` (as processes) and for load alike, so that all
//! three meet the same behaviour. It deliberately depends on neither the gateway nor the policies:
//! a fake that shared code with what it tests would share its mistakes.

pub mod demo;
pub mod fakes;
pub mod load;

pub mod http;
pub mod stop;
