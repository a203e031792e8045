//! What a command did, step by step: lines as they happen, or one JSON object at the end; and the exit code.
//!
//! It is told what to say and never sees a secret.

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

/// How a step came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Changed,
    Unchanged,
    Note,
    Failed,
}

#[derive(Debug, Serialize)]
struct Step {
    /// Tenant and channel, where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    step: &'static str,
    state: State,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

/// Something failed, and was said. The exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed(pub(super) u8);

impl Failed {
    /// Something is in the way.
    pub(super) const STOPPED: Self = Self(1);
    /// No webhook arrived.
    pub(super) const UNPROVEN: Self = Self(3);
    /// Ctrl-C.
    pub(super) const INTERRUPTED: Self = Self(130);
}

/// The steps so far.
pub(super) struct Steps {
    json: bool,
    channel: Option<String>,
    steps: Vec<Step>,
}

impl Steps {
    pub(super) fn new(json: bool) -> Self {
        Self { json, channel: None, steps: Vec::new() }
    }

    /// What follows is about this channel.
    pub(super) fn about(&mut self, tenant: &str, channel: &str) {
        let channel = format!("{tenant}/{channel}");
        if !self.json {
            say(&format!("{channel}\n"));
        }
        self.channel = Some(channel);
    }

    /// As it should be.
    pub(super) fn ok(&mut self, step: &'static str, what: &str) {
        self.add(step, State::Ok, what, None);
    }

    /// Done, and it was not so before.
    pub(super) fn changed(&mut self, step: &'static str, what: &str) {
        self.add(step, State::Changed, what, None);
    }

    /// Already so.
    pub(super) fn unchanged(&mut self, step: &'static str, what: &str) {
        self.add(step, State::Unchanged, what, None);
    }

    /// Worth knowing; nothing failed.
    pub(super) fn note(&mut self, step: &'static str, what: &str) {
        self.add(step, State::Note, what, None);
    }

    /// Failed, and what to do.
    pub(super) fn fail(&mut self, step: &'static str, what: &str, todo: &str) -> Failed {
        self.add(step, State::Failed, what, Some(todo.to_owned()));
        Failed::STOPPED
    }

    /// The last word, and the exit code.
    pub(super) fn finish(&mut self, done: Result<(), Failed>) -> anyhow::Result<ExitCode> {
        let any = |state| self.steps.iter().any(|step| step.state == state);
        let failed = done.err().or_else(|| any(State::Failed).then_some(Failed::STOPPED));
        let changed = any(State::Changed);
        let code = failed.map_or(0, |Failed(code)| code);
        let text = if self.json {
            let told = serde_json::json!({
                "ok": failed.is_none(), "exit": code, "changed": changed, "steps": self.steps,
            });
            format!("{told:#}\n")
        } else {
            let last = match (failed, changed) {
                (Some(Failed::INTERRUPTED), _) => "Interrupted; what was made for the self-test is removed.",
                (Some(_), true) => "Not finished. Run it again when that is mended: what is done is done.",
                (Some(_), false) => "Not finished; nothing was changed.",
                (None, true) => "Done.",
                (None, false) => "All is in order; nothing was changed.",
            };
            format!("{last}\n")
        };
        io::stdout().write_all(text.as_bytes()).context("printing the answer")?;
        Ok(ExitCode::from(code))
    }

    fn add(&mut self, step: &'static str, state: State, what: &str, todo: Option<String>) {
        // What Chatwoot named so moves no cursor.
        let what: String = what.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        if !self.json {
            let word = match state {
                State::Ok => "ok",
                State::Changed => "changed",
                State::Unchanged => "unchanged",
                State::Note => "note",
                State::Failed => "FAILED",
            };
            say(&format!("{word:<9}  {step}: {what}\n"));
            if let Some(todo) = &todo {
                say(&format!("           → {todo}\n"));
            }
        }
        self.steps.push(Step { channel: self.channel.clone(), step, state, what, todo });
    }
}

/// Progress that nobody reads is no reason to stop half-way.
fn say(line: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}
