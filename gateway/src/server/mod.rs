//! The public and the admin listener: sockets, threads, connections, and the table of routes.
//!
//! Intake runs on one single-threaded runtime per core, each with its own listening socket on the same port
//! (`SO_REUSEPORT`) and its own pool of upstream connections: a request is accepted, decided, sent and answered on
//! one core, without a lock or a wake-up across cores. It can be switched to one shared runtime; futures are
//! `Send` for that. Long-lived work (relay, disk, sync) runs elsewhere and cannot delay a request.
//!
//! It does not decide anything about a request but where it goes.

mod accept;
mod connection;
mod cors;
mod io;
mod route;
mod tls;

pub use accept::{Listeners, Passed, Stop, Worker, bind, serve};
pub use tls::{Tls, TlsError};
