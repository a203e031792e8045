//! Connections of a load run: HTTP/1.1, plain or TLS, bounded, kept or one for each request.
//!
//! There are never more than `connections_max` to one origin; who finds none free waits, as callers behind a
//! pool do, and that wait is in their latency. No HTTP/2, no redirects, no retries: each would hide what is measured.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tower::ServiceExt;

use super::tally::Outcome;

/// How connections are made, and how many there may be.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    https: HttpsConnector<HttpConnector>,
    connections_max: usize,
    keep_alive: bool,
}

impl Connector {
    pub(super) fn new(connections_max: usize, keep_alive: bool) -> anyhow::Result<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::aws_lc_rs::default_provider())
            .context("preparing TLS")?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Self { https, connections_max, keep_alive })
    }
}

/// The connections to one origin.
#[derive(Debug)]
pub(super) struct Connections {
    connector: Connector,
    origin: Uri,
    host: HeaderValue,
    /// One is held by each connection in use; idle ones are taken before another is opened, so it bounds both.
    slots: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

/// One connection; dropping it closes it at once, whatever is under way.
#[derive(Debug)]
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection in use. Dropping it closes it; [`Lease::give_back`] keeps it for the next.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    of: &'a Connections,
    connection: Connection,
    /// What connecting took, if it was connected for this lease.
    pub(super) connect: Option<Duration>,
    _slot: OwnedSemaphorePermit,
}

impl Connections {
    pub(super) fn to(origin: &Uri, connector: &Connector) -> anyhow::Result<Self> {
        let authority = origin.authority().with_context(|| format!("{origin} names no host"))?;
        let host = HeaderValue::from_str(authority.as_str()).context("the host's name")?;
        let slots = Arc::new(Semaphore::new(connector.connections_max));
        Ok(Self { connector: connector.clone(), origin: origin.clone(), host, slots, idle: Mutex::default() })
    }

    /// A connection, once there may be one more.
    pub(super) async fn lease(&self) -> Result<Lease<'_>, Outcome> {
        // Never closed; if it were, there would be no connection to be had.
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| Outcome::NoConnection)?;
        while let Some(mut connection) = self.take_idle() {
            if connection.sender.ready().await.is_ok() {
                return Ok(Lease { of: self, connection, connect: None, _slot: slot });
            }
        }
        let asked = Instant::now();
        let io = self.connector.https.clone().oneshot(self.origin.clone()).await.map_err(|_| Outcome::NoConnection)?;
        let (sender, driving) = http1::handshake(io).await.map_err(|_| Outcome::NoConnection)?;
        let connect = Some(asked.elapsed());
        // How it ends is seen by whoever sends on it.
        let task = tokio::spawn(async move { drop(driving.await) }).abort_handle();
        Ok(Lease { of: self, connection: Connection { sender, task }, connect, _slot: slot })
    }

    fn take_idle(&self) -> Option<Connection> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }
}

impl Lease<'_> {
    /// Sends and waits for the head of the answer.
    pub(super) async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Outcome> {
        request.headers_mut().insert(HOST, self.of.host.clone());
        self.connection.sender.send_request(request).await.map_err(|_| Outcome::Broken)
    }

    /// The answer was read to its end: the connection may serve the next.
    pub(super) fn give_back(self) {
        if self.of.connector.keep_alive && !self.connection.sender.is_closed() {
            self.of.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.connection);
        }
    }
}
