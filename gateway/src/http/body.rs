//! Bodies: reading one within bounds, and the one body type we answer with.
//!
//! hyper has no body timeout and no size limit of its own; both are here. A declared length over the limit
//! is refused before a byte is read.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::error::{Error, Reason};

/// What a streamed answer's body may fail with; hyper then cuts the connection, so the client sees that the
/// answer is not whole.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub enum Body {
    /// All there, or nothing.
    Full(Option<Bytes>),
    /// Comes as it comes.
    Stream(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>),
}

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self::Full(None)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Full(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.as_ref().map_or(0, Bytes::len)),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(stream) => stream.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Stream(stream) => stream.size_hint(),
        }
    }
}

/// Reads a request's body: at most `bytes_max`, with at most `stall` between two pieces.
pub async fn read_bounded(mut body: Incoming, bytes_max: usize, stall: Duration) -> Result<Bytes, Error> {
    match read(&mut body, bytes_max, stall).await {
        Ok(bytes) => Ok(bytes),
        Err(ReadError::TooLarge) => {
            linger(body).await;
            let message = format!("The request's body is over the limit of {bytes_max} bytes.");
            Err(Error::new(Reason::TooLarge, message))
        }
        Err(ReadError::Stalled) => Err(Error::new(Reason::BodyTimeout, "The request's body did not arrive in time.")),
        Err(ReadError::Broken(error)) => {
            Err(Error::new(Reason::Malformed, "The request's body broke off.").caused_by(error))
        }
    }
}

/// Why a body is not whole.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is, or says that it will be, over the limit.
    #[error("the body is over its limit")]
    TooLarge,
    /// Nothing came for too long.
    #[error("the body stalled")]
    Stalled,
    /// The connection broke, or what came is not HTTP.
    #[error("reading the body")]
    Broken(#[source] hyper::Error),
}

/// Reads a body: at most `bytes_max`, with at most `stall` between two pieces.
///
/// A body that came in one piece (the common case) is not copied.
pub async fn read<B>(body: &mut B, bytes_max: usize, stall: Duration) -> Result<Bytes, ReadError>
where
    B: HttpBody<Data = Bytes, Error = hyper::Error> + Unpin,
{
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(ReadError::TooLarge);
    }
    let mut first = Bytes::new();
    let mut more: Option<BytesMut> = None;
    loop {
        let frame = match tokio::time::timeout(stall, body.frame()).await {
            Err(_) => return Err(ReadError::Stalled),
            Ok(None) => break,
            Ok(Some(frame)) => frame.map_err(ReadError::Broken)?,
        };
        let Ok(data) = frame.into_data() else { continue };
        let so_far = more.as_ref().map_or(first.len(), BytesMut::len);
        if so_far + data.len() > bytes_max {
            return Err(ReadError::TooLarge);
        }
        match &mut more {
            Some(buffer) => buffer.extend_from_slice(&data),
            None if first.is_empty() => first = data,
            None => {
                let declared = usize::try_from(body.size_hint().lower()).unwrap_or(0).min(bytes_max);
                let mut buffer = BytesMut::with_capacity(first.len() + data.len() + declared);
                buffer.extend_from_slice(&first);
                buffer.extend_from_slice(&data);
                more = Some(buffer);
            }
        }
    }
    Ok(more.map_or(first, BytesMut::freeze))
}

/// How much of a refused body is read and thrown away, and for how long.
const LINGER_BYTES_MAX: usize = 32 << 20;
const LINGER_WAIT: Duration = Duration::from_secs(2);

/// Reads on for a little. Closing on unread bytes resets the connection, and a client that is still sending would
/// see that instead of the answer that says why.
async fn linger(mut body: Incoming) {
    let reading = async {
        let mut thrown_away = 0;
        while let Some(Ok(frame)) = body.frame().await {
            thrown_away += frame.data_ref().map_or(0, Bytes::len);
            if thrown_away > LINGER_BYTES_MAX {
                break;
            }
        }
    };
    // Out of time is as good as done: it was a courtesy.
    let _ = tokio::time::timeout(LINGER_WAIT, reading).await;
}
