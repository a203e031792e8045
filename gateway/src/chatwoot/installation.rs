//! One Chatwoot and how many calls a minute it takes from us, whoever's they are.
//!
//! A Chatwoot counts calls by the address they come from: 3,000 a minute, all tenants that we serve there together
//! (contract 6.7). So there is one budget for each installation, known by scheme, host and port. A call waits its
//! turn in the order of asking, and no longer than it is allowed to; *typing* waits for nothing and is left out
//! first, while there is still something left for what customers are waiting for. A 429 that comes all the same
//! pauses the installation for everybody, longer each time until a call goes through.
//!
//! Between tenants the order of asking is fair because no tenant has more than so many turns at once. It does not
//! make calls and does not repeat them: `client` does the one, the relay the other.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};
use http::Uri;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config;

/// What may be taken at once, as a part of a minute's calls. A minute then never sees more than a minute's calls and
/// this part of them: with 2,400 a minute, 2,800 of the 3,000 that Chatwoot takes.
const BURST_PART: u32 = 6;
/// A pause is not doubled beyond this, nor believed to be longer when the other side tells it.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// An installation that nobody has called for so long has its whole burst back and is not paused any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// How many calls, and how long a pause.
#[derive(Debug, Clone, Copy)]
struct CallLimits {
    /// Calls a minute to one installation.
    per_minute: NonZeroU32,
    /// The first pause after a 429 that does not say how long to wait.
    pause: Duration,
}

/// Every installation we call. There are as many as the configuration names; those that are not called any more are
/// forgotten when a new one comes.
#[derive(Debug)]
pub struct Installations {
    limits: CallLimits,
    clock: Clock,
    known: Mutex<HashMap<String, Known>>,
}

#[derive(Debug)]
struct Known {
    installation: Arc<Installation>,
    asked_at: Instant,
}

impl Installations {
    /// None yet.
    pub fn new(limits: &config::Relay, clock: Clock) -> Self {
        let limits = CallLimits { per_minute: limits.chatwoot_calls_per_minute, pause: limits.chatwoot_pause };
        Self { limits, clock, known: Mutex::default() }
    }

    /// The installation at this address, whatever its path.
    pub fn at(&self, url: &Uri) -> Arc<Installation> {
        let origin = origin(url);
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get_mut(&origin) {
            found.asked_at = now;
            return Arc::clone(&found.installation);
        }
        known.retain(|_, known| {
            Arc::strong_count(&known.installation) > 1 || now.duration_since(known.asked_at) < FORGOTTEN_AFTER
        });
        let installation = Arc::new(Installation::new(self.limits, &self.clock));
        known.insert(origin, Known { installation: Arc::clone(&installation), asked_at: now });
        installation
    }
}

/// Scheme, host and port: what a limit by address can tell apart.
fn origin(url: &Uri) -> String {
    let https = url.scheme_str() == Some("https");
    let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    format!("{}://{host}:{port}", if https { "https" } else { "http" })
}

/// One installation's budget of calls.
pub struct Installation {
    calls: Limiter,
    /// On the same count, with only the upper half of the burst; none where half of it is nothing.
    courtesies: Option<Limiter>,
    clock: Clock,
    /// Held by the call whose turn it is to wait; the others stand behind it in the order they came.
    turn: tokio::sync::Mutex<()>,
    pause: Mutex<Pause>,
    first_pause: Duration,
}

type Limiter = RateLimiter<NotKeyed, Count, Clock, NoOpMiddleware<Nanos>>;

impl std::fmt::Debug for Installation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Installation")
    }
}

#[derive(Debug)]
struct Pause {
    until: Option<Instant>,
    next: Duration,
}

/// How a call came to be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// At once.
    AtOnce,
    /// After waiting for its turn.
    Waited,
}

/// A call that must not be made now. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom {
    /// When there may be room: after this.
    pub wait: Duration,
}

impl Installation {
    fn new(CallLimits { per_minute, pause }: CallLimits, clock: &Clock) -> Self {
        let count = Count::default();
        let burst = per_minute.get().div_ceil(BURST_PART);
        let limiter = |burst: u32| {
            let quota = Quota::per_minute(per_minute).allow_burst(NonZeroU32::new(burst)?);
            Some(RateLimiter::new(quota, count.clone(), clock.clone()))
        };
        let all = || RateLimiter::new(Quota::per_minute(per_minute), count.clone(), clock.clone());
        Self {
            calls: limiter(burst).unwrap_or_else(all),
            courtesies: limiter(burst / 2),
            clock: clock.clone(),
            turn: tokio::sync::Mutex::default(),
            pause: Mutex::new(Pause { until: None, next: pause }),
            first_pause: pause,
        }
    }

    /// Leave to make one call, waited for until `until` at the latest.
    pub async fn take(&self, until: Instant) -> Result<Taken, NoRoom> {
        let Ok(turn) = self.turn.try_lock() else { return self.queue(until).await };
        match self.now(&self.calls) {
            Ok(()) => Ok(Taken::AtOnce),
            Err(wait) => {
                self.wait(wait, until).await?;
                drop(turn);
                Ok(Taken::Waited)
            }
        }
    }

    /// Leave to make a call that nobody would miss, if there is plenty left.
    pub fn take_courtesy(&self) -> bool {
        let Some(courtesies) = &self.courtesies else { return false };
        self.turn.try_lock().is_ok_and(|_turn| self.now(courtesies).is_ok())
    }

    /// Chatwoot answered 429; `asked` is the wait it told, if it told one.
    pub fn throttled(&self, asked: Option<Duration>) {
        let now = Instant::now();
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        let paused = pause.until.is_some_and(|until| now < until);
        // Calls that were under way together are turned away together: that is one 429.
        let wait = if paused { Duration::ZERO } else { pause.next };
        if !paused {
            pause.next = (pause.next * 2).min(PAUSE_MAX);
        }
        let until = now + wait.max(asked.unwrap_or_default().min(PAUSE_MAX));
        pause.until = pause.until.max(Some(until));
    }

    /// Chatwoot took a call: the next pause is a first one again.
    pub fn went_through(&self) {
        let mut pause = self.pause.lock().unwrap_or_else(PoisonError::into_inner);
        if pause.until.is_none_or(|until| until <= Instant::now()) {
            *pause = Pause { until: None, next: self.first_pause };
        }
    }

    async fn queue(&self, until: Instant) -> Result<Taken, NoRoom> {
        match tokio::time::timeout_at(until, self.turn.lock()).await {
            // Those before it have used up its time; how long they go on nobody knows.
            Err(_) => Err(NoRoom { wait: self.paused().unwrap_or_default() }),
            Ok(_turn) => self.wait(Duration::ZERO, until).await.map(|()| Taken::Waited),
        }
    }

    /// Waits with the turn in hand. One who cannot be served in time does not keep the others waiting.
    async fn wait(&self, mut wait: Duration, until: Instant) -> Result<(), NoRoom> {
        loop {
            if Instant::now() + wait > until {
                return Err(NoRoom { wait });
            }
            tokio::time::sleep(wait).await;
            match self.now(&self.calls) {
                Ok(()) => return Ok(()),
                Err(longer) => wait = longer,
            }
        }
    }

    /// Takes one now, or says how long to wait.
    fn now(&self, limiter: &Limiter) -> Result<(), Duration> {
        if let Some(wait) = self.paused() {
            return Err(wait);
        }
        limiter.check().map_err(|full| full.wait_time_from(governor::clock::Clock::now(&self.clock)))
    }

    fn paused(&self) -> Option<Duration> {
        let until = self.pause.lock().unwrap_or_else(PoisonError::into_inner).until?;
        Some(until.saturating_duration_since(Instant::now())).filter(|wait| !wait.is_zero())
    }
}

/// governor's state, shared by two limiters: the same rate, another burst.
#[derive(Debug, Clone, Default)]
struct Count(Arc<InMemoryState>);

impl StateStore for Count {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, key: &NotKeyed, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.0.measure_and_replace(key, f)
    }
}

#[cfg(test)]
impl Installation {
    /// One that takes whatever a test calls.
    pub(super) fn roomy() -> Arc<Self> {
        let limits = CallLimits { per_minute: NonZeroU32::MAX, pause: Duration::from_millis(1) };
        Arc::new(Self::new(limits, &Clock::system()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(1);

    fn installation(per_minute: u32, clock: &Clock) -> Installation {
        let per_minute = NonZeroU32::new(per_minute).unwrap();
        Installation::new(CallLimits { per_minute, pause: PAUSE }, clock)
    }

    fn taken(installation: &Installation, asked: usize) -> usize {
        (0..asked).filter(|_| installation.now(&installation.calls).is_ok()).count()
    }

    #[test]
    fn no_minute_sees_more_than_a_minute_s_calls_and_a_sixth() {
        let clock = Clock::manual(0);
        let installation = installation(2_400, &clock);
        assert_eq!(taken(&installation, 3_000), 400);
        let mut minute = 400;
        for _ in 0..60 {
            clock.advance(Duration::from_secs(1));
            minute += taken(&installation, 1_000);
        }
        assert_eq!(minute, 2_800);
    }

    #[test]
    fn a_courtesy_takes_only_what_is_plenty() {
        let clock = Clock::manual(0);
        let installation = installation(60, &clock);
        let courtesies = (0..10).filter(|_| installation.take_courtesy()).count();
        assert_eq!((courtesies, taken(&installation, 10)), (5, 5));
        // One a second comes back: five for calls before the first courtesy.
        clock.advance(Duration::from_secs(5));
        assert!(!installation.take_courtesy());
        clock.advance(Duration::from_secs(1));
        assert!(installation.take_courtesy() && !installation.take_courtesy());
        assert!(!super::tests::installation(6, &clock).take_courtesy(), "half of one is none");
    }

    #[tokio::test(start_paused = true)]
    async fn a_429_pauses_everybody_longer_each_time_until_one_goes_through() {
        let clock = Clock::manual(0);
        let installation = installation(60, &clock);
        let soon = || Instant::now() + Duration::from_millis(10);
        for pause in [PAUSE, PAUSE * 2, PAUSE * 4] {
            installation.throttled(None);
            installation.throttled(None);
            assert_eq!(installation.take(soon()).await, Err(NoRoom { wait: pause }));
            assert!(!installation.take_courtesy());
            let late = Instant::now() + Duration::from_secs(30);
            assert_eq!(installation.take(late).await, Ok(Taken::Waited));
        }
        installation.went_through();
        installation.throttled(Some(Duration::from_secs(9)));
        assert_eq!(installation.take(soon()).await, Err(NoRoom { wait: Duration::from_secs(9) }));
        installation.throttled(Some(Duration::from_secs(86_400)));
        assert_eq!(installation.take(soon()).await, Err(NoRoom { wait: PAUSE_MAX }));
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_first_is_served_first_and_nobody_waits_beyond_its_time() {
        let clock = Clock::manual(0);
        let installation = Arc::new(installation(6, &clock));
        assert_eq!(installation.take(Instant::now()).await, Ok(Taken::AtOnce));
        installation.throttled(None);
        let (served, mut order) = tokio::sync::mpsc::channel(3);
        for number in 0..3 {
            let (installation, served, clock) = (Arc::clone(&installation), served.clone(), clock.clone());
            tokio::spawn(async move {
                let taken = installation.take(Instant::now() + Duration::from_secs(30)).await;
                clock.advance(Duration::from_secs(10));
                served.send((number, taken)).await.unwrap();
            });
            tokio::task::yield_now().await;
        }
        clock.advance(Duration::from_secs(10));
        for number in 0..3 {
            assert_eq!(order.recv().await.unwrap(), (number, Ok(Taken::Waited)));
        }
        // Ten seconds to the next call: too long for it, and told so without waiting.
        let before = Instant::now();
        let _ = taken(&installation, 1);
        assert_eq!(
            installation.take(before + Duration::from_secs(1)).await,
            Err(NoRoom { wait: Duration::from_secs(10) })
        );
        assert_eq!(Instant::now(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn an_installation_is_a_scheme_a_host_and_a_port() {
        let per_minute = NonZeroU32::new(60).unwrap();
        let limits = CallLimits { per_minute, pause: PAUSE };
        let installations = Installations { limits, clock: Clock::manual(0), known: Mutex::default() };
        let at = |url: &str| installations.at(&url.parse().unwrap());
        let one = at("https://chat.example.com");
        for same in ["https://chat.example.com/", "https://CHAT.example.com:443/x", "https://chat.example.com/sub"] {
            assert!(Arc::ptr_eq(&one, &at(same)), "{same}");
        }
        for other in ["http://chat.example.com", "https://chat.example.com:8443", "https://chat.example.org"] {
            assert!(!Arc::ptr_eq(&one, &at(other)), "{other}");
        }
        drop(one);
        tokio::time::advance(FORGOTTEN_AFTER).await;
        at("https://new.example.com");
        assert_eq!(installations.known.lock().unwrap().len(), 1, "what nobody calls any more is kept");
    }
}
