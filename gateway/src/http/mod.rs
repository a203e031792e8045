//! HTTP pieces that know nothing of what is relayed: addresses, bodies in and out, request ids, the pooled client with its
//! bounds, name resolution, and the one place that turns an error into a status.

pub mod address;
pub mod body;
pub mod request_id;
pub mod respond;

pub mod client;
pub mod resolve;
pub mod slots;
pub mod unreachable;
