//! Who there is and what they may do, in memory.
//!
//! `store` holds every tenant and key; what decides about them is compiled beforehand (`relais-policies`), so a
//! request takes one look-up and reads. It does not read files or ask the sidecar: it is given what is true now.

mod store;

pub use store::{KeyState, Store, TenantState};
