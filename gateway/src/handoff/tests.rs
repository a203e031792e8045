//! Requests for a human and what only looks like one; the order of reasons; notes and messages.

use super::*;

const REQUESTS: &[&str] = &[
    "I want to talk to a human",
    "talk to a human",
    "Can I speak to a real person please?",
    "can i chat with someone",
    "I'd like to speak with a representative",
    "Could I talk to somebody from your team?",
    "Please connect me with an agent",
    "transfer me to a human agent",
    "put me through to someone",
    "hand me over to a person",
    "I need a human",
    "I want a real person",
    "get me a manager",
    "human please",
    "Agent!",
    "a real person, please",
    "representative",
    "human being please",
    "Is there a human I can talk to?",
    "is there a real person here",
    "Why can't I talk to a human?",
    "I don't want a bot, I want to talk to a human",
    "How do I speak to customer service?",
    "This is useless. Let me talk to a person.",
    "je veux parler à un humain",
    "Je voudrais parler à quelqu’un",
    "JE VEUX PARLER A QUELQU'UN",
    "Puis-je parler avec un conseiller ?",
    "Est-ce que je peux discuter avec une vraie personne ?",
    "pouvez-vous me mettre en relation avec un conseiller",
    "Passez-moi un conseiller",
    "passez moi un responsable svp",
    "Mettez-moi en contact avec quelqu'un",
    "transférez-moi à un agent",
    "je veux un humain",
    "J'ai besoin d'un conseiller",
    "Un conseiller s'il vous plaît",
    "humain svp",
    "conseiller",
    "Y a-t-il un humain ?",
    "est-ce qu'il y a une vraie personne",
    "Je n'arrive pas à parler à un conseiller",
    "comment joindre un conseiller ?",
    "Je préfère parler directement à une personne",
    "Bonjour, je souhaite échanger avec un de vos conseillers",
    "Pas de robot, un humain !",
    "parler au service client",
    "please let me speak to a human being",
    "I would rather talk to a real human",
    "can someone call me",
    "could you put me in touch with support",
    "I want to speak to your manager",
    "is anybody there?",
    "are there any humans here?",
    "customer service please",
    "I demand a human",
    "no more bots, human",
    "pouvez vous me passer quelqu'un",
    "je souhaite être mis en relation avec un conseiller",
    "puis-je avoir un conseiller au téléphone",
    "je veux qu'un humain me réponde",
    "Il y a quelqu'un ?",
    "rappelez-moi",
    "service client svp",
    "vous êtes un robot, je veux une personne réelle",
];

const NOT_REQUESTS: &[&str] = &[
    "",
    "Where is my order?",
    "I don't want to talk to a human",
    "I do not want to speak with anyone",
    "no need to talk to a person",
    "Can I solve this without talking to a human? without speaking to a person",
    "is this a human-written text",
    "Was this written by a human?",
    "Am I talking to a human?",
    "Are you a real person?",
    "Do you support human rights?",
    "Can I talk to you about human rights?",
    "How do I contact human resources?",
    "I spoke to an agent yesterday",
    "Your agent was very friendly",
    "I am a travel agent",
    "Can I add another person to my account?",
    "How many people can use one account?",
    "I need support for my account",
    "Do you have a personal plan?",
    "I need an agent id for the API",
    "How much is the agent fee?",
    "what is human error",
    "The operator said that it would arrive today",
    "How do I transfer money to a person?",
    "can you switch my plan to the team plan",
    "je ne veux pas parler à un humain",
    "Je n'ai pas besoin d'un conseiller",
    "sans parler à un conseiller",
    "pas besoin de parler à quelqu'un",
    "Est-ce que je parle à un humain ?",
    "J'ai parlé à un conseiller hier",
    "Combien de personnes peuvent utiliser le compte ?",
    "Personne ne m'a répondu",
    "Où sont les ressources humaines ?",
    "C'est une erreur humaine",
    "quel est le délai de livraison",
    "Le responsable du magasin m'a remboursé",
    "can I give this to another person as a gift",
    "the person who delivered it was rude",
    "do you have a manager role in the app",
    "I want an agent for my real estate business",
    "I need to see a doctor",
    "I need one more person on my plan",
    "how do I contact support by mail",
    "give me the number of employees",
    "je veux changer la personne de contact",
    "je vais voir mon responsable demain",
    "puis-je avoir une personne en plus sur le contrat",
    "y a-t-il un agent de sécurité dans le magasin",
    "someone stole my parcel",
    "can someone else use my account",
];

/// By classes of phrases: being heard, called, put on, put through; having had enough of machines; typing errors.
const CLASSES_OF_REQUESTS: &[&str] = &[
    "can i get somebody on the line",
    "I want to have a word with a human",
    "please ring me",
    "je voudrais que quelqu'un m'appelle",
    "I am tired of this chatbot",
    "quel numéro je dois appeler pour avoir quelqu'un",
    "connect me to support pls",
    "i wish to speak with a real live person not a computer",
    "could i please be put through to an adviser",
    "is it possible to talk with a member of your team",
    "c'est possible de parler à quelqu'un svp",
    "je préfère avoir un humain",
    "donnez-moi un conseiller",
    "j'en ai marre de ce robot",
    "need to speak to a manger",
    "human agent pls",
    "any human there?",
    "je veux une vraie réponse d'un humain",
    "vous êtes joignables par téléphone ?",
    "how can I reach a person",
    "let me speak with your supervisor now",
    "someone please contact me",
    "a quel numero peut on vous joindre",
];

const CLASSES_OF_NOT_REQUESTS: &[&str] = &[
    "Pouvez-vous me conseiller une pointure ?",
    "will the driver ring me",
    "le livreur va-t-il m'appeler ?",
    "I want to change my phone number",
    "can someone sign for my parcel",
    "is this answer from a human?",
    "j'ai besoin d'un conseil",
    "there is no one at home to get it",
    "do you have someone famous in your ads",
    "Vous appelez ça un service ?",
    "I hate robots",
    "I need someone else's size",
    "j'ai vu quelqu'un avec vos chaussures",
    "can I have a personal invoice",
    "que me conseillez-vous",
    "the manager of my company wants an invoice",
    "j'aimerais un conseil pour choisir",
    "do I have to talk to the courier",
    "can I get a person's name engraved",
    "le transporteur doit me rappeler",
    "I called you yesterday",
    "your colleague told me to send a photo",
    "quelqu'un d'autre peut signer ?",
    "no answer from the courier",
    "is there someone at the pick-up point on sundays",
    "I want to return this, it was a gift for someone",
];

/// Collected apart from the above, by somebody who had not seen it.
const MORE_REQUESTS: &[&str] = &[
    "Thanks. I want to talk to a human, please.",
    "talk to a human",
    "Can I speak with a real person?",
    "I'd like to speak to someone",
    "could you connect me to an agent please",
    "Please transfer me to one of your colleagues or a human",
    "put me through to a person",
    "human",
    "HUMAN!!!",
    "agent please",
    "a real person, please",
    "No, a human",
    "Not a bot, a human!",
    "I need a human",
    "I want a real person now",
    "give me an agent",
    "get me a human being",
    "I don't want to talk to a bot",
    "I do not want to chat with a machine",
    "Why can't I talk to a human?",
    "Why don't you connect me with a human?",
    "I don't understand, let me talk to a human",
    "I don't understand and want to talk to someone",
    "How do I talk to a human here?",
    "Is there someone I can talk to?",
    "is there a human here?",
    "Can a human call me back?",
    "How can I contact an advisor?",
    "I'd prefer talking to a person",
    "I want to speak to your manager",
    "This is useless.\nTalk to a human",
    "Je veux parler à un humain",
    "je voudrais parler a quelqu'un",
    "Je voudrais parler à quelqu’un s'il vous plaît",
    "Puis-je parler avec un conseiller ?",
    "Pouvez-vous me mettre en relation avec un conseiller ?",
    "Passez-moi un conseiller",
    "un humain svp",
    "Conseiller",
    "Je veux un humain",
    "J'ai besoin d'un conseiller",
    "je préfère parler à une vraie personne",
    "Je ne veux pas parler à un robot",
    "Je n'arrive pas à joindre un conseiller",
    "Pourquoi je ne peux pas parler à un humain ?",
    "Y a-t-il quelqu'un à qui parler ?",
    "Est-ce qu'un conseiller peut me rappeler ?",
    "Je souhaite échanger avec une personne réelle",
    "Merci mais je veux parler au service client",
    "transférez-moi à un agent",
];

const MORE_NOT_REQUESTS: &[&str] = &[
    "",
    "   ",
    "Hello! How long does delivery take?",
    "And how can I return shoes that do not fit?",
    "I don't want to talk to a human",
    "I do not want to speak to anyone, just tell me the price",
    "no need to talk to a human",
    "Please don't transfer me to a human",
    "is this a human-written text",
    "Are you human?",
    "Are you a real person?",
    "Am I talking to a human?",
    "Am I talking to a bot?",
    "Do you sell human hair brushes?",
    "I need a human hair brush",
    "I want a human-readable invoice",
    "I talked to a human yesterday and my order is still late",
    "Can someone else pick up my parcel?",
    "Can you send it to someone else?",
    "How many people can use one account?",
    "I want to return the shoes, the agent was nice",
    "The delivery person left it with my neighbour",
    "Which cleaning agent do you recommend?",
    "I need an agent orange filter",
    "Can I give it to a person as a gift?",
    "Contact lenses: do you have a service for them?",
    "Who is the manager of the shop?",
    "Je ne veux pas parler à un humain",
    "Je ne souhaite pas être mis en relation avec un conseiller",
    "pas besoin d'un conseiller",
    "Êtes-vous un robot ?",
    "Est-ce que je parle à un humain ?",
    "J'ai parlé à un conseiller hier",
    "Quels sont les délais de livraison ?",
    "Combien de personnes peuvent utiliser un compte ?",
    "Le corps humain",
    "Le livreur l'a donné à quelqu'un d'autre",
];

#[test]
fn requests_for_a_human_are_heard() {
    let missed: Vec<_> =
        REQUESTS.iter().chain(MORE_REQUESTS).chain(CLASSES_OF_REQUESTS).filter(|text| !asks_for_human(text)).collect();
    assert!(missed.is_empty(), "missed: {missed:#?}");
}

#[test]
fn what_only_looks_like_one_is_left_to_the_agent() {
    let wrong: Vec<_> = NOT_REQUESTS
        .iter()
        .chain(MORE_NOT_REQUESTS)
        .chain(CLASSES_OF_NOT_REQUESTS)
        .filter(|text| asks_for_human(text))
        .collect();
    assert!(wrong.is_empty(), "taken for requests: {wrong:#?}");
}

#[test]
fn one_reason_is_given_and_the_customer_s_wish_comes_first() {
    let none = Signals { customer_text: "Where is my order?", ..Signals::default() };
    assert_eq!(decide(&none), None);
    let all = Signals {
        customer_text: "human please",
        unreadable: true,
        quota_used_up: true,
        delivery_unknown: true,
        undelivered: true,
        looping: true,
        agent_gave_up: true,
        agent_reason: Some("unsure"),
    };
    let mut left = all;
    let mut reasons = vec![decide(&left).unwrap()];
    let changes: [fn(&mut Signals<'_>); 8] = [
        |signals| signals.customer_text = "",
        |signals| signals.delivery_unknown = false,
        |signals| signals.undelivered = false,
        |signals| signals.looping = false,
        |signals| signals.quota_used_up = false,
        |signals| signals.unreadable = false,
        |signals| signals.agent_gave_up = false,
        |signals| signals.agent_reason = Some("billing dispute"),
    ];
    for change in changes {
        change(&mut left);
        reasons.push(decide(&left).unwrap());
    }
    // Quiet is found by looking, not by a signal.
    let by_looking = [HandoffReason::Unanswered, HandoffReason::Idle];
    reasons.extend(by_looking);
    assert_eq!(reasons, HandoffReason::ALL);
}

#[test]
fn labels_are_unique() {
    let mut labels: Vec<_> = HandoffReason::ALL.iter().map(|reason| reason.as_str()).collect();
    labels.sort_unstable();
    labels.dedup();
    assert_eq!(labels.len(), HandoffReason::ALL.len());
}

fn handoff(message: &str) -> config::Handoff {
    config::Handoff {
        team_id: None,
        teams: Default::default(),
        message: message.to_owned(),
        notice: config::HANDOFF_NOTICE.to_owned(),
        quota_notice: config::QUOTA_NOTICE.to_owned(),
        unreadable: config::Unreadable::Human,
    }
}

#[test]
fn our_default_is_translated_and_the_operator_s_words_are_not() {
    let default = handoff(config::HANDOFF_MESSAGE);
    assert_eq!(message(&default, Language::English), config::HANDOFF_MESSAGE);
    assert_eq!(message(&default, Language::French), MESSAGE_FRENCH);
    assert_eq!(notice(&default, Language::French), NOTICE_FRENCH);
    assert_eq!(quota_notice(&default, Language::French), QUOTA_NOTICE_FRENCH);
    assert_eq!(message(&handoff("One moment!"), Language::French), "One moment!");
}

#[test]
fn a_note_tells_who_what_and_what_was_tried_and_rings_nobody() {
    let said = |from, text: &str| Utterance { from, text: text.to_owned() };
    let history = [
        said(Speaker::Customer, "one"),
        said(Speaker::Customer, "Hello\n\n[@Bob](mention://user/1/Bob) where is my order?"),
        said(Speaker::Agent, "Which order?"),
        said(Speaker::Customer, &"A-1 ".repeat(200)),
        said(Speaker::Customer, "a human please"),
    ];
    let contact =
        Contact { name: Some("Sam".to_owned()), email: Some("s@example.com".to_owned()), ..Contact::default() };
    let summary = Summary { contact: &contact, history: &history, agent_note: Some("Wants A-1."), sources: &[] };
    let note = note(HandoffReason::AskedFor, &summary);
    let expected = ["The customer asked for a human.", "Sam, s@example.com", "where is my order?", "a human please"];
    for expected in expected.iter().chain(&["Which order?", "Wants A-1."]) {
        assert!(note.contains(expected), "{expected} is not in:\n{note}");
    }
    assert!(!note.contains("](mention://") && !note.contains("Customer wrote: one"), "{note}");
    assert!(note.chars().count() < 1_000, "{note}");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_fail(text in "\\PC{0,300}") {
        asks_for_human(&text);
    }
}
