//! `GET /v1/models` and `/v1/models/{id}`: the models that are named in the configuration and allowed to the caller.
//!
//! An upstream that serves `*` serves names nobody listed; those are not invented here. It costs nothing and counts
//! as no call.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use serde::Serialize;

use crate::Gateway;
use crate::auth::api_key;
use crate::error::{Error, Reason};
use crate::http::body::Body;
use crate::ingress::Trace;

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    /// Unix seconds. Nobody told when a model was made; 0 is the honest figure.
    created: i64,
    owned_by: &'a str,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

/// Client leaves: cancel.
pub fn list<B>(gateway: &Gateway, trace: &mut Trace, request: &Request<B>) -> Result<Response<Body>, Error> {
    let caller = api_key::authenticate(&gateway.store, request.headers(), gateway.clock.now_ms())?;
    trace.caller(&caller.key);
    caller.may_call()?;
    trace.stands(caller.key.tenant.account.standing(caller.key.slot));
    let upstreams = gateway.upstreams();
    let mut models: Vec<Model<'_>> = upstreams
        .named_models()
        .into_iter()
        .filter(|(id, _)| caller.key.allows_model(id))
        .map(|(id, owned_by)| Model { id, object: "model", created: 0, owned_by })
        .collect();
    let body = match request.uri().path().strip_prefix("/v1/models/") {
        None => serde_json::to_vec(&List { object: "list", data: models }),
        Some(wanted) => {
            models.retain(|model| model.id == wanted);
            let model = models.first().ok_or_else(|| {
                Error::new(Reason::UnknownModel, "No such model, or not for this key.").param("model")
            })?;
            serde_json::to_vec(model)
        }
    };
    let body = body.map_err(|error| Error::new(Reason::Internal, "The list was not written.").caused_by(error))?;
    let mut response = Response::new(Body::from(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
