//! Whether a customer asks for a human, from their words alone, in French and English.
//!
//! Words, not substrings, without case and accents. Three kinds of phrase count: a verb of contact and then a human
//! (`talk to a real person`, `parler à quelqu'un`), a wish directly before one (`I need a human`, `je veux un
//! conseiller`), and a message that is nothing else (`agent please`). Between verb and human only small words may
//! stand, so `talk about human rights` or `a travel agent` are not requests. A refusal just before (`I don't want
//! to talk to a human`) is none either, while `why can't I talk to a human` is one.

use crate::conversation::words;

/// People of the operator's team, whichever way they are spoken to.
const HUMANS: &[&str] = &[
    "human",
    "humans",
    "person",
    "agent",
    "agents",
    "representative",
    "representatives",
    "rep",
    "operator",
    "advisor",
    "adviser",
    "manager",
    "supervisor",
    "employee",
    "colleague",
    "colleagues",
    "humain",
    "humaine",
    "humains",
    "personne",
    "conseiller",
    "conseillere",
    "conseillers",
    "operateur",
    "operatrice",
    "responsable",
    "interlocuteur",
    "interlocutrice",
    "collegue",
    "collegues",
    "employe",
    "employee",
    "technicien",
    "technicienne",
    "superviseur",
];
/// Words that mean a person only after a verb of contact.
const SOMEONE: &[&str] = &[
    "someone",
    "somebody",
    "anyone",
    "anybody",
    "people",
    "support",
    "service",
    "staff",
    "team",
    "quelqu",
    "quelquun",
    "equipe",
    "gens",
    "client",
    "clientele",
];
/// What may stand between.
const SMALL: &[&str] = &[
    "a",
    "an",
    "the",
    "any",
    "some",
    "one",
    "of",
    "your",
    "real",
    "actual",
    "live",
    "human",
    "physical",
    "customer",
    "support",
    "service",
    "sales",
    "care",
    "please",
    "another",
    "un",
    "une",
    "le",
    "la",
    "l",
    "les",
    "des",
    "de",
    "d",
    "du",
    "vrai",
    "vraie",
    "veritable",
    "reel",
    "reelle",
    "votre",
    "vos",
    "autre",
    "vivante",
    "en",
    "chair",
];
/// Verbs that lead to a human by way of a preposition.
const TALK: &[&str] = &["talk", "speak", "chat", "deal", "parler", "discuter", "echanger", "converser", "dialoguer"];
const TALK_TO: &[&str] = &["to", "with", "a", "au", "aux", "avec"];
const TALK_BETWEEN: &[&str] =
    &["me", "please", "directly", "directement", "now", "here", "first", "plutot", "maintenant", "instead", "svp"];
/// The same verbs after a preference: `I'd prefer talking to a person`.
const TALKING: &[&str] = &["talking", "speaking", "chatting"];
const PREFER: &[&str] = &["prefer", "rather", "like"];
/// What a customer does not want to talk to who wants a human.
const MACHINES: &[&str] = &["bot", "bots", "robot", "robots", "chatbot", "machine", "computer", "ai", "ia"];
/// Verbs that hand the customer over.
const TRANSFER: &[&str] = &[
    "transfer",
    "connect",
    "redirect",
    "escalate",
    "forward",
    "switch",
    "put",
    "pass",
    "hand",
    "transferez",
    "transferer",
    "transfere",
    "redirigez",
    "rediriger",
    "passez",
    "passe",
    "mettez",
    "mettre",
    "connectez",
    "orientez",
    "dirigez",
    "mis",
    "mise",
];
const TRANSFERRED: &[&str] =
    &["me", "moi", "us", "nous", "this", "it", "conversation", "cela", "ca", "over", "through"];
const TRANSFER_TO: &[&str] = &[
    "to", "with", "a", "au", "vers", "avec", "un", "une", "through", "over", "relation", "contact", "en", "on", "sur",
    "in", "touch",
];
/// Whose, after a verb of contact only: `my manager` is somebody else's in most other sentences.
const MINE: &[&str] = &["my", "mon", "ma"];
/// Verbs before somebody who is to be fetched.
const FETCH: &[&str] = &["passer", "passez", "passe"];
/// What somebody is to do.
const CALL_ME: &[&str] = &[
    "call", "contact", "phone", "ring", "answer", "rappelle", "appelle", "contacte", "reponde", "rappeler", "repondre",
];
/// Verbs and wishes that stand directly before a human.
const WANT: &[&str] = &[
    "want",
    "need",
    "get",
    "give",
    "prefer",
    "contact",
    "reach",
    "call",
    "voudrais",
    "veux",
    "veut",
    "souhaite",
    "besoin",
    "prefere",
    "aimerais",
    "demande",
    "joindre",
    "contacter",
    "appeler",
    "avoir",
    "voir",
    "moi",
    "me",
    "exige",
    "demand",
];
/// Refusals, and the wishes they refuse.
const REFUSE: &[&str] = &["dont", "not", "no", "never", "didnt", "pas", "jamais", "aucun", "aucune", "wont"];
const WISH: &[&str] = &[
    "want", "need", "wish", "like", "have", "wanna", "prefer", "veux", "veut", "souhaite", "besoin", "envie",
    "voudrais", "aimerais", "asking", "demande", "oblige",
];
const WITHOUT: &[&str] = &["without", "sans", "avoid", "eviter", "instead", "lieu"];
/// After a human these make it another thing: human resources, an agent's fee.
const NOT_A_PERSON: &[&str] = &[
    "resources",
    "rights",
    "error",
    "errors",
    "written",
    "readable",
    "made",
    "fee",
    "fees",
    "number",
    "code",
    "id",
    "commission",
    "s",
    "name",
    "ressources",
    "erreur",
    "morale",
    "agree",
    "count",
    "limit",
    "manual",
    "guide",
    "hair",
    "body",
    "skin",
    "orange",
];
/// After a human who was only wished for: it is about something else.
const ELSEWHERE: &[&str] = &[
    "for",
    "role",
    "roles",
    "of",
    "in",
    "de",
    "d",
    "du",
    "plus",
    "more",
    "sur",
    "demain",
    "hier",
    "tomorrow",
    "yesterday",
    "as",
    "supplementaire",
];
/// Politeness around a message that is nothing else.
const POLITE: &[&str] = &[
    "please",
    "pls",
    "plz",
    "now",
    "hi",
    "hello",
    "hey",
    "thanks",
    "thank",
    "you",
    "svp",
    "stp",
    "s",
    "il",
    "vous",
    "te",
    "plait",
    "bonjour",
    "salut",
    "bonsoir",
    "merci",
    "maintenant",
    "immediatement",
    "yes",
    "oui",
    "ok",
    "no",
    "non",
    "pas",
    "not",
    "robot",
    "bot",
    "just",
    "only",
    "being",
    "i",
    "said",
    "j",
    "ai",
    "dit",
    "to",
    "speak",
];
/// The longest message that can be nothing but the word.
const BARE_WORDS_MAX: usize = 6;
/// Words before a verb in which a refusal counts.
const REFUSAL_REACH: usize = 4;
/// Text looked at: the end of a long message is where the wish is rarely; but it is bounded work.
const CHARS_MAX: usize = 4_000;

/// Whether the customer asks for a human.
pub fn asks_for_human(text: &str) -> bool {
    let text: String = text.chars().take(CHARS_MAX).collect();
    let text = text.replace(['-', '\u{2011}'], " ");
    text.split(['.', ',', ';', ':', '!', '?', '\n', '(', ')', '…', '—', '–']).any(|clause| {
        let words: Vec<String> = words(clause).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        is_bare(&words) || (0..words.len()).any(|at| asks_at(&words, at))
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
        || is_to_call(verb, after);
    if refuses_machine(before, verb, after) {
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
    let end = after.iter().position(|word| ELSEWHERE.contains(word) && !SMALL.contains(word)).unwrap_or(after.len());
    // `une personne en plus` is one, `un humain en face de moi` is another.
    let of = after.windows(3).any(|three| match three {
        [human, "de" | "d" | "du", _] => HUMANS.contains(human),
        [human, "en", next] => HUMANS.contains(human) && !["face", "chair", "ligne", "direct"].contains(next),
        _ => false,
    });
    end == after.len() && !of && human_follows(after, false)
}

/// `someone to call me`, `qu'un humain me réponde`
fn is_to_call(who: &str, after: &[&str]) -> bool {
    if matches!((who, after), ("rappelez", ["moi", ..])) {
        return true;
    }
    let somebody = HUMANS.contains(&who) || ["someone", "somebody", "anyone", "un", "quelquun"].contains(&who);
    let near = after.get(..after.len().min(4)).unwrap_or_default();
    let calls = near.iter().position(|word| CALL_ME.contains(word));
    let me = near.iter().position(|word| ["me", "m", "moi"].contains(word));
    let between = |word: &&str| {
        CALL_ME.contains(word)
            || HUMANS.contains(word)
            || ["me", "m", "moi", "to", "can", "could", "please", "back", "peut", "pourrait"].contains(word)
    };
    let (Some(calls), Some(me)) = (calls, me) else { return false };
    somebody && near.iter().take(calls.max(me)).all(between)
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
