//! What happens in the fake Chatwoot, as it tells it: a line of JSON per happening, as server-sent events.
//!
//! Only what the demo shows is understood; everything else is passed over.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;

use crate::http::{exchange, read_all};

/// The longest line that is read: a message may be long, a line of a fake's is not longer.
const LINE_BYTES_MAX: usize = 1 << 20;
/// The fake is on this machine and has nothing else to do.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// A line, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    /// 0 if it is about none.
    #[serde(default)]
    pub(super) conversation_id: u64,
    #[serde(flatten)]
    pub(super) happening: Happening,
}

/// What happened. Names are the fake's.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Happening {
    CustomerSaid {
        content: Option<String>,
    },
    /// The customer was shown something, by a bot (`{"bot": id}`) or somebody else.
    ReplySeen {
        content: Option<String>,
        by: Option<Value>,
    },
    NoteAdded {
        content: Option<String>,
    },
    StatusChanged {
        from: String,
        to: String,
    },
    WebhookSent {
        delivery_id: String,
        event: String,
        attempt: u32,
    },
    WebhookAnswered {
        delivery_id: String,
        event: String,
        status: Option<u16>,
        error: Option<String>,
        answer_us: u64,
    },
    /// Our own report of the gateway has arrived.
    GatewayTold,
    /// Somebody at the page wants to see the gateway crash.
    CrashAsked,
    #[serde(other)]
    Other,
}

/// A running list of happenings.
pub(super) struct Watch {
    body: Incoming,
    unread: BytesMut,
    lines: VecDeque<Line>,
}

impl Watch {
    /// Begins to watch; what happened before is told first.
    pub(super) async fn begin(chatwoot_url: &str) -> anyhow::Result<Self> {
        let request = Request::get(format!("{chatwoot_url}/control/events")).body(Full::<Bytes>::default())?;
        let answer = exchange(request, ANSWER_WAIT_MAX).await.context("watching the fake Chatwoot")?;
        if answer.status() != StatusCode::OK {
            bail!("the fake Chatwoot lets nobody watch: {}", answer.status());
        }
        Ok(Self { body: answer.into_body(), unread: BytesMut::new(), lines: VecDeque::new() })
    }

    /// The next happening, whenever it comes.
    pub(super) async fn next(&mut self) -> anyhow::Result<Happening> {
        Ok(self.next_line().await?.happening)
    }

    /// The next line. Safe to cancel: what was read stays.
    pub(super) async fn next_line(&mut self) -> anyhow::Result<Line> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(line);
            }
            let Some(frame) = self.body.frame().await else { bail!("the fake Chatwoot stopped telling what happens") };
            let Ok(data) = frame.context("watching the fake Chatwoot")?.into_data() else { continue };
            self.unread.extend_from_slice(&data);
            if self.unread.len() > LINE_BYTES_MAX {
                bail!("the fake Chatwoot tells a line of more than {LINE_BYTES_MAX} bytes");
            }
            self.read_lines()?;
        }
    }

    fn read_lines(&mut self) -> anyhow::Result<()> {
        while let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
            let line = self.unread.split_to(end + 1);
            // Comments, `event:` and `id:` fields and empty lines are not data.
            if let Some(data) = line.strip_prefix(b"data:") {
                self.lines.push_back(serde_json::from_slice(data).context("reading what the fake Chatwoot tells")?);
            }
        }
        Ok(())
    }
}

/// Asks the fake Chatwoot to do something.
pub(super) async fn tell(chatwoot_url: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
    let request = Request::post(format!("{chatwoot_url}{path}")).header("content-type", "application/json");
    let answer = exchange(request.body(Full::from(body.to_string()))?, ANSWER_WAIT_MAX).await?;
    let status = answer.status();
    let body = read_all(answer.into_body(), LINE_BYTES_MAX).await?;
    if !status.is_success() {
        bail!("the fake Chatwoot answered {status} to {path}: {}", String::from_utf8_lossy(&body));
    }
    Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood_and_unknown_ones_passed_over() {
        for (line, expected) in [
            (
                r#"{"seq":1,"at_ms":5,"account_id":1,"conversation_id":2,"kind":"status_changed","from":"pending","to":"open","by":{"bot":7},"reason":"x"}"#,
                Happening::StatusChanged { from: "pending".into(), to: "open".into() },
            ),
            (r#"{"seq":2,"kind":"typing_changed","on":true}"#, Happening::Other),
            (
                r#"{"seq":3,"kind":"reply_seen","message_id":9,"content":"Hi","by":{"bot":7}}"#,
                Happening::ReplySeen { content: Some("Hi".into()), by: Some(serde_json::json!({"bot": 7})) },
            ),
        ] {
            assert_eq!(serde_json::from_str::<Line>(line).unwrap().happening, expected);
        }
    }
}
