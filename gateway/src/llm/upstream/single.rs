//! One try at one upstream, for who has chosen it by name: our own agents.
//!
//! It goes by the same room (`connections_max`), rest and breaker as the calls of clients, and what comes of it counts
//! for them alike: an upstream that is left alone is left alone by all. It is not repeated here; an agent's tries are
//! the relay's to count.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;

use super::target::Away;
use super::verdict::{Again, Outcome};
use super::{AnswerBody, FULL_WAIT_MS, Upstream, Upstreams, after};
use crate::error::{Error, Reason, Retry};
use crate::http::client::Client;
use crate::llm::endpoint::Endpoint;

/// Why there is no answer to read.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotAnswered {
    /// What went wrong.
    pub error: Error,
    /// It refuses us, whatever it is asked (our key, a redirect): the operator has to act.
    pub refuses_us: bool,
}

impl NotAnswered {
    fn away(error: Error) -> Self {
        Self { error, refuses_us: false }
    }
}

impl Upstreams {
    /// The upstream of this name.
    pub fn named(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.list.iter().find(|upstream| *upstream.name == *name)
    }
}

impl Upstream {
    /// Sends `body` as it is, once, and waits for the head of the answer: at most `room` for a place and `wait` for the
    /// answer. A refusal of the request itself is an answer.
    pub async fn ask_once(
        &self,
        client: &Client,
        endpoint: Endpoint,
        body: Bytes,
        room: Duration,
        wait: Duration,
    ) -> Result<Response<AnswerBody>, NotAnswered> {
        if let Some(away) = self.health.away() {
            return Err(NotAnswered::away(told(away)));
        }
        let Some(slot) = client.slots().take(&self.name, self.config.connections_max, room).await else {
            self.count(Outcome::Full);
            let error = Error::new(Reason::Overloaded, "Too many calls to this model are open. Try again later.");
            return Err(NotAnswered::away(error.retry(Retry::AfterMs(FULL_WAIT_MS))));
        };
        let Some(ticket) = self.health.breaker.admit() else {
            return Err(NotAnswered::away(told(Away::Fails(Duration::ZERO))));
        };
        match self.ask(client, &slot, endpoint, body, wait).await {
            Ok(response) => {
                ticket.healthy();
                Ok(response.map(|incoming| AnswerBody::new(incoming, slot)))
            }
            Err(failed) => {
                match failed.against {
                    Some(against) => ticket.failed(against),
                    None => ticket.healthy(),
                }
                if let Some(ms) = failed.rest_ms {
                    self.health.rest(ms);
                }
                let refuses_us = failed.again == Again::Elsewhere && failed.outcome != Outcome::Busy;
                Err(NotAnswered { error: failed.error, refuses_us })
            }
        }
    }
}

fn told(away: Away) -> Error {
    match away {
        Away::Rests(wait) => {
            Error::new(Reason::UpstreamBusy, "The model is limiting this gateway. Try again later.").retry(after(wait))
        }
        Away::Fails(wait) => {
            Error::new(Reason::UpstreamFailed, "The model keeps failing and is left alone for a moment.")
                .retry(after(wait))
        }
    }
}
