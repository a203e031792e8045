//! What an operator reads: log lines on standard error, and one line per request on standard output.
//!
//! A request must not wait for whoever reads the access log. It puts a record of fixed size into a bounded
//! channel and goes on; when the channel is full the record is dropped and counted. One thread empties the
//! channel every few ms and writes whole buffers. It polls rather than waits, because waking a waiting thread
//! would cost each request a system call.
//!
//! No text, prompt, key or token is ever in a record: its fields are names of ours, numbers and an address.

use std::io::{self, IsTerminal as _, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use prometheus::IntCounter;
use relais_policies::shadow::Shadow;
use serde::Serialize;
use tracing::warn;
use tracing_subscriber::EnvFilter;

use crate::clock::Clock;
use crate::config::Log;
use crate::error::Reason;
use crate::http::request_id::RequestId;
use crate::metrics::{Outcome, shadow_code};

/// Records that wait to be written. At [`POLL`] this holds 650,000 requests a second, in about 4 MB.
const RECORDS_MAX: usize = 16_384;
/// How often the writer looks.
const POLL: Duration = Duration::from_millis(25);
/// Written out when it holds this much, so that a flood does not grow it.
const BUFFER_BYTES: usize = 64 * 1024;

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is neither a level nor a filter. The configuration's check finds this first.
    #[error("reading the log level")]
    Level(#[source] tracing_subscriber::filter::ParseError),
    /// Something in this process set up logs before us.
    #[error("setting up the log")]
    Taken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The thread that writes the access log did not start.
    #[error("starting the thread of the access log")]
    Thread(#[source] io::Error),
}

/// Sends log lines to standard error from now on, for the life of the process.
pub fn start_logs(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(&log.level).map_err(TelemetryError::Level)?;
    let lines =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let started = if log.json { lines.json().flatten_event(true).try_init() } else { lines.try_init() };
    started.map_err(TelemetryError::Taken)
}

/// One finished request.
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// Its id.
    pub request_id: RequestId,
    /// The route's name, not the path.
    pub route: &'static str,
    /// The method.
    pub method: Method,
    /// The status sent; 0 if the client left before one was.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it was not served.
    pub reason: Option<Reason>,
    /// Limits in shadow that would have refused it.
    pub shadowed: Shadow,
    /// Whose it was.
    pub tenant_id: Option<Arc<str>>,
    /// The key's name.
    pub key_name: Option<Arc<str>>,
    /// What answered.
    pub upstream: Option<Arc<str>>,
    /// Prompt tokens.
    pub tokens_in: u64,
    /// Answer tokens.
    pub tokens_out: u64,
    /// From the request's head to the end of the answer.
    pub total: Duration,
    /// Of that, the wait for the upstream.
    pub upstream_wait: Duration,
    /// The request's body.
    pub bytes_in: u64,
    /// The answer's body.
    pub bytes_out: u64,
    /// Who asked.
    pub client: Option<IpAddr>,
}

/// Takes records. Clones feed one writer.
#[derive(Debug, Clone)]
pub struct AccessLog {
    /// None when the access log is off.
    records: Option<SyncSender<(i64, AccessRecord)>>,
    clock: Clock,
    dropped: IntCounter,
}

/// The thread that writes. [`AccessLogWriter::finish`] it last, so that no line is lost at shutdown.
#[derive(Debug)]
pub struct AccessLogWriter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// Starts the writer on standard output. `enabled = false` gives a log that takes nothing. `dropped` counts
    /// what could not be written.
    pub fn start(enabled: bool, clock: Clock, dropped: IntCounter) -> Result<(Self, AccessLogWriter), TelemetryError> {
        if !enabled {
            let off = AccessLogWriter { stop: Arc::default(), thread: None };
            return Ok((Self { records: None, clock, dropped }, off));
        }
        Self::start_on(Box::new(io::stdout()), clock, dropped)
    }

    fn start_on(
        out: Box<dyn Write + Send>,
        clock: Clock,
        dropped: IntCounter,
    ) -> Result<(Self, AccessLogWriter), TelemetryError> {
        let (records, taken) = sync_channel(RECORDS_MAX);
        let stop = Arc::new(AtomicBool::new(false));
        let lines = Lines {
            out,
            buffer: Vec::with_capacity(2 * BUFFER_BYTES),
            held: 0,
            failing: false,
            dropped: dropped.clone(),
        };
        let thread = thread::Builder::new()
            .name("access-log".to_owned())
            .spawn({
                let stop = stop.clone();
                move || write_until(&stop, &taken, lines)
            })
            .map_err(TelemetryError::Thread)?;
        Ok((Self { records: Some(records), clock, dropped }, AccessLogWriter { stop, thread: Some(thread) }))
    }

    /// Takes one record. Never waits.
    pub fn record(&self, record: AccessRecord) {
        let Some(records) = &self.records else { return };
        if records.try_send((self.clock.now_ms(), record)).is_err() {
            self.dropped.inc();
        }
    }
}

impl AccessLogWriter {
    /// Writes what was recorded until now and ends the thread. What is recorded after is dropped and counted.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("The access log's thread had panicked; lines are missing.");
        }
    }
}

fn write_until(stop: &AtomicBool, records: &Receiver<(i64, AccessRecord)>, mut lines: Lines) {
    loop {
        // Read before the channel is emptied: what was sent before the stop is then written.
        let last = stop.load(Ordering::Acquire);
        let ended = loop {
            match records.try_recv() {
                Ok((at_ms, record)) => lines.add(at_ms, &record),
                Err(TryRecvError::Empty) => break last,
                Err(TryRecvError::Disconnected) => break true,
            }
        };
        lines.write_out();
        if ended {
            return;
        }
        thread::sleep(POLL);
    }
}

/// Lines on their way out.
struct Lines {
    out: Box<dyn Write + Send>,
    buffer: Vec<u8>,
    /// Lines in the buffer.
    held: u64,
    /// The last write failed: said once, not at every write.
    failing: bool,
    dropped: IntCounter,
}

impl Lines {
    fn add(&mut self, at_ms: i64, record: &AccessRecord) {
        // Writing names and numbers to a Vec does not fail; if it did, half a line must not stay.
        let before = self.buffer.len();
        if serde_json::to_writer(&mut self.buffer, &Line::of(at_ms, record)).is_err() {
            self.buffer.truncate(before);
            self.dropped.inc();
            return;
        }
        self.buffer.push(b'\n');
        self.held += 1;
        if self.buffer.len() >= BUFFER_BYTES {
            self.write_out();
        }
    }

    fn write_out(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        match self.out.write_all(&self.buffer).and_then(|()| self.out.flush()) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.dropped.inc_by(self.held);
                if !self.failing {
                    warn!(%error, "Access log not written; lines are dropped until it can be.");
                }
                self.failing = true;
            }
        }
        self.buffer.clear();
        self.held = 0;
    }
}

/// A line as it is written.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request_id: &'a str,
    route: &'static str,
    method: &'a str,
    status: u16,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// Why limits in shadow would have refused it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    shadow: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'a str>,
    tokens_in: u64,
    tokens_out: u64,
    total_ms: f64,
    upstream_ms: f64,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
}

impl<'a> Line<'a> {
    fn of(at_ms: i64, record: &'a AccessRecord) -> Self {
        let time = Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        Self {
            time: format!("{time:.3}"),
            request_id: record.request_id.as_str(),
            route: record.route,
            // A method of one's own invention could carry text, and any length of it.
            method: if is_known(&record.method) { record.method.as_str() } else { "other" },
            status: record.status,
            outcome: record.outcome.as_str(),
            reason: record.reason.map(Reason::code),
            shadow: record.shadowed.iter().map(shadow_code).collect(),
            tenant: record.tenant_id.as_deref(),
            key: record.key_name.as_deref(),
            upstream: record.upstream.as_deref(),
            tokens_in: record.tokens_in,
            tokens_out: record.tokens_out,
            total_ms: milliseconds(record.total),
            upstream_ms: milliseconds(record.upstream_wait),
            bytes_in: record.bytes_in,
            bytes_out: record.bytes_out,
            client: record.client,
        }
    }
}

fn is_known(method: &Method) -> bool {
    [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD, Method::OPTIONS, Method::PATCH]
        .contains(method)
}

/// To the microsecond.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::http::request_id::RequestIds;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn record() -> AccessRecord {
        AccessRecord {
            request_id: RequestIds::new().next(),
            route: "chat",
            method: Method::POST,
            status: 200,
            outcome: Outcome::Ok,
            reason: None,
            shadowed: Shadow::NONE,
            tenant_id: Some("acme".into()),
            key_name: Some("the \"ci\"".into()),
            upstream: None,
            tokens_in: 12,
            tokens_out: 34,
            total: Duration::from_micros(1_234_567),
            upstream_wait: Duration::from_millis(1_000),
            bytes_in: 56,
            bytes_out: 78,
            client: Some(IpAddr::from([192, 0, 2, 1])),
        }
    }

    fn counter() -> IntCounter {
        IntCounter::new("dropped", "x").unwrap()
    }

    #[test]
    fn every_record_before_the_end_is_a_line() {
        let out = Shared::default();
        let clock = Clock::manual(1_767_225_600_123);
        let (log, writer) = AccessLog::start_on(Box::new(out.clone()), clock, counter()).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let log = log.clone();
                thread::spawn(move || (0..1_000).for_each(|_| log.record(record())))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let denied = AccessRecord {
            status: 429,
            outcome: Outcome::Denied,
            reason: Some(Reason::RateLimited),
            method: Method::from_bytes(b"SECRET").unwrap(),
            ..record()
        };
        log.record(denied);
        writer.finish();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 4_001);
        let first = &lines[0];
        assert_eq!(first["time"], "2026-01-01T00:00:00.123Z");
        assert_eq!((&first["key"], &first["total_ms"]), (&"the \"ci\"".into(), &1_234.567.into()));
        assert_eq!(first["client"], "192.0.2.1");
        assert!(first.get("reason").is_none() && first.get("upstream").is_none());
        assert_eq!((&lines[4_000]["reason"], &lines[4_000]["method"]), (&"rate_limited".into(), &"other".into()));
        assert_eq!(log.dropped.get(), 0);
        // After the end nobody takes records, and that is counted too.
        log.record(record());
        assert_eq!(log.dropped.get(), 1);
    }

    #[test]
    fn a_full_channel_drops_and_counts() {
        let (records, _taken) = sync_channel(2);
        let log = AccessLog { records: Some(records), clock: Clock::manual(0), dropped: counter() };
        (0..5).for_each(|_| log.record(record()));
        assert_eq!(log.dropped.get(), 3);
    }

    #[test]
    fn an_output_that_breaks_is_counted_and_stops_nobody() {
        let (log, writer) = AccessLog::start_on(Box::new(Broken), Clock::manual(0), counter()).unwrap();
        (0..10).for_each(|_| log.record(record()));
        writer.finish();
        assert_eq!(log.dropped.get(), 10);
    }

    #[test]
    fn off_takes_nothing() {
        let (log, writer) = AccessLog::start(false, Clock::manual(0), counter()).unwrap();
        log.record(record());
        writer.finish();
        assert_eq!(log.dropped.get(), 0);
    }
}
