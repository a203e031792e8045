//! What the disk itself takes to make something durable: append, fdatasync, over and over, one at a time.
//!
//! A gateway that acknowledges what is on disk cannot be faster than this, so a figure of its intake means something
//! only beside it. On a virtual disk the host may answer before anything is on a platter; this cannot tell.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;

use super::flags::duration;
use super::tally::millis;

/// The file begins anew after so much, as a log does: it grows, then it is written over.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// `relais-load disk`.
#[derive(Debug, Clone, Args)]
pub struct DiskOptions {
    /// A folder on the disk in question.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// How long.
    #[arg(long = "for", value_name = "TIME", default_value = "5s", value_parser = duration)]
    lasting: Duration,
    /// Bytes written before each sync.
    #[arg(long, default_value_t = 16 * 1024, value_parser = clap::value_parser!(u64).range(1..=16 << 20))]
    bytes: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Measures and prints.
///
/// # Errors
/// The folder cannot be written to.
pub fn run(options: &DiskOptions) -> anyhow::Result<ExitCode> {
    let times = measure(options)?;
    let (p50, p99, max) = (millis(&times, 0.5), millis(&times, 0.99), millis(&times, 1.0));
    let mut out = std::io::stdout();
    if options.json {
        let told = json!({ "syncs": times.len(), "bytes": options.bytes, "p50_ms": p50, "p99_ms": p99, "max_ms": max });
        writeln!(out, "{told}")?;
    } else {
        writeln!(
            out,
            "fdatasync after {} bytes: p50 {p50:.3} ms, p99 {p99:.3} ms, max {max:.3} ms ({} times).",
            options.bytes,
            times.len()
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(options: &DiskOptions) -> anyhow::Result<Histogram<u64>> {
    let file = tempfile::NamedTempFile::with_prefix_in("relais-disk-", &options.dir)
        .with_context(|| format!("making a file in {}", options.dir.display()))?;
    let mut log = OpenOptions::new().write(true).open(file.path()).context("opening it")?;
    let bytes = vec![0x5a; usize::try_from(options.bytes).context("the size of a write")?];
    let mut times = Histogram::new_with_bounds(1, 60_000_000, 3)?;
    let (began, mut written) = (Instant::now(), 0);
    while began.elapsed() < options.lasting {
        if written + options.bytes > FILE_BYTES_MAX {
            log.seek(SeekFrom::Start(0)).context("beginning anew")?;
            written = 0;
        }
        let begun = Instant::now();
        log.write_all(&bytes).context("writing")?;
        log.sync_data().context("syncing")?;
        times.saturating_record(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        written += options.bytes;
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_syncs_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let lasting = Duration::from_millis(20);
        let options = DiskOptions { dir: dir.path().to_owned(), lasting, bytes: 4096, json: true };
        assert!(!measure(&options).unwrap().is_empty());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
