//! An answer's body, as long as which the call occupies its upstream.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use tokio::time::Instant;

use crate::error::{Error, Reason};
use crate::http::body::{self, ReadError};
use crate::http::slots::Slot;

/// The bytes as they come. Dropping it before its end cancels the upstream and makes room for the next call.
#[derive(Debug)]
pub struct AnswerBody {
    incoming: Incoming,
    _slot: Slot,
}

impl AnswerBody {
    pub(super) fn new(incoming: Incoming, slot: Slot) -> Self {
        Self { incoming, _slot: slot }
    }

    /// Reads an answer that comes in one piece: at most `bytes_max`, with at most `stall` between two pieces, and
    /// whole by `ends_by`. What fails here had begun to be an answer, so it may be billed and is not tried again.
    pub async fn whole(mut self, bytes_max: usize, stall: Duration, ends_by: Instant) -> Result<Bytes, Error> {
        let read = body::read(&mut self, bytes_max, stall);
        let Ok(read) = tokio::time::timeout_at(ends_by, read).await else {
            return Err(Error::new(Reason::UpstreamTimeout, "The model's answer did not end in time."));
        };
        read.map_err(|error| {
            let (reason, message) = match &error {
                ReadError::TooLarge => {
                    (Reason::UpstreamFailed, "The model's answer is larger than this gateway takes.")
                }
                ReadError::Stalled => (Reason::UpstreamTimeout, "The model stopped answering in the middle."),
                ReadError::Broken(_) => (Reason::UpstreamFailed, "The model's answer broke off."),
            };
            Error::new(reason, message).caused_by(error)
        })
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
