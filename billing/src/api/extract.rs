//! Reading a request: parameters and body, within bounds, with errors that name the field.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Stop;
use crate::Billing;
use crate::error::{Error, Reason};
use crate::page::Page;

/// Items of a page unless told otherwise.
const PAGE_ITEMS: u32 = 50;

/// A JSON body. An empty one is read as `{}`, for operations that need nothing.
#[derive(Debug)]
pub struct Body<T> {
    /// What was read.
    pub value: T,
    /// As it was sent.
    pub bytes: Bytes,
}

/// Parameters after the `?`. Unknown ones are refused where the type does so.
#[derive(Debug)]
pub struct Params<T>(pub T);

/// Which page of a list.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PageParams {
    /// `next` of the page before.
    pub after: Option<String>,
    /// At most so many items.
    #[schemars(range(min = 1))]
    pub limit: Option<u32>,
}

/// The page that is asked for, within the configured bound.
pub fn read_page(billing: &Billing, after: Option<String>, limit: Option<u32>) -> Result<Page, Error> {
    let most = billing.limits.page_items_max;
    match limit.unwrap_or(PAGE_ITEMS.min(most)) {
        limit if (1..=most).contains(&limit) => Ok(Page { after: after.unwrap_or_default(), limit }),
        _ => Err(Error::new(Reason::Malformed, format!("limit is from 1 to {most}"))),
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<Billing>> for Body<T> {
    type Rejection = Stop;

    async fn from_request(request: Request, state: &Arc<Billing>) -> Result<Self, Stop> {
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| unread(&rejection))?;
        let json: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let value = serde_json::from_slice(json).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => Error::invalid(format!("the body: {error}")),
            _ => Error::new(Reason::Malformed, format!("the body is no JSON: {error}")),
        })?;
        Ok(Self { value, bytes })
    }
}

fn unread(rejection: &BytesRejection) -> Error {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Error::new(Reason::TooLarge, "the body is larger than limits.body_bytes_max")
    } else {
        Error::new(Reason::Malformed, "the body broke off")
    }
}

impl<T: DeserializeOwned> FromRequestParts<Arc<Billing>> for Params<T> {
    type Rejection = Stop;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Billing>) -> Result<Self, Stop> {
        let Query(value) = Query::try_from_uri(&parts.uri)
            .map_err(|rejection| Error::new(Reason::Malformed, format!("the query: {}", rejection.body_text())))?;
        Ok(Self(value))
    }
}
