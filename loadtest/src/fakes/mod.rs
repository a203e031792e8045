//! The others: servers Relais talks to in the field, played by us. Each listens on a port of its
//! own, is steered by a handle or over HTTP, and keeps the truth about what really happened.

pub mod chatwoot;
pub mod llm;
