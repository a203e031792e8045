//! What happens in a crash run, drawn from a seed before anything starts, so that a seed is a run.
//!
//! Where the fakes' faults fall is drawn from the same seed, by conversation and call. How the processes interleave
//! is the machine's.

use std::time::Duration;

/// A run's size, from the environment or small.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) seed: u64,
    pub(crate) messages: usize,
    pub(crate) kills: usize,
}

impl Size {
    pub(crate) fn of_environment() -> Self {
        let number = |name: &str, default: u64| {
            std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
        };
        let size = |name: &str, default| usize::try_from(number(name, default)).unwrap();
        Self {
            seed: number("RELAIS_CRASH_SEED", 1),
            messages: size("RELAIS_CRASH_MESSAGES", 400),
            kills: size("RELAIS_CRASH_KILLS", 4),
        }
    }

    /// Enough for every one to be written to about eight times.
    pub(crate) fn conversations(self) -> usize {
        (self.messages / 8).max(1)
    }
}

/// Something that happens in one conversation, or to the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// The customer writes; the text begins with its number, which the model quotes.
    Says(usize, String),
    /// A human opens the conversation and takes it.
    TakesOver(usize),
    /// A human writes, in whatever status it is.
    HumanWrites(usize),
    /// Somebody answers from the channel's phone app.
    PhoneWrites(usize),
    /// A human opens it and gives it back.
    GivesBack(usize),
    /// A human resolves it.
    Resolves(usize),
    /// A human leaves a note for colleagues.
    Notes(usize),
    /// The process is killed, and started again after this long.
    Kill(Duration),
}

/// Steps, each with the wait before it.
pub(crate) fn schedule(size: Size) -> Vec<(Duration, Step)> {
    let mut dice = Dice(size.seed);
    let kill_every = size.messages / (size.kills + 1);
    let mut steps = Vec::new();
    for number in 0..size.messages {
        let place = dice.below(size.conversations());
        let text = match dice.below(100) {
            0 => format!("m{number}: I want to talk to a human."),
            1 => format!("m{number}: {{{{contact.email}}}} {{% if 1 %}} is what I see."),
            _ => format!("m{number}: where is my parcel?"),
        };
        steps.push((pause(&mut dice), Step::Says(place, text)));
        let other = match dice.below(200) {
            0..4 => Some(Step::TakesOver(place)),
            4..8 => Some(Step::HumanWrites(place)),
            8..10 => Some(Step::PhoneWrites(place)),
            10..30 => Some(Step::GivesBack(dice.below(size.conversations()))),
            30..34 => Some(Step::Resolves(place)),
            34..38 => Some(Step::Notes(place)),
            _ => None,
        };
        // Right after the message, in the middle of the answer to it, or later.
        steps.extend(other.map(|step| (Duration::from_millis(dice.below(120) as u64), step)));
        if kill_every > 0 && (number + 1) % kill_every == 0 && number / kill_every < size.kills {
            let at = Duration::from_millis(dice.below(150) as u64);
            steps.push((at, Step::Kill(Duration::from_millis(dice.below(200) as u64))));
        }
    }
    steps
}

/// Bursts and lulls.
fn pause(dice: &mut Dice) -> Duration {
    Duration::from_millis(if dice.below(4) == 0 { dice.below(50) as u64 } else { dice.below(8) as u64 })
}

/// SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((value ^ (value >> 31)) % end.max(1) as u64).unwrap()
    }
}

#[test]
fn a_seed_is_a_schedule() {
    let size = |seed| Size { seed, messages: 500, kills: 7 };
    let steps = schedule(size(3));
    assert_eq!(steps, schedule(size(3)));
    assert_ne!(steps, schedule(size(4)));
    let count = |what: fn(&Step) -> bool| steps.iter().filter(|(_, step)| what(step)).count();
    assert_eq!(count(|step| matches!(step, Step::Says(..))), 500);
    assert_eq!(count(|step| matches!(step, Step::Kill(_))), 7);
    assert!(count(|step| matches!(step, Step::TakesOver(_) | Step::HumanWrites(_) | Step::PhoneWrites(_))) > 10);
}
