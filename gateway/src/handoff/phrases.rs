//! Whether a customer asks for a human, from their words alone, in French and English.
//!
//! Words, not substrings, without case and accents. Three kinds of phrase count: a verb of contact and then a human
//! (`talk to a real person`, `parler à quelqu'un`), a wish directly before one (`I need a human`, `je veux un
//! conseiller`), and a message that is nothing else (`agent please`). Between verb and human only small words may
//! stand, so `talk about human rights` or `a travel agent` are not requests. A refusal just before (`I don't want
//! to talk to a human`) is none either, while `why can't I talk to a human` is one.

mod lists;

use lists::{
    BESIDE, CALL_ME, CALLED, CALLING, CALLS, ELSEWHERE, ENOUGH, FETCH, HAVE, HEARD, HELP, HELP_FROM, HUMANS, MACHINES,
    MINE, NOT_A_PERSON, NOT_SPELT, POLITE, PREFER, REFUSE, SMALL, SOMEBODY, SOMEONE, SPELT, TALK, TALK_BETWEEN,
    TALK_TO, TALKING, TRANSFER, TRANSFER_TO, TRANSFERRED, WANT, WHOM, WISH, WITHOUT, YOU,
};

use crate::conversation::words;

/// The longest message that can be nothing but the word.
const BARE_WORDS_MAX: usize = 6;
/// Shorter words are not taken for mistyped ones.
const SPELT_CHARS_MIN: usize = 5;
/// Words before a verb in which a refusal counts.
const REFUSAL_REACH: usize = 4;
/// Text looked at: the end of a long message is where the wish is rarely; but it is bounded work.
const CHARS_MAX: usize = 4_000;

/// Whether the customer asks for a human.
pub fn asks_for_human(text: &str) -> bool {
    let text: String = text.chars().take(CHARS_MAX).collect();
    let text = text.replace(['-', '\u{2011}'], " ");
    text.split(['.', ',', ';', ':', '!', '?', '\n', '(', ')', '…', '—', '–']).any(|clause| {
        let words: Vec<String> = words(clause).map(spelt).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        is_bare(&words) || calls(&words) || (0..words.len()).any(|at| asks_at(&words, at))
    })
}

fn asks_at(words: &[&str], at: usize) -> bool {
    let (before, rest) = words.split_at(at);
    let Some((verb, after)) = rest.split_first() else { return false };
    let preferred = TALKING.contains(verb) && before.last().is_some_and(|word| PREFER.contains(word));
    let asks = ((TALK.contains(verb) || preferred) && leads_to(after))
        || (TRANSFER.contains(verb) && is_handing_over(after))
        || (WANT.contains(verb) && wished_for(after))
        || (FETCH.contains(verb) && human_follows(after, true))
        || (["is", "are", "y"].contains(verb) && is_there(verb, after))
        || (HAVE.contains(verb) && is_heard(after))
        || (HELP.contains(verb) && is_help(before, after))
        || (*verb == "like"
            && before.last().is_some_and(|word| ["d", "id", "would"].contains(word))
            && wished_for(after))
        || is_put_on(verb, after)
        || is_to_call(verb, after);
    if refuses_machine(before, verb, after) || has_enough(before, verb) {
        return true;
    }
    asks && !refused(before, verb)
}

/// `I don't want to talk to a bot`
fn refuses_machine(before: &[&str], verb: &str, after: &[&str]) -> bool {
    let mut rest = after.iter().skip_while(|word| TALK_BETWEEN.contains(word));
    TALK.contains(&verb)
        && rest.next().is_some_and(|word| TALK_TO.contains(word))
        && rest.find(|word| !SMALL.contains(word)).is_some_and(|word| MACHINES.contains(word))
        && refused(before, verb)
}

/// `talk (please) to …`
fn leads_to(after: &[&str]) -> bool {
    let skipped = after.iter().take_while(|word| TALK_BETWEEN.contains(word)).count();
    match after.get(skipped..).unwrap_or_default().split_first() {
        Some((preposition, rest)) => TALK_TO.contains(preposition) && human_follows(rest, true),
        None => false,
    }
}

/// `need a human`, and not `need an agent for my business`.
fn wished_for(after: &[&str]) -> bool {
    // `me conseiller` is to advise me.
    if after.first().is_some_and(|word| ["conseiller", "conseille"].contains(word)) {
        return false;
    }
    let end = after.iter().position(|word| ELSEWHERE.contains(word) && !SMALL.contains(word)).unwrap_or(after.len());
    // `une personne en plus` is one, `un humain en face de moi` is another.
    let of = after.windows(3).any(|three| match three {
        [human, "de" | "d" | "du", _] => HUMANS.contains(human),
        [human, "en", next] => HUMANS.contains(human) && !["face", "chair", "ligne", "direct"].contains(next),
        _ => false,
    });
    end == after.len() && !of && human_follows(after, false)
}

/// `someone to call me`, `one of your colleagues could phone me`, `qu'un humain me réponde`
fn is_to_call(who: &str, after: &[&str]) -> bool {
    let somebody = HUMANS.contains(&who) || SOMEBODY.contains(&who);
    let near = after.get(..after.len().min(8)).unwrap_or_default();
    let calls = near.iter().position(|word| CALL_ME.contains(word));
    let me = near.iter().position(|word| ["me", "m", "moi"].contains(word));
    let between = |word: &&str| {
        [CALL_ME, HUMANS, SMALL, MINE, BESIDE].iter().any(|kind| kind.contains(word))
            || ["me", "m", "moi"].contains(word)
    };
    let (Some(calls), Some(me)) = (calls, me) else { return false };
    somebody && calls.abs_diff(me) <= 3 && near.iter().take(calls.max(me)).all(between)
}

/// `call me back`, `can you phone me`, `j'aimerais être rappelé`, `what is your phone number`; and not `the courier
/// should call me`.
fn calls(words: &[&str]) -> bool {
    let skipped = words.iter().take_while(|word| POLITE.contains(word)).count();
    let rest = words.get(skipped..).unwrap_or_default();
    let begins = CALLS.iter().any(|phrase| begins(rest, phrase));
    let you = (0..words.len()).any(|at| {
        let (before, rest) = words.split_at(at);
        let near = before.get(before.len().saturating_sub(4)..).unwrap_or_default();
        CALLING.iter().any(|phrase| self::begins(rest, phrase)) && near.iter().any(|word| YOU.contains(word))
    });
    let refused = words.iter().any(|word| REFUSE.contains(word) || WITHOUT.contains(word));
    let phrase = [CALLED, WHOM].iter().any(|phrases| phrases.iter().any(|phrase| has(words, phrase)));
    (begins || you || phrase) && !refused
}

/// `someone on the phone`, `quelqu'un au téléphone`, `je peux avoir quelqu'un`
fn is_heard(after: &[&str]) -> bool {
    let skipped = after.iter().take_while(|word| SMALL.contains(word) && !HUMANS.contains(word)).count();
    let Some((who, rest)) = after.get(skipped..).and_then(<[&str]>::split_first) else { return false };
    let rest = match (*who, rest) {
        ("quelqu", ["un" | "une", rest @ ..]) => rest,
        (who, rest) if SOMEBODY.contains(&who) || HUMANS.contains(&who) => rest,
        _ => return false,
    };
    let near = rest.get(..rest.len().min(8)).unwrap_or_default();
    let polite =
        rest.iter().all(|word| POLITE.contains(word) || ["real", "de", "reel", "vrai", "here", "la"].contains(word));
    polite || HEARD.iter().any(|phrase| has(near, phrase))
}

/// `help from a real person`, and not `is this answer from a human`.
fn is_help(before: &[&str], after: &[&str]) -> bool {
    let told = before.iter().any(|word| ["is", "was", "est", "were", "are"].contains(word));
    let Some((first, rest)) = after.split_first() else { return false };
    !told && HELP_FROM.contains(first) && !rest.is_empty() && human_follows(rest, false)
}

/// `put a human on`, `get your boss on the line`
fn is_put_on(verb: &str, after: &[&str]) -> bool {
    let on = after.iter().position(|word| ["on", "through"].contains(word));
    let who = on.and_then(|on| after.get(..on)).unwrap_or_default();
    ["put", "get", "bring"].contains(&verb) && (1..=5).contains(&who.len()) && human_follows(who, true)
}

/// `enough of the bot`, `no more automated answers`, `ras le bol du robot`
fn has_enough(before: &[&str], machine: &str) -> bool {
    let near = before.get(before.len().saturating_sub(6)..).unwrap_or_default();
    let said = ENOUGH.iter().any(|phrase| {
        (0..near.len()).any(|at| {
            let count = phrase.split(' ').count();
            let after = near.get(at + count..).unwrap_or_default();
            near.get(at..).is_some_and(|rest| begins(rest, phrase))
                && after
                    .iter()
                    .all(|word| SMALL.contains(word) || ["this", "these", "that", "ce", "ces", "au"].contains(word))
        })
    });
    MACHINES.contains(&machine) && said
}

/// Whether words begin with a phrase.
fn begins(words: &[&str], phrase: &str) -> bool {
    let count = phrase.split(' ').count();
    words.get(..count).is_some_and(|some| some.iter().copied().eq(phrase.split(' ')))
}

/// Whether a phrase stands among words.
fn has(words: &[&str], phrase: &str) -> bool {
    (0..words.len()).any(|at| words.get(at..).is_some_and(|rest| begins(rest, phrase)))
}

/// A word as it was meant, if it is nearly one of those that tell.
fn spelt(word: String) -> String {
    if word.chars().count() < SPELT_CHARS_MIN || NOT_SPELT.contains(&word.as_str()) || SPELT.contains(&word.as_str()) {
        return word;
    }
    let near = |known: &&&str| known.chars().next() == word.chars().next() && strsim::osa_distance(known, &word) == 1;
    SPELT.iter().find(near).map_or(word.clone(), |known| (*known).to_owned())
}

/// `transfer me to …`, `put me through to …`, `mettez-moi en relation avec …`, `passez-moi un …`
fn is_handing_over(after: &[&str]) -> bool {
    let Some((first, rest)) = after.split_first() else { return false };
    let joined = ["en", "to", "a"].contains(first);
    if !TRANSFERRED.contains(first) && !joined {
        return false;
    }
    let rest = if joined { after } else { rest };
    let skipped =
        rest.iter().take(4).take_while(|word| TRANSFER_TO.contains(word) || TRANSFERRED.contains(word)).count();
    skipped > 0 && human_follows(rest.get(skipped..).unwrap_or_default(), true)
}

/// `is there a human (I can …)`, `is anybody there`, `y a-t-il un conseiller`, `il y a quelqu'un`
fn is_there(verb: &str, after: &[&str]) -> bool {
    match (verb, after) {
        ("is", ["anybody" | "anyone" | "somebody" | "someone", "there" | "here"]) => true,
        ("y", ["a", "quelquun"] | ["a", "quelqu", "un"] | ["a", "t", "il", "quelqu", "un"]) => true,
        // `is there someone I can talk to`, `y a-t-il quelqu'un à qui parler`
        ("is", ["there", "anybody" | "anyone" | "somebody" | "someone", rest @ ..])
        | ("y", ["a", "t", "il", "quelqu", "un", rest @ ..]) => rest.iter().any(|word| TALK.contains(word)),
        ("is" | "are", ["there", rest @ ..]) | ("y", ["a", "t", "il", rest @ ..] | ["a", rest @ ..]) => {
            wished_for(rest)
        }
        _ => false,
    }
}

/// Small words and then a human, who is not the first half of another thing.
fn human_follows(words: &[&str], someone: bool) -> bool {
    let is_human = |word: &&str| HUMANS.contains(word) || (someone && SOMEONE.contains(word));
    let small = |word: &&str| SMALL.contains(word) || (someone && MINE.contains(word));
    let skipped = words.iter().take_while(|word| small(word) && !is_last_human(words, word)).count();
    let Some(rest) = words.get(skipped..) else { return false };
    let (human, next) = match rest {
        [word, next @ ..] if is_human(word) => (true, next.first()),
        // `talk to a human` ends in a word that is also a small one.
        _ => (skipped > 0 && words.get(skipped - 1).is_some_and(is_human), rest.first()),
    };
    human && !next.is_some_and(|next| NOT_A_PERSON.contains(next))
}

/// `human` is an adjective before another human, and the human itself at the end.
fn is_last_human(words: &[&str], word: &&str) -> bool {
    words.last().is_some_and(|last| std::ptr::eq(last, word)) && HUMANS.contains(word)
}

/// `don't want to`, `no need to`, `sans`, just before the verb.
fn refused(before: &[&str], verb: &str) -> bool {
    let near = before.get(before.len().saturating_sub(REFUSAL_REACH)..).unwrap_or_default();
    let refuses = near.iter().any(|word| REFUSE.contains(word));
    let wishes = WISH.contains(&verb) || near.iter().any(|word| WISH.contains(word));
    // `don't transfer me`, and not `why don't you transfer me`.
    let commanded = TRANSFER.contains(&verb)
        && before.last().is_some_and(|word| REFUSE.contains(word))
        && !before.iter().any(|word| ["why", "pourquoi"].contains(word));
    near.iter().any(|word| WITHOUT.contains(word)) || (refuses && wishes) || commanded
}

/// `human please`, `un conseiller svp`: nothing else in it.
fn is_bare(words: &[&str]) -> bool {
    let known = |word: &&str| [HUMANS, SMALL, POLITE, &["client", "clients"]].iter().any(|kind| kind.contains(word));
    let desk = words.contains(&"service") && ["customer", "client", "clients"].iter().any(|of| words.contains(of));
    let human = desk || words.iter().any(|word| HUMANS.contains(word));
    let refused = words.first().is_some_and(|first| ["no", "not", "pas", "non"].contains(first));
    human && !refused && words.len() <= BARE_WORDS_MAX && words.iter().all(known)
}
