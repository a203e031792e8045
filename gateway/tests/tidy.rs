//! Rules about the source that no compiler checks: where modules may look, what every file says first, who may
//! choose a failure's status, and what must not be left behind.
//!
//! Each failure names the file, the line and what to do. `ARCHITECTURE.md` tells the layers in words.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, which is what it is for")]

use std::fs;
use std::path::{Path, PathBuf};

/// The gateway's modules from top to bottom. A module may use those on lines below its own, and itself.
const LAYERS: &[&[&str]] = &[
    &["reload"],
    &["server"],
    &["ingress", "relay"],
    &["auth"],
    &["policy"],
    &["usage"],
    &["agent"],
    &["admission", "inbox", "handoff", "chatwoot", "llm"],
    &["telemetry"],
    &["http"],
    &["metrics", "config"],
    &["error", "clock", "conversation", "storage"],
];

/// Who may name a status of failure: the one that chooses ours, and those that read what others answered.
const STATUS_READERS: &[&str] = &["llm/upstream", "chatwoot/", "agent/openai"];
const STATUS_CHOOSER: &str = "http/respond.rs";

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// `relay/turn.rs` of `gateway/src/relay/turn.rs`.
    fn within(&self, folder: &Path) -> Option<String> {
        Some(self.path.strip_prefix(folder).ok()?.to_string_lossy().replace('\\', "/"))
    }

    /// The lines that are built into the program: without comments, and up to the tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines
            .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in ["policies", "gateway", "billing", "loadtest", "benches"] {
        let folder = root().join(folder);
        if folder.is_dir() {
            collect(&folder, &mut found);
        }
    }
    assert!(found.len() > 30, "only {} source files were found", found.len());
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push(Source { path, text });
        }
    }
}

fn none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn every_file_says_first_what_it_is() {
    let silent = |source: &Source| {
        let first = source.text.lines().next().unwrap_or_default();
        !first.starts_with("//! ") || first.len() < 20
    };
    let problems: Vec<String> = sources()
        .iter()
        .filter(|source| silent(source))
        .map(|source| format!("{}: begin with `//!`: what it is, what for, what it does not do", source.path.display()))
        .collect();
    none(&problems);
}

#[test]
fn imports_point_down() {
    let gateway = root().join("gateway/src");
    let mut problems = Vec::new();
    for source in sources() {
        let Some(within) = source.within(&gateway) else { continue };
        let module = within.split(['/', '.']).next().unwrap();
        if ["lib", "main", "cli"].contains(&module) || within.ends_with("tests.rs") || within.contains("/tests/") {
            continue;
        }
        let Some(own) = layer(module) else {
            problems.push(format!("{within}: module `{module}` is in no layer: give it one in tests/tidy.rs"));
            continue;
        };
        for (line, text) in source.code() {
            for used in text.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let below = layer(&used).is_none_or(|other| other > own);
                if !below && used != module {
                    problems.push(format!("{within}:{line}: `{module}` must not use `{used}`, which is not below it"));
                }
            }
        }
    }
    none(&problems);
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

#[test]
fn only_respond_chooses_a_failure_s_status() {
    let gateway = root().join("gateway/src");
    let mut problems = Vec::new();
    for source in sources() {
        let Some(within) = source.within(&gateway) else { continue };
        if within == STATUS_CHOOSER || STATUS_READERS.iter().any(|reader| within.starts_with(reader)) {
            continue;
        }
        for (line, text) in source.code() {
            let named = text.split("StatusCode::").skip(1).any(|rest| {
                let name: String = rest.chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
                !name.is_empty() && !["OK", "NO_CONTENT"].contains(&name.as_str())
            });
            if named || text.contains("StatusCode::from_u16") {
                problems
                    .push(format!("{within}:{line}: give the error a reason; its status stands in {STATUS_CHOOSER}"));
            }
        }
    }
    none(&problems);
}

#[test]
fn nothing_is_left_behind() {
    // Written apart, so that this file does not find itself.
    let marks = ["TO", "FIX", "XX"].map(|half| match half {
        "TO" => "TODO",
        "FIX" => "FIXME",
        _ => "XXX",
    });
    let own = root().join("gateway/tests/tidy.rs");
    let mut problems = Vec::new();
    for source in sources().iter().filter(|source| source.path != own) {
        for (at, text) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| text.split(|c: char| !c.is_ascii_alphabetic()).any(|word| word == *mark)) {
                problems.push(format!("{}:{}: do it, or say in an issue why not", source.path.display(), at + 1));
            }
        }
    }
    none(&problems);
}

#[test]
fn the_core_stays_pure() {
    let policies = root().join("policies/src");
    let mut problems = Vec::new();
    for source in sources() {
        let Some(within) = source.within(&policies) else { continue };
        for (line, text) in source.code() {
            for impure in ["std::fs", "std::net", "SystemTime", "Instant::now", "std::env", "std::thread", "tokio"] {
                if text.contains(impure) {
                    problems
                        .push(format!("policies/src/{within}:{line}: `{impure}`: take it as a value from the caller"));
                }
            }
        }
    }
    none(&problems);
}
