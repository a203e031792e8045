//! The conversations that an AI agent may answer in a month, and the humans seen in it.
//!
//! Which conversations are counted, the inbox knows: it is written there with the turn that counts them, so a crash
//! neither forgets nor repeats one. Here is how many they are, and the decision about the next: a conversation that
//! is not counted yet takes a place before anybody thinks about an answer, and the place counts when the reply is
//! durable, or goes back. So a hundred conversations that begin at once are not more than the plan includes.
//!
//! Humans are only reported (ENF-7): each is a number that tells two apart and nothing else.

use std::sync::Arc;

use relais_policies::meter::{Exhausted, Meter, Taken};
use relais_policies::shadow::Shadowed;

use crate::admission::Account;
use crate::admission::books::{Books, enforced};

/// Humans told apart in one month; more are not counted.
const HUMANS_MAX: usize = 1_000;

/// A place among the month's conversations, for one that is not counted in it yet. Dropped, it goes back.
#[derive(Debug)]
#[must_use = "a place that is dropped goes back"]
pub struct ConversationPlace {
    account: Arc<Account>,
    taken: Option<Taken>,
    /// The billing month it counts in: since when that counts, Unix ms.
    pub period_ms: i64,
    /// The limit is in shadow and would have refused it.
    pub shadowed: bool,
}

/// What is counted of a month's conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The billing month: since when it counts, Unix ms.
    pub period_ms: i64,
    /// Conversations counted in it.
    pub conversations: u64,
}

impl Account {
    /// Since when the billing month counts that runs: Unix ms.
    pub fn counts_since_ms(&self) -> i64 {
        let mut books = self.lock();
        books.roll(self.clock().now_ms());
        books.since_ms
    }

    /// A place for a conversation that is not counted in this month yet.
    pub fn new_conversation(self: &Arc<Self>) -> Result<ConversationPlace, Exhausted> {
        let mut books = self.lock();
        books.roll(self.clock().now_ms());
        let (taken, shadowed) = books.take_conversation()?;
        let period_ms = books.since_ms;
        drop(books);
        Ok(ConversationPlace { account: Arc::clone(self), taken: Some(taken), period_ms, shadowed })
    }

    /// A conversation that had been counted in this month (since when it counts, Unix ms) is not: its reply never
    /// arrived.
    pub fn conversation_uncounted(self: &Arc<Self>, period_ms: i64) {
        let mut books = self.lock();
        books.roll(self.clock().now_ms());
        if books.since_ms == period_ms {
            books.conversations.forget_one();
            self.list(&mut books);
        }
    }

    /// These humans wrote to customers.
    pub fn humans_seen(self: &Arc<Self>, humans: impl IntoIterator<Item = u64>) {
        let mut books = self.lock();
        books.roll(self.clock().now_ms());
        for human in humans {
            if books.humans.len() < HUMANS_MAX && books.humans.insert(human) {
                self.list(&mut books);
            }
        }
    }

    fn list(self: &Arc<Self>, books: &mut Books) {
        if books.mark_listed() {
            self.journal().changed(self);
        }
    }
}

impl ConversationPlace {
    /// The reply is durable: the conversation counts.
    pub fn keep(mut self) {
        if self.taken.take().is_some() {
            let mut books = self.account.lock();
            books.let_go(self.period_ms);
            self.account.list(&mut books);
        }
    }
}

impl Drop for ConversationPlace {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            let mut books = self.account.lock();
            books.let_go(self.period_ms);
            books.conversations.give_back(taken);
        }
    }
}

impl Books {
    fn take_conversation(&mut self) -> Result<(Taken, bool), Exhausted> {
        let limit = self.limits().conversations_per_month;
        let shadowed = !limit.allows(self.conversations.used(), 1);
        let limit = enforced(limit, self.shadow(), Shadowed::ConversationsPerMonth);
        let taken = self.conversations.take(limit, self.period)?;
        self.places += 1;
        Ok((taken, shadowed))
    }

    /// A place of this month is a place no longer: it counts, or goes back.
    fn let_go(&mut self, period_ms: i64) {
        if self.since_ms == period_ms {
            self.places = self.places.saturating_sub(1);
        }
    }

    /// Conversations that count; places that were only taken do not.
    pub(super) fn conversations_counted(&self) -> u64 {
        self.conversations.used().saturating_sub(self.places)
    }

    /// Humans seen in this month.
    pub(super) fn seats(&self) -> u64 {
        u64::try_from(self.humans.len()).unwrap_or(u64::MAX)
    }

    /// Goes on from what the inbox knows to be counted.
    pub(super) fn restore_conversations(&mut self, counted: &[Counted]) {
        let current = counted.iter().filter(|counted| counted.period_ms >= self.since_ms);
        let used = current.fold(0_u64, |sum, counted| sum.saturating_add(counted.conversations));
        self.conversations = Meter::restore(self.period, used);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use relais_policies::TenantPolicy;
    use relais_policies::limit::{Limit, Overrides};
    use relais_policies::plan::Catalog;
    use relais_policies::tenant::TenantSpec;

    use super::*;
    use crate::admission::{Journal, Level, Told, Watched};
    use crate::clock::Clock;

    const MONTH: Duration = Duration::from_hours(24 * 31);

    fn policy(conversations: Limit, seats: Limit) -> TenantPolicy {
        let (conversations_per_month, seats) = (Some(conversations), Some(seats));
        let overrides = Overrides { conversations_per_month, seats, ..Overrides::default() };
        let spec = TenantSpec { tenant_id: "acme".to_owned(), overrides, ..TenantSpec::default() };
        TenantPolicy::compile(Catalog::embedded(), &spec).unwrap()
    }

    fn account(conversations: Limit, seats: Limit, clock: &Clock) -> Arc<Account> {
        Account::new("acme".into(), &policy(conversations, seats), clock.clone(), &Arc::default())
    }

    fn counted(account: &Account) -> u64 {
        account.drain().account.conversations
    }

    #[test]
    fn a_place_is_taken_before_it_counts_and_goes_back_if_it_does_not() {
        let clock = Clock::manual(0);
        let account = account(Limit::AtMost(2), Limit::ZERO, &clock);
        let (first, second) = (account.new_conversation().unwrap(), account.new_conversation().unwrap());
        assert_eq!(account.new_conversation().unwrap_err().limit, 2);
        assert_eq!(counted(&account), 0, "nothing is certain yet");
        first.keep();
        drop(second);
        assert_eq!(counted(&account), 1);
        account.new_conversation().unwrap().keep();
        assert!(account.new_conversation().is_err());
        account.conversation_uncounted(account.counts_since_ms());
        assert_eq!(counted(&account), 1);
    }

    #[test]
    fn what_was_taken_last_month_changes_nothing_in_this_one() {
        let clock = Clock::manual(0);
        let account = account(Limit::AtMost(1), Limit::ZERO, &clock);
        let old = account.new_conversation().unwrap();
        let period_ms = old.period_ms;
        clock.advance(MONTH);
        let new = account.new_conversation().unwrap();
        assert_ne!(new.period_ms, period_ms);
        new.keep();
        drop(old);
        account.conversation_uncounted(period_ms);
        assert_eq!(counted(&account), 1);
        assert!(account.new_conversation().is_err());
    }

    #[test]
    fn an_account_goes_on_from_what_the_inbox_knows_of_this_month() {
        let clock = Clock::manual(0);
        let journal = Arc::new(Journal::default());
        let month_ms = i64::try_from(MONTH.as_millis()).unwrap();
        for (period_ms, conversations) in [(-month_ms, 9), (0, 3)] {
            journal.remember_counted("acme".into(), Counted { period_ms, conversations });
        }
        let policy = policy(Limit::AtMost(4), Limit::ZERO);
        let account = Account::new("acme".into(), &policy, clock.clone(), &journal);
        assert_eq!(counted(&account), 3);
        account.new_conversation().unwrap().keep();
        assert!(account.new_conversation().is_err());
    }

    #[test]
    fn seats_are_told_beyond_the_plan_and_conversations_without_limit_at_the_soft_level() {
        let clock = Clock::manual(0);
        let account = account(Limit::Unlimited, Limit::AtMost(2), &clock);
        let alerts = |account: &Account| account.drain().alerts.iter().map(|alert| alert.told).collect::<Vec<_>>();
        account.humans_seen([7, 8, 7]);
        assert_eq!(account.drain().account.humans.len(), 2);
        assert_eq!(alerts(&account), [], "all that were bought");
        account.humans_seen([9]);
        let over = Told { watched: Watched::Seats, level: Level::Over };
        assert_eq!((alerts(&account), alerts(&account)), (vec![over], vec![]));
        account.humans_seen(0..10_000);
        assert_eq!(account.drain().account.humans.len(), HUMANS_MAX);
        for _ in 0..19_999 {
            account.new_conversation().unwrap().keep();
        }
        assert_eq!(alerts(&account), []);
        account.new_conversation().unwrap().keep();
        let soft = Told { watched: Watched::Conversations, level: Level::Soft };
        assert_eq!(alerts(&account), [soft]);
        clock.advance(MONTH);
        account.humans_seen([7]);
        let state = account.drain().account;
        assert_eq!((state.conversations, state.humans.len()), (0, 1));
    }
}
