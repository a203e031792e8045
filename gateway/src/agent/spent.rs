//! What an answer takes while it is made.
//!
//! An answer is dropped when the customer writes again or a human comes; what the model did until then is paid for all
//! the same. So it is kept outside of it, where whoever asked can read it. It knows no prices.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::TokenUse;

/// What an answer takes while it is made: known though it is dropped before its end.
#[derive(Debug, Default)]
pub struct Spent(Mutex<SpentSoFar>);

#[derive(Debug, Default, Clone, Copy)]
struct SpentSoFar {
    known: Option<TokenUse>,
    /// The prompt of a request that has no answer yet, by our own estimate.
    open: Option<u64>,
}

impl Spent {
    /// What was used so far; the prompt of a request that is not answered counts by our own estimate.
    pub fn so_far(&self) -> Option<TokenUse> {
        let SpentSoFar { known, open } = *self.lock();
        let open = open.map(|input| TokenUse { input, estimated: true, ..TokenUse::default() });
        match (known, open) {
            (Some(known), Some(open)) => Some(known.and(open)),
            (one, None) | (None, one) => one,
        }
    }

    /// A request with so large a prompt is on its way.
    pub(super) fn sent(&self, prompt_tokens: u64) {
        self.lock().open = Some(prompt_tokens);
    }

    /// It was answered, for so much; none: it was not, and nothing is known.
    pub(super) fn settle(&self, tokens: Option<TokenUse>) {
        let mut spent = self.lock();
        spent.open = None;
        spent.known = match (spent.known, tokens) {
            (Some(known), Some(more)) => Some(known.and(more)),
            (one, None) | (None, one) => one,
        };
    }

    fn lock(&self) -> MutexGuard<'_, SpentSoFar> {
        // Never half-written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TokenUse {
    fn and(self, more: Self) -> Self {
        Self {
            input: self.input.saturating_add(more.input),
            cached: self.cached.saturating_add(more.cached),
            output: self.output.saturating_add(more.output),
            estimated: self.estimated || more.estimated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_counts_by_our_estimate_until_it_is_known() {
        let spent = Spent::default();
        assert_eq!(spent.so_far(), None);
        spent.sent(40);
        let open = TokenUse { input: 40, estimated: true, ..TokenUse::default() };
        assert_eq!(spent.so_far(), Some(open));
        let told = TokenUse { input: 50, cached: 5, output: 7, estimated: false };
        spent.settle(Some(told));
        assert_eq!(spent.so_far(), Some(told));
        spent.sent(60);
        assert_eq!(spent.so_far(), Some(TokenUse { input: 110, cached: 5, output: 7, estimated: true }));
        spent.settle(None);
        assert_eq!(spent.so_far(), Some(told), "of one that failed nothing is known");
    }
}
