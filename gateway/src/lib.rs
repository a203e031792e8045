//! Relais, the data plane.

pub mod inbox;

pub mod config;
pub mod http;

pub mod clock;
pub mod error;
pub mod metrics;
