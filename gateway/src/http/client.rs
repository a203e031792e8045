//! The client for everything behind us: models, Chatwoots, later the sidecar.
//!
//! One per runtime: connections are pooled where they are used, so a call on one core never wakes another.
//! It waits for a connection and for the head of the answer within the deadline it is given, follows no
//! redirect, decompresses nothing and retries nothing: whether a second try is safe is the caller's knowledge.
//! A pool has one connection of HTTP/2 to each place, so calls that should not share one go by pools of their own
//! ([`Way`]). Interim answers (1xx) are skipped; a head over its bounds breaks the connection.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as PooledClient, Error as PooledError, ResponseFuture};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower::Service;

use crate::http::resolve::Resolver;
use crate::http::slots::Slots;

type Pool = PooledClient<Connector, Full<Bytes>>;
type Https = HttpsConnector<HttpConnector<Resolver>>;

/// Idle connections kept to one host, per pool: 28 KiB each. Calls with a slot share a pool with 99 others at most.
const IDLE_PER_HOST_MAX: usize = 100;
/// An idle connection is closed after this. Below the 60–75 s most servers use, so we close first and do not
/// send on a connection that the other side is closing.
const IDLE_LIFE: Duration = Duration::from_secs(50);
/// The head of an answer, and what is read ahead of its body. Twice what we accept from clients: answers carry
/// rate limits, tracing and cookies of several layers. The buffer grows by doubling, so a head that comes fast may
/// pass with up to twice this. The number of headers has hyper's own bound, 100.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// The same for HTTP/2, where it counts decompressed.
const HEAD_BYTES_MAX_H2: u32 = 64 * 1024;

/// Pools of connections. Clones share them.
#[derive(Clone)]
pub struct Client {
    pools: Arc<Pools>,
    slots: Slots,
}

/// By which connections a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Way {
    /// Calls of different groups share no connection.
    pub group: usize,
    /// In plaintext HTTP/2 is spoken without asking. With TLS the two sides agree on a protocol, whatever stands here.
    pub http2: bool,
}

struct Pools {
    connector: Connector,
    /// For calls that go no particular way.
    usual: Pool,
    /// As many as there have been groups, which `connections_max` bounds.
    others: Mutex<HashMap<Way, Pool>>,
}

/// Connects within one deadline for all of it: name, TCP and TLS. The parts have none or their own, and a host
/// that accepts and then says nothing would hold a call as long as a model may think.
#[derive(Clone)]
struct Connector {
    https: Https,
    wait: Duration,
}

/// Why there is no answer. Whether bytes had been sent decides if a retry is safe for a call with effects.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No connection: nothing was sent.
    #[error("connecting")]
    Connect(#[source] PooledError),
    /// The connection broke after bytes may have been sent: the other side may have acted.
    #[error("sending the request or waiting for the answer")]
    Broken(#[source] PooledError),
    /// Nothing came within the deadline: the other side may have acted.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

impl SendError {
    /// The request was certainly not acted on.
    pub fn not_sent(&self) -> bool {
        matches!(self, Self::Connect(_))
    }
}

impl Client {
    /// A pool for the runtime it is used on. `connect` bounds name look-up, TCP and TLS together.
    pub fn new(resolver: Resolver, connect: Duration) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect));
        let https =
            HttpsConnectorBuilder::new().with_webpki_roots().https_or_http().enable_all_versions().wrap_connector(tcp);
        let connector = Connector { https, wait: connect };
        let usual = connector.pool(false);
        Self { pools: Arc::new(Pools { connector, usual, others: Mutex::default() }), slots: Slots::default() }
    }

    /// How many calls may be open at once, by place. Not taken by [`Client::send`]: who bounds its calls does.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Sends and waits for the head of the answer, at most `wait`.
    pub async fn send(&self, request: Request<Full<Bytes>>, wait: Duration) -> Result<Response<Incoming>, SendError> {
        self.send_by(Way::default(), request, wait).await
    }

    /// The same by the connections of `way`.
    pub async fn send_by(
        &self,
        way: Way,
        request: Request<Full<Bytes>>,
        wait: Duration,
    ) -> Result<Response<Incoming>, SendError> {
        match tokio::time::timeout(wait, self.pools.request(way, request)).await {
            Err(_) => Err(SendError::Timeout(wait)),
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if error.is_connect() => Err(SendError::Connect(error)),
            Ok(Err(error)) => Err(SendError::Broken(error)),
        }
    }
}

impl Connector {
    fn pool(&self, http2: bool) -> Pool {
        PooledClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
            .pool_idle_timeout(IDLE_LIFE)
            // A retry on a connection that turned out closed is safe only if nothing was sent; the pool knows.
            .retry_canceled_requests(true)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http2_max_header_list_size(HEAD_BYTES_MAX_H2)
            .http2_only(http2)
            .build(self.clone())
    }
}

impl Pools {
    fn request(&self, way: Way, request: Request<Full<Bytes>>) -> ResponseFuture {
        let way = Way { http2: way.http2 && request.uri().scheme() != Some(&Scheme::HTTPS), ..way };
        if way == Way::default() {
            return self.usual.request(request);
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.entry(way).or_insert_with(|| self.connector.pool(way.http2)).request(request)
    }
}

impl Service<Uri> for Connector {
    type Response = <Https as Service<Uri>>::Response;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(self.wait, self.https.call(to));
        Box::pin(async move {
            match connecting.await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no connection in time").into()),
            }
        })
    }
}
