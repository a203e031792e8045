//! One handler a route. Each reads like its description: the phases, top to bottom, an early return for each "no".
//!
//! Handlers meet the relay only in the inbox; they never call it.

pub mod call;
pub mod limits;
pub mod models;
pub mod openapi;
pub mod ops;
pub mod usage;
pub mod webhook;

mod answer;
mod budget;
mod trace;
mod unary;

pub use trace::Trace;
