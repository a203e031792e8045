//! A client that hides nothing: raw status, headers, bytes, and how the body ended.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use relais_loadtest::fakes::llm::{Behaviour, FakeLlm, Settings};
use relais_loadtest::http::exchange;
use serde_json::Value;

/// Longer than anything here takes; reached only when something hangs that should not.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What came back.
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
    /// Pieces the body came in.
    pub(crate) pieces: usize,
    /// The body ended as HTTP says it must.
    pub(crate) whole: bool,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap()
    }

    /// The `data:` fields of the stream, parsed; `[DONE]` is the last and not among them.
    pub(crate) fn events(&self) -> Vec<Value> {
        let (events, done) = self.events_and_done();
        assert!(done, "the stream does not end with [DONE]");
        events
    }

    pub(crate) fn events_and_done(&self) -> (Vec<Value>, bool) {
        let text = self.text().replace("\r\n", "\n").replace('\r', "\n");
        let mut data: Vec<&str> = text
            .split("\n\n")
            .filter_map(|event| event.split('\n').find_map(|line| line.strip_prefix("data: ")))
            .collect();
        let done = data.last() == Some(&"[DONE]");
        if done {
            data.pop();
        }
        (data.into_iter().map(|data| serde_json::from_str(data).unwrap()).collect(), done)
    }
}

pub(crate) async fn fake(behaviour: Behaviour) -> FakeLlm {
    FakeLlm::start(Settings { behaviour, ..Settings::default() }).await.unwrap()
}

pub(crate) fn post(llm: &FakeLlm, path: &str, body: &Value) -> Request<Full<Bytes>> {
    let request = Request::post(format!("{}{path}", llm.url())).header("content-type", "application/json");
    request.body(Full::from(body.to_string())).unwrap()
}

pub(crate) async fn send(request: Request<Full<Bytes>>) -> Got {
    let response = exchange(request, PATIENCE).await.unwrap();
    let (head, mut body) = response.into_parts();
    let mut got =
        Got { status: head.status.as_u16(), headers: head.headers, bytes: Vec::new(), pieces: 0, whole: true };
    while let Some(frame) = tokio::time::timeout(PATIENCE, body.frame()).await.expect("the body goes on") {
        match frame {
            Ok(frame) => {
                got.bytes.extend_from_slice(frame.data_ref().unwrap());
                got.pieces += 1;
            }
            Err(_) => {
                got.whole = false;
                break;
            }
        }
    }
    got
}

pub(crate) async fn ask(llm: &FakeLlm, path: &str, body: &Value) -> Got {
    send(post(llm, path, body)).await
}
