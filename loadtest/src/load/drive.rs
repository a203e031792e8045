//! Keeping to the schedule, and waiting for what was begun.
//!
//! The open loop's pace is kept by a thread of its own: the runtime's timers are a millisecond coarse, and a busy
//! runtime must make requests late, not fewer. Each request is a task; no more of them exist than `in_flight_max`, and
//! each ends by its timeout, so the end of a run is bounded too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::flags::LoadFlags;
use super::schedule::{Schedule, draw, unit};
use super::tally::{Outcome, Sample, Tally};
use super::v1::{Told, V1};
use super::webhooks::Webhooks;

/// The pace is slept in pieces no longer than this, so that a stop is heard.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// Beside the seed of the schedule: whether, and when, a request is left early.
const ABORT_SEED: u64 = 0x5eed_0001;
const ABORT_AT_SEED: u64 = 0x5eed_0002;

/// What requests are.
#[derive(Debug)]
pub(super) enum Work {
    V1(V1),
    Webhooks(Webhooks),
}

/// One run: what to do, how much of it, and where it is counted.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) work: Work,
    pub(super) load: LoadFlags,
    pub(super) timeout: Duration,
    pub(super) tally: Tally,
    pub(super) stop: AtomicBool,
}

/// Until the schedule is over, or `stop` is set, and all that was begun has ended.
pub(super) async fn drive(run: &Arc<Run>) -> anyhow::Result<()> {
    match (run.load.rate, run.load.concurrency) {
        (Some(rate), _) => open_loop(run, rate).await,
        (None, concurrency) => {
            closed_loop(run, concurrency.unwrap_or(1)).await;
            Ok(())
        }
    }
}

async fn open_loop(run: &Arc<Run>, rate: f64) -> anyhow::Result<()> {
    let in_flight_max = u32::try_from(run.load.in_flight_max).unwrap_or(u32::MAX);
    let room = Arc::new(Semaphore::new(usize::try_from(in_flight_max).unwrap_or(Semaphore::MAX_PERMITS)));
    let (paced, pace_over) = tokio::sync::oneshot::channel();
    let (pacing, pacing_room, runtime) = (Arc::clone(run), Arc::clone(&room), Handle::current());
    std::thread::Builder::new()
        .name("pace".to_owned())
        .spawn(move || {
            pace(&pacing, rate, &pacing_room, &runtime);
            // Nobody is waiting only if the whole run was given up.
            let _ = paced.send(());
        })
        .context("starting the thread that keeps the pace")?;
    pace_over.await.context("the thread that keeps the pace died")?;
    // All permits back: everything has ended.
    let _all = room.acquire_many(in_flight_max).await.context("waiting for the last requests")?;
    Ok(())
}

fn pace(run: &Arc<Run>, rate: f64, room: &Arc<Semaphore>, runtime: &Handle) {
    let began = run.tally.began();
    let end = run.load.ramp + run.load.lasting;
    let schedule = Schedule::new(rate, run.load.ramp, run.load.poisson, run.load.seed);
    let limit = run.load.requests.unwrap_or(u64::MAX);
    for (number, offset) in (0..limit).zip(schedule.take_while(|offset| *offset < end)) {
        let due = began + offset;
        loop {
            if run.stop.load(Ordering::Relaxed) {
                return;
            }
            let wait = due.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                break;
            }
            std::thread::sleep(wait.min(SLEEP_MAX));
        }
        match Arc::clone(room).try_acquire_owned() {
            Ok(permit) => drop(runtime.spawn(one_of_many(Arc::clone(run), number, due, permit))),
            Err(_) => run.tally.record_not_sent(due),
        }
    }
}

async fn one_of_many(run: Arc<Run>, number: u64, due: Instant, _room: OwnedSemaphorePermit) {
    run.one(number, due).await;
}

async fn closed_loop(run: &Arc<Run>, concurrency: u64) {
    let began = run.tally.began();
    let end = began + run.load.ramp + run.load.lasting;
    let numbers = Arc::new(AtomicU64::new(0));
    let limit = run.load.requests.unwrap_or(u64::MAX);
    let mut callers = JoinSet::new();
    for caller in 0..concurrency {
        let (run, numbers) = (Arc::clone(run), Arc::clone(&numbers));
        // One after the other during the ramp.
        let start = began + run.load.ramp.mul_f64(caller as f64 / concurrency as f64);
        callers.spawn(async move {
            tokio::time::sleep_until(start.into()).await;
            while Instant::now() < end && !run.stop.load(Ordering::Relaxed) {
                let number = numbers.fetch_add(1, Ordering::Relaxed);
                if number >= limit {
                    break;
                }
                run.one(number, Instant::now()).await;
            }
        });
    }
    while callers.join_next().await.is_some() {}
}

impl Run {
    /// One request, from being due to being counted.
    async fn one(&self, number: u64, due: Instant) {
        let begun = Instant::now();
        let mut sample = Sample {
            target: 0,
            outcome: Outcome::Timeout,
            due,
            begun,
            ended: begun,
            connect: None,
            first: None,
            frames: 0,
            lost: 0,
            duplicated: 0,
        };
        let patience = match self.abort_after(number) {
            Some(after) if after < self.timeout => {
                sample.outcome = Outcome::Aborted;
                after
            }
            _ => self.timeout,
        };
        let work = async {
            let (outcome, told) = self.work(number, &mut sample).await;
            (sample.outcome, sample.first) = (outcome, told.first);
            (sample.frames, sample.lost, sample.duplicated) = (told.frames, told.lost, told.duplicated);
        };
        // Too late, or time to leave: what was under way is dropped, and its connection closed with it.
        drop(timeout_at((begun + patience).into(), work).await);
        sample.ended = Instant::now();
        self.tally.record(&sample);
    }

    async fn work(&self, number: u64, sample: &mut Sample) -> (Outcome, Told) {
        let (target, connections) = match &self.work {
            Work::V1(v1) => {
                let (target, connections) = v1.connections(number);
                (target, Some(connections))
            }
            Work::Webhooks(webhooks) => webhooks.connections(number),
        };
        sample.target = target;
        let Some(connections) = connections else { return (Outcome::NotSent, Told::default()) };
        let lease = match connections.lease().await {
            Ok(lease) => lease,
            Err(outcome) => return (outcome, Told::default()),
        };
        sample.connect = lease.connect;
        match &self.work {
            Work::V1(v1) => v1.call(target, lease, &self.tally).await,
            Work::Webhooks(webhooks) => (webhooks.deliver(number, target, lease).await, Told::default()),
        }
    }

    /// When this request is left, if it is one of those.
    fn abort_after(&self, number: u64) -> Option<Duration> {
        let LoadFlags { seed, aborts, abort_within, .. } = self.load;
        let leaves = unit(seed ^ ABORT_SEED, number) < aborts;
        leaves.then(|| abort_within.mul_f64(unit(draw(seed, ABORT_AT_SEED), number)))
    }
}
