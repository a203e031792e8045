//! What of our text is safe to hand to Chatwoot, and in which pieces.
//!
//! Chatwoot renders outgoing text as a Liquid template, with the customer's details and the conversation in reach.
//! A customer who talks the agent into writing `{{contact.email}}` would have it filled in, and a harmless code
//! sample would arrive mangled. Chatwoot exempts text between backticks by wrapping it in a `raw` block, which the
//! text itself can close; so nothing is exempt here. The pairs are broken by an invisible character, and the text
//! looks as it was written.
//!
//! Chatwoot does not split long texts and channels cut or refuse them, so we split, at the ends of sentences.
//! Markdown is left alone: Chatwoot converts it for each channel.

use std::borrow::Cow;

use unicode_segmentation::UnicodeSegmentation as _;

use crate::conversation::Medium;

/// Chatwoot's own limit on a message's content.
pub const CONTENT_CHARS_MAX: usize = 150_000;
/// Word joiner: invisible, and no place to break a line.
const BREAKER: char = '\u{2060}';

/// Text as it can be posted: bounded to `chars_max`, without control characters, without live Liquid.
pub fn outgoing(text: &str, chars_max: usize) -> String {
    // In this order: a control character removed later could bring two braces together again.
    let visible: String =
        text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).take(chars_max).collect();
    neutralise_liquid(visible.trim()).into_owned()
}

/// Breaks every `{{`, `}}`, `{%` and `%}`, so that none is left. Doing it again changes nothing.
pub fn neutralise_liquid(text: &str) -> Cow<'_, str> {
    let opens = |a: char, b: char| matches!((a, b), ('{', '{') | ('}', '}') | ('{', '%') | ('%', '}'));
    let pairs = text.chars().zip(text.chars().skip(1)).filter(|(a, b)| opens(*a, *b)).count();
    if pairs == 0 {
        return Cow::Borrowed(text);
    }
    let mut broken = String::with_capacity(text.len() + pairs * BREAKER.len_utf8());
    let mut before = None;
    for c in text.chars() {
        if before.is_some_and(|before| opens(before, c)) {
            broken.push(BREAKER);
        }
        broken.push(c);
        before = Some(c);
    }
    Cow::Owned(broken)
}

/// How long one message may be, in UTF-16 units, which is the strictest way a provider counts.
fn length_max(medium: Medium) -> usize {
    match medium {
        Medium::Whatsapp | Medium::Telegram => 4_096,
        Medium::Messenger => 2_000,
        // TikTok's limit is not known to us: the shortest of the others.
        Medium::Instagram | Medium::Tiktok => 1_000,
        Medium::Twilio | Medium::Sms => 1_600,
        Medium::Line => 5_000,
        Medium::Web | Medium::Email | Medium::Api | Medium::Other => CONTENT_CHARS_MAX,
    }
}

/// The text in pieces that fit the medium, in order, none of them empty.
pub fn split(text: &str, medium: Medium) -> Vec<String> {
    pieces(text, length_max(medium))
}

fn pieces(text: &str, units_max: usize) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (part, after) = rest.split_at(cut(rest, units_max));
        let part = part.trim_end();
        if !part.is_empty() {
            parts.push(part.to_owned());
        }
        rest = after.trim_start();
    }
    parts
}

/// Where to cut, in bytes: as much as fits, back to the nicest boundary that leaves at least a third of it.
fn cut(text: &str, units_max: usize) -> usize {
    let mut units = 0;
    let fits = text.char_indices().find(|(_, c)| {
        units += c.len_utf16();
        units > units_max
    });
    let Some((end, first_over)) = fits else { return text.len() };
    let Some(window) = text.get(..end) else { return text.len() };
    let enough = end / 3;
    let last = |bounds: &mut dyn Iterator<Item = usize>| bounds.filter(|at| *at > enough && *at <= end).last();
    last(&mut window.match_indices("\n\n").map(|(at, _)| at))
        .or_else(|| {
            last(&mut text.get(..end + first_over.len_utf8())?.split_sentence_bound_indices().map(|(at, _)| at))
        })
        .or_else(|| last(&mut window.match_indices(char::is_whitespace).map(|(at, _)| at)))
        .or_else(|| last(&mut text.get(..end + first_over.len_utf8())?.grapheme_indices(true).map(|(at, _)| at)))
        // One "letter" longer than a message: only made on purpose. Never an empty piece, so that there is an end.
        .unwrap_or(if end == 0 { first_over.len_utf8() } else { end })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn live(text: &str) -> bool {
        ["{{", "}}", "{%", "%}"].iter().any(|pair| text.contains(pair))
    }

    #[test]
    fn liquid_is_broken_everywhere_and_looks_the_same() {
        let cases = [
            "{{contact.email}}",
            "{% for m in conversation.messages %}{{ m }}{% endfor %}",
            "`{% endraw %}{{contact.email}}`",
            "{{{{%%}}}}",
            "{%}",
            "{\u{0}{agent.name}\u{7}}",
            "a {{ b",
        ];
        for text in cases {
            let safe = outgoing(text, 1_000);
            assert!(!live(&safe), "{text} → {safe}");
            let seen: String = safe.chars().filter(|c| *c != BREAKER).collect();
            let typed: String = text.chars().filter(|c| !c.is_control()).collect();
            assert_eq!(seen, typed);
        }
    }

    #[test]
    fn harmless_text_is_not_touched() {
        for text in ["", "100 % sure", "fn main() { let x = {1}; }", "un {mot} – deux"] {
            assert!(matches!(neutralise_liquid(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn control_characters_go_and_the_length_is_bounded() {
        assert_eq!(outgoing("a\u{0}b\tc\nd\u{1b}[0m", 100), "ab\tc\nd[0m");
        assert_eq!(outgoing(&"é".repeat(500), 10).chars().count(), 10);
        assert_eq!(outgoing("  \n ", 10), "");
    }

    #[test]
    fn a_split_is_at_the_end_of_a_sentence() {
        assert_eq!(pieces("One two. Three four. Five.", 22), ["One two. Three four.", "Five."]);
        assert_eq!(pieces("First line here\n\nSecond one", 20), ["First line here", "Second one"]);
        assert_eq!(pieces("no sentence in here at all", 12), ["no sentence", "in here at", "all"]);
        assert_eq!(pieces("abcdefghij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(pieces("short", 100), ["short"]);
        assert_eq!(pieces(" \n ", 5), Vec::<String>::new());
    }

    #[test]
    fn a_letter_of_several_characters_stays_whole() {
        let family = "👨‍👩‍👧";
        let parts = pieces(&family.repeat(3), 10);
        assert_eq!(parts, [family, family, family]);
        let accents = "e\u{301}".repeat(3);
        assert!(pieces(&accents, 3).iter().all(|part| !part.starts_with('\u{301}')));
        assert_eq!(pieces("🙂🙂", 1), ["🙂", "🙂"], "longer than the limit by itself: sent, not lost");
    }

    #[test]
    fn each_medium_has_its_limit() {
        let text = "A sentence of some length here. ".repeat(200);
        assert_eq!(split(&text, Medium::Web).len(), 1);
        for (medium, max) in [(Medium::Whatsapp, 4_096), (Medium::Instagram, 1_000), (Medium::Twilio, 1_600)] {
            let parts = split(&text, medium);
            assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= max && part.ends_with('.')), "{medium:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn no_liquid_survives(text in r"[{}% `a\u{0}\u{2060}]{0,60}") {
            let once = outgoing(&text, 1_000);
            prop_assert!(!live(&once));
            let twice = neutralise_liquid(&once).into_owned();
            prop_assert_eq!(twice, once);
        }

        #[test]
        fn splitting_loses_nothing_but_space_at_the_cuts(text in r"[a-zé🙂 .!\n\u{301}\u{200d}]{0,200}", max in 2..60_usize) {
            let parts = pieces(&text, max);
            let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(bare(&parts.concat()), bare(&text));
            for part in parts {
                prop_assert!(!part.trim().is_empty());
                prop_assert!(part.encode_utf16().count() <= max);
            }
        }
    }
}
