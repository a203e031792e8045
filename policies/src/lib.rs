//! Plans, policies, periods and wallets: pure values and decisions.
//!
//! What a tenant may do is decided here, from values alone: the catalogue of plans
//! ([`Catalog`]), what one tenant ends up with ([`TenantPolicy`]), when its month begins
//! ([`Anchor`]), how many calls and tokens it has left ([`Meter`], [`Wallet`]) and what a call
//! costs ([`RateCard`]), and what an API key looks like ([`key`]). The gateway asks these questions on every request, the billing sidecar
//! when it sells something; both get the same answer because both link this crate.
//!
//! There is no clock here and no I/O: time comes in as Unix milliseconds, UTC, and the
//! catalogue is compiled in. Request *rates* are not here either: a rate forgets, and these
//! values must not.

pub mod key;
pub mod limit;
pub mod meter;
pub mod period;
pub mod plan;
pub mod rate_card;
pub mod shadow;
pub mod tenant;
pub mod wallet;

pub use limit::{AlertLevel, KeyLimits, Limit, Limits, Overrides, model_matches};
pub use meter::{Exhausted, Meter, Taken};
pub use period::{Anchor, Period};
pub use plan::{Catalog, Family, Feature, Pack, Plan, PlanCode};
pub use rate_card::{ModelPrice, Rate, RateCard, TokenUsage};
pub use shadow::{Shadow, Shadowed};
pub use tenant::{ChannelKind, Metered, Payer, Plans, PolicyError, Status, TenantPolicy, TenantSpec};
pub use wallet::{
    Books, GrantUse, GrantedAtMost, Hold, HoldPart, LotId, LotKind, NewLot, Settled, Wallet, WalletState,
};
