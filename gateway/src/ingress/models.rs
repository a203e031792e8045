//! `GET /v1/models` and `/v1/models/{id}`: the models that are named in the configuration and allowed to the caller.
//!
//! An upstream that serves `*` serves names nobody listed; those are not invented here. It costs nothing and counts
//! as no call.

use std::borrow::Cow;

use http::Response;
use serde::Serialize;

use crate::Gateway;
use crate::auth::api_key::Caller;
use crate::error::{Error, Reason};
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

/// What a part of an address says. `None`: bytes that are no text. A `%` without two hex digits is itself.
fn percent_decoded(part: &str) -> Option<Cow<'_, str>> {
    if !part.contains('%') {
        return Some(Cow::Borrowed(part));
    }
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = part.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match (byte, digit(bytes.get(at)), digit(bytes.get(at + 1))) {
            (b'%', Some(high), Some(low)) => {
                out.push(high * 16 + low);
                at += 2;
            }
            _ => out.push(*byte),
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_read_as_every_client_writes_them() {
        for (part, says) in [
            ("gpt-4o", Some("gpt-4o")),
            ("org/model", Some("org/model")),
            ("org%2Fmodel%3alatest", Some("org/model:latest")),
            ("100%", Some("100%")),
            ("a%2", Some("a%2")),
            ("%zz", Some("%zz")),
            ("caf%C3%A9", Some("café")),
            ("%ff", None),
        ] {
            assert_eq!(percent_decoded(part).as_deref(), says, "{part}");
        }
    }
}
