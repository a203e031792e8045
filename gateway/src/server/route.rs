//! The whole URL space, and what every route has in common: an id, a trace, strictness, and an answer.
//!
//! Each route says what happens when the client leaves: *cancel* (the handler is dropped, and with it the upstream
//! call) or *detached* (it finishes: a delivery half accepted helps nobody).

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;

use crate::auth::api_key;
use crate::config::Errors;
use crate::error::{Error, Reason};
use crate::http::body::Body;
use crate::http::respond;
use crate::ingress::{self, Trace};
use crate::llm::endpoint::Endpoint;
use crate::metrics::Outcome;
use crate::server::cors::CrossOrigin;
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
    let route = route(request.uri().path());
    let is_head = request.method() == Method::HEAD;
    let cross_origin = match route {
        Route::Webhook => None,
        _ => CrossOrigin::of(&gateway.config().cors, request.headers()),
    };
    let mut trace = Trace::begin(&gateway, route, peer, &request);
    let strict = strict(&request);
    let framing_in_doubt = strict.is_err() && request.version() < Version::HTTP_2;
    let answer = match strict {
        Ok(()) => serve(&gateway, &core, &mut trace, route, request).await,
        Err(error) => Err(error),
    };
    drop(serving);
    let mut response = match answer {
        Ok(response) => trace.answered(response),
        Err(error) => {
            if matches!(error.reason, Reason::BadKey | Reason::BadSignature) {
                not_authentic(&gateway, &mut trace, peer);
            }
            failed(trace, route, &error, gateway.config().errors)
        }
    };
    if framing_in_doubt {
        // Nothing more is read on this connection.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if let Some(cross_origin) = cross_origin {
        cross_origin.write(&methods(route), response.headers_mut());
    }
    if is_head { without_body(response) } else { response }
}

/// The table: which address leads where.
fn route(path: &str) -> Route {
    match path {
        "/v1/chat/completions" => Route::Chat,
        "/v1/responses" => Route::Responses,
        "/v1/completions" => Route::Completions,
        "/v1/embeddings" => Route::Embeddings,
        "/v1/models" => Route::Models,
        _ if model_id(path).is_some() => Route::Models,
        "/v1/limits" => Route::Limits,
        "/v1/usage" => Route::Usage,
        "/openapi.json" => Route::OpenApi,
        _ if path.strip_prefix("/chatwoot/").is_some_and(|rest| !rest.is_empty()) => Route::Webhook,
        _ => Route::Unknown,
    }
}

/// The methods of a route, as `Allow` tells them.
fn methods(route: Route) -> HeaderValue {
    HeaderValue::from_static(match route {
        Route::Chat | Route::Responses | Route::Completions | Route::Embeddings => "POST, OPTIONS",
        Route::Models | Route::Limits | Route::Usage | Route::OpenApi => "GET, HEAD, OPTIONS",
        Route::Webhook => "POST",
        Route::Unknown => "",
    })
}

fn model_id(path: &str) -> Option<&str> {
    path.strip_prefix("/v1/models/").filter(|id| !id.is_empty())
}

/// Every address below `/v1` wants a key first, also one that does not exist; so whoever has one is always told what
/// is left of its limits, and nobody else is told anything. Without a key there are only the questions of
/// browsers and tools: `OPTIONS` and `/openapi.json`.
async fn serve(
    gateway: &Arc<Gateway>,
    core: &Arc<Core>,
    trace: &mut Trace,
    route: Route,
    request: Incoming,
) -> Result<Outgoing, Error> {
    if request.method() == Method::OPTIONS && !matches!(route, Route::Unknown | Route::Webhook) {
        return Ok(options(route));
    }
    if route == Route::OpenApi {
        method(&request, &[Method::GET, Method::HEAD])?;
        return Ok(ingress::openapi::answer());
    }
    if route == Route::Webhook {
        method(&request, &[Method::POST])?;
        return detached(gateway, trace, request).await;
    }
    if !request.uri().path().starts_with("/v1/") {
        return Err(unknown_route());
    }
    let caller = api_key::authenticate(&gateway.store, request.headers(), gateway.clock.now_ms())?;
    trace.caller(&caller.key);
    let endpoint = match route {
        Route::Chat => Endpoint::Chat,
        Route::Responses => Endpoint::Responses,
        Route::Completions => Endpoint::Completions,
        Route::Embeddings => Endpoint::Embeddings,
        Route::Models => {
            method(&request, &[Method::GET, Method::HEAD])?;
            return ingress::models::answer(gateway, &caller, model_id(request.uri().path()));
        }
        Route::Limits => {
            method(&request, &[Method::GET, Method::HEAD])?;
            return ingress::limits::answer(gateway, &caller);
        }
        Route::Usage => {
            method(&request, &[Method::GET, Method::HEAD])?;
            return ingress::usage::answer(gateway, &caller, request.uri().query().unwrap_or_default()).await;
        }
        Route::OpenApi | Route::Webhook | Route::Unknown => return Err(unknown_route()),
    };
    method(&request, &[Method::POST])?;
    ingress::call::serve(gateway, core, trace, &caller, endpoint, request).await
}

/// A delivery is finished though its sender leaves: it runs as a task of its own.
async fn detached(gateway: &Arc<Gateway>, trace: &mut Trace, request: Incoming) -> Result<Outgoing, Error> {
    let gateway = Arc::clone(gateway);
    let mut own = trace.hand_over();
    let task = tokio::spawn(async move {
        let answer = ingress::webhook::receive(&gateway, &mut own, request).await;
        (own, answer)
    });
    let (own, answer) =
        task.await.map_err(|error| Error::new(Reason::Internal, "The delivery was not accepted.").caused_by(error))?;
    *trace = own;
    answer
}

fn unknown_route() -> Error {
    Error::new(Reason::UnknownRoute, "No such address. GET /openapi.json tells those that there are.")
}

fn options(route: Route) -> Outgoing {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(ALLOW, methods(route));
    response
}

/// The answer to HEAD: as to GET, but for the body, of which only the length is told.
fn without_body(response: Outgoing) -> Outgoing {
    let (mut head, body) = response.into_parts();
    if let Some(length) = body.size_hint().exact().filter(|_| head.status != StatusCode::NO_CONTENT) {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(head, Body::empty())
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

fn method(request: &Incoming, expected: &[Method]) -> Result<(), Error> {
    if expected.contains(request.method()) {
        return Ok(());
    }
    let first = expected.first().unwrap_or(&Method::GET);
    Err(Error::new(Reason::MethodNotAllowed, format!("This address takes {first} only.")))
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

/// A key or signature was wrong. Of very many from one address only some are logged; all are answered alike.
fn not_authentic(gateway: &Gateway, trace: &mut Trace, peer: SocketAddr) {
    gateway.metrics.auth_failures.inc();
    if gateway.auth_failures.load().is_too_many(peer.ip()) {
        gateway.metrics.auth_throttled.inc();
        trace.quiet();
    }
}

/// A failure becomes an answer, and is logged, here and only here.
fn failed(mut trace: Trace, route: Route, error: &Error, errors: Errors) -> Outgoing {
    trace.refused(error);
    let request_id = trace.request_id();
    let mut response = match route {
        Route::Webhook => respond::chatwoot(error, request_id),
        _ => respond::openai(error, request_id, errors),
    };
    let headers = response.headers_mut();
    trace.write_headers(headers);
    if error.reason == Reason::MethodNotAllowed {
        headers.insert(ALLOW, methods(route));
    }
    trace.finish(response.status(), Outcome::of(error));
    response
}
