//! What the demo prints: plain lines, coloured when a person is looking.

use std::io::{self, IsTerminal, Write};

/// A printer that knows whether it prints to a terminal.
#[derive(Debug)]
pub(super) struct Show {
    coloured: bool,
}

/// Who is speaking, or what is happening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    Customer,
    Agent,
    Note,
    Event,
}

impl Voice {
    fn label(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Agent => "agent",
            Self::Note => "note",
            Self::Event => "·",
        }
    }

    /// The terminal's colour: bold cyan, bold green, yellow, dim.
    fn code(self) -> &'static str {
        match self {
            Self::Customer => "1;36",
            Self::Agent => "1;32",
            Self::Note => "33",
            Self::Event => "2",
        }
    }
}

impl Show {
    pub(super) fn new() -> Self {
        // https://no-color.org: any value that is not empty.
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { coloured: io::stdout().is_terminal() && !refused }
    }

    fn line(&self, code: &str, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.coloured {
            writeln!(out, "\x1b[{code}m{text}\x1b[0m")?;
        } else {
            writeln!(out, "{text}")?;
        }
        out.flush()
    }

    pub(super) fn title(&self, text: &str) -> io::Result<()> {
        self.line("1", &format!("\n{text}\n"))
    }

    pub(super) fn aside(&self, text: &str) -> io::Result<()> {
        self.line("2", text)
    }

    pub(super) fn plain(&self, text: &str) -> io::Result<()> {
        writeln!(io::stdout(), "{text}")
    }

    /// One line of the conversation; further lines of a text are indented under the first.
    pub(super) fn says(&self, voice: Voice, text: &str) -> io::Result<()> {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        self.line(voice.code(), &format!("{:>10}  {first}", voice.label()))?;
        lines.try_for_each(|line| self.line(voice.code(), &format!("{:>10}  {line}", "")))
    }

    pub(super) fn failure(&self, error: &anyhow::Error) -> io::Result<()> {
        self.line("1;31", &format!("\nThe demo did not work: {error:#}."))
    }
}
