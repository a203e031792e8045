//! Sockets: connections within bounds, a deadline for a request's head, and an end that waits for what is being answered.
//!
//! HTTP/1.1 in the clear: it is spoken to by operators' tools and by gateways, on loopback or behind a proxy that does
//! TLS. A connection beyond the bound waits in the kernel's queue until another one ends.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus::{IntCounter, IntGauge};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// After a failed accept (no descriptor left, for instance) it is not tried again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener is given.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    pub(crate) connections_max: usize,
    pub(crate) head: Duration,
    pub(crate) drain: Duration,
    pub(crate) connections: IntGauge,
    pub(crate) accept_errors: IntCounter,
}

/// Serves until `stop` turns true, then answers what was begun, for at most the drain time.
pub(crate) async fn serve(listener: TcpListener, router: Router, bounds: Bounds, mut stop: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(bounds.connections_max));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = told(&mut stop) => break,
            Some(_) = open.join_next(), if !open.is_empty() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let connection = connection(stream, router.clone(), bounds.clone(), stop.clone());
                open.spawn(async move {
                    connection.await;
                    drop(slot);
                });
            }
            Err(error) => {
                warn!(%error, "Connection not accepted.");
                bounds.accept_errors.inc();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if timeout(bounds.drain, async { while open.join_next().await.is_some() {} }).await.is_err() {
        warn!(connections = open.len(), "Still being answered after the drain time; cut.");
    }
}

/// Returns when it is time to stop, also if nobody is left to say so.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Answers are small and whole: nothing is gained by waiting for more to send.
    stream.set_nodelay(true)?;
    Ok((stream, slot))
}

async fn connection(stream: TcpStream, router: Router, bounds: Bounds, mut stop: watch::Receiver<bool>) {
    bounds.connections.inc();
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = told(&mut stop) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "Connection ended early.");
    }
    bounds.connections.dec();
}
