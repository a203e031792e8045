//! One lane for each conversation with work, and no more lanes than there is room for.
//!
//! Work is heard of from the inbox's announcements, or found in its table: after a start, after announcements were
//! lost because nobody took them, when a conversation that was put off is due, and now and then to be sure. What finds
//! no room is simply not started: it stays in the table, and the next look finds it. The lanes are shared by the
//! tenants that have work, with one share left for whoever comes next: half for one alone, a third for each of two.
//! So a hundred thousand conversations waiting keep nobody else out.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{error, warn};

use super::lane::{self, LaneEnd, Wake};
use super::{Relay, retry};
use crate::inbox::{ConversationRow, Work};

/// The table is looked into at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// And at most this often.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Conversations read at once.
const PAGE: usize = 512;
/// A conversation whose lane panicked is left alone for this long.
const PANIC_PAUSE: Duration = Duration::from_secs(60);

/// Until the relay stops and its lanes have ended.
pub(super) async fn run(relay: Arc<Relay>, mut work: mpsc::Receiver<Work>) {
    let mut stop = relay.stop.clone();
    let mut lanes = Lanes::new(relay);
    let mut look_at = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = async { stop.wait_for(|stop| *stop).await.map_or((), drop) } => break,
            Some(ended) = lanes.running.join_next_with_id() => {
                if let Some(later) = lanes.ended(ended).await {
                    look_at = look_at.min(Instant::now() + later);
                }
            }
            Some(work) = work.recv() => lanes.start(work),
            () = tokio::time::sleep_until(look_at) => {
                look_at = Instant::now() + LOOK_EVERY;
                lanes.look().await;
            }
        }
        if lanes.missed || lanes.relay.parts.inbox.take_unannounced() {
            lanes.missed = false;
            look_at = look_at.min(Instant::now() + LOOK_PAUSE);
        }
    }
    while let Some(ended) = lanes.running.join_next_with_id().await {
        lanes.ended(ended).await;
    }
}

struct Lane {
    row: ConversationRow,
    tenant: Arc<str>,
    wake: Arc<Wake>,
}

struct Tenant {
    lanes: usize,
    turns: Arc<Semaphore>,
}

struct Lanes {
    relay: Arc<Relay>,
    running: JoinSet<LaneEnd>,
    by_task: HashMap<Id, Lane>,
    by_conversation: HashMap<ConversationRow, Arc<Wake>>,
    /// Those with a lane.
    tenants: HashMap<Arc<str>, Tenant>,
    /// A lane ended while conversations were waiting for room, or its conversation got work at that moment.
    missed: bool,
    /// Tenants with conversations that were turned away for want of room.
    waiting: HashSet<Arc<str>>,
    /// Those of them before the look into the table that is being made.
    waited: HashSet<Arc<str>>,
}

impl Lanes {
    fn new(relay: Arc<Relay>) -> Self {
        Self {
            relay,
            running: JoinSet::new(),
            by_task: HashMap::new(),
            by_conversation: HashMap::new(),
            tenants: HashMap::new(),
            missed: false,
            waiting: HashSet::new(),
            waited: HashSet::new(),
        }
    }

    /// Wakes the conversation's lane, or starts one if there is room.
    fn start(&mut self, work: Work) {
        if let Some(wake) = self.by_conversation.get(&work.row) {
            wake.ring();
            return;
        }
        let limits = &self.relay.parts.limits;
        let of_tenant = self.tenants.get(&work.key.tenant).map_or(0, |tenant| tenant.lanes);
        if self.by_conversation.len() >= limits.lanes_max || of_tenant >= self.share(&work.key.tenant) {
            self.waiting.insert(work.key.tenant);
            return;
        }
        let tenant = self.tenants.entry(Arc::clone(&work.key.tenant)).or_insert_with(|| Tenant {
            lanes: 0,
            turns: Arc::new(Semaphore::new(limits.turns_per_tenant_max.max(1))),
        });
        tenant.lanes += 1;
        let wake = Arc::new(Wake::default());
        let lane = Lane { row: work.row, tenant: Arc::clone(&work.key.tenant), wake: Arc::clone(&wake) };
        self.by_conversation.insert(work.row, Arc::clone(&wake));
        let run = lane::run(Arc::clone(&self.relay), work, Arc::clone(&tenant.turns), wake);
        let task = self.running.spawn(run);
        self.by_task.insert(task.id(), lane);
        self.relay.parts.metrics.relay.lanes.inc();
    }

    /// How many lanes a tenant may have now.
    fn share(&self, tenant: &Arc<str>) -> usize {
        let laneless = |other: &&Arc<str>| *other != tenant && !self.tenants.contains_key(*other);
        let waiting = self.waiting.union(&self.waited).filter(laneless).count();
        let new = usize::from(!self.tenants.contains_key(tenant));
        self.relay.parts.limits.lanes_max.div_ceil(self.tenants.len() + waiting + new + 1)
    }

    /// A lane ended; when to look into the table again, if it asks for that.
    async fn ended(&mut self, ended: Result<(Id, LaneEnd), JoinError>) -> Option<Duration> {
        let (id, end) = match ended {
            Ok((id, end)) => (id, Some(end)),
            Err(error) => (error.id(), None),
        };
        let lane = self.by_task.remove(&id)?;
        self.by_conversation.remove(&lane.row);
        if let Some(tenant) = self.tenants.get_mut(&lane.tenant) {
            tenant.lanes -= 1;
            if tenant.lanes == 0 {
                self.tenants.remove(&lane.tenant);
            }
        }
        self.relay.parts.metrics.relay.lanes.dec();
        self.missed |= lane.wake.rung() || !self.waiting.is_empty();
        match end {
            Some(LaneEnd::Idle) => None,
            Some(LaneEnd::Later(later)) => Some(later),
            None => {
                error!(tenant_id = %lane.tenant, "A lane ended in a panic; its conversation is put off.");
                let until = self.relay.parts.clock.now_ms().saturating_add(millis(PANIC_PAUSE));
                if let Err(error) = self.relay.parts.inbox.defer(lane.row, until).await {
                    warn!(%error, "A conversation could not be put off.");
                }
                Some(PANIC_PAUSE)
            }
        }
    }

    /// Goes through the table, as far as there is room.
    async fn look(&mut self) {
        // Who waited keeps its share through the look, or those who come first in the table would take it.
        self.waited = std::mem::take(&mut self.waiting);
        self.look_through().await;
        self.waited.clear();
    }

    async fn look_through(&mut self) {
        let mut after = ConversationRow::FIRST;
        loop {
            let now_ms = self.relay.parts.clock.now_ms();
            let page = match self.relay.parts.inbox.due(after, now_ms, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    warn!(%error, "Unfinished conversations could not be looked up; trying again.");
                    return;
                }
            };
            let Some(last) = page.last() else { return };
            after = last.row;
            let whole = page.len() < PAGE;
            for work in page {
                if !self.by_conversation.contains_key(&work.row) {
                    self.start(work);
                }
            }
            if whole || self.by_conversation.len() >= self.relay.parts.limits.lanes_max {
                return;
            }
        }
    }
}

/// Whole milliseconds, for the wall clock's arithmetic.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// When a lane that met trouble on our own disk wants to be started again.
pub(super) fn after_trouble() -> Duration {
    retry::deferral(Duration::from_secs(2), 0)
}
