//! Whose a conversation is, in the word that is kept of it.
//!
//! Chatwoot leaves the assignee in place when a human resolves a conversation or gives it back, so an assigned human
//! owns a pending one only if the assignment came while it was pending. What is kept is `none`, `us`, `human`, `other`;
//! `given_back` if a human set it pending again, and after `:` who is still assigned; `past:` and who was assigned when
//! it was resolved. Of these the relay answers in all but `human` and `other`.

use crate::chatwoot::event::Assignee;

const GIVEN_BACK: &str = "given_back";
const PAST: &str = "past";

/// What a payload shows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    pub(super) assignee: Assignee,
    pub(super) pending: bool,
    /// It is pending and was not.
    pub(super) returns: bool,
    /// That was a human.
    pub(super) by_human: bool,
}

/// The word after a payload; none if it does not tell whose the conversation is.
pub(super) fn after(before: Option<&str>, shown: Shown, bot_id: u64) -> Option<String> {
    let Shown { assignee, pending, returns, by_human } = shown;
    let given_back = pending && (by_human || (!returns && is_given_back(before)));
    Some(match assignee {
        Assignee::Unknown => return None,
        Assignee::Bot(id) if id != bot_id => "other".to_owned(),
        Assignee::Other => "other".to_owned(),
        Assignee::None | Assignee::Bot(_) if given_back => GIVEN_BACK.to_owned(),
        Assignee::None => "none".to_owned(),
        Assignee::Bot(_) => "us".to_owned(),
        Assignee::Human(id) => {
            let words = [format!("{GIVEN_BACK}:{id}"), format!("{PAST}:{id}")];
            let stands = |word: &&String| !returns && before == Some(word.as_str());
            match (pending, words.iter().find(stands)) {
                (true, Some(word)) => word.clone(),
                (true, None) if by_human => format!("{GIVEN_BACK}:{id}"),
                (true, None) if returns => format!("{PAST}:{id}"),
                _ => "human".to_owned(),
            }
        }
    })
}

/// Whether a human gave it back, rather than that it was resolved or never theirs.
pub(super) fn is_given_back(word: Option<&str>) -> bool {
    word.and_then(|word| word.split(':').next()) == Some(GIVEN_BACK)
}
