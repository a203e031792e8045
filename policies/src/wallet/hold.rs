//! What a running call holds of a wallet.
//!
//! A hold is not `Clone` and leaves only by [`super::Wallet::settle`]. Drawing on one lot, the
//! common case, it lives on the stack.

use serde::{Deserialize, Serialize};

use super::lot::LotId;

/// Tokens set aside for one call. Give it back to the wallet it came from: until then its
/// tokens count as used.
#[derive(Debug)]
#[must_use = "held tokens stay out of the wallet until the hold is settled"]
pub struct Hold {
    first: Drawn,
    rest: Vec<Drawn>,
}

/// A part of a hold as it is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldPart {
    /// The lot it was drawn from.
    pub lot: LotId,
    /// How much.
    pub tokens: u64,
}

/// A part of a hold, and where its lot stood when it was drawn: it usually still stands there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drawn {
    pub(super) lot: LotId,
    pub(super) tokens: u64,
    pub(super) index: usize,
}

impl Hold {
    pub(super) fn empty() -> Hold {
        Hold { first: Drawn { lot: LotId(0), tokens: 0, index: 0 }, rest: Vec::new() }
    }

    /// All it holds.
    pub fn tokens(&self) -> u64 {
        self.drawn().fold(0, |sum, part| sum.saturating_add(part.tokens))
    }

    /// Its parts, for a checkpoint: [`super::Wallet::adopt`] makes a hold of them again.
    pub fn parts(&self) -> impl Iterator<Item = HoldPart> {
        self.drawn().map(|part| HoldPart { lot: part.lot, tokens: part.tokens })
    }

    pub(super) fn drawn(&self) -> impl Iterator<Item = Drawn> {
        std::iter::once(self.first).filter(|part| part.tokens > 0).chain(self.rest.iter().copied())
    }

    pub(super) fn add(&mut self, more: Drawn) {
        if self.first.tokens == 0 {
            self.first = more;
            return;
        }
        let last = self.rest.last_mut().unwrap_or(&mut self.first);
        if last.lot == more.lot {
            last.tokens = last.tokens.saturating_add(more.tokens);
        } else if more.tokens > 0 {
            self.rest.push(more);
        }
    }
}
