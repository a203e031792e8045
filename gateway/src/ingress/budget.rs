//! How many tokens a call may spend: before it is sent, and while it answers.
//!
//! Need is the prompt's estimate and a first slice of the answer. A stream grows its reservation as it goes; a unary
//! answer cannot be stopped half-way, so what it may produce is reserved whole. If there is less than the client
//! allows, the upstream's own limit is clamped to what there is: the provider holds the ceiling, the client sees
//! an ordinary `finish_reason: "length"`.
//!
//! Far from the limit the prompt is estimated by the average of what this upstream told; within a twentieth of it,
//! by what it can be at most: a token is at least one byte.

use std::borrow::Cow;

use relais_policies::limit::Limit;
use relais_policies::rate_card::{ModelPrice, TokenUsage};
use relais_policies::shadow::Shadow;

use crate::admission::{Call, Denied, Kind, Permit, Reservation, Use};
use crate::error::{Reason, Retry};
use crate::llm::endpoint::Endpoint;
use crate::llm::request::Head;
use crate::llm::upstream::Upstream;
use crate::llm::usage::Usage;
use crate::policy::KeyState;

/// Output tokens reserved at a time while an answer streams: a few seconds of a fast model.
const SLICE: u64 = 256;
/// Output tokens that may be under way when a stream is cut.
const UNDER_WAY: u64 = 4;
/// Output tokens reserved for a unary answer of unknown length.
const UNARY: u64 = 4_096;
/// Below this many output tokens a call is not worth sending, unless the client asks for fewer.
const FLOOR: u64 = 16;
/// No model writes more in one answer; a clamp above it would change a request for nothing.
const ANSWER_MAX: u64 = 1 << 20;
/// The largest context there is, with room to grow.
const CONTEXT_MAX: u64 = 16 << 20;
/// Bytes of an answer's text for one token, where nobody told: the usual figure for English.
const BYTES_PER_WORDY_TOKEN: u64 = 4;
/// Chat templates add a few tokens that stand in no byte of the body.
const TEMPLATE_TOKENS: u64 = 16;

/// One call's money.
#[derive(Debug)]
pub(super) struct Budget {
    reservation: Reservation,
    price: ModelPrice,
    /// Prompt tokens reserved for: the estimate with a margin or, near the limit, what they are at most.
    input: u64,
    /// Prompt tokens charged if the provider tells none.
    estimate: u64,
    /// Prompt tokens that a provider may tell and be believed.
    input_max: u64,
    answers: u64,
    /// Output tokens of all answers that the reservation covers; `None`: output is free.
    covered: Option<u64>,
    /// Output tokens per answer told to the upstream, if any limit was.
    output_max: Option<u64>,
    /// What the upstream must be told, because there is less than the client allows.
    clamp: Option<u64>,
}

/// What the running call's growth came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// Go on.
    Covered,
    /// The budget is spent: end the answer here.
    Spent,
}

impl Budget {
    /// Reserves for a call.
    pub(super) fn reserve(
        permit: Permit,
        key: &KeyState,
        upstream: &Upstream,
        head: &Head<'_>,
        body_bytes: usize,
    ) -> Result<Self, Denied> {
        let policy = &key.tenant.policy;
        let price = policy.rate_card.price(head.model());
        let (bytes, answers) = (body_bytes as u64, head.answers);
        let estimate = upstream.estimate(body_bytes);
        let prompt = if near_limit(&permit, price, estimate) { bytes } else { estimate };
        let input = prompt.saturating_add(TEMPLATE_TOKENS);
        let per_call = within_one_call(
            &permit,
            policy.limits.tokens_per_call.min(key.key.limits.tokens_per_call),
            price,
            estimate,
            head,
        )?;
        let allowed = match (head.output_max(), per_call) {
            (Some(asked), Some(most)) => Some(asked.min(most)),
            (one, None) | (None, one) => one,
        };
        let first = allowed.unwrap_or(u64::MAX).min(if head.stream { SLICE } else { allowed.unwrap_or(UNARY) });
        let least = price.cost(&used(input, first.min(FLOOR).saturating_mul(answers)));
        let want = price.cost(&used(input, first.saturating_mul(answers)));
        let reservation = permit.reserve(Call { model: head.model(), kind: kind(head.endpoint()) }, least, want)?;
        let reachable =
            if head.stream { reservation.tokens().saturating_add(reservation.room) } else { reservation.tokens() };
        let limited = reservation.standing.tokens.is_some() || reservation.room < u64::MAX;
        let room = price.output_within(reachable, &used(input, 0)).map(|output| output / answers).filter(|_| limited);
        // A unary answer of unknown length far from the limit is not cut: what it produces beyond what is
        // reserved is there to be taken.
        let open_end = !head.stream && allowed.is_none() && reservation.room > price.cost(&used(0, ANSWER_MAX / 8));
        let clamp = room.filter(|room| !open_end && *room < allowed.unwrap_or(ANSWER_MAX)).map(|room| room.max(1));
        let capped = per_call.filter(|most| head.output_max().is_none_or(|asked| asked > *most));
        let clamp = [clamp, capped].into_iter().flatten().min();
        let covered = price.output_within(reservation.tokens(), &used(input, 0));
        // Images by address and server-side tools add tokens that stand in no byte; a conversation that the upstream
        // keeps may be as long as its context.
        let unseen = if head.continues { CONTEXT_MAX } else { 65_536 };
        Ok(Self {
            output_max: clamp.or(allowed),
            reservation,
            price,
            input,
            estimate,
            input_max: bytes.saturating_mul(4).saturating_add(unseen),
            answers,
            covered,
            clamp,
        })
    }

    /// Limits in shadow that would have refused the call.
    pub(super) fn shadowed(&self) -> Shadow {
        self.reservation.shadowed
    }

    /// What to tell the upstream about its output, if anything.
    pub(super) fn clamp(&self) -> Option<u64> {
        self.clamp
    }

    /// The answer has grown to so many output tokens. Reserves ahead of it.
    pub(super) fn grow(&mut self, output: u64) -> Growth {
        let Some(covered) = self.covered else { return Growth::Covered };
        self.reservation.count(self.cost(&Usage { input: self.estimate, output, ..Usage::default() }, true));
        // Half a slice ahead, so that one chunk with many tokens does not outrun it.
        if output.saturating_add(SLICE / 2) < covered {
            return Growth::Covered;
        }
        for slice in [SLICE, SLICE / 4, SLICE / 16, 1] {
            let more = self.price.cost(&used(0, slice.saturating_mul(self.answers)));
            if self.reservation.extend(more) {
                self.covered = self.price.output_within(self.reservation.tokens(), &used(self.input, 0));
                return Growth::Covered;
            }
        }
        // What the model writes until it hears of the end is paid for too.
        if output.saturating_add(UNDER_WAY) < covered { Growth::Covered } else { Growth::Spent }
    }

    /// The call came to nothing: everything goes back.
    pub(super) fn release(self) {
        self.reservation.release();
    }

    /// What the call comes to if it ends here: what the provider says; without it, what was counted, no more than the
    /// reservation covers.
    pub(super) fn so_far(&self, told: Option<Usage>, output: u64) -> Usage {
        match told {
            Some(told) => self.believable(told, output).0,
            None => {
                let output = output.min(self.covered.unwrap_or(u64::MAX));
                Usage { input: self.estimate, output, ..Usage::default() }
            }
        }
    }

    /// The call is over. `told` is what the provider says; without it, `output` counted tokens are charged.
    pub(super) fn settle(self, told: Option<Usage>, output: u64) -> Use {
        let (usage, estimated) = match told {
            Some(told) => self.believable(told, output),
            None => (self.so_far(None, output), true),
        };
        let used = self.cost(&usage, estimated);
        self.reservation.settle(used);
        used
    }

    /// A unary answer that told no usage: what its words come to, within what it was allowed.
    pub(super) fn settle_words(self, bytes: u64) -> Use {
        let output = bytes.div_ceil(BYTES_PER_WORDY_TOKEN).min(self.output_max_all());
        self.settle(None, output)
    }

    /// A unary call that was cut off by its client, or whose answer told nothing: what it may have produced.
    pub(super) fn settle_unknown(self) -> Use {
        let covered = self.covered.unwrap_or(0);
        let usage = Usage { input: self.input, output: covered, ..Usage::default() };
        let used = Use { budget: self.reservation.tokens(), ..self.cost(&usage, true) };
        self.reservation.settle(used);
        used
    }

    /// What a provider tells, within what is possible: a prompt has no more tokens than some multiple of its bytes,
    /// an answer no more than it was allowed, or than were seen. Beyond, it is bounded, and marked as estimated.
    fn believable(&self, told: Usage, counted: u64) -> (Usage, bool) {
        let input = told.input.min(self.input_max);
        let output = told.output.min(self.output_max_all().max(counted));
        let usage = Usage { input, cached: told.cached.min(input), output, reasoning: told.reasoning.min(output) };
        (usage, usage != told)
    }

    fn output_max_all(&self) -> u64 {
        match self.output_max {
            Some(0) => 0,
            Some(most) => most.saturating_mul(self.answers).saturating_add(FLOOR),
            None => ANSWER_MAX.saturating_mul(self.answers),
        }
    }

    fn cost(&self, usage: &Usage, estimated: bool) -> Use {
        let tokens = TokenUsage {
            input: usage.input,
            cached_input: usage.cached,
            output: usage.output,
            reasoning: usage.reasoning,
        };
        Use {
            budget: self.price.cost(&tokens),
            input: usage.input,
            cached: usage.cached,
            output: usage.output,
            estimated,
        }
    }
}

/// How the ledger names it.
fn kind(endpoint: Endpoint) -> Kind {
    match endpoint {
        Endpoint::Chat => Kind::Chat,
        Endpoint::Responses => Kind::Responses,
        Endpoint::Completions => Kind::Completions,
        Endpoint::Embeddings => Kind::Embeddings,
    }
}

fn used(input: u64, output: u64) -> TokenUsage {
    TokenUsage { input, output, ..TokenUsage::default() }
}

/// Output tokens for each answer within what one call may spend; `None`: as many as there are. A prompt that takes
/// it all is refused.
fn within_one_call(
    permit: &Permit,
    limit: Limit,
    price: ModelPrice,
    input: u64,
    head: &Head<'_>,
) -> Result<Option<u64>, Denied> {
    let Limit::AtMost(most) = limit else { return Ok(None) };
    if price.cost(&used(input, 0)) > most {
        return Err(over_per_call(permit, most));
    }
    match price.output_within(most, &used(input, 0)).map(|output| output / head.answers) {
        Some(0) if head.output_max() != Some(0) => Err(over_per_call(permit, most)),
        output => Ok(output),
    }
}

fn over_per_call(permit: &Permit, most: u64) -> Denied {
    Denied {
        reason: Reason::TooLarge,
        message: Cow::Owned(format!("One call may spend {most} budget tokens, and this one's prompt leaves none.")),
        retry: Retry::Never,
        standing: permit.standing,
    }
}

/// Within a twentieth of the limit, or of what the prompt alone takes.
fn near_limit(permit: &Permit, price: ModelPrice, estimate: u64) -> bool {
    permit.standing.tokens.is_some_and(|tokens| {
        let prompt = price.cost(&used(estimate, 0));
        tokens.remaining < tokens.limit / 20 || tokens.remaining < prompt.saturating_mul(20)
    })
}
