//! Plans, policies, periods and wallets: pure values and decisions.

/// What a tenant may do.
#[derive(Debug)]
pub struct TenantPolicy;
