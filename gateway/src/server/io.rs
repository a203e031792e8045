//! A socket with the two timeouts that hyper does not have: a peer that does not read, and a head that trickles.
//!
//! Timers cost nothing while bytes flow: one is armed only when a write is stuck or a head has begun and is not
//! whole. A head is known to be whole when the handler is called, which the [`Watch`] tells.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Shared between a connection's socket and its handler: is a request being served?
#[derive(Debug, Clone)]
pub(super) struct Watch(Arc<AtomicBool>);

impl Watch {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// The head is whole. Until the guard goes, what comes in is a body.
    pub(super) fn serving(&self) -> Serving {
        self.0.store(true, Ordering::Relaxed);
        Serving(Self(Arc::clone(&self.0)))
    }

    fn is_serving(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A request is being served.
#[derive(Debug)]
pub(super) struct Serving(Watch);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Relaxed);
    }
}

/// The socket.
pub(super) struct Timed<S> {
    socket: S,
    write_stall: Duration,
    header_wait: Option<Duration>,
    watch: Watch,
    stuck: Option<Pin<Box<Sleep>>>,
    head: Option<Pin<Box<Sleep>>>,
}

impl<S> Timed<S> {
    pub(super) fn new(socket: S, write_stall: Duration, header_wait: Option<Duration>, watch: Watch) -> Self {
        Self { socket, write_stall, header_wait, watch, stuck: None, head: None }
    }

    /// A write's outcome: stuck for too long is an error, progress forgets that it was stuck.
    fn write_outcome<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stuck = None;
            return outcome;
        }
        let wait = self.write_stall;
        let timer = self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(wait)));
        match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(timed_out("the peer does not read"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.socket).poll_read(cx, buf);
        let Some(wait) = self.header_wait else { return outcome };
        if self.watch.is_serving() {
            self.head = None;
            return outcome;
        }
        if outcome.is_ready() && buf.filled().len() > before {
            // Bytes of a head: its time runs from the first of them.
            let deadline = Instant::now() + wait;
            self.head.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        }
        if outcome.is_pending()
            && let Some(timer) = &mut self.head
            && timer.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(timed_out("the request's head did not arrive in time")));
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.write_outcome(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.write_outcome(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.socket).poll_flush(cx);
        self.write_outcome(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.socket).poll_shutdown(cx);
        self.write_outcome(cx, outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_cut() {
        let (near, _far) = tokio::io::duplex(16);
        let mut timed = Timed::new(near, Duration::from_secs(60), None, Watch::new());
        let error = timed.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_trickles_is_cut_and_a_body_is_not() {
        let (near, mut far) = tokio::io::duplex(16);
        let watch = Watch::new();
        let mut timed = Timed::new(near, Duration::from_secs(60), Some(Duration::from_secs(10)), watch.clone());
        let mut byte = [0u8; 1];
        far.write_all(b"P").await.unwrap();
        timed.read_exact(&mut byte).await.unwrap();
        let serving = watch.serving();
        let waited = tokio::time::timeout(Duration::from_secs(20), timed.read_exact(&mut byte)).await;
        assert!(waited.is_err(), "a body has no head time");
        drop(serving);
        far.write_all(b"G").await.unwrap();
        timed.read_exact(&mut byte).await.unwrap();
        let error = timed.read_exact(&mut byte).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
