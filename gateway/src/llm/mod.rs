//! `/v1` pass-through: a client's bytes to a model and the model's bytes back.
//!
//! Bodies are never parsed into models and written out again: `request` reads the few fields that decide and
//! splices the few edits into the client's own bytes; `stream` forwards frames as they came and looks only for
//! what it accounts. `upstream` chooses who answers. It knows no tenant and keeps no books: it is told what it
//! may spend and says what was used. `endpoint` says what differs between the four calls.

pub mod endpoint;
pub mod request;
pub mod stream;
pub mod upstream;

pub mod sse;
pub mod usage;
