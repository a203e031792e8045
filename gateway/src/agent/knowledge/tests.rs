//! What the embedded agent says: answers with their source, questions back and what becomes of them, handoffs; and
//! that a changed folder is taken up. How often it is right is `relais agent eval`'s to say.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::conversation::{Contact, Medium};

fn demo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../loadtest/demo/knowledge")
}

fn both() -> Knowledge {
    Knowledge::read(&demo()).unwrap()
}

fn ask(knowledge: &Knowledge, said: &[(Speaker, &str)]) -> Answer {
    let history: Vec<_> = said.iter().map(|(from, text)| Utterance { from: *from, text: (*text).to_owned() }).collect();
    let contact = Contact::default();
    let question = Question {
        tenant_id: "acme",
        conversation_id: 1,
        history: &history,
        contact: &contact,
        medium: Medium::Web,
        teams: &Default::default(),
        level_max: Default::default(),
    };
    let answered = knowledge.answer(question);
    assert_eq!(answered.tokens, None, "no model, no tokens");
    answered.answer
}

/// Where the answer to one question comes from: none if it is a handoff, empty if it cites nothing.
fn source(knowledge: &Knowledge, text: &str) -> Option<String> {
    match ask(knowledge, &[(Speaker::Customer, text)]) {
        Answer::Reply { sources, .. } => Some(sources.concat()),
        Answer::Handoff { .. } => None,
    }
}

fn text_of(answer: Answer) -> String {
    let Answer::Reply { text, .. } = answer else { panic!("{answer:?}") };
    text
}

#[test]
fn an_answer_is_the_section_and_its_source() {
    let knowledge = both();
    let Answer::Reply { text, sources } = ask(&knowledge, &[(Speaker::Customer, "Where is my parcel?")]) else {
        panic!("not answered")
    };
    assert!(
        text.starts_with("As soon as your parcel has left") && text.ends_with("Source: Delivery – Where is my parcel?")
    );
    assert_eq!(sources, ["Delivery – Where is my parcel?"]);
    let text = text_of(ask(&knowledge, &[(Speaker::Customer, "Où est mon colis ?")]));
    assert!(text.ends_with("Source : Livraison – Où est mon colis ?"), "{text}");
}

#[test]
fn one_language_alone_serves_too() {
    let texts = [("payment", "# Payment\n\n## Which payment methods do you accept?\n\nWe accept cards and PayPal.")];
    let knowledge = Knowledge::of_texts(&texts);
    assert_eq!(source(&knowledge, "Do you accept PayPal?").unwrap(), "Payment – Which payment methods do you accept?");
    assert_eq!(source(&knowledge, "Où est mon colis ?"), None);
}

#[test]
fn unsure_is_said_with_the_nearest_section_for_the_human() {
    let answer = ask(&both(), &[(Speaker::Customer, "Do you ship parcels to the moon by rocket?")]);
    let Answer::Handoff { reason, note } = answer else { panic!("{answer:?}") };
    assert_eq!(reason, "unsure");
    assert!(note.unwrap().contains("Delivery"), "the nearest is named");
}

#[test]
fn the_question_is_what_was_said_since_the_last_answer() {
    let said = [
        (Speaker::Customer, "How long does delivery take?"),
        (Speaker::Agent, "Two days."),
        (Speaker::Customer, "thanks!"),
        (Speaker::Customer, "which payment methods"),
        (Speaker::Customer, "do you accept?"),
    ];
    let Answer::Reply { sources, .. } = ask(&both(), &said) else { panic!("not answered") };
    assert_eq!(sources, ["Payment – Which payment methods do you accept?"]);
    let Answer::Reply { text, sources } = ask(&both(), &said[..3]) else { panic!("not answered") };
    assert!(text.starts_with("You're welcome") && sources.is_empty());
}

#[test]
fn a_long_section_is_cut_at_the_end_of_a_sentence() {
    let body = "This sentence is about unicorns. ".repeat(100);
    let passage = passage(&body);
    assert!(passage.chars().count() <= PASSAGE_CHARS_MAX + 2 && passage.ends_with("unicorns. …"), "{passage}");
    assert_eq!(super::passage("short"), "short");
}

const TWO: &[(&str, &str)] = &[
    (
        "delivery",
        "# Delivery\n\n## How long does delivery take?\n\nTwo days.\n\n## What does delivery cost?\n\nFive euros.",
    ),
    ("returns", "# Returns\n\n## How do I return something?\n\nWithin 30 days."),
];

#[test]
fn several_that_fit_are_asked_back_and_the_answer_picks_one() {
    let knowledge = Knowledge::of_texts(TWO);
    let back = text_of(ask(&knowledge, &[(Speaker::Customer, "delivery")]));
    let mut options = Choice::read(&back).unwrap().options;
    options.sort_unstable();
    assert_eq!(options, ["How long does delivery take?", "What does delivery cost?"], "{back}");
    let then = |answer: &str| {
        ask(&knowledge, &[(Speaker::Customer, "delivery"), (Speaker::Agent, &back), (Speaker::Customer, answer)])
    };
    let second = Choice::read(&back).unwrap().options[1];
    // By number or value, by title, as somebody types it, and in other words.
    for answer in ["2", "the second one", second, &second.to_lowercase()] {
        let Answer::Reply { sources, .. } = then(answer) else { panic!("{answer}: not answered") };
        assert_eq!(sources, [format!("Delivery – {second}")], "{answer}");
    }
    for (answer, expected) in [
        ("the cost", "Delivery – What does delivery cost?"),
        ("how long it takes", "Delivery – How long does delivery take?"),
        ("How do I return something?", "Returns – How do I return something?"),
    ] {
        let Answer::Reply { sources, .. } = then(answer) else { panic!("{answer}: not answered") };
        assert_eq!(sources, [expected], "{answer}");
    }
    // Still unclear, or none of them: a human.
    for answer in ["delivery", "none of these", "delivery please", "purple"] {
        let Answer::Handoff { reason, note } = then(answer) else { panic!("{answer}: not handed over") };
        assert_eq!(reason, "unsure");
        assert!(note.is_none_or(|note| note.contains("Delivery")), "{answer}");
    }
}

#[test]
fn it_is_asked_back_in_the_customer_s_language_and_an_option_that_is_gone_is_a_human_s() {
    let back = text_of(ask(&both(), &[(Speaker::Customer, "livraison")]));
    assert!(back.starts_with("De quoi s'agit-il ?"), "{back}");
    let answer = ask(
        &Knowledge::of_texts(TWO),
        &[(Speaker::Customer, "livraison"), (Speaker::Agent, &back), (Speaker::Customer, "1")],
    );
    assert!(matches!(answer, Answer::Handoff { .. }), "{answer:?}");
}

#[test]
fn mistyped_words_other_words_and_chat_around_a_question_do_not_hide_it() {
    let knowledge = both();
    for (text, heading) in [
        ("I'd like to exchange my boots", "Can I exchange shoes for another size?"),
        ("wheres my pakage", "Where is my parcel?"),
        ("my pasword pls", "How do I change my address or password?"),
        ("can I get it sent to a pickup point", "Can I collect my parcel at a pick-up point?"),
        ("Hi there. My brother gave me your address. Can I send them back?", "How can I return something"),
        ("je voudrais les renvoyer", "Comment retourner un article ?"),
        ("anulation de comande", "Puis-je annuler ma commande ?"),
    ] {
        let source = source(&knowledge, text);
        assert!(source.as_deref().is_some_and(|source| source.contains(heading)), "{text}: {source:?}");
    }
}

#[test]
fn two_questions_at_once_are_asked_back_about() {
    let said = "I lost track of the soup. Do you sell gift cards? What does the warranty cover?";
    let back = text_of(ask(&both(), &[(Speaker::Customer, said)]));
    assert_eq!(
        Choice::read(&back).unwrap().options,
        ["Do you sell gift cards?", "What does the warranty cover?"],
        "{back}"
    );
}

#[test]
fn an_author_s_other_ways_to_ask_and_an_operator_s_words_find_a_section() {
    let dir = tempfile::tempdir().unwrap();
    let page = "# Club\n\n## How do I join?\n\nWrite to us.\n\n## What is a fid?\n\nA tool for ropes.";
    write(dir.path(), "club.md", page.as_bytes());
    let knowledge = Knowledge::read(dir.path()).unwrap();
    assert_eq!(source(&knowledge, "membership form"), None);
    assert_eq!(source(&knowledge, "marlinspike"), None);
    let page = page.replace("How do I join?\n", "How do I join?\n<!-- also: membership form; becoming a member -->\n");
    write(dir.path(), "club.md", page.as_bytes());
    write(dir.path(), "synonyms.toml", b"[en]\nsame = [\"fid, marlinspike, rope * spike\"]");
    assert!(matches!(knowledge.look(), Looked::Reindexed(2)));
    let text = text_of(ask(&knowledge, &[(Speaker::Customer, "membership form")]));
    assert_eq!(text, "Write to us.\n\nSource: Club – How do I join?", "the other ways are not shown");
    for said in ["marlinspike", "what is a rope or a spike"] {
        assert_eq!(source(&knowledge, said).as_deref(), Some("Club – What is a fid?"), "{said}");
    }
    // Ours are left out on request: then `invoice` and `bill` are two things.
    write(dir.path(), "club.md", b"# Club\n\n## What is an invoice?\n\nPaper.");
    assert!(matches!(knowledge.look(), Looked::Reindexed(1)));
    assert!(source(&knowledge, "my bill").is_some());
    write(dir.path(), "synonyms.toml", b"replace = true");
    assert!(matches!(knowledge.look(), Looked::Reindexed(1)));
    assert_eq!(source(&knowledge, "my bill"), None);
    // A broken file of words leaves what was read before.
    write(dir.path(), "synonyms.toml", b"same = 1");
    assert!(matches!(knowledge.look(), Looked::Broken(KnowledgeError::Words { .. })));
}

/// Wrong, or less than it could be, and known to be: words alone do not tell what belongs together.
#[test]
fn limits_of_comparing_words() {
    let knowledge = both();
    assert_eq!(source(&knowledge, "can I work in your warehouse"), None, "it was answered from a mere mention once");
    assert_eq!(source(&knowledge, "do you ship to Canada"), None, "it knows `abroad` and no countries");
}

fn write(dir: &Path, name: &str, text: &[u8]) {
    fs::write(dir.join(name), text).unwrap();
}

#[test]
fn a_changed_folder_is_read_again_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "hours.md", b"# Opening hours\n\nFrom 9 to 5.");
    let knowledge = Knowledge::read(dir.path()).unwrap();
    assert!(matches!(knowledge.look(), Looked::Same));
    let hours = || text_of(ask(&knowledge, &[(Speaker::Customer, "opening hours")]));
    // Changed.
    write(dir.path(), "hours.md", b"# Opening hours\n\nFrom 10 to 4 only.");
    assert!(hours().contains("9 to 5"), "nothing changes before a look");
    assert!(matches!(knowledge.look(), Looked::Reindexed(1)));
    assert!(hours().contains("10 to 4"));
    // Added.
    assert_eq!(source(&knowledge, "warranty"), None);
    write(dir.path(), "warranty.md", b"# Warranty\n\nTwo years.");
    assert!(matches!(knowledge.look(), Looked::Reindexed(2)));
    assert_eq!(source(&knowledge, "warranty").unwrap(), "Warranty");
    // Broken: said once, and what was read before serves.
    write(dir.path(), "broken.md", b"# Broken\n\n\xff\xfe");
    assert!(matches!(knowledge.look(), Looked::Broken(KnowledgeError::Read { .. })));
    assert!(matches!(knowledge.look(), Looked::Same));
    assert!(hours().contains("10 to 4") && source(&knowledge, "warranty").is_some());
    // Removed, and mended by it.
    fs::remove_file(dir.path().join("broken.md")).unwrap();
    fs::remove_file(dir.path().join("warranty.md")).unwrap();
    assert!(matches!(knowledge.look(), Looked::Reindexed(1)));
    assert_eq!(source(&knowledge, "warranty"), None);
    // Gone altogether.
    fs::remove_file(dir.path().join("hours.md")).unwrap();
    assert!(matches!(knowledge.look(), Looked::Broken(KnowledgeError::Empty(_))));
    assert!(hours().contains("10 to 4"));
}

#[test]
fn questions_are_answered_while_the_folder_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "hours.md", b"# Opening hours\n\nFrom 9 to 5.");
    let knowledge = Arc::new(Knowledge::read(dir.path()).unwrap());
    let asking = {
        let knowledge = Arc::clone(&knowledge);
        std::thread::spawn(move || (0..200).all(|_| source(&knowledge, "opening hours").is_some()))
    };
    for number in 0..20 {
        write(dir.path(), &format!("{number}.md"), format!("# Thing {number}\n\nText.").as_bytes());
        assert!(matches!(knowledge.look(), Looked::Reindexed(_)));
    }
    assert!(asking.join().unwrap());
}
