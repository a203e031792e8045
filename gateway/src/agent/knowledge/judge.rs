//! Whether a section answers a question, and which of several does.
//!
//! A section answers if it knows enough of what was asked, each word weighing what it tells, and what kind of question
//! it is weighing with them. What it says in its heading counts for more than what it mentions in its body, where the
//! words asked must stand in one sentence: `work` and `warehouse` three lines apart are about something else.

use super::index::{Found, Heading, Indexed};
use super::kind::Kind;
use super::query::{Asked, Reader};
use crate::conversation::choice::OPTIONS_MAX;

/// Share of the question that a section must know. Lower, and questions about things the folder does not mention are
/// answered with what it says about something near; higher, and ordinary questions with a chatty word in them go to a
/// human. Held, like everything here, by `relais agent eval`.
const KNOWN_MIN: f32 = 0.6;
/// The same where the question says everything the section's heading says: it is then about that, whatever else.
const KNOWN_UNDER_HEADING_MIN: f32 = 0.55;
/// The same where nothing asked stands in the section's heading or title: it may only be mentioned in passing.
const KNOWN_IN_BODY_MIN: f32 = 0.75;
/// The same for one sentence of several, when all of them together fit nothing.
const KNOWN_IN_CLAUSE_MIN: f32 = 0.75;
/// Outside a heading, what is known must weigh this share of a word that stands in one section only: `order` stands
/// in half of a shop's sections and picks none.
const TELLING_MIN: f32 = 0.75;
/// What the heading's share of the question, and the question's share of the heading, add to what is known.
const HEADED_WEIGHT: f32 = 0.5;
const COVERED_WEIGHT: f32 = 0.25;
/// What being of the kind asked for adds, and being of another takes away.
const KIND_WEIGHT: f32 = 0.2;
/// Sections that have a word that says as much as a kind does: `How long` is as much a part of a heading as a word.
const KIND_FOUND_IN: usize = 2;
/// A word that stands only in the file's title counts this much when ranked.
const TITLE_WEIGHT: f32 = 0.5;
/// How much of a heading's weight is all of it: a word that only means the heading's counts a little less.
const WHOLE: f32 = 0.85;
/// Two sections fit equally well if their ranks differ by no more, and BM25 by no more than this share.
const RANK_TIE: f32 = 0.1;
/// What a section must know to be asked about beside a better one that is headed by a lesser word.
const KNOWN_BESIDE_MIN: f32 = 0.42;
const SCORE_TIE: f32 = 0.55;

/// A candidate, judged.
pub(super) struct Judged<'a> {
    indexed: &'a Indexed,
    knows: bool,
    /// Nothing asked stands in its heading or title.
    is_in_body: bool,
    /// Share of the question.
    known: f32,
    /// The question's most telling word stands in the heading.
    is_headed_by_most: bool,
    rank: f32,
    score: f32,
}

impl<'a> Judged<'a> {
    /// Judges a section by the best of its headings. `alone`: the question is one sentence of several.
    pub(super) fn new(reader: &Reader, asked: &Asked, indexed: &'a Indexed, score: f32, alone: bool) -> Self {
        let all = asked.weight();
        let share = |known: f32| if all > 0.0 { known / all } else { 0.0 };
        let own = share(asked.known(|word| indexed.own.contains(word)));
        let known = share(asked.known(|word| indexed.words.contains(word)));
        let titled = share(asked.known(|word| indexed.title.contains(word))) > 0.0;
        let most = asked.words.iter().map(|word| word.weight).fold(0.0, f32::max);
        let mut best: Option<Self> = None;
        for heading in &indexed.headings {
            let headed = share(asked.known(|word| heading.words.contains(word)));
            let kind_weight = reader.weight_of(KIND_FOUND_IN);
            let is_kind = asked.kind.is_some() && asked.kind == heading.kind;
            // How long and how much are told in the body or not at all; where something is may be told by any.
            let untold =
                asked.kind.is_some_and(|kind| kind != Kind::Place && !indexed.tells.contains(&kind)) && !is_kind;
            let with_kind = |share: f32| {
                if is_kind && headed > 0.0 {
                    (share * all + kind_weight) / (all + kind_weight)
                } else if untold {
                    share * all / (all + kind_weight)
                } else {
                    share
                }
            };
            let covered = covered(reader, asked, heading, is_kind);
            let knows = if alone {
                headed > 0.0 && with_kind(known) >= KNOWN_IN_CLAUSE_MIN
            } else if heading.words.len() > 1 && covered >= WHOLE {
                with_kind(known) >= KNOWN_UNDER_HEADING_MIN
            } else if headed > 0.0 || titled {
                with_kind(known) >= KNOWN_MIN
            } else {
                let at_once = indexed.sentences.iter().map(|sentence| asked.known(|word| sentence.contains(word)));
                let at_once = at_once.fold(0.0, f32::max);
                share(at_once) >= KNOWN_IN_BODY_MIN && at_once >= TELLING_MIN * reader.weight_of(1)
            };
            let kind = match (asked.kind, heading.kind) {
                (Some(asked), Some(told)) if asked == told => KIND_WEIGHT,
                (Some(_), Some(_)) => -KIND_WEIGHT,
                _ => 0.0,
            };
            let rank = own + TITLE_WEIGHT * (known - own) + HEADED_WEIGHT * headed + COVERED_WEIGHT * covered + kind;
            let is_headed_by_most =
                asked.words.iter().any(|word| word.weight >= most && heading.words.contains(&word.stem));
            let is_in_body = headed <= 0.0 && !titled;
            let judged = Self { indexed, knows, is_in_body, known, is_headed_by_most, rank, score };
            if best.as_ref().is_none_or(|best| (judged.knows, judged.rank) > (best.knows, best.rank)) {
                best = Some(judged);
            }
        }
        best.unwrap_or(Self {
            indexed,
            knows: false,
            is_in_body: true,
            known,
            is_headed_by_most: false,
            rank: 0.0,
            score,
        })
    }
}

/// The share of a heading that a question says.
fn covered(reader: &Reader, asked: &Asked, heading: &Heading, is_kind: bool) -> f32 {
    let told = if heading.kind.is_some() { reader.weight_of(KIND_FOUND_IN) } else { 0.0 };
    let all: f32 = told + heading.words.iter().map(|word| reader.weight(word)).sum::<f32>();
    let said: f32 = heading.words.iter().map(|word| reader.weight(word) * asked.says(word)).sum();
    if all > 0.0 { (said + if is_kind { told } else { 0.0 }) / all } else { 0.0 }
}

/// The best of those that know enough, or those of them that fit about as well.
pub(super) fn fitting(mut judged: Vec<Judged<'_>>) -> Found<'_> {
    judged.sort_by(|one, other| {
        other.knows.cmp(&one.knows).then(other.rank.total_cmp(&one.rank)).then(other.score.total_cmp(&one.score))
    });
    let best = match judged.first() {
        None => return Found::Nothing(None),
        Some(best) if !best.knows => return Found::Nothing(Some(best.indexed)),
        Some(best) => best,
    };
    let ties = |other: &&Judged<'_>| {
        let near = best.rank - other.rank <= RANK_TIE;
        let scores = (other.score.min(best.score), other.score.max(best.score));
        let equal = other.knows && near && scores.0 >= SCORE_TIE * scores.1;
        // `return shoes`: the best is headed by the lesser of the two words, another by the greater.
        let headed = other.is_headed_by_most && !best.is_headed_by_most;
        equal || (headed && other.known >= KNOWN_BESIDE_MIN)
    };
    let fitting: Vec<&Indexed> = judged.iter().filter(ties).map(|judged| judged.indexed).take(OPTIONS_MAX).collect();
    match fitting.len() {
        ..=1 => Found::One(best.indexed),
        // What several only mention is what none of them is about.
        _ if best.is_in_body => Found::Nothing(Some(best.indexed)),
        _ => Found::Several(fitting),
    }
}
