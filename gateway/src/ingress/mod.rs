//! One handler a route. Each reads like its description: the phases, top to bottom, an early return for each "no".
//!
//! Handlers meet the relay only in the inbox; they never call it.

pub mod chat;
pub mod models;
pub mod ops;

mod answer;
mod budget;
mod trace;

pub use trace::Trace;
