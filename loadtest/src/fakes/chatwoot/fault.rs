//! Faults on demand: what goes wrong with calls to the fake and with the webhooks it sends.
//!
//! A rule says where it applies, what happens, how often (per mille, decided by the seed) and how
//! many times at most. The share is drawn from the seed, the conversation and the number of the
//! call within that conversation, so that a run with the same seed hits the same calls however the
//! conversations interleave. The first rule that fires decides.

use serde::{Deserialize, Serialize};

/// Which call a fault is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Endpoint {
    /// `POST conversations/{id}/messages`
    CreateMessage,
    /// `POST conversations/{id}/toggle_status`
    ToggleStatus,
    /// `POST conversations/{id}/toggle_typing_status`
    ToggleTyping,
    /// `POST conversations/{id}/assignments`
    Assign,
    /// `GET` or `POST conversations/{id}/labels`
    Labels,
    /// `POST conversations/{id}/custom_attributes`
    CustomAttributes,
    /// `POST conversations/{id}/toggle_priority`
    TogglePriority,
    /// `GET conversations/{id}`
    ShowConversation,
    /// `GET conversations/{id}/messages`
    ListMessages,
    /// Everything else.
    Other,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallEffect {
    /// Nothing happens but this answer. 429 is plain text, the rest JSON.
    Status(u16),
    /// It is done, then this is answered.
    DoneThenStatus(u16),
    /// It is done, and the connection closes without an answer: the outcome is unknown to the caller.
    Ambiguous,
    /// Nothing is done, and the connection closes without an answer.
    Hangup,
    /// It is done after this many ms, also when the caller has left by then.
    DelayMs(u64),
    /// It is done at once and answered after this many ms.
    DoneThenDelayMs(u64),
}

/// A fault of calls.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CallFault {
    /// Where; `None` is every call.
    #[serde(default)]
    pub on: Option<Endpoint>,
    /// What.
    pub effect: CallEffect,
    /// Share of calls, in thousandths; 1000 is every one.
    #[serde(default = "always")]
    pub per_mille: u16,
    /// How many times more; `None` is for ever.
    #[serde(default)]
    pub times: Option<u32>,
}

/// What goes wrong with a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryEffect {
    /// Lost, as with a worker that was killed: nobody is told, nothing opens.
    Drop,
    /// Sent twice under the same delivery id.
    Duplicate,
    /// Held back until the next one has been delivered, or 300 ms have passed.
    Reorder,
    /// Sent this many ms late.
    DelayMs(u64),
}

/// A fault of webhooks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeliveryFault {
    /// Only this event, such as `message_created`; `None` is every one.
    #[serde(default)]
    pub event: Option<String>,
    /// What.
    pub effect: DeliveryEffect,
    /// Share of deliveries, in thousandths.
    #[serde(default = "always")]
    pub per_mille: u16,
    /// How many times more; `None` is for ever.
    #[serde(default)]
    pub times: Option<u32>,
}

fn always() -> u16 {
    1000
}

/// Everything that goes wrong at present. Empty: nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Faults of calls, in order of precedence.
    #[serde(default)]
    pub calls: Vec<CallFault>,
    /// Faults of webhooks, in order of precedence.
    #[serde(default)]
    pub deliveries: Vec<DeliveryFault>,
}

impl CallFault {
    /// The next `times` calls of `on` have `effect`.
    #[must_use]
    pub fn next(on: Endpoint, times: u32, effect: CallEffect) -> Self {
        Self { on: Some(on), effect, per_mille: always(), times: Some(times) }
    }

    /// A share of the calls of `on`, in thousandths, has `effect`.
    #[must_use]
    pub fn share(on: Endpoint, per_mille: u16, effect: CallEffect) -> Self {
        Self { on: Some(on), effect, per_mille, times: None }
    }
}

impl DeliveryFault {
    /// The next `times` deliveries of `event` have `effect`.
    #[must_use]
    pub fn next(event: &str, times: u32, effect: DeliveryEffect) -> Self {
        Self { event: Some(event.to_owned()), effect, per_mille: always(), times: Some(times) }
    }

    /// A share of all deliveries, in thousandths, has `effect`.
    #[must_use]
    pub fn share(per_mille: u16, effect: DeliveryEffect) -> Self {
        Self { event: None, effect, per_mille, times: None }
    }
}

/// What a draw of the seeded share depends on.
#[derive(Clone, Copy)]
pub(super) struct Draw {
    pub(super) seed: u64,
    pub(super) conversation_id: u64,
    /// The how-manieth call or delivery of the conversation this is.
    pub(super) number: u64,
}

impl Draw {
    fn hits(self, per_mille: u16, rule: u64) -> bool {
        let mixed = [self.conversation_id, self.number, rule]
            .into_iter()
            .fold(self.seed, |mixed, next| mix(mixed.wrapping_add(next).wrapping_add(0x9E37_79B9_7F4A_7C15)));
        mixed % 1000 < u64::from(per_mille)
    }
}

/// The finalizer of `SplitMix64`: every input bit reaches every output bit.
pub(super) fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

impl Faults {
    /// What happens to this call, used up by being asked.
    pub(super) fn on_call(&mut self, endpoint: Endpoint, draw: Draw) -> Option<CallEffect> {
        let rule = (0..).zip(&mut self.calls).find_map(|(number, rule)| {
            let applies = rule.on.is_none_or(|on| on == endpoint) && rule.times != Some(0);
            (applies && draw.hits(rule.per_mille, number)).then_some(rule)
        })?;
        rule.times = rule.times.map(|times| times - 1);
        Some(rule.effect)
    }

    /// What happens to this delivery, used up by being asked.
    pub(super) fn on_delivery(&mut self, event: &str, draw: Draw) -> Option<DeliveryEffect> {
        // Rules of deliveries draw apart from rules of calls with the same number.
        let rule = (1 << 32..).zip(&mut self.deliveries).find_map(|(number, rule)| {
            let applies = rule.event.as_ref().is_none_or(|of| of == event) && rule.times != Some(0);
            (applies && draw.hits(rule.per_mille, number)).then_some(rule)
        })?;
        rule.times = rule.times.map(|times| times - 1);
        Some(rule.effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_about_as_large_as_said_and_the_same_for_the_same_seed() {
        let run = |seed| {
            let mut faults = Faults {
                calls: vec![CallFault::share(Endpoint::CreateMessage, 20, CallEffect::Ambiguous)],
                ..Faults::default()
            };
            (0..20_000)
                .filter(|call| {
                    let draw = Draw { seed, conversation_id: call % 100, number: call / 100 };
                    faults.on_call(Endpoint::CreateMessage, draw).is_some()
                })
                .collect::<Vec<u64>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        assert!((300..500).contains(&run(7).len()), "2 % of 20,000 is 400, drew {}", run(7).len());
    }

    #[test]
    fn a_rule_is_used_up_and_the_next_one_takes_over() {
        let mut faults = Faults {
            calls: vec![
                CallFault::next(Endpoint::CreateMessage, 1, CallEffect::Status(500)),
                CallFault::next(Endpoint::CreateMessage, 1, CallEffect::Hangup),
            ],
            ..Faults::default()
        };
        let draw = Draw { seed: 1, conversation_id: 1, number: 0 };
        assert_eq!(faults.on_call(Endpoint::ToggleStatus, draw), None);
        assert_eq!(faults.on_call(Endpoint::CreateMessage, draw), Some(CallEffect::Status(500)));
        assert_eq!(faults.on_call(Endpoint::CreateMessage, draw), Some(CallEffect::Hangup));
        assert_eq!(faults.on_call(Endpoint::CreateMessage, draw), None);
    }
}
