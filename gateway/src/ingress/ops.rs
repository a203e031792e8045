//! The admin listener: what Prometheus scrapes, and whether we live and are ready.
//!
//! *Live* means that the process answers; nothing else is asked, so a sick disk or upstream never gets it killed.
//! *Ready* means: send traffic here. It is no while starting and from the moment a drain begins.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response};

use crate::Gateway;
use crate::error::{Error, Reason};
use crate::http::body::Body;

/// Answers an operator.
pub fn answer(gateway: &Gateway, method: &Method, path: &str) -> Result<Response<Body>, Error> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Error::new(Reason::MethodNotAllowed, "This address takes GET only."));
    }
    match path {
        "/metrics" => {
            gateway.refresh_gauges();
            Ok(text(gateway.metrics.page(), "text/plain; version=0.0.4; charset=utf-8"))
        }
        "/livez" => Ok(text(b"ok\n".to_vec(), "text/plain; charset=utf-8")),
        "/readyz" => match gateway.not_ready() {
            None => Ok(text(b"ready\n".to_vec(), "text/plain; charset=utf-8")),
            Some(error) => Err(error),
        },
        _ => Err(Error::new(Reason::UnknownRoute, "No such address. There are /metrics, /livez and /readyz.")),
    }
}

fn text(body: Vec<u8>, kind: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
