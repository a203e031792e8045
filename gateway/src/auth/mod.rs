//! Who is asking and who pays: an API key, or a Chatwoot's signature. Nothing else is believed.

pub mod api_key;
pub mod failures;
pub mod signature;
