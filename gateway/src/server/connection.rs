//! One connection: handshake, protocol, limits, and its end.
//!
//! The protocol is chosen before hyper sees the connection: by ALPN over TLS; in plaintext by the first bytes,
//! waited for at most the header time, because hyper's own sniffing waits for ever. HTTP/2 in plaintext is by
//! prior knowledge only; there is no upgrade.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::server::accept::{Stop, Worker};
use crate::server::io::{Timed, Watch};
use crate::server::route;
use crate::{Core, Gateway};

/// hyper's read buffer must hold a whole head, and hyper refuses less than 8 KiB.
const BUFFER_BYTES_MIN: usize = 8_192;
/// HTTP/2 windows: what an edge can afford per stream and per connection (the usual edge values).
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// A peer that does not answer a ping within this is gone.
const PING_WAIT: Duration = Duration::from_secs(20);

enum Protocol {
    Http1,
    Http2,
}

/// Serves one connection to its end.
pub(super) async fn serve(
    gateway: Arc<Gateway>,
    core: Arc<Core>,
    socket: TcpStream,
    peer: SocketAddr,
    worker: Worker,
    stop: watch::Receiver<Stop>,
) {
    let timeouts = gateway.config().timeouts.clone();
    // Small frames of a stream must not wait for each other.
    if socket.set_nodelay(true).is_err() {
        return;
    }
    match worker {
        Worker::Public(Some(tls)) => {
            let Ok(Ok(stream)) = tokio::time::timeout(timeouts.tls, tls.accept(socket)).await else {
                tracing::debug!(%peer, "TLS handshake not completed.");
                return;
            };
            let protocol = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            };
            talk(gateway, core, stream, peer, protocol, route::public, stop).await;
        }
        Worker::Public(None) => {
            let Ok(Ok(protocol)) = tokio::time::timeout(timeouts.header, sniff(&socket)).await else { return };
            talk(gateway, core, socket, peer, protocol, route::public, stop).await;
        }
        Worker::Admin => talk(gateway, core, socket, peer, Protocol::Http1, route::admin, stop).await,
    }
}

/// HTTP/2 begins with `PRI `, and no method of HTTP/1 does.
async fn sniff(socket: &TcpStream) -> std::io::Result<Protocol> {
    let mut first = [0u8; 4];
    loop {
        let seen = socket.peek(&mut first).await?;
        let seen = first.get(..seen).unwrap_or_default();
        if !b"PRI ".starts_with(seen) || seen.is_empty() {
            return Ok(Protocol::Http1);
        }
        if seen.len() == first.len() {
            return Ok(Protocol::Http2);
        }
        // Three bytes or fewer of the preface: what is there stays readable, so wait a moment for more.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn talk<S, H, F>(
    gateway: Arc<Gateway>,
    core: Arc<Core>,
    socket: S,
    peer: SocketAddr,
    protocol: Protocol,
    handle: H,
    mut stop: watch::Receiver<Stop>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Arc<Gateway>, Arc<Core>, SocketAddr, route::Incoming, Watch) -> F + Copy + Send + Sync + 'static,
    F: Future<Output = route::Outgoing> + Send + 'static,
{
    let config = gateway.config();
    let (limits, timeouts) = (&config.limits, &config.timeouts);
    let watch = Watch::new();
    // On HTTP/2 frames of many streams share the socket, so only a stalled write is watched there.
    let header_wait = matches!(protocol, Protocol::Http1).then_some(timeouts.header);
    let io = TokioIo::new(Timed::new(socket, timeouts.write_stall, header_wait, watch.clone()));
    let service = service_fn(move |request| {
        let served = handle(Arc::clone(&gateway), Arc::clone(&core), peer, request, watch.clone());
        async move { Ok::<_, std::convert::Infallible>(served.await) }
    });
    let stopping = async move {
        // The sender is gone only when the process ends.
        let _ = stop.wait_for(|stop| *stop != Stop::No).await;
    };
    let outcome = match protocol {
        Protocol::Http1 => {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                // Runs from the end of the last answer: it bounds an idle connection. A head that has begun is bounded
                // by `Timed`, tighter.
                .header_read_timeout(timeouts.idle)
                .max_buf_size(limits.header_bytes_max.max(BUFFER_BYTES_MIN))
                .max_headers(limits.headers_max)
                .serve_connection(io, service);
            tokio::pin!(connection);
            tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = stopping => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
        Protocol::Http2 => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(limits.streams_per_connection_max)
                .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX))
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(STREAM_WINDOW as usize)
                .keep_alive_interval(timeouts.idle)
                .keep_alive_timeout(PING_WAIT)
                .serve_connection(io, service);
            tokio::pin!(connection);
            tokio::select! {
                outcome = connection.as_mut() => outcome,
                () = stopping => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%peer, %error, "Connection ended.");
    }
}
