//! What an operator may say about a run, and what the words mean.
//!
//! Keys and secrets are read from a file or the environment: on the command line everybody on the machine sees them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use http::Uri;

use super::expect::Expectation;

/// The longest run, ramp or wait: a week.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// `relais-load run`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    #[command(subcommand)]
    pub(super) what: What,
}

/// What is called.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum What {
    /// OpenAI-compatible calls, in one piece or as a stream.
    V1(V1Flags),
    /// Chatwoot deliveries, signed as Chatwoot signs them.
    Webhooks(WebhookFlags),
}

#[derive(Debug, Clone, Args)]
pub(super) struct V1Flags {
    /// The gateway, or any OpenAI-compatible server, without /v1.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(super) url: Uri,
    /// The API key.
    #[arg(long, env = "RELAIS_LOAD_KEY", hide_env_values = true)]
    pub(super) key: Option<String>,
    /// More keys, one a line, used in turn; a name may stand before the key.
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    pub(super) keys: Option<PathBuf>,
    /// The model to ask for.
    #[arg(long, default_value = "fake-model")]
    pub(super) model: String,
    /// Ask for streams.
    #[arg(long)]
    pub(super) stream: bool,
    /// The answer's words are numbers from 0 on (`relais-load llm --numbered`): count the lost and the doubled.
    #[arg(long, requires = "stream")]
    pub(super) numbered: bool,
    /// Bytes of the prompt.
    #[arg(long, default_value_t = 256)]
    pub(super) prompt_bytes: usize,
    /// The answer's longest, in tokens.
    #[arg(long)]
    pub(super) tokens_max: Option<u64>,
    /// Send this JSON file instead, as it is.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "prompt_bytes", "tokens_max"])]
    pub(super) body: Option<PathBuf>,
    /// The endpoint.
    #[arg(long, default_value = "/v1/chat/completions")]
    pub(super) path: String,
    #[command(flatten)]
    pub(super) load: LoadFlags,
}

#[derive(Debug, Clone, Args)]
pub(super) struct WebhookFlags {
    /// Where the bot's webhooks go, path included.
    #[arg(long, default_value = "http://127.0.0.1:8080/chatwoot/demo")]
    pub(super) url: Uri,
    /// What signs them; without it they are unsigned.
    #[arg(long, env = "RELAIS_LOAD_SECRET", hide_env_values = true)]
    pub(super) secret: Option<String>,
    /// The Chatwoot account.
    #[arg(long, default_value_t = 1)]
    pub(super) account: u64,
    /// More channels, used in turn, one a line: URL, account and secret.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "secret", "account"])]
    pub(super) channels: Option<PathBuf>,
    /// Conversations of each channel; each message goes to the next one.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) conversations: u64,
    /// Bytes of the customer's text.
    #[arg(long, default_value_t = 120)]
    pub(super) text_bytes: usize,
    /// The number of the first message; by default one that no earlier run had.
    #[arg(long)]
    pub(super) first_message: Option<u64>,
    /// The conversations are open, a human's: the gateway keeps what comes and answers nothing.
    #[arg(long)]
    pub(super) open: bool,
    /// A connection for each delivery, as Chatwoot itself does.
    #[arg(long)]
    pub(super) connection_each: bool,
    #[command(flatten)]
    pub(super) load: LoadFlags,
}

/// How much, how long, and what to do with the result.
#[derive(Debug, Clone, Args)]
pub(super) struct LoadFlags {
    /// Requests a second, begun on schedule whatever the server does (open loop).
    #[arg(long, required_unless_present = "concurrency", conflicts_with = "concurrency")]
    pub(super) rate: Option<f64>,
    /// So many callers instead, each beginning when its last request has ended (closed loop).
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(super) concurrency: Option<u64>,
    /// How long, after the ramp: 30s, 10m, 8h.
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(super) lasting: Duration,
    /// Work up to it during this time, which is not measured.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = duration)]
    pub(super) ramp: Duration,
    /// End after so many requests, if that is sooner.
    #[arg(long)]
    pub(super) requests: Option<u64>,
    /// Random gaps between requests, as independent callers have, instead of even ones.
    #[arg(long, requires = "rate")]
    pub(super) poisson: bool,
    /// Leave this share of requests before they end, as clients do: 5%.
    #[arg(long, value_name = "SHARE", default_value = "0%", value_parser = share)]
    pub(super) aborts: f64,
    /// When leaving, do so within this time, at a random moment.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = duration)]
    pub(super) abort_within: Duration,
    /// How long a request may take. Chatwoot waits 5 s.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(super) timeout: Option<Duration>,
    /// Connections at once to one host; a request that finds none free waits, and its latency counts.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub(super) connections_max: u64,
    /// Requests begun and not ended; one more is not sent, and reported so.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub(super) in_flight_max: u64,
    /// Decides what is left to chance.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// What must come out, such as p99<35ms, errors<=0.1%, rate>4900; may be repeated. Exit status 3 if it does not.
    #[arg(long = "expect", value_name = "EXPECTATION")]
    pub(super) expectations: Vec<Expectation>,
    /// Write the result as JSON; - is standard output.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// Write a report with plots.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// Say nothing while it runs.
    #[arg(long)]
    pub(super) quiet: bool,
    /// The target is not this machine, and is mine to load.
    #[arg(long)]
    pub(super) target_is_mine: bool,
}

/// A key, and the name it goes by in reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedKey {
    pub(super) name: String,
    pub(super) key: String,
}

/// Where a channel's deliveries go and what signs them.
#[derive(Debug, Clone)]
pub(super) struct NamedChannel {
    pub(super) name: String,
    pub(super) url: Uri,
    pub(super) account: u64,
    pub(super) secret: Option<String>,
}

impl V1Flags {
    pub(super) fn all_keys(&self) -> anyhow::Result<Vec<NamedKey>> {
        let Some(path) = &self.keys else {
            return Ok(vec![NamedKey { name: "key".to_owned(), key: self.key.clone().unwrap_or_default() }]);
        };
        let keys: Vec<_> = lines_of(path)?
            .into_iter()
            .map(|(line, words)| match words.as_slice() {
                [key] => Ok(NamedKey { name: format!("line {line}"), key: key.clone() }),
                [name, key] => Ok(NamedKey { name: name.clone(), key: key.clone() }),
                _ => bail!("{}:{line}: a key, or a name and a key", path.display()),
            })
            .collect::<Result<_, _>>()?;
        anyhow::ensure!(!keys.is_empty(), "{} holds no key", path.display());
        Ok(keys)
    }
}

impl WebhookFlags {
    pub(super) fn all_channels(&self) -> anyhow::Result<Vec<NamedChannel>> {
        let Some(path) = &self.channels else {
            let name = self.url.path().to_owned();
            return Ok(vec![NamedChannel {
                name,
                url: self.url.clone(),
                account: self.account,
                secret: self.secret.clone(),
            }]);
        };
        let channels: Vec<_> = lines_of(path)?
            .into_iter()
            .map(|(line, words)| {
                let [url, account, secret] = words.as_slice() else {
                    bail!("{}:{line}: URL, account and secret", path.display());
                };
                let url: Uri = url.parse().with_context(|| format!("{}:{line}: the URL", path.display()))?;
                let account = account.parse().with_context(|| format!("{}:{line}: the account", path.display()))?;
                Ok(NamedChannel { name: format!("line {line}"), url, account, secret: Some(secret.clone()) })
            })
            .collect::<Result<_, _>>()?;
        anyhow::ensure!(!channels.is_empty(), "{} holds no channel", path.display());
        Ok(channels)
    }
}

/// The lines that say something, with their numbers, as words.
fn lines_of(path: &Path) -> anyhow::Result<Vec<(usize, Vec<String>)>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let told = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    Ok(told.map(|(at, line)| (at, line.split_whitespace().map(str::to_owned).collect())).collect())
}

/// A time with its unit: us, ms, s, m or h.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let unreadable = || format!("`{text}` is no time: write 250ms, 30s, 10m or 8h");
    let parsed = units.iter().find_map(|(unit, seconds)| {
        let number = text.trim().strip_suffix(unit)?.trim().parse::<f64>().ok()?;
        Duration::try_from_secs_f64(number * seconds).ok()
    });
    parsed.filter(|time| *time <= LONGEST).ok_or_else(unreadable)
}

/// A share of requests, in per cent.
fn share(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').and_then(|percent| percent.trim().parse::<f64>().ok());
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent));
    percent.map(|percent| percent / 100.0).ok_or_else(|| format!("`{text}` is no share: write 5%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, expected) in [("250us", 250), ("1.5ms", 1500), ("2s", 2_000_000), ("10m", 600_000_000)] {
            assert_eq!(duration(text), Ok(Duration::from_micros(expected)), "{text}");
        }
        for text in ["", "5", "s", "-1s", "ten s", "1e9h", "NaNs", "infs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_per_cent() {
        assert_eq!(share("5%"), Ok(0.05));
        for text in ["5", "101%", "-1%", "%"] {
            assert!(share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_of_keys_may_name_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, "# ours\n\nrk_1\nbig  rk_2 \n").unwrap();
        assert_eq!(lines_of(&path).unwrap(), [(3, vec!["rk_1".to_owned()]), (4, vec!["big".into(), "rk_2".into()])]);
    }
}
