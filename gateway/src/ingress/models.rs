//! `GET /v1/models` and `/v1/models/{id}`: the models that are named in the configuration and allowed to the caller.
//!
//! An upstream that serves `*` serves names nobody listed; those are not invented here. It costs nothing and counts
//! as no call.

use http::Response;
use serde::Serialize;

use crate::Gateway;
use crate::auth::api_key::Caller;
use crate::error::{Error, Reason};
use crate::http::address::percent_decoded;
use crate::http::body::Body;
use crate::http::respond;
use crate::ingress::call;

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

/// The list, or the one of this id as it stands in the address. Client leaves: cancel.
pub fn answer(gateway: &Gateway, caller: &Caller, id: Option<&str>) -> Result<Response<Body>, Error> {
    call::may_call(caller)?;
    let upstreams = gateway.upstreams();
    let mut models = upstreams
        .named_models()
        .into_iter()
        .filter(|(id, _)| caller.key.allows_model(id))
        .map(|(id, owned_by)| Model { id, object: "model", created: 0, owned_by });
    match id {
        None => respond::json(&List { object: "list", data: models.collect() }),
        Some(id) => {
            // A name may hold a slash, which some clients escape and some do not.
            let wanted = percent_decoded(id);
            let model = models.find(|model| wanted.as_deref() == Some(model.id)).ok_or_else(|| {
                Error::new(Reason::UnknownModel, "No such model, or not for this key.").param("model")
            })?;
            respond::json(&model)
        }
    }
}
