//! Starting a gateway for a test, and speaking to it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use relais_gateway::clock::Clock;
use relais_gateway::config::Config;
use relais_gateway::{Running, start};
use tempfile::TempDir;

/// The key of tenant `acme` in [`toml`].
pub(crate) const KEY: &str = "rk_test_000000000001_0123456789abcdef0123456789abcdef";
/// Nothing here takes longer, or it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A gateway that serves, and its data.
pub(crate) struct Gateway {
    running: Option<Running>,
    client: Client<HttpConnector, Full<Bytes>>,
    pub(crate) dir: TempDir,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// `error.code` of an OpenAI error object.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// The usual configuration: one upstream, tenant `acme` with [`KEY`], and whatever is added.
pub(crate) fn toml(upstream: &str, overrides: &str, more: &str) -> String {
    format!(
        r#"
        [listen]
        public = "127.0.0.1:0"
        admin = "127.0.0.1:0"
        [storage]
        dir = "data"
        [runtime]
        workers = 2
        [[upstream]]
        name = "main"
        base_url = "{upstream}/v1"
        models = ["*"]
        aliases = {{ "gpt-4o" = "llama" }}
        [[tenant]]
        id = "acme"
        plans = ["app.business", "api.pro", "chatwoot.pro"]
        overrides = {{ {overrides} }}
        [[tenant.key]]
        name = "ci"
        secret = "{KEY}"
        {more}
        "#
    )
}

impl Gateway {
    /// Starts with the machine's clock.
    pub(crate) fn start(toml: &str) -> Self {
        Self::start_at(toml, Clock::system())
    }

    /// Starts with a clock of the test's.
    pub(crate) fn start_at(toml: &str, clock: Clock) -> Self {
        Self::start_in(toml, clock, tempfile::tempdir().unwrap())
    }

    /// Starts on data that is there.
    pub(crate) fn start_in(toml: &str, clock: Clock, dir: TempDir) -> Self {
        let config = config(toml, dir.path());
        // A second gateway in one process finds the provider installed.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let running = start(config, clock).unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { running: Some(running), client, dir }
    }

    pub(crate) fn inner(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn public(&self) -> SocketAddr {
        self.inner().public
    }

    /// Sends and waits for the head.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        tokio::time::timeout(DEADLINE, self.client.request(request)).await.expect("no answer").unwrap()
    }

    /// Sends and reads the whole answer.
    pub(crate) async fn call(&self, request: Request<Full<Bytes>>) -> Answer {
        let (parts, body) = self.send(request).await.into_parts();
        let body = tokio::time::timeout(DEADLINE, body.collect()).await.expect("no end").unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.call(post(self.public(), path, KEY, body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(get(self.public(), path, KEY)).await
    }

    pub(crate) async fn metrics(&self) -> String {
        self.call(get(self.inner().admin, "/metrics", "")).await.text()
    }

    /// One metric's value, with its labels as Prometheus prints them; 0 if it is not there.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let page = self.metrics().await;
        let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit_once(' ')).map_or(0.0, |(_, value)| value.parse().unwrap())
    }

    /// Stops as SIGTERM does, and gives back the data.
    #[expect(clippy::disallowed_methods, reason = "one thread, for as long as the test waits for it")]
    pub(crate) async fn stop(mut self) -> TempDir {
        let running = self.running.take().unwrap();
        let (done, stopped) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            running.stop();
            done.send(()).unwrap();
        });
        stopped.await.unwrap();
        std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            std::thread::spawn(move || running.stop());
        }
    }
}

pub(crate) fn config(toml: &str, dir: &Path) -> Config {
    Config::from_str(toml, dir, &|name| std::env::var(name).ok()).unwrap_or_else(|errors| panic!("{errors}"))
}

pub(crate) fn post(to: SocketAddr, path: &str, key: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://{to}{path}"))
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .unwrap()
}

pub(crate) fn get(from: SocketAddr, path: &str, key: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .uri(format!("http://{from}{path}"))
        .header("authorization", format!("Bearer {key}"))
        .body(Full::default())
        .unwrap()
}

/// The data of every event of a stream.
pub(crate) fn events(stream: &str) -> Vec<String> {
    stream.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).map(str::to_owned).collect()
}
