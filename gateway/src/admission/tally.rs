//! What a key used of which model, between two visits of the ledger.
//!
//! A call is counted in the place it began in: model, kind, billing period and day. While it runs, its place knows
//! that it is open and what it holds; when it ends, what it used. A place that nobody is in and that has told what
//! it knows is dropped, so a tally is as long as what its key does at one time: one or two places. That is why a
//! place is found by looking at each.
//!
//! Models are named by callers, so their number is bounded: names beyond it, and overlong ones, count as `other`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::admission::Use;

/// Names of models one account knows at a time. A tenant with more in one second sees the rest as `other`.
const MODELS_MAX: usize = 64;
/// The longest name kept, in bytes.
const MODEL_BYTES_MAX: usize = 128;
/// What stands for models that have no name of their own here.
const OTHER: &str = "other";

/// What kind of call it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/responses`
    Responses,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
    /// An answer of our own AI agent in a conversation.
    Agent,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Chat, Self::Responses, Self::Completions, Self::Embeddings, Self::Agent];

    /// Its word, in the ledger and in what is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Agent => "agent",
        }
    }

    /// The kind with this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// What a number of calls came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Calls that ended and were charged.
    pub calls: u64,
    /// Those of them charged by our own count, because the upstream told none or nonsense.
    pub estimated_calls: u64,
    /// Prompt tokens, cached ones included.
    pub input_tokens: u64,
    /// The cached part of the prompts.
    pub cached_tokens: u64,
    /// Answer tokens, reasoning included.
    pub output_tokens: u64,
    /// Budget tokens: what the wallet was charged.
    pub budget_tokens: u64,
}

impl Counts {
    /// Adds what others came to.
    pub fn add(&mut self, more: &Self) {
        self.calls = self.calls.saturating_add(more.calls);
        self.estimated_calls = self.estimated_calls.saturating_add(more.estimated_calls);
        self.input_tokens = self.input_tokens.saturating_add(more.input_tokens);
        self.cached_tokens = self.cached_tokens.saturating_add(more.cached_tokens);
        self.output_tokens = self.output_tokens.saturating_add(more.output_tokens);
        self.budget_tokens = self.budget_tokens.saturating_add(more.budget_tokens);
    }
}

impl From<Use> for Counts {
    fn from(used: Use) -> Self {
        Self {
            calls: 1,
            estimated_calls: u64::from(used.estimated),
            input_tokens: used.input,
            cached_tokens: used.cached,
            output_tokens: used.output,
            budget_tokens: used.budget,
        }
    }
}

/// A model's place among its account's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ModelId(usize);

/// Where a call is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) model: ModelId,
    pub(super) kind: Kind,
    /// Since when the period counts, Unix ms.
    pub(super) period_ms: i64,
    /// Days since 1970, UTC.
    pub(super) day: i64,
}

/// One place of a key.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) place: Place,
    /// Ended, and not yet told to the ledger.
    pub(super) done: Counts,
    /// Running.
    pub(super) open_calls: u64,
    /// Budget tokens that the running ones hold.
    pub(super) open_tokens: u64,
}

/// All places of a key.
#[derive(Debug, Default)]
pub(super) struct Tallies(Vec<Tally>);

impl Tallies {
    /// A call begins with so much reserved.
    pub(super) fn begin(&mut self, place: Place, tokens: u64) {
        let tally = self.at(place);
        tally.open_calls += 1;
        tally.open_tokens = tally.open_tokens.saturating_add(tokens);
    }

    /// A running call holds more.
    pub(super) fn extend(&mut self, place: Place, more: u64) {
        let tally = self.at(place);
        tally.open_tokens = tally.open_tokens.saturating_add(more);
    }

    /// A call that held so much is over. `None`: it came to nothing.
    pub(super) fn end(&mut self, place: Place, tokens: u64, used: Option<Use>) {
        let tally = self.at(place);
        tally.open_calls = tally.open_calls.saturating_sub(1);
        tally.open_tokens = tally.open_tokens.saturating_sub(tokens);
        if let Some(used) = used {
            tally.done.add(&used.into());
        }
    }

    /// Calls that never were among the running ones here.
    pub(super) fn add(&mut self, place: Place, counts: &Counts) {
        self.at(place).done.add(counts);
    }

    /// Hands out what is done and forgets it, and every place with it that nobody is in.
    pub(super) fn drain(&mut self, mut told: impl FnMut(Place, Counts)) {
        self.0.retain_mut(|tally| {
            let done = std::mem::take(&mut tally.done);
            if done != Counts::default() {
                told(tally.place, done);
            }
            tally.open_calls > 0
        });
    }

    /// Every place.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Tally> {
        self.0.iter()
    }

    fn at(&mut self, place: Place) -> &mut Tally {
        let index = match self.0.iter().position(|tally| tally.place == place) {
            Some(index) => index,
            None => {
                self.0.push(Tally { place, done: Counts::default(), open_calls: 0, open_tokens: 0 });
                self.0.len() - 1
            }
        };
        #[expect(clippy::indexing_slicing, reason = "found, or just put there")]
        &mut self.0[index]
    }
}

/// The names of an account's models.
#[derive(Debug)]
pub(super) struct Models {
    other: Arc<str>,
    /// Place 0 is `other`'s, so a name's id is its index plus one.
    names: Vec<Option<Arc<str>>>,
}

impl Models {
    pub(super) fn new() -> Self {
        Self { other: Arc::from(OTHER), names: Vec::new() }
    }

    /// The id of a name. Allocates for a new one only.
    pub(super) fn id(&mut self, name: &str) -> ModelId {
        if let Some(index) = self.names.iter().position(|known| known.as_deref() == Some(name)) {
            return ModelId(index + 1);
        }
        if name == OTHER || name.len() > MODEL_BYTES_MAX {
            return ModelId(0);
        }
        if let Some(index) = self.names.iter().position(Option::is_none) {
            if let Some(free) = self.names.get_mut(index) {
                *free = Some(Arc::from(name));
            }
            return ModelId(index + 1);
        }
        if self.names.len() < MODELS_MAX {
            self.names.push(Some(Arc::from(name)));
            return ModelId(self.names.len());
        }
        ModelId(0)
    }

    /// The name of an id.
    pub(super) fn name(&self, id: ModelId) -> Arc<str> {
        let name = id.0.checked_sub(1).and_then(|index| self.names.get(index)).and_then(Option::as_ref);
        Arc::clone(name.unwrap_or(&self.other))
    }

    /// When all names are given out, takes those back that no place uses.
    pub(super) fn make_room<'a>(&mut self, places: impl Iterator<Item = &'a Tally>) {
        if self.names.len() < MODELS_MAX || self.names.iter().any(Option::is_none) {
            return;
        }
        let mut used = [false; MODELS_MAX];
        for tally in places {
            if let Some(used) = tally.place.model.0.checked_sub(1).and_then(|index| used.get_mut(index)) {
                *used = true;
            }
        }
        for (name, used) in self.names.iter_mut().zip(used) {
            if !used {
                *name = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_come_back() {
        let mut models = Models::new();
        let first = models.id("m0");
        for number in 0..MODELS_MAX {
            assert_ne!(models.id(&format!("m{number}")), ModelId(0));
        }
        let (beyond, long) = (models.id("one too many"), models.id(&"m".repeat(MODEL_BYTES_MAX + 1)));
        assert_eq!((&*models.name(beyond), &*models.name(long)), ("other", "other"));
        let place = Place { model: first, kind: Kind::Chat, period_ms: 0, day: 0 };
        let mut tallies = Tallies::default();
        tallies.begin(place, 5);
        models.make_room(tallies.iter());
        assert_eq!(&*models.name(first), "m0");
        assert_eq!(models.id("m0"), first);
        let fresh = models.id("one too many");
        assert_eq!(&*models.name(fresh), "one too many");
    }

    #[test]
    fn a_place_is_told_once_and_kept_while_somebody_is_in() {
        let place = Place { model: ModelId(0), kind: Kind::Chat, period_ms: 0, day: 3 };
        let used = Use { budget: 7, input: 4, cached: 1, output: 3, estimated: true };
        let mut tallies = Tallies::default();
        tallies.begin(place, 10);
        tallies.begin(place, 10);
        tallies.end(place, 10, Some(used));
        let mut told = Vec::new();
        tallies.drain(|_, counts| told.push(counts));
        tallies.drain(|_, counts| told.push(counts));
        assert_eq!(told, [Counts::from(used)]);
        assert_eq!(tallies.iter().map(|tally| (tally.open_calls, tally.open_tokens)).collect::<Vec<_>>(), [(1, 10)]);
        tallies.end(place, 10, None);
        tallies.drain(|_, counts| told.push(counts));
        assert_eq!((told.len(), tallies.iter().count()), (1, 0));
    }

    #[test]
    fn every_kind_has_its_word() {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.as_str()), Some(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
