//! What model tokens cost in budget tokens.
//!
//! A budget token is one model token unless the operator's rate card says otherwise, per model
//! and direction, in integer thousandths: 1000 is one to one. A call is summed up in thousandths
//! and rounded up once, so many small calls cannot be free and one call is at most one token dear.
//!
//! Usage is taken as OpenAI reports it: cached input is part of `input`, reasoning is part of
//! `output`. So reasoning costs what output costs, and nothing is added for it, unless the rate
//! names a price of its own for it. A part larger than its whole (a provider that lies) counts as
//! the whole, never more.
//!
//! Prices in money are not here: they belong to plans.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limit::model_matches;

/// Thousandths of a budget token for one model token, one to one.
const ONE_TO_ONE: u32 = 1000;

/// What one call used, in model tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// Tokens of the prompt, cached ones included.
    pub input: u64,
    /// Those of `input` that came from the provider's cache.
    pub cached_input: u64,
    /// Tokens of the answer, reasoning included.
    pub output: u64,
    /// Those of `output` spent on reasoning.
    pub reasoning: u64,
}

/// The price of a model, in thousandths of a budget token for each model token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Which models: a name, a name that ends in `*`, or `*`. A whole name is preferred to a
    /// pattern, a longer pattern to a shorter one.
    pub model: String,
    /// For input. Default 1000.
    #[serde(default = "one_to_one")]
    pub input: u32,
    /// For input from the provider's cache. Default: as input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<u32>,
    /// For output. Default 1000.
    #[serde(default = "one_to_one")]
    pub output: u32,
    /// For the reasoning in the output. Default: as output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u32>,
}

/// The prices of all models. A model that no rate names is one to one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RateCard {
    rates: Vec<Rate>,
}

/// One model's price, resolved: look it up once for a call and keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelPrice {
    input: u32,
    cached_input: u32,
    output: u32,
    reasoning: u32,
}

impl RateCard {
    /// A card with these rates.
    pub fn new(rates: Vec<Rate>) -> RateCard {
        RateCard { rates }
    }

    /// The rates as written.
    pub fn rates(&self) -> &[Rate] {
        &self.rates
    }

    /// The price of a model.
    pub fn price(&self, model: &str) -> ModelPrice {
        let best = self
            .rates
            .iter()
            .filter(|rate| model_matches(&rate.model, model))
            .max_by_key(|rate| (rate.model == model, rate.model.len()));
        match best {
            Some(rate) => ModelPrice {
                input: rate.input,
                cached_input: rate.cached_input.unwrap_or(rate.input),
                output: rate.output,
                reasoning: rate.reasoning.unwrap_or(rate.output),
            },
            None => ModelPrice::ONE_TO_ONE,
        }
    }

    /// What a call cost, in budget tokens, rounded up once.
    pub fn cost(&self, model: &str, usage: &TokenUsage) -> u64 {
        self.price(model).cost(usage)
    }
}

impl ModelPrice {
    /// One model token, one budget token.
    pub const ONE_TO_ONE: ModelPrice =
        ModelPrice { input: ONE_TO_ONE, cached_input: ONE_TO_ONE, output: ONE_TO_ONE, reasoning: ONE_TO_ONE };

    /// What this usage costs, in budget tokens, rounded up; at most `u64::MAX`.
    pub fn cost(self, usage: &TokenUsage) -> u64 {
        u64::try_from(self.thousandths(usage).div_ceil(1000)).unwrap_or(u64::MAX)
    }

    /// How many more output tokens `budget_tokens` pay for, given what was used already; `None`
    /// when output is free. Never so many that their cost would exceed the budget.
    pub fn output_within(self, budget_tokens: u64, used: &TokenUsage) -> Option<u64> {
        if self.output == 0 {
            return None;
        }
        let left = (u128::from(budget_tokens) * 1000).saturating_sub(self.thousandths(used));
        Some(u64::try_from(left / u128::from(self.output)).unwrap_or(u64::MAX))
    }

    /// Four products under 2^96: no overflow in 128 bits.
    fn thousandths(self, usage: &TokenUsage) -> u128 {
        let cached = usage.cached_input.min(usage.input);
        let reasoning = usage.reasoning.min(usage.output);
        u128::from(usage.input - cached) * u128::from(self.input)
            + u128::from(cached) * u128::from(self.cached_input)
            + u128::from(usage.output - reasoning) * u128::from(self.output)
            + u128::from(reasoning) * u128::from(self.reasoning)
    }
}

fn one_to_one() -> u32 {
    ONE_TO_ONE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Deserialize)]
    struct File {
        rate: RateCard,
    }

    fn card() -> RateCard {
        let text = "
            [[rate]]
            model = \"gpt-4*\"
            input = 1000
            cached_input = 500
            output = 4000
            [[rate]]
            model = \"gpt-4o-mini\"
            input = 100
            output = 400
            [[rate]]
            model = \"o1*\"
            output = 2000
            reasoning = 3000
            [[rate]]
            model = \"local/*\"
            input = 0
            output = 1
        ";
        toml::from_str::<File>(text).unwrap().rate
    }

    fn usage(input: u64, cached_input: u64, output: u64, reasoning: u64) -> TokenUsage {
        TokenUsage { input, cached_input, output, reasoning }
    }

    #[test]
    fn costs() {
        for (model, used, cost) in [
            ("llama", usage(10, 5, 7, 3), 17),
            ("llama", usage(0, 0, 0, 0), 0),
            ("gpt-4-turbo", usage(100, 40, 10, 0), 60 + 20 + 40),
            ("gpt-4o-mini", usage(100, 0, 10, 10), 10 + 4),
            ("gpt-4o-mini", usage(1, 0, 0, 0), 1),
            ("o1-preview", usage(10, 0, 10, 4), 10 + 12 + 12),
            ("local/tiny", usage(1_000_000, 0, 1_001, 0), 2),
            // A part beyond its whole is the whole.
            ("gpt-4-turbo", usage(10, 99, 0, 0), 5),
            ("o1", usage(0, 0, 10, 99), 30),
            ("gpt-4-turbo", usage(u64::MAX, 0, u64::MAX, 0), u64::MAX),
        ] {
            assert_eq!(card().cost(model, &used), cost, "{model} {used:?}");
        }
    }

    #[test]
    fn how_much_output_a_budget_pays_for() {
        let gpt4 = card().price("gpt-4");
        assert_eq!(gpt4.output_within(100, &usage(60, 0, 0, 0)), Some(10));
        assert_eq!(gpt4.output_within(100, &usage(101, 0, 0, 0)), Some(0));
        assert_eq!(ModelPrice::ONE_TO_ONE.output_within(u64::MAX, &usage(0, 0, 0, 0)), Some(u64::MAX));
        let free = RateCard::new(vec![Rate {
            model: "*".into(),
            input: 1000,
            cached_input: None,
            output: 0,
            reasoning: None,
        }]);
        assert_eq!(free.price("x").output_within(0, &usage(5, 0, 0, 0)), None);
    }

    proptest! {
        /// What `output_within` allows costs no more than the budget, and one token more would
        /// (unless reasoning is dearer than output, which is not known in advance).
        #[test]
        fn output_within_is_exact(input in 0_u32..5_000, output in 1_u32..5_000, prompt in 0_u64..10_000, beyond in 0_u64..100_000) {
            let price = ModelPrice { input, cached_input: input, output, reasoning: output };
            let used = usage(prompt, 0, 0, 0);
            let budget = price.cost(&used) + beyond;
            let more = price.output_within(budget, &used).unwrap();
            prop_assert!(price.cost(&usage(prompt, 0, more, 0)) <= budget);
            prop_assert!(price.cost(&usage(prompt, 0, more + 1, 0)) > budget);
        }

        /// Rounding is at most one token dear and never cheap.
        #[test]
        fn rounded_up_once(input in 0_u32..10_000, output in 0_u32..10_000, prompt in 0_u64..1_000_000, answer in 0_u64..1_000_000) {
            let price = ModelPrice { input, cached_input: input, output, reasoning: output };
            let exact = u64::from(input) * prompt + u64::from(output) * answer;
            let cost = price.cost(&usage(prompt, 0, answer, 0));
            prop_assert!(cost * 1000 >= exact && cost * 1000 < exact + 1000);
        }
    }
}
