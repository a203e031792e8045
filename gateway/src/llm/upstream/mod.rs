//! Who answers a model's name, and sending it there.
//!
//! Choosing is by the operator's list and by how its upstreams have been lately; nothing a client sends can name a
//! host, a key or a path. Of those that serve a model the lowest priority goes first, and within it each has the share
//! its weight says. Passed over are those that asked to be left alone (`Retry-After`), those that keep failing
//! (`breaker`) and those with no room for another call.
//!
//! A try that fails may be followed by another, at most two, before the first byte of an answer and out of a budget
//! (`retry`); whether it may is `verdict`'s to say. Answers are bounded and checked before a byte of them reaches
//! a client: redirects, encodings we did not ask for and refusals of our own key are the upstream's failure.
//!
//! What is learnt of an upstream outlives a reload that leaves its name and address. It is of this process alone:
//! several gateways each find out for themselves.

mod answer_body;
mod breaker;
mod retry;
mod single;
mod target;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use prometheus::IntCounter;
use tokio::time::Instant;
use tracing::debug;

pub use answer_body::AnswerBody;
pub use breaker::State;
pub use single::NotAnswered;
pub use target::Upstream;

use breaker::Ticket;
use retry::{Draws, RetryBudget};
use target::Away;
use verdict::{Again, Failed, Outcome};

use crate::clock::Clock;
use crate::config::{self, Timeouts};
use crate::error::{Error, Reason, Retry};
use crate::http::client::Client;
use crate::http::slots::Slot;
use crate::llm::endpoint::Endpoint;
use crate::metrics::Metrics;

/// Tries of one call, the first included.
const TRIES_MAX: usize = 3;
/// When a call may come back that found every place taken.
const FULL_WAIT_MS: u64 = 1_000;

/// The models we can reach.
#[derive(Debug)]
pub struct Upstreams {
    /// In the order they are preferred.
    list: Vec<Arc<Upstream>>,
    budget: Arc<RetryBudget>,
    draws: Draws,
    retries_withheld: IntCounter,
}

/// What an upstream answered: a 2xx, or a refusal of the request itself, which is the client's to read.
#[derive(Debug)]
pub struct Answered {
    /// Who.
    pub upstream: Arc<Upstream>,
    /// Its head, and its body as it comes.
    pub response: Response<AnswerBody>,
    /// When the whole call must be over: `timeouts.total` after it began.
    pub ends_by: Instant,
}

/// An upstream chosen for a try, with the right to make it.
struct Chosen<'a> {
    upstream: &'a Arc<Upstream>,
    ticket: Ticket<'a>,
    slot: Slot,
}

/// One call's tries.
struct Call<'a> {
    client: &'a Client,
    model: &'a str,
    connect: Duration,
    ends_by: Instant,
    /// Each try's upstream. Nothing is allocated before one fails.
    tried: Vec<&'a Arc<Upstream>>,
    /// Those of them that are not asked again.
    given_up: Vec<&'a Arc<Upstream>>,
}

impl Upstreams {
    /// Prepares the configured upstreams. `before`: those in force until now, of whom what is known is kept.
    pub fn new(
        configured: &[Arc<config::Upstream>],
        clock: &Clock,
        metrics: &Metrics,
        before: Option<&Self>,
    ) -> Result<Self, Error> {
        let known = |name: &str| before?.list.iter().map(|upstream| &**upstream).find(|known| &*known.name == name);
        let mut list = configured
            .iter()
            .map(|upstream| Upstream::new(upstream, clock, metrics, known(&upstream.name)).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        // Stable: the file's order decides among equals.
        list.sort_by_key(|upstream| upstream.config.priority);
        Ok(Self {
            list,
            budget: before
                .map_or_else(|| Arc::new(RetryBudget::new(clock.clone())), |before| Arc::clone(&before.budget)),
            draws: Draws::default(),
            retries_withheld: metrics.upstreams.retries_withheld.clone(),
        })
    }

    /// Who serves this model first, when all are well: whom to estimate by before it is known who will answer.
    pub fn choose(&self, model: &str) -> Option<&Arc<Upstream>> {
        self.list.iter().find(|upstream| upstream.serves(model))
    }

    /// The models that are named, for `/v1/models`: exact names and aliases, each with its upstream's name.
    pub fn named_models(&self) -> Vec<(&str, &str)> {
        let mut models: Vec<(&str, &str)> = self
            .list
            .iter()
            .flat_map(|upstream| {
                let exact = upstream.config.models.iter().map(String::as_str).filter(|model| !model.ends_with('*'));
                let aliases = upstream.config.aliases.keys().map(String::as_str);
                exact.chain(aliases).map(|model| (model, &**upstream.name()))
            })
            .collect();
        models.sort_unstable();
        models.dedup_by_key(|(model, _)| *model);
        models
    }

    /// Writes the gauges.
    pub fn refresh_gauges(&self, metrics: &Metrics) {
        // An upstream that a reload took away is on no page any more.
        metrics.upstreams.state.reset();
        for upstream in &self.list {
            metrics.upstreams.state.with_label_values(&[&*upstream.name]).set(upstream.state() as i64);
        }
    }

    /// Sends a call to whoever serves `model` and waits for the head of an answer. `body` is asked for each try: what
    /// an upstream calls the model, and which field limits its output, is its own.
    pub async fn send(
        &self,
        client: &Client,
        endpoint: Endpoint,
        model: &str,
        body: impl Fn(&Upstream) -> Bytes,
        timeouts: &Timeouts,
    ) -> Result<Answered, Error> {
        let mut call = Call {
            client,
            model,
            connect: timeouts.connect,
            ends_by: Instant::now() + timeouts.total,
            tried: Vec::new(),
            given_up: Vec::new(),
        };
        self.budget.pay_in();
        let mut chosen = self.next(&call, &call.tried).await?;
        loop {
            let Chosen { upstream, ticket, slot } = chosen;
            let wait = timeouts.first_byte.min(call.ends_by.saturating_duration_since(Instant::now()));
            let failed = match upstream.ask(client, &slot, endpoint, body(upstream), wait).await {
                Ok(response) => {
                    ticket.healthy();
                    let response = response.map(|incoming| AnswerBody::new(incoming, slot));
                    return Ok(Answered { upstream: Arc::clone(upstream), response, ends_by: call.ends_by });
                }
                Err(failed) => failed,
            };
            drop(slot);
            match failed.against {
                Some(against) => ticket.failed(against),
                None => ticket.healthy(),
            }
            if let Some(ms) = failed.rest_ms {
                upstream.health.rest(ms);
            }
            call.tried.push(upstream);
            if failed.again == Again::Elsewhere {
                call.given_up.push(upstream);
            }
            chosen = self.another(&call, failed).await?;
        }
    }

    /// After a try that failed: another, if there may be one and there is somebody to make it with.
    async fn another<'a>(&'a self, call: &Call<'a>, failed: Failed) -> Result<Chosen<'a>, Error> {
        let tries = call.tried.len();
        if failed.again == Again::Nowhere || tries >= TRIES_MAX {
            return Err(failed.error);
        }
        // Somebody else at once, or those that failed once more after a pause.
        let pause = retry::backoff(tries, self.draws.next());
        let elsewhere = self.next(call, &call.tried).await;
        let once_more = || Instant::now() + pause < call.ends_by && self.pick(call.model, &call.given_up, &[]).is_ok();
        if elsewhere.is_err() && !once_more() {
            return Err(self.nobody_left(call.model, failed.error));
        }
        if !self.budget.take() {
            self.retries_withheld.inc();
            return Err(failed.error);
        }
        let next = match elsewhere {
            Ok(next) => next,
            Err(_) => {
                tokio::time::sleep(pause).await;
                match self.next(call, &call.given_up).await {
                    Ok(next) => next,
                    Err(_) => return Err(self.nobody_left(call.model, failed.error)),
                }
            }
        };
        let causes = failed.error.causes();
        debug!(error = %failed.error, causes, next = &**next.upstream.name(), "Try at an upstream failed, another follows.");
        next.upstream.retries.inc();
        Ok(next)
    }

    /// Whom to try next, with room for the call. Waits for room, at most as long as for a connection,
    /// and only if all who could be tried are full.
    async fn next<'a>(&'a self, call: &Call<'_>, not: &[&Arc<Upstream>]) -> Result<Chosen<'a>, Error> {
        let slots = call.client.slots();
        let mut full: Vec<&Arc<Upstream>> = Vec::new();
        let nobody = loop {
            match self.pick(call.model, not, &full) {
                Err(error) => break error,
                Ok(upstream) => {
                    let Some(slot) = slots.take_now(&upstream.name, upstream.config.connections_max) else {
                        full.push(upstream);
                        continue;
                    };
                    // Between picking and this, another may have become the one that probes: then it is picked no more.
                    if let Some(ticket) = upstream.health.breaker.admit() {
                        return Ok(Chosen { upstream, ticket, slot });
                    }
                }
            }
        };
        let Some(upstream) = full.first().copied() else { return Err(nobody) };
        let slot = slots.take(&upstream.name, upstream.config.connections_max, call.connect).await;
        let Some(slot) = slot else {
            upstream.count(Outcome::Full);
            let error = Error::new(Reason::Overloaded, "Too many calls to this model are open. Try again later.");
            return Err(error.retry(Retry::AfterMs(FULL_WAIT_MS)));
        };
        match upstream.health.breaker.admit() {
            Some(ticket) => Ok(Chosen { upstream, ticket, slot }),
            None => Err(self.unavailable(call.model)),
        }
    }

    /// Whom to try next, of those that are there: the lowest priority, and within it by weight.
    fn pick(&self, model: &str, not: &[&Arc<Upstream>], full: &[&Arc<Upstream>]) -> Result<&Arc<Upstream>, Error> {
        let among =
            |list: &[&Arc<Upstream>], upstream: &Arc<Upstream>| list.iter().any(|one| Arc::ptr_eq(one, upstream));
        let could = |upstream: &Arc<Upstream>| {
            upstream.serves(model)
                && !among(not, upstream)
                && !among(full, upstream)
                && upstream.health.away().is_none()
        };
        for group in self.list.chunk_by(|one, next| one.config.priority == next.config.priority) {
            let mut candidates = group.iter().filter(|upstream| could(upstream));
            let Some(first) = candidates.next() else { continue };
            let Some(second) = candidates.next() else { return Ok(first) };
            let all = || [first, second].into_iter().chain(candidates.clone());
            let total: u64 = all().map(|upstream| u64::from(upstream.config.weight)).sum();
            let mut drawn = self.draws.next() % total.max(1);
            for upstream in all() {
                match drawn.checked_sub(u64::from(upstream.config.weight)) {
                    None => return Ok(upstream),
                    Some(rest) => drawn = rest,
                }
            }
            // A candidate went away between the two looks, or all weights are 0.
            return Ok(first);
        }
        Err(self.unavailable(model))
    }

    /// A try has failed and there is nobody to try instead.
    fn nobody_left(&self, model: &str, failed: Error) -> Error {
        // Their limits are what the client waits for, and the shortest of them what it is told.
        if failed.reason == Reason::UpstreamBusy && self.shortest_wait(model).is_some() {
            return self.unavailable(model);
        }
        failed
    }

    /// Nobody can be asked now.
    fn unavailable(&self, model: &str) -> Error {
        if self.choose(model).is_none() {
            return Error::new(
                Reason::UnknownModel,
                "No upstream serves this model. GET /v1/models lists those that are named.",
            )
            .param("model");
        }
        match self.shortest_wait(model) {
            Some(Away::Rests(wait)) => {
                Error::new(Reason::UpstreamBusy, "The model is limiting this gateway. Try again later.")
                    .retry(after(wait))
            }
            Some(Away::Fails(wait)) => {
                Error::new(Reason::UpstreamFailed, "The model keeps failing and is left alone for a moment.")
                    .retry(after(wait))
            }
            // Whoever could not be asked a moment ago can be now.
            None => Error::new(Reason::UpstreamBusy, "The model cannot be asked now.").retry(Retry::AfterMs(0)),
        }
    }

    /// The first of those who are away to be back, if any is. One that rests decides how that is said: a limit
    /// will end by itself.
    fn shortest_wait(&self, model: &str) -> Option<Away> {
        let aways = self.list.iter().filter(|upstream| upstream.serves(model)).filter_map(|one| one.health.away());
        let (mut shortest, mut any_rests) = (None::<Duration>, false);
        for away in aways {
            let (Away::Rests(wait) | Away::Fails(wait)) = away;
            any_rests |= matches!(away, Away::Rests(_));
            shortest = Some(shortest.map_or(wait, |so_far| so_far.min(wait)));
        }
        shortest.map(if any_rests { Away::Rests } else { Away::Fails })
    }
}

/// At least 1 ms: 0 would invite a loop.
fn after(wait: Duration) -> Retry {
    Retry::AfterMs(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1))
}

#[cfg(test)]
mod tests;
