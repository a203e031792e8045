//! `relais inbox`: what is waiting, what is damaged, what became of a conversation.
//!
//! Works beside a gateway that runs, and without one. Texts of customers are printed only when asked for.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use relais_gateway::inbox::report::{self, Named, Report, Story, TurnStory, Waiting, Which};

/// `relais inbox …`
#[derive(Debug, Subcommand)]
pub(crate) enum InboxCommand {
    /// Lists conversations with deliveries that are not finished, or damaged.
    List {
        /// Which of them.
        #[command(flatten)]
        of: Of,
        /// Only those with damaged deliveries.
        #[arg(long)]
        damaged: bool,
        /// At most so many, the longest waiting first.
        #[arg(long, default_value_t = 100, value_name = "COUNT")]
        limit: usize,
        /// How to print it.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Tells one conversation's whole story: deliveries, turns, posts, outcomes.
    Show {
        /// The tenant.
        tenant: String,
        /// The conversation's number at Chatwoot.
        conversation: u64,
        /// The channel, if the tenant has several.
        #[arg(long, value_name = "NAME")]
        channel: Option<String>,
        /// The account at Chatwoot, if the channel had several.
        #[arg(long, value_name = "ID")]
        account: Option<u64>,
        /// With what was said. It is private.
        #[arg(long)]
        texts: bool,
        /// How to print it.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Tries what was put off now. A running gateway finds it within seconds.
    Retry {
        /// Which of them; all, if nothing is named.
        #[command(flatten)]
        of: Of,
    },
    /// Says that a human has seen to damaged deliveries: they count no longer.
    Dismiss {
        /// Whose.
        #[arg(long, value_name = "ID")]
        tenant: String,
        /// In which conversation.
        #[arg(long, value_name = "NUMBER")]
        conversation: u64,
    },
    /// Prints every conversation's story as a line of JSON.
    Export {
        /// Which of them.
        #[command(flatten)]
        of: Of,
        /// With what was said. It is private.
        #[arg(long)]
        texts: bool,
    },
}

/// Some of the conversations.
#[derive(Debug, Args)]
pub(crate) struct Of {
    /// Only this tenant's.
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// Only this channel's.
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// Only this conversation, by its number at Chatwoot.
    #[arg(long, value_name = "NUMBER")]
    conversation: Option<u64>,
}

impl Of {
    fn which(&self) -> Which {
        Which {
            tenant: self.tenant.clone(),
            channel: self.channel.clone(),
            account_id: None,
            conversation_id: self.conversation,
        }
    }
}

/// How to print.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Does it, on the inbox in `dir`, at `now_ms`.
pub(crate) fn run(dir: &Path, command: &InboxCommand, now_ms: i64, out: &mut impl io::Write) -> anyhow::Result<()> {
    match command {
        InboxCommand::List { of, damaged, limit, format } => {
            let (waiting, count) = Report::open(dir)?.waiting(&of.which(), *damaged, now_ms, *limit)?;
            let text = match format {
                Format::Json => serde_json::to_string_pretty(&waiting).context("writing the list as JSON")? + "\n",
                Format::Table => listed(&waiting, count, now_ms),
            };
            say(out, &text)
        }
        InboxCommand::Show { tenant, conversation, channel, account, texts, format } => {
            let which = Which {
                tenant: Some(tenant.clone()),
                channel: channel.clone(),
                account_id: *account,
                conversation_id: Some(*conversation),
            };
            let mut stories = Vec::new();
            let read = Report::open(dir)?.stories(&which, *texts, |story| {
                stories.push(story);
                anyhow::Ok(())
            })?;
            read?;
            if stories.is_empty() {
                bail!("the inbox keeps nothing of conversation {conversation} of tenant \"{tenant}\"");
            }
            let text = match format {
                Format::Json => serde_json::to_string_pretty(&stories).context("writing the story as JSON")? + "\n",
                Format::Table => stories.iter().map(told).collect::<Vec<_>>().join("\n"),
            };
            say(out, &text)
        }
        InboxCommand::Retry { of } => {
            let done = report::retry(dir, &of.which(), now_ms)?;
            let text = format!(
                "{} made due now, {} due already, {} of which only damaged deliveries are left (not tried again).\n",
                conversations(done.made_due),
                done.due_already,
                done.only_damaged
            );
            say(out, &text)
        }
        InboxCommand::Dismiss { tenant, conversation } => {
            let which =
                Which { tenant: Some(tenant.clone()), conversation_id: Some(*conversation), ..Which::default() };
            match report::dismiss(dir, &which)? {
                0 => bail!("conversation {conversation} of tenant \"{tenant}\" has no damaged delivery"),
                1 => say(out, "1 damaged delivery dismissed.\n"),
                count => say(out, &format!("{count} damaged deliveries dismissed.\n")),
            }
        }
        InboxCommand::Export { of, texts } => Report::open(dir)?.stories(&of.which(), *texts, |story| {
            let line = serde_json::to_string(&story).context("writing a story as JSON")?;
            say(out, &(line + "\n"))
        })?,
    }
}

fn say(out: &mut impl io::Write, text: &str) -> anyhow::Result<()> {
    out.write_all(text.as_bytes()).context("printing the answer")
}

fn conversations(count: usize) -> String {
    if count == 1 { "1 conversation".to_owned() } else { format!("{count} conversations") }
}

fn listed(waiting: &[Waiting], count: usize, now_ms: i64) -> String {
    if count == 0 {
        return "Nothing is waiting.\n".to_owned();
    }
    let titles =
        ["tenant", "channel", "account", "conversation", "state", "age", "unfinished", "damaged", "tries", "next"];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for one in waiting {
        let Named { tenant, channel, account_id, conversation_id } = one.named();
        let state = match &one.handoff {
            Some(reason) => format!("{} (handing over: {reason})", one.state),
            None => one.state.to_owned(),
        };
        rows.push(vec![
            tenant.clone(),
            channel.clone(),
            account_id.to_string(),
            conversation_id.to_string(),
            state,
            span(now_ms.saturating_sub(one.oldest_at_ms)),
            one.unfinished.to_string(),
            one.damaged.to_string(),
            one.tries.to_string(),
            one.not_before_ms.map(|at_ms| format!("in {}", span(at_ms.saturating_sub(now_ms)))).unwrap_or_default(),
        ]);
    }
    let mut text = columns(&rows);
    if count > waiting.len() {
        // Writing to a String does not fail.
        let _ = writeln!(text, "and {} more; see --limit", count - waiting.len());
    }
    text
}

fn told(story: &Story) -> String {
    let Named { tenant, channel, account_id, conversation_id } = story.named();
    let known = |word: &Option<String>| word.clone().unwrap_or_else(|| "unknown".to_owned());
    let mut text = format!(
        "Conversation {conversation_id} of account {account_id}, tenant {tenant}, channel {channel}.\nLast seen: status \
         {}, assigned to {}{}.\n",
        known(&story.status),
        known(&story.owner),
        story.human_message_id.map(|id| format!(", a human spoke in message {id}")).unwrap_or_default()
    );
    for period_ms in &story.counted_in_ms {
        let _ = writeln!(text, "Counted in the billing month since {}.", at(*period_ms));
    }
    if story.not_before_ms > 0 {
        let _ = writeln!(text, "Put off until {}.", at(story.not_before_ms));
    }
    let mut rows =
        vec![["delivery", "received", "event", "message", "outcome", "after", "turn"].map(str::to_owned).to_vec()];
    for one in &story.deliveries {
        let number = |id: u64| if id == 0 { String::new() } else { id.to_string() };
        rows.push(vec![
            one.seq.to_string(),
            at(one.received_at_ms),
            one.event.clone(),
            number(one.message_id),
            one.outcome.clone(),
            one.ended_at_ms.map(|ended| span(ended.saturating_sub(one.received_at_ms))).unwrap_or_default(),
            one.turn.map(|turn| turn.to_string()).unwrap_or_default(),
        ]);
    }
    text += &format!("\n{}", columns(&rows));
    for turn in &story.turns {
        let _ = writeln!(
            text,
            "\nTurn {}: planned {}, up to delivery {}, put off {} times, {}{}{}{}.",
            turn.turn,
            at(turn.planned_at_ms),
            turn.upto_seq,
            turn.tries,
            turn.outcome.as_deref().unwrap_or("open"),
            turn.agent.as_ref().map(|agent| format!(" by agent {agent}")).unwrap_or_default(),
            turn.handoff.as_ref().map(|reason| format!(", handing over: {reason}")).unwrap_or_default(),
            tokens(turn)
        );
        for post in &turn.posts {
            let id = post.message_id.filter(|id| *id != 0).map(|id| format!(" as message {id}")).unwrap_or_default();
            let said = post.text.as_deref().map(|text| format!(": {}", printable(text))).unwrap_or_default();
            let _ = writeln!(text, "  part {}, {}, {}{id}{said}", post.part, post.kind, post.state);
        }
    }
    for (place, line) in story.lines.iter().enumerate() {
        let gap = if place == 0 { "\n" } else { "" };
        let _ = writeln!(text, "{gap}{} {}: {}", line.message_id, line.voice, printable(&line.text));
    }
    text
}

/// What a turn's answers took; nothing if no model was asked.
fn tokens(turn: &TurnStory) -> String {
    let TurnStory { input_tokens, cached_tokens, output_tokens, .. } = turn;
    match (input_tokens, output_tokens) {
        (0, 0) => String::new(),
        _ => format!(", tokens: {input_tokens} in ({cached_tokens} cached), {output_tokens} out"),
    }
}

/// Columns as wide as they must be.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |place: usize| rows.iter().filter_map(|row| row.get(place)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|place| width(place).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn at(at_ms: i64) -> String {
    Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// A length of time, in the two largest units that say something.
fn span(span_ms: i64) -> String {
    let ms = span_ms.max(0);
    match ms / 1_000 {
        0 => format!("{ms} ms"),
        seconds @ 1..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds @ 3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
        seconds => format!("{} d {} h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// What a customer wrote moves no cursor.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_in_two_units() {
        for (ms, expected) in [
            (-5, "0 ms"),
            (999, "999 ms"),
            (59_999, "59 s"),
            (61_000, "1 min 1 s"),
            (3_660_000, "1 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(ms), expected);
        }
        assert_eq!(printable("a\u{1b}[2J\nb"), "a [2J b");
    }
}
