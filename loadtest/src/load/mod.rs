//! The load generator: `relais-load run v1` and `run webhooks`, for our own figures and for an operator's installation.
//!
//! With `--rate` the loop is open: requests begin on schedule and their latency counts from when they were due, so a
//! server that stalls is seen to stall and cannot slow those who would have called meanwhile. With `--concurrency` it
//! is closed, for finding how much goes through. Everything is bounded: connections, requests under way, memory.
//!
//! It measures, it does not judge a server's answers beyond their status and whether a stream is whole, and it speaks
//! HTTP/1.1 only.
//!
//! Reading order: `flags`, `schedule`, `drive` (keeping to it), `v1` and `webhooks` (what a request is), `connections`,
//! `frames` (reading a stream), `tally` (counting), `expect`, `report` and `html`.

mod connections;
mod disk;
mod drive;
mod expect;
mod flags;
mod frames;
mod html;
mod progress;
mod report;
mod schedule;
mod tally;
mod v1;
mod webhooks;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use http::Uri;

pub use disk::{DiskOptions, run as run_disk};
pub use flags::Options;

use connections::{Connections, Connector};
use drive::{Run, Work};
use expect::{Expectation, Verdict};
use flags::{LoadFlags, NamedChannel, V1Flags, WebhookFlags, What};
use report::Report;
use tally::Tally;
use v1::V1;
use webhooks::Webhooks;

use crate::stop::stop_signal;

/// The exit status of a run whose expectations were not met; 1 is a run that could not be made, 2 wrong flags.
const NOT_MET: u8 = 3;
/// How long a caller of `/v1` waits.
const V1_WAIT: Duration = Duration::from_secs(120);
/// How long Chatwoot waits.
const WEBHOOK_WAIT: Duration = Duration::from_secs(5);

/// What is to be done, before it begins.
struct Plan {
    work: Work,
    load: LoadFlags,
    timeout: Duration,
    targets: Vec<String>,
    asked: Vec<(&'static str, String)>,
}

/// Makes a run, tells its result, and gives the exit status.
///
/// # Errors
/// The run cannot be made: a file that cannot be read, a target that is not ours, a bad expectation.
pub async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let stop = stop_signal()?;
    let plan = match options.what {
        What::V1(flags) => plan_v1(flags)?,
        What::Webhooks(flags) => plan_webhooks(flags)?,
    };
    let Plan { work, load, timeout, targets, asked } = plan;
    if let Some(rate) = load.rate {
        anyhow::ensure!(rate.is_finite() && rate > 0.0, "--rate must be above 0");
    }
    let began = Instant::now();
    let tally = Tally::new(began, load.ramp, load.lasting, targets.len()).context("making histograms")?;
    // A figure that does not exist is told now, not after an eight hours' soak.
    judge(&load.expectations, &Report::of(&tally, load.ramp, Vec::new(), Vec::new()))?;
    let run = Arc::new(Run { work, load, timeout, tally, stop: AtomicBool::new(false) });
    tokio::select! {
        driven = drive::drive(&run) => driven?,
        () = progress::show(&run), if !run.load.quiet => {}
        () = stop_soon(stop, &run) => {}
    }
    report(&run, targets, asked)
}

/// After a signal, begins nothing more and lets what was begun end, as long as a request may take.
async fn stop_soon(stop: impl Future<Output = ()>, run: &Run) {
    stop.await;
    run.stop.store(true, Ordering::Relaxed);
    tokio::time::sleep(run.timeout).await;
}

fn plan_v1(flags: V1Flags) -> anyhow::Result<Plan> {
    ours(&flags.url, &flags.load)?;
    let keys = flags.all_keys()?;
    let connector = connector(&flags.load, true)?;
    let connections = Arc::new(Connections::to(&flags.url, &connector)?);
    let work = Work::V1(V1::new(&flags, &keys, connections)?);
    let mut asked = vec![("target", format!("{}", flags.url)), ("endpoint", flags.path.clone())];
    asked.push(("answers", if flags.stream { "streamed" } else { "in one piece" }.to_owned()));
    asked.push(("keys", keys.len().to_string()));
    asked.extend(amount(&flags.load));
    let targets = keys.into_iter().map(|key| key.name).collect();
    Ok(Plan { work, timeout: flags.load.timeout.unwrap_or(V1_WAIT), load: flags.load, targets, asked })
}

fn plan_webhooks(flags: WebhookFlags) -> anyhow::Result<Plan> {
    let channels = flags.all_channels()?;
    let connector = connector(&flags.load, !flags.connection_each)?;
    let mut asked = vec![("target", channels.first().map(|channel| channel.url.to_string()).unwrap_or_default())];
    asked.push(("channels", channels.len().to_string()));
    asked.push(("conversations of each", flags.conversations.to_string()));
    asked.push(("connections", if flags.connection_each { "one a delivery" } else { "kept" }.to_owned()));
    asked.extend(amount(&flags.load));
    let mut targets = Vec::new();
    let mut origins: HashMap<String, Arc<Connections>> = HashMap::new();
    let mut connected: Vec<(NamedChannel, Arc<Connections>)> = Vec::new();
    for channel in channels {
        ours(&channel.url, &flags.load)?;
        let origin = format!("{:?}://{:?}", channel.url.scheme_str(), channel.url.authority());
        let connections = match origins.get(&origin) {
            Some(connections) => Arc::clone(connections),
            None => Arc::new(Connections::to(&channel.url, &connector)?),
        };
        origins.insert(origin, Arc::clone(&connections));
        targets.push(channel.name.clone());
        connected.push((channel, connections));
    }
    let work = Work::Webhooks(Webhooks::new(&flags, connected)?);
    Ok(Plan { work, timeout: flags.load.timeout.unwrap_or(WEBHOOK_WAIT), load: flags.load, targets, asked })
}

fn connector(load: &LoadFlags, keep_alive: bool) -> anyhow::Result<Connector> {
    Connector::new(usize::try_from(load.connections_max).context("--connections-max")?, keep_alive)
}

/// A load is an attack if the target is somebody else's: another machine has to be named on purpose.
fn ours(url: &Uri, load: &LoadFlags) -> anyhow::Result<()> {
    let host = url.host().with_context(|| format!("{url} names no host"))?;
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    if !here && !load.target_is_mine {
        bail!("{host} is not this machine. Load only what is yours; then say so with --target-is-mine.");
    }
    Ok(())
}

fn amount(load: &LoadFlags) -> Vec<(&'static str, String)> {
    let how = match (load.rate, load.concurrency) {
        (Some(rate), _) => format!("{rate} a second, on schedule (open loop)"),
        (None, callers) => format!("{} callers, one after the other (closed loop)", callers.unwrap_or(1)),
    };
    let mut amount = vec![("load", how), ("time", format!("{:?} after a ramp of {:?}", load.lasting, load.ramp))];
    if load.aborts > 0.0 {
        amount.push(("aborts", format!("{:.1} % within {:?}", load.aborts * 100.0, load.abort_within)));
    }
    amount
}

fn judge(expectations: &[Expectation], report: &Report) -> anyhow::Result<Vec<Verdict>> {
    let figures = report.figures();
    let judged = expectations
        .iter()
        .map(|expectation| expectation.judge(&figures).with_context(|| format!("the expectation `{expectation}`")));
    judged.collect()
}

/// Says, writes and judges what came out.
fn report(run: &Run, targets: Vec<String>, asked: Vec<(&'static str, String)>) -> anyhow::Result<ExitCode> {
    let mut report = Report::of(&run.tally, run.load.ramp, targets, asked);
    report.verdicts = judge(&run.load.expectations, &report)?;
    let json_on_stdout = run.load.json.as_deref() == Some(Path::new("-"));
    if let Some(path) = &run.load.json {
        let text = serde_json::to_string_pretty(&report.json()).context("writing JSON")?;
        if json_on_stdout {
            writeln!(std::io::stdout(), "{text}")?;
        } else {
            fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    if let Some(path) = &run.load.html {
        fs::write(path, html::page(&report)).with_context(|| format!("writing {}", path.display()))?;
    }
    if !json_on_stdout {
        write!(std::io::stdout(), "{}", report.text())?;
    }
    let met = report.verdicts.iter().all(|verdict| verdict.met);
    Ok(if met { ExitCode::SUCCESS } else { ExitCode::from(NOT_MET) })
}
