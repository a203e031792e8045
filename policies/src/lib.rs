//! Plans, policies, periods and wallets: pure values and decisions.
