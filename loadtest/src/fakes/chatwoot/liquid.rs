//! The part of Liquid that Chatwoot runs over outgoing text before it stores it.
//!
//! It exists so that a gateway which forgets to neutralise braces is caught: placeholders resolve,
//! unknown names become empty, tags run. Text between backticks is protected the way Chatwoot does
//! it, by wrapping it in `raw` tags, so what escapes there escapes here. A parse error leaves the
//! whole text as it was. Loops, `case` and `capture` are understood as blocks but render nothing:
//! whoever lets them through has lost text either way.

use std::collections::HashMap;

/// Renders `text`; `lookup` gives the value of a path such as `contact.email`.
pub(super) fn render(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    if !text.contains("{{") && !text.contains("{%") {
        return text.to_owned();
    }
    let mut renderer = Renderer { lookup, locals: HashMap::new(), blocks: Vec::new(), output: String::new() };
    match renderer.run(&protect_code(text)) {
        Ok(()) => renderer.output,
        Err(SyntaxError) => text.to_owned(),
    }
}

struct SyntaxError;

/// Wraps every pair of backticks and what is between them in `raw` tags.
fn protect_code(text: &str) -> String {
    let mut protected = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('`') {
        let Some((code, after_code)) = after.split_once('`') else { break };
        protected.push_str(before);
        protected.push_str("{% raw %}`");
        protected.push_str(code);
        protected.push_str("`{% endraw %}");
        rest = after_code;
    }
    protected.push_str(rest);
    protected
}

struct Block {
    ends_with: &'static str,
    /// Whether text in it is rendered, given that the blocks around it are.
    shown: bool,
    /// Whether an `else` may still turn it on.
    taken: bool,
}

struct Renderer<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    locals: HashMap<String, String>,
    blocks: Vec<Block>,
    output: String,
}

impl Renderer<'_> {
    fn run(&mut self, text: &str) -> Result<(), SyntaxError> {
        let mut rest = text;
        loop {
            let next = match (rest.find("{{"), rest.find("{%")) {
                (None, None) => break,
                (Some(at), None) | (None, Some(at)) => at,
                (Some(variable), Some(tag)) => variable.min(tag),
            };
            let (before, from) = rest.split_at(next);
            self.write(before);
            rest = if let Some(inside) = from.strip_prefix("{{") {
                let (expression, after) = inside.split_once("}}").ok_or(SyntaxError)?;
                let value = self.evaluate(expression.trim_matches(['-', ' ', '\n', '\t']));
                self.write(&value.unwrap_or_default());
                after
            } else {
                let inside = from.strip_prefix("{%").ok_or(SyntaxError)?;
                let (tag, after) = inside.split_once("%}").ok_or(SyntaxError)?;
                self.tag(tag.trim_matches(['-', ' ', '\n', '\t']), after)?
            };
        }
        self.write(rest);
        if self.blocks.is_empty() { Ok(()) } else { Err(SyntaxError) }
    }

    fn write(&mut self, text: &str) {
        if self.blocks.iter().all(|block| block.shown) {
            self.output.push_str(text);
        }
    }

    /// Runs one tag and returns where to go on.
    fn tag<'t>(&mut self, tag: &str, after: &'t str) -> Result<&'t str, SyntaxError> {
        let (name, arguments) = tag.split_once(char::is_whitespace).unwrap_or((tag, ""));
        match name {
            "raw" => {
                let (raw, rest) = split_at_end_of_raw(after).ok_or(SyntaxError)?;
                self.write(raw);
                return Ok(rest);
            }
            "assign" => {
                let (local, expression) = arguments.split_once('=').ok_or(SyntaxError)?;
                let value = self.evaluate(expression.trim()).unwrap_or_default();
                self.locals.insert(local.trim().to_owned(), value);
            }
            "if" | "unless" => {
                let holds = self.holds(arguments) == (name == "if");
                let ends_with = if name == "if" { "endif" } else { "endunless" };
                self.blocks.push(Block { ends_with, shown: holds, taken: holds });
            }
            "elsif" | "else" => {
                let holds = name == "else" || self.holds(arguments);
                let block = self.blocks.last_mut().ok_or(SyntaxError)?;
                block.shown = !block.taken && holds;
                block.taken |= block.shown;
            }
            "comment" => self.blocks.push(hidden("endcomment")),
            "for" => self.blocks.push(hidden("endfor")),
            "case" => self.blocks.push(hidden("endcase")),
            "capture" => self.blocks.push(hidden("endcapture")),
            "when" | "break" | "continue" => {}
            end if self.blocks.last().is_some_and(|block| block.ends_with == end) => drop(self.blocks.pop()),
            _ => return Err(SyntaxError),
        }
        Ok(after)
    }

    /// A condition: `path`, or `path == literal`, or `path != literal`.
    fn holds(&self, condition: &str) -> bool {
        if let Some((left, right)) = condition.split_once("==") {
            return self.evaluate(left.trim()) == self.evaluate(right.trim());
        }
        if let Some((left, right)) = condition.split_once("!=") {
            return self.evaluate(left.trim()) != self.evaluate(right.trim());
        }
        self.evaluate(condition.trim()).is_some_and(|value| value != "false")
    }

    fn evaluate(&self, expression: &str) -> Option<String> {
        let mut steps = expression.split('|').map(str::trim);
        let mut value = self.operand(steps.next().unwrap_or_default());
        for filter in steps {
            let (name, argument) = filter.split_once(':').unwrap_or((filter, ""));
            let argument = self.operand(argument.trim());
            value = match name.trim() {
                "default" => value.filter(|value| !value.is_empty()).or(argument),
                "append" => Some(value.unwrap_or_default() + &argument.unwrap_or_default()),
                "upcase" => value.map(|value| value.to_uppercase()),
                "downcase" => value.map(|value| value.to_lowercase()),
                "strip" => value.map(|value| value.trim().to_owned()),
                "size" => value.map(|value| value.chars().count().to_string()),
                _ => value,
            };
        }
        value
    }

    fn operand(&self, operand: &str) -> Option<String> {
        for quote in ['"', '\''] {
            if let Some(text) = operand.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
                return Some(text.to_owned());
            }
        }
        if !operand.is_empty() && operand.bytes().all(|byte| byte.is_ascii_digit()) || operand == "true" {
            return Some(operand.to_owned());
        }
        self.locals.get(operand).cloned().or_else(|| (self.lookup)(operand))
    }
}

fn hidden(ends_with: &'static str) -> Block {
    Block { ends_with, shown: false, taken: true }
}

/// The raw text before `{% endraw %}` and what follows it.
fn split_at_end_of_raw(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    loop {
        let start = from + text.get(from..)?.find("{%")?;
        let (tag, after) = text.get(start + 2..)?.split_once("%}")?;
        if tag.trim_matches(['-', ' ']) == "endraw" {
            return Some((text.get(..start)?, after));
        }
        from = start + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let lookup = |path: &str| match path {
            "contact.name" => Some("Ana Pop".to_owned()),
            "contact.email" => Some("ana@example.com".to_owned()),
            _ => None,
        };
        assert_eq!(render(text, &lookup), expected, "rendering {text}");
    }

    #[test]
    fn placeholders_resolve_and_unknown_names_vanish() {
        check("Mail: {{contact.email}}.", "Mail: ana@example.com.");
        check("{{ contact.name | upcase }}{{nobody.knows}}", "ANA POP");
        check("{{ nobody | default: 'you' }}", "you");
        check("const a = {{}};", "const a = ;");
    }

    #[test]
    fn tags_run() {
        check("a{% comment %}gone{% endcomment %}b", "ab");
        check("{% assign x = contact.email %}{{x}}", "ana@example.com");
        check("{% if contact.email %}yes{% else %}no{% endif %}", "yes");
        check("{% unless contact.email %}yes{% else %}no{% endunless %}", "no");
        check("{% for a in b %}x{% endfor %}", "");
    }

    #[test]
    fn code_between_backticks_is_protected_unless_it_ends_the_protection() {
        check("use `{{contact.email}}` or\n```\n{% if %}\n```", "use `{{contact.email}}` or\n```\n{% if %}\n```");
        check("`{% endraw %}{{contact.email}}{% raw %}`", "`ana@example.com`");
        check("one ` alone {{contact.name}}", "one ` alone Ana Pop");
    }

    #[test]
    fn a_syntax_error_leaves_the_text_alone() {
        for text in ["{{contact.email", "{% nonsense %}{{contact.email}}", "{% if contact.email %}open", "{% end"] {
            check(text, text);
        }
    }

    #[test]
    fn neutralised_braces_are_plain_text() {
        check(
            "{\u{200b}{contact.email}\u{200b}} {\u{200b}% if %\u{200b}}",
            "{\u{200b}{contact.email}\u{200b}} {\u{200b}% if %\u{200b}}",
        );
    }
}
