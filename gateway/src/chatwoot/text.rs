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
use crate::conversation::choice::Choice;

/// Chatwoot's own limit on a message's content.
pub const CONTENT_CHARS_MAX: usize = 150_000;
/// Posts that one text becomes at most: Chatwoot takes 200 messages of a conversation per minute, a reader fewer.
pub const PARTS_MAX: usize = 20;
/// Stands at the end of what 20 parts do not hold.
const ELLIPSIS: char = '…';
/// Word joiner: invisible, and no place to break a line.
const BREAKER: char = '\u{2060}';

/// Text as it can be posted: bounded to `chars_max`, without control characters, without live Liquid. Doing it again
/// changes nothing.
pub fn outgoing(text: &str, chars_max: usize) -> String {
    // In this order: a control character removed later could bring two braces together again.
    let clean = clean(text);
    let safe = neutralise_liquid(clean.trim());
    safe.chars().take(chars_max).collect::<String>().trim_end().to_owned()
}

/// Without control characters but line breaks and tabs, and without what makes text read in another order than it is
/// written in. Line breaks are single characters.
fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' | '\u{2028}' | '\u{2029}' => clean.push('\n'),
            '\n' | '\t' => clean.push(c),
            '\u{202d}' | '\u{202e}' => {}
            _ if c.is_control() => {}
            _ => clean.push(c),
        }
    }
    clean
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

/// How long one message may be. Providers count differently: so what counts most is used.
#[derive(Debug, Clone, Copy)]
enum Limit {
    /// In UTF-16 units: at least as many as characters.
    Units(usize),
    /// In UTF-8 bytes.
    Bytes(usize),
}

impl Limit {
    fn of(medium: Medium) -> Self {
        match medium {
            Medium::Whatsapp | Medium::Telegram => Self::Units(4_096),
            Medium::Messenger => Self::Units(2_000),
            // TikTok's limit is not known to us: the shortest of the others.
            Medium::Instagram | Medium::Tiktok => Self::Bytes(1_000),
            Medium::Twilio | Medium::Sms => Self::Units(1_600),
            Medium::Line => Self::Units(5_000),
            Medium::Web | Medium::Email | Medium::Api | Medium::Other => Self::Units(CONTENT_CHARS_MAX),
        }
    }

    fn size(self, c: char) -> usize {
        match self {
            Self::Units(_) => c.len_utf16(),
            Self::Bytes(_) => c.len_utf8(),
        }
    }

    /// With room for an ellipsis.
    fn less(self) -> Self {
        match self {
            Self::Units(max) => Self::Units(max.saturating_sub(ELLIPSIS.len_utf16())),
            Self::Bytes(max) => Self::Bytes(max.saturating_sub(ELLIPSIS.len_utf8())),
        }
    }

    /// Bytes of the longest beginning that fits, and the character after it; none if all of it fits.
    fn first_over(self, text: &str) -> Option<(usize, char)> {
        let (Self::Units(max) | Self::Bytes(max)) = self;
        let mut size = 0;
        text.char_indices().find(|(_, c)| {
            size += self.size(*c);
            size > max
        })
    }
}

/// The text in pieces that fit the medium, in order, none of them empty, each as [`outgoing`] leaves it. At most
/// [`PARTS_MAX`]; where they do not hold it, the last ends in an ellipsis.
pub fn split(text: &str, medium: Medium) -> Vec<String> {
    // Before it is cut: what is added to break Liquid counts.
    pieces(&outgoing(text, usize::MAX), Limit::of(medium))
}

fn pieces(text: &str, limit: Limit) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let is_last = parts.len() + 1 == PARTS_MAX && limit.first_over(rest).is_some();
        let (part, after) = rest.split_at(cut(rest, if is_last { limit.less() } else { limit }));
        let part = part.trim_end();
        if is_last {
            parts.push(format!("{part}{ELLIPSIS}"));
            break;
        }
        if !part.is_empty() {
            parts.push(part.to_owned());
        }
        rest = after.trim_start();
    }
    parts
}

/// Where to cut, in bytes: as much as fits, back to the nicest boundary that leaves at least a third of it.
fn cut(text: &str, limit: Limit) -> usize {
    let Some((end, first_over)) = limit.first_over(text) else { return text.len() };
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

/// Whether a channel shows these options as buttons or a list (contract 5). Chatwoot checks no lengths, and a provider
/// that finds a title too long delivers nothing: where it does not fit, the numbered lines are the options.
pub fn shows_options(medium: Medium, choice: &Choice<'_>) -> bool {
    let chars_max = choice.options.iter().map(|option| option.chars().count()).max().unwrap_or(0);
    match medium {
        Medium::Web | Medium::Telegram => true,
        // Up to three are buttons, more are a list.
        Medium::Whatsapp => chars_max <= if choice.options.len() > 3 { 24 } else { 20 },
        Medium::Messenger | Medium::Line => chars_max <= 20,
        // The operator's own client may show items or not; the others show the text only.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::conversation::{Language, choice};

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
        assert_eq!(outgoing("\u{1}a\r\nb\rc\u{2028}d\u{85}\u{202e}e", 100), "a\nb\nc\nde");
        let braces = outgoing(&"{".repeat(500), 100);
        assert!(braces.chars().count() <= 100 && !live(&braces), "what is added counts");
    }

    #[test]
    fn a_split_is_at_the_end_of_a_sentence() {
        assert_eq!(pieces("One two. Three four. Five.", Limit::Units(22)), ["One two. Three four.", "Five."]);
        assert_eq!(pieces("First line here\n\nSecond one", Limit::Units(20)), ["First line here", "Second one"]);
        assert_eq!(pieces("no sentence in here at all", Limit::Units(12)), ["no sentence", "in here at", "all"]);
        assert_eq!(pieces("abcdefghij", Limit::Units(4)), ["abcd", "efgh", "ij"]);
        assert_eq!(pieces("short", Limit::Units(100)), ["short"]);
        assert_eq!(pieces(" \n ", Limit::Units(5)), Vec::<String>::new());
    }

    #[test]
    fn a_letter_of_several_characters_stays_whole() {
        let family = "👨‍👩‍👧";
        let parts = pieces(&family.repeat(3), Limit::Units(10));
        assert_eq!(parts, [family, family, family]);
        let accents = "e\u{301}".repeat(3);
        assert!(pieces(&accents, Limit::Units(3)).iter().all(|part| !part.starts_with('\u{301}')));
        assert_eq!(pieces("🙂🙂", Limit::Units(1)), ["🙂", "🙂"], "longer than the limit by itself: sent, not lost");
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

    #[test]
    fn instagram_counts_bytes() {
        let parts = split(&"é".repeat(600), Medium::Instagram);
        assert_eq!(parts.iter().map(String::len).collect::<Vec<_>>(), [1_000, 200]);
    }

    #[test]
    fn a_text_that_fits_is_one_part() {
        let limits = [(Medium::Instagram, 1_000), (Medium::Sms, 1_600), (Medium::Messenger, 2_000)];
        for (medium, max) in limits.into_iter().chain([(Medium::Telegram, 4_096), (Medium::Web, 150_000)]) {
            assert_eq!(split(&"a".repeat(max), medium).len(), 1, "{medium:?}");
            assert_eq!(split(&"a".repeat(max + 1), medium).len(), 2, "{medium:?}");
        }
        assert!(split(" \n\u{0}", Medium::Web).is_empty());
    }

    #[test]
    fn there_are_twenty_parts_at_most_and_the_last_says_that_it_is_cut() {
        let parts = split(&"word ".repeat(10_000), Medium::Instagram);
        assert_eq!(parts.len(), PARTS_MAX);
        assert!(parts[19].ends_with("word…") && parts.iter().all(|part| part.len() <= 1_000));
        assert_eq!(pieces(&"a".repeat(20), Limit::Units(1)).concat(), "a".repeat(20), "what just fits is whole");
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
        fn parts_are_safe_and_fit(text in r"(\PC{0,30}[ \n.{}%\u{7}]{0,3}){0,80}") {
            let parts = split(&text, Medium::Instagram);
            prop_assert!(parts.iter().all(|part| part.len() <= 1_000 && !part.is_empty() && !live(part)));
            let again: Vec<String> = parts.iter().map(|part| outgoing(part, CONTENT_CHARS_MAX)).collect();
            prop_assert_eq!(again, parts);
        }

        #[test]
        fn splitting_loses_nothing_but_space_at_the_cuts(text in r"[a-zé🙂 .!\n\u{301}\u{200d}]{0,200}", max in 4..60_usize) {
            let parts = pieces(&text, Limit::Units(max));
            let bare = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            if parts.len() < PARTS_MAX {
                prop_assert_eq!(bare(&parts.concat()), bare(&text));
            }
            prop_assert!(parts.len() <= PARTS_MAX);
            for part in parts {
                prop_assert!(!part.trim().is_empty());
                prop_assert!(part.encode_utf16().count() <= max);
            }
        }
    }

    #[test]
    fn options_are_shown_where_they_fit() {
        let short = choice::write(Language::English, ["Delivery", "Returns"]);
        let long = choice::write(Language::English, ["How long does delivery take?", "Returns"]);
        let cases = [
            (Medium::Web, &long, true),
            (Medium::Telegram, &long, true),
            (Medium::Whatsapp, &short, true),
            (Medium::Whatsapp, &long, false),
            (Medium::Line, &long, false),
            (Medium::Email, &short, false),
            (Medium::Api, &short, false),
        ];
        for (medium, text, shown) in cases {
            assert_eq!(shows_options(medium, &Choice::read(text).unwrap()), shown, "{medium:?} {text}");
        }
    }
}
