//! The edge to Chatwoot: what it tells us (`event`), what we ask of it (`client`) and how often (`installation`),
//! what of our text is safe to hand to it (`text`), and what an administrator sets up there (`admin`).
//!
//! Chatwoot's words end here. It calls a person an "agent" and us an "agent bot", and a channel an "inbox"; past
//! this module a person is a *human*, *agent* is the AI, and its inbox is `chatwoot_inbox`.

pub mod admin;
pub mod client;
pub mod event;
pub mod installation;
pub mod text;

mod lenient;
mod wire;

#[cfg(test)]
mod tests;
