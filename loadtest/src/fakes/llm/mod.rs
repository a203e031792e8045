//! A fake model behind an OpenAI-compatible address: a real server, steerable, that keeps the truth.
//!
//! It answers `POST /v1/chat/completions`, `/v1/completions`, `/v1/responses` (each at once or as a
//! stream), `/v1/embeddings`, `GET /v1/models` and `/v1/models/{id}` the way official clients expect,
//! and honours the client's maximum of tokens, `n` and `best_of`. What it says is the same for the
//! same request. Steering: [`FakeLlm::set`], or `POST /control` with a [`Behaviour`] as JSON; truth:
//! [`FakeLlm::truth`], or `GET /control/truth` (`DELETE` forgets it).
//!
//! Its tokens are its own: one word of output is one token, a prompt has one for every
//! `bytes_per_token` bytes. It does not tokenise, think, or keep responses for later.

mod answer;
mod behaviour;
mod gzip;
mod request;
mod script;
mod serve;
mod stream;
mod truth;

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use behaviour::{Behaviour, Chunking, Fault, FaultKind, LineEnd, ToolCall, UsageStyle, When};
pub use truth::{Call, Outcome, Totals, Truth};

use behaviour::Steering;
use truth::Book;

use crate::http::Server;

/// What a fake model is started with and does not change.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Port on 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// The bearer key it wants; without one, everybody is let in.
    pub key: Option<String>,
    /// The models it lists.
    pub models: Vec<String>,
    /// Refuse (404) models it does not list.
    pub listed_models_only: bool,
    /// What it does until told otherwise.
    pub behaviour: Behaviour,
    /// Seed of everything that is left to chance.
    pub seed: u64,
    /// Calls kept in full, the last ones; 0 keeps totals only and is fastest.
    pub calls_max: usize,
    /// Bytes of each call's body that are kept.
    pub call_body_bytes_max: usize,
    /// Larger request bodies are refused.
    pub body_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            port: 0,
            key: None,
            models: vec!["fake-model".to_owned()],
            listed_models_only: false,
            behaviour: Behaviour::default(),
            seed: 1,
            calls_max: 1000,
            call_body_bytes_max: 64 << 10,
            body_bytes_max: 32 << 20,
        }
    }
}

/// A running fake model. Dropping it closes every connection, as a crash would.
#[derive(Debug)]
pub struct FakeLlm {
    state: Arc<State>,
    server: Server,
}

impl FakeLlm {
    /// Starts it.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let port = settings.port;
        let state = Arc::new(State {
            steering: Mutex::new(Steering::new(settings.behaviour.clone(), settings.seed)),
            book: Book::new(settings.calls_max, settings.call_body_bytes_max),
            ids: AtomicU64::new(1),
            settings,
        });
        let serving = Arc::clone(&state);
        let server = Server::start(port, move |request| serve::serve(Arc::clone(&serving), request)).await?;
        Ok(Self { state, server })
    }

    /// `http://127.0.0.1:port`; what clients call `base_url` is this and `/v1`.
    #[must_use]
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Changes the behaviour for calls from now on; calls under way keep theirs.
    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        let mut steering = self.state.steering();
        let mut behaviour = steering.current();
        change(&mut behaviour);
        steering.set(behaviour);
    }

    /// Calls that have ended, the last `calls_max` of them, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state.book.truth().calls.into()
    }

    /// Sums over all calls.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.state.book.totals()
    }

    /// Everything that is known.
    #[must_use]
    pub fn truth(&self) -> Truth {
        self.state.book.truth()
    }

    /// Forgets all calls that have ended.
    pub fn forget(&self) {
        self.state.book.forget();
    }

    /// Waits until the totals are as wanted; false if they are not within the time.
    pub async fn wait_until(&self, wanted: impl Fn(&Totals) -> bool, wait_max: Duration) -> bool {
        self.state.book.wait_until(wanted, wait_max).await
    }

    /// Stops it and waits until all its connections are closed.
    pub async fn stop(self) {
        self.server.stop().await;
    }
}

/// What every request of one fake shares.
#[derive(Debug)]
struct State {
    settings: Settings,
    steering: Mutex<Steering>,
    book: Arc<Book>,
    /// The next answer's number.
    ids: AtomicU64,
}

impl State {
    fn steering(&self) -> MutexGuard<'_, Steering> {
        // A test's closure may panic while it holds this; the next call goes on with what is there.
        self.steering.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
