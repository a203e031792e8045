//! Starting a sidecar for a test, speaking to it, and holding what it says against its own description.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use relais_billing::Running;
use relais_billing::clock::Clock;
use relais_billing::config::{Config, NewToken, TOKEN_RANDOM_BYTES};
use relais_billing::store::{Place, Scratch};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing here takes longer, or it hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// A sidecar that serves.
pub(crate) struct Sidecar {
    running: Running,
    place: Place,
    pub(crate) clock: Clock,
    pub(crate) api: SocketAddr,
    pub(crate) ops: SocketAddr,
    document: Value,
}

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A request, being put together.
pub(crate) struct Asking<'a> {
    sidecar: &'a Sidecar,
    request: http::request::Builder,
    method: Method,
    path: String,
    body: Bytes,
}

/// The token of a role, always the same.
pub(crate) fn token(role: &str) -> NewToken {
    NewToken::from_random(&[u8::try_from(role.len()).unwrap(); TOKEN_RANDOM_BYTES])
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `code` of a problem.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// It is what was wanted, or the test ends with what was said instead.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self
    }
}

impl Sidecar {
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// With more lines of configuration.
    pub(crate) async fn start_with(more: &str) -> Self {
        let place = Place::new().await;
        let mut text = format!(
            "listen = {{ api = \"127.0.0.1:0\", ops = \"127.0.0.1:0\" }}\n\
             database = {{ url = \"{}\", wait_ms = 20000 }}\n\
             secrets = {{ keys = \"{}\" }}\n{more}\n",
            place.url(),
            Scratch::KEYS
        );
        for role in ["gateway", "viewer", "operator", "owner"] {
            text += &token(role).toml(role, role);
        }
        let config = Config::parse(&text, Path::new("/"), &|_| None).unwrap();
        let clock = Clock::manual(1_767_225_600_000);
        let running = relais_billing::start(config, clock.clone()).await.unwrap();
        let (api, ops) = (running.api, running.ops);
        Self { running, place, clock, api, ops, document: relais_billing::api::document() }
    }

    pub(crate) async fn stop(self) {
        timeout(DEADLINE, self.running.stop()).await.unwrap();
        self.place.remove().await;
    }

    pub(crate) fn ask(&self, method: Method, path: &str) -> Asking<'_> {
        let request = Request::builder().method(method.clone()).uri(path).header("host", "billing");
        Asking { sidecar: self, request, method, path: path.to_owned(), body: Bytes::new() }
    }

    /// As an operator.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path).by("operator").send().await
    }

    /// As an owner.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::POST, path).by("owner").json(&body).send().await
    }

    /// As an owner.
    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.ask(Method::PUT, path).by("owner").json(&body).send().await
    }

    /// As an owner.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask(Method::DELETE, path).by("owner").send().await
    }

    /// A tenant with these plans.
    pub(crate) async fn tenant(&self, id: &str, plans: &[&str]) -> Value {
        self.post("/v1/admin/tenants", json!({ "id": id, "name": id, "plans": plans })).await.expect(201).json()
    }

    /// Holds an answer against the document: a described status, a body of the described shape.
    fn check(&self, method: &Method, path: &str, answer: &Answer) {
        let path = path.split('?').next().unwrap();
        let Some((_, operations)) = self.document["paths"].as_object().unwrap().iter().find(|(p, _)| matches(p, path))
        else {
            return;
        };
        let operation = &operations[method.as_str().to_lowercase()];
        if operation.is_null() {
            return;
        }
        let status = answer.status.as_str();
        let (response, kind) = match operation["responses"].get(status) {
            Some(response) => (response, "application/json"),
            None => {
                assert!(!answer.status.is_success(), "{method} {path}: {status} is not described");
                (&operation["responses"]["default"], "application/problem+json")
            }
        };
        assert_eq!(answer.headers["content-type"], kind, "{method} {path}");
        let mut schema = response["content"][kind]["schema"].clone();
        assert!(schema.is_object(), "{method} {path}: {status} has no schema");
        // References lead into the document.
        schema["components"] = self.document["components"].clone();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let body = answer.json();
        let errors: Vec<String> =
            validator.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{method} {path} {status}: {errors:?}\n{body}");
    }
}

/// Whether a path is of this pattern.
fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(wanted), Some(part)) if wanted == part || wanted.starts_with('{') => {}
            _ => return false,
        }
    }
}

impl Asking<'_> {
    /// With the token of this role.
    pub(crate) fn by(self, role: &str) -> Self {
        let bearer = format!("Bearer {}", token(role).expose());
        self.header("authorization", &bearer)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.request = self.request.header(name, value);
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.bytes(body.to_string())
    }

    pub(crate) fn bytes(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) async fn send(self) -> Answer {
        let request = self.request.body(Full::new(self.body)).unwrap();
        let answer = timeout(DEADLINE, exchange(self.sidecar.api, request)).await.unwrap();
        self.sidecar.check(&self.method, &self.path, &answer);
        answer
    }
}

/// One request on a connection of its own.
pub(crate) async fn exchange(to: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    let stream = TcpStream::connect(to).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    drop(sender);
    // However it ends: the answer is there.
    let _ = connection.await;
    Answer { status: head.status, headers: head.headers, body }
}

/// `GET` on the address of metrics and health.
pub(crate) async fn ops(sidecar: &Sidecar, path: &str) -> Answer {
    let request = Request::get(path).header("host", "billing").body(Full::new(Bytes::new())).unwrap();
    timeout(DEADLINE, exchange(sidecar.ops, request)).await.unwrap()
}
