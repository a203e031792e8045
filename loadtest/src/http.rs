//! The smallest HTTP server and client the fakes and the demo need.
//!
//! [`Server`] binds on 127.0.0.1, hands every request to one async function and ends with all its
//! connections the moment it is stopped or dropped: a fake that dies must look like a process that
//! died. A handler may refuse to answer ([`Hangup`]), and a body may fail half-way (an `Err` frame):
//! both close the connection, as a crashing server would.
//!
//! [`exchange`] makes one request on a connection of its own. There is deliberately no pool, no
//! redirect, no decompression and no TLS: tests want to see each of these happen, not have it done.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HOST, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Connections one server holds at once; the next one waits in the kernel's backlog.
const CONNECTIONS_MAX: usize = 16_384;

/// What a fake answers with. An `Err` frame closes the connection in the middle of the body.
pub type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A handler's way of closing the connection without any answer.
#[derive(Debug, thiserror::Error)]
#[error("the fake hung up instead of answering")]
pub struct Hangup;

/// What a handler returns: a response, or a connection closed without one.
pub type Answer = Result<Response<Body>, Hangup>;

/// A body that is there at once.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// A response with a body of the given content type.
#[must_use]
pub fn reply(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// A JSON response.
#[must_use]
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    reply(status, "application/json", value.to_string())
}

/// A running server. Dropping it closes the listener and every connection.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Binds 127.0.0.1 (port 0: any free one) and serves HTTP/1.1 and HTTP/2 with prior knowledge.
    ///
    /// When a client leaves, the handler's future, or the body it returned, is dropped.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start<H, F>(port: u16, handler: H) -> io::Result<Self>
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Answer> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, handler));
        Ok(Self { address, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:port`, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes the listener and every connection, and waits until they are gone.
    pub async fn stop(mut self) {
        self.accepting.abort();
        // The result is "cancelled": that is what was asked for.
        drop((&mut self.accepting).await);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept<H, F>(listener: TcpListener, handler: H)
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: wait for a connection to end rather than spin.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Frames are paced on purpose; Nagle would pace them again. A failure only costs latency.
        drop(stream.set_nodelay(true));
        let handler = handler.clone();
        connections.spawn(async move {
            let mut builder = auto::Builder::new(TokioExecutor::new());
            // Not `pipeline_flush`: with it hyper buffers a body without bound, and a fake would
            // generate everything for a client that reads nothing.
            builder.http1().timer(TokioTimer::new());
            builder.http2().timer(TokioTimer::new());
            // A connection that ends badly is the client's business, or a fault we were asked for.
            drop(builder.serve_connection(TokioIo::new(stream), service_fn(handler)).await);
        });
    }
}

/// What went wrong with an [`exchange`], by the step it was at.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The URL has no host.
    #[error("the URL names no host")]
    NoHost,
    /// No connection.
    #[error("connecting to {address}")]
    Connect {
        /// Host and port that were tried.
        address: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or the other side did not speak HTTP.
    #[error("exchanging request and response")]
    Http(#[source] hyper::Error),
    /// The head of the response did not come in time.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The body was longer than the caller reads.
    #[error("a body of more than {bytes_max} bytes")]
    TooLong {
        /// The caller's bound.
        bytes_max: usize,
    },
}

/// Sends one request (absolute URL) on a new HTTP/1.1 connection and gives the response as soon as
/// its head is there. Dropping the response's body closes the connection.
///
/// # Errors
/// See [`ExchangeError`]; any status is a success here.
pub async fn exchange(
    mut request: Request<Full<Bytes>>,
    head_wait_max: Duration,
) -> Result<Response<Incoming>, ExchangeError> {
    let uri = request.uri().clone();
    let authority = uri.authority().ok_or(ExchangeError::NoHost)?.clone();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse::<Uri>().map_err(|_| ExchangeError::NoHost)?;
    if !request.headers().contains_key(HOST) {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| ExchangeError::NoHost)?;
        request.headers_mut().insert(HOST, host);
    }
    let (host, port) = (authority.host(), authority.port_u16().unwrap_or(80));
    let exchanged = async {
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(|source| ExchangeError::Connect { address: authority.to_string(), source })?;
        drop(stream.set_nodelay(true));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(ExchangeError::Http)?;
        // Ends with the exchange: nobody else can send on it.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(ExchangeError::Http)
    };
    tokio::time::timeout(head_wait_max, exchanged).await.map_err(|_| ExchangeError::Deadline(head_wait_max))?
}

/// Reads a body to its end.
///
/// # Errors
/// The body broke off, or is longer than `bytes_max`.
pub async fn read_all(mut body: Incoming, bytes_max: usize) -> Result<Bytes, ExchangeError> {
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(ExchangeError::Http)?.into_data() else { continue };
        if all.len() + data.len() > bytes_max {
            return Err(ExchangeError::TooLong { bytes_max });
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}
