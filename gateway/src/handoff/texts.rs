//! What customers read around a handoff, in French and English.
//!
//! Only our own defaults are translated: the operator's words are the operator's. When humans are back is told in the
//! customer's language either way, by the clock on the humans' wall.

use crate::config::{self, Opening};
use crate::conversation::{Language, words};

const MESSAGE_FRENCH: &str = "Je passe la main à un collègue, qui vous répondra ici.";
const NOTICE_FRENCH: &str =
    "Je ne peux pas transmettre cette conversation à une personne, mais je continue volontiers à vous aider ici.";
const QUOTA_NOTICE_FRENCH: &str =
    "Je ne peux pas répondre ici pour le moment. Votre message nous est bien parvenu et sera lu.";
const REPHRASE_FRENCH: &str = "Je ne suis pas sûr de vous avoir compris. Pouvez-vous le dire autrement ?";
const OUT_OF_HOURS_FRENCH: &str = "Je transmets votre demande à notre équipe. Il n'y a personne pour le moment ; elle \
                                   sera de retour {when} et vous répondra ici.";
/// What an operator's text has where the day and time come.
const WHEN: &str = "{when}";
const DAYS_ENGLISH: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const DAYS_FRENCH: [&str; 7] = ["lundi", "mardi", "mercredi", "jeudi", "vendredi", "samedi", "dimanche"];

/// What the customer reads when a human takes over; `back` is given if nobody is there.
pub fn message(handoff: &config::Handoff, language: Language, back: Option<Opening>) -> String {
    let Some(back) = back else {
        return localised(&handoff.message, config::HANDOFF_MESSAGE, MESSAGE_FRENCH, language).to_owned();
    };
    let text = localised(&handoff.out_of_hours, config::HANDOFF_OUT_OF_HOURS, OUT_OF_HOURS_FRENCH, language);
    text.replace(WHEN, &when(back, language))
}

/// What the customer reads when they asked for a human and the plan has no handoff (D17).
pub fn notice(handoff: &config::Handoff, language: Language) -> &str {
    localised(&handoff.notice, config::HANDOFF_NOTICE, NOTICE_FRENCH, language)
}

/// What the customer reads when the plan's replies are used up and it has no handoff (ENF-5).
pub fn quota_notice(handoff: &config::Handoff, language: Language) -> &str {
    localised(&handoff.quota_notice, config::QUOTA_NOTICE, QUOTA_NOTICE_FRENCH, language)
}

/// What the customer reads whose question the agent does not know, if a human does not take over yet.
pub fn rephrase(handoff: &config::Handoff, language: Language) -> &str {
    localised(&handoff.rephrase, config::HANDOFF_REPHRASE, REPHRASE_FRENCH, language)
}

/// Whether that is what was said, in either language, as the helpdesk gives it back.
pub(super) fn is_rephrase(handoff: &config::Handoff, said: &str) -> bool {
    let texts = [Language::English, Language::French].map(|language| rephrase(handoff, language));
    texts.into_iter().any(|text| text.trim() == said.trim() || (words(text).eq(words(said)) && words(said).count() > 0))
}

fn localised<'a>(configured: &'a str, default: &str, french: &'a str, language: Language) -> &'a str {
    if language == Language::French && configured == default { french } else { configured }
}

/// `tomorrow at 09:00`, `lundi à 9h`: as a part of a sentence.
pub(super) fn when(back: Opening, language: Language) -> String {
    let Opening { days_ahead, weekday, time: (hour, minute) } = back;
    let named = |days: [&'static str; 7]| days.get(usize::from(weekday)).copied().unwrap_or_default();
    match (language, days_ahead) {
        (Language::English, 0) => format!("today at {hour:02}:{minute:02}"),
        (Language::English, 1) => format!("tomorrow at {hour:02}:{minute:02}"),
        (Language::English, _) => format!("on {} at {hour:02}:{minute:02}", named(DAYS_ENGLISH)),
        (Language::French, days) => {
            let day = match days {
                0 => "aujourd'hui",
                1 => "demain",
                _ => named(DAYS_FRENCH),
            };
            let minutes = if minute == 0 { String::new() } else { format!("{minute:02}") };
            format!("{day} à {hour}h{minutes}")
        }
    }
}
