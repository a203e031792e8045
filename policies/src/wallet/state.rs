//! A wallet as it is written down and read back.
//!
//! A snapshot has what running calls hold in it. After a restart those calls are either carried
//! over one by one ([`Wallet::adopt`]) or gone, and then charged what they held
//! ([`Wallet::charge_orphans`]): the provider may have done the work, and we cannot know.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::hold::{Drawn, Hold, HoldPart};
use super::lot::{Lot, Phase};
use super::{Closed, Past, Wallet};

/// Everything there is to know of a wallet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletState {
    /// Lots in use, in spend order.
    pub lots: Vec<Lot>,
    /// Lots that are used up or gone; their sources are still known.
    pub closed: Vec<Closed>,
    /// What the closed lots come to, monthly grants of past periods included.
    pub past: Past,
    /// Spent without cover.
    pub debt: u64,
    /// The latest time the wallet was told, Unix milliseconds.
    pub now_ms: i64,
    /// The id of the next lot.
    pub next_lot: u64,
}

/// Why a state is not a wallet's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Two lots have one id, or one from the future.
    #[error("lot {0} is there twice or was never given out")]
    LotId(u64),
    /// A source was credited twice.
    #[error("source \"{0}\" is there twice")]
    Source(String),
    /// A lot has used more than can be counted.
    #[error("lot {0} has used more than 2^64 tokens")]
    Overflow(u64),
}

impl Wallet {
    /// Everything, to be written down.
    pub fn state(&self) -> WalletState {
        WalletState {
            lots: self.lots.clone(),
            closed: self.closed.values().cloned().collect(),
            past: self.past,
            debt: self.debt,
            now_ms: self.now_ms,
            next_lot: self.next_lot,
        }
    }

    /// A wallet as it was written down. What was held then is still held, by nobody: see
    /// [`Wallet::adopt`] and [`Wallet::charge_orphans`].
    pub fn restore(state: WalletState) -> Result<Wallet, StateError> {
        let mut ids = BTreeSet::new();
        let mut sources: BTreeSet<&str> = state.closed.iter().map(|closed| closed.source.as_str()).collect();
        for lot in &state.lots {
            if !ids.insert(lot.id) || lot.id.0 == 0 || lot.id.0 >= state.next_lot {
                return Err(StateError::LotId(lot.id.0));
            }
            if !lot.monthly && !sources.insert(&lot.source) {
                return Err(StateError::Source(lot.source.clone()));
            }
            if lot.spent.checked_add(lot.reserved).is_none() {
                return Err(StateError::Overflow(lot.id.0));
            }
        }
        let mut wallet = Wallet::new(state.now_ms);
        wallet.lots = state.lots;
        wallet.lots.sort_by(Lot::spend_order);
        for lot in &mut wallet.lots {
            lot.orphaned = lot.reserved;
        }
        wallet.closed = state.closed.into_iter().map(|closed| (closed.source.clone(), closed)).collect();
        wallet.past = state.past;
        wallet.debt = state.debt;
        wallet.next_lot = state.next_lot;
        wallet.refresh();
        Ok(wallet)
    }

    /// The hold of a call that lives on after a restart. `None` if these parts are not among what
    /// was held and is still unclaimed; nothing changes then.
    pub fn adopt(&mut self, parts: &[HoldPart]) -> Option<Hold> {
        let orphans_before: Vec<u64> = self.lots.iter().map(|lot| lot.orphaned).collect();
        let mut hold = Hold::empty();
        for part in parts {
            let claimed =
                self.lots.iter_mut().enumerate().find(|(_, lot)| lot.id == part.lot).and_then(|(index, lot)| {
                    lot.orphaned = lot.orphaned.checked_sub(part.tokens)?;
                    Some(index)
                });
            let Some(index) = claimed else {
                for (lot, before) in self.lots.iter_mut().zip(orphans_before) {
                    lot.orphaned = before;
                }
                return None;
            };
            hold.add(Drawn { lot: part.lot, tokens: part.tokens, index });
        }
        Some(hold)
    }

    /// Charge what was held before a restart and claimed by no call since. Returns how much.
    pub fn charge_orphans(&mut self) -> u64 {
        let (mut charged, mut owed) = (0_u64, 0_u64);
        for lot in &mut self.lots {
            let tokens = std::mem::take(&mut lot.orphaned);
            lot.reserved = lot.reserved.saturating_sub(tokens);
            charged = charged.saturating_add(tokens);
            if lot.phase == Phase::Refunded {
                owed = owed.saturating_add(tokens);
            } else {
                lot.spent = lot.spent.saturating_add(tokens);
            }
        }
        self.owe(owed);
        charged
    }
}
