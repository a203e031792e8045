//! The whole URL space, and what every route has in common: an id, a trace, strictness, and an answer.
//!
//! Each route says what happens when the client leaves: *cancel* (the handler is dropped, and with it the upstream
//! call) or *detached* (it finishes: a delivery half accepted helps nobody).

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{Method, Request, Response, Version};

use crate::error::{Error, Reason};
use crate::http::body::Body;
use crate::http::respond;
use crate::ingress::{self, Trace};
use crate::metrics::Outcome;
use crate::server::io::Watch;
use crate::{Core, Gateway, Route};

/// What comes in.
pub(super) type Incoming = Request<hyper::body::Incoming>;
/// What goes out.
pub(super) type Outgoing = Response<Body>;

/// The public listener.
pub(super) async fn public(
    gateway: Arc<Gateway>,
    core: Arc<Core>,
    peer: SocketAddr,
    request: Incoming,
    watch: Watch,
) -> Outgoing {
    let serving = watch.serving();
    let path = request.uri().path();
    let route = v1(path);
    let mut trace = Trace::begin(&gateway, route, peer, &request);
    let answer = match strict(&request) {
        Ok(()) => serve_v1(&gateway, &core, &mut trace, route, request).await,
        Err(error) => Err(error),
    };
    drop(serving);
    match answer {
        Ok(response) => trace.answered(response),
        Err(error) => failed(trace, route, &error),
    }
}

fn v1(path: &str) -> Route {
    match path {
        "/v1/chat/completions" => Route::Chat,
        "/v1/models" => Route::Models,
        _ if path.strip_prefix("/v1/models/").is_some_and(|model| !model.is_empty()) => Route::Models,
        _ => Route::Unknown,
    }
}

async fn serve_v1(
    gateway: &Arc<Gateway>,
    core: &Arc<Core>,
    trace: &mut Trace,
    route: Route,
    request: Incoming,
) -> Result<Outgoing, Error> {
    match route {
        Route::Chat => {
            method(&request, &Method::POST)?;
            ingress::chat::complete(gateway, core, trace, request).await
        }
        Route::Models => {
            method(&request, &Method::GET)?;
            ingress::models::list(gateway, trace, &request)
        }
        Route::Webhook | Route::Unknown => {
            Err(Error::new(Reason::UnknownRoute, "No such address. The API is under /v1."))
        }
    }
}

/// The admin listener.
pub(super) async fn admin(
    gateway: Arc<Gateway>,
    _core: Arc<Core>,
    _peer: SocketAddr,
    request: Incoming,
    watch: Watch,
) -> Outgoing {
    let _serving = watch.serving();
    ingress::ops::answer(&gateway, request.method(), request.uri().path())
        .unwrap_or_else(|error| respond::admin(&error))
}

fn method(request: &Incoming, expected: &Method) -> Result<(), Error> {
    if request.method() == expected {
        return Ok(());
    }
    Err(Error::new(Reason::MethodNotAllowed, format!("This address takes {expected} only.")))
}

/// What hyper lets through and an edge must not: two lengths for one body, or not exactly one host.
fn strict(request: &Incoming) -> Result<(), Error> {
    let headers = request.headers();
    if headers.contains_key(TRANSFER_ENCODING) {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let chunked = codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if !chunked || codings.next().is_some() || headers.contains_key(CONTENT_LENGTH) {
            return Err(Error::new(
                Reason::Malformed,
                "The request says its body's length in two ways, or in an unknown one.",
            ));
        }
    }
    if request.version() == Version::HTTP_11 {
        let mut hosts = headers.get_all(HOST).iter();
        let one = hosts.next().is_some_and(|host| {
            http::uri::Authority::try_from(host.as_bytes()).is_ok_and(|authority| !authority.as_str().contains('@'))
        });
        if !one || hosts.next().is_some() {
            return Err(Error::new(
                Reason::Malformed,
                "The request must have exactly one Host header that names a host.",
            ));
        }
    }
    Ok(())
}

/// A failure becomes an answer, and is logged, here and only here.
fn failed(mut trace: Trace, route: Route, error: &Error) -> Outgoing {
    trace.refused(error);
    let request_id = trace.request_id();
    let mut response = match route {
        Route::Webhook => respond::chatwoot(error, request_id),
        Route::Chat | Route::Models | Route::Unknown => respond::openai(error, request_id),
    };
    if let Some(standing) = trace.standing() {
        standing.write(response.headers_mut());
    }
    if error.reason == Reason::Malformed && route != Route::Chat && route != Route::Webhook {
        // Nothing more is read on a connection whose framing was in doubt.
        response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    }
    trace.finish(response.status(), Outcome::of(error));
    response
}
