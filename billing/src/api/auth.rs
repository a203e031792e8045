//! Who asks: a bearer token of the configuration, and what its role may do.
//!
//! All tokens are compared, each in constant time, so an answer's time tells nothing about which one was nearly right.
//! Unknown and missing tokens are answered alike.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::Stop;
use crate::Billing;
use crate::config::{Role, Token, token_hash};
use crate::error::{Error, Reason};

/// Proof that a request came with a token that may do this.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token's name.
    pub name: Arc<str>,
    /// Its role.
    pub role: Role,
}

/// Lets a request through to an operation that needs this role.
pub(super) async fn require(
    State((billing, needed)): State<(Arc<Billing>, Role)>,
    mut request: Request,
    next: Next,
) -> Response {
    match authenticate(&billing.tokens, request.headers()) {
        Ok(caller) if caller.role.may(needed) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Ok(caller) => Stop::from(Error::new(Reason::Forbidden, refusal(&caller, needed))).into_response(),
        Err(error) => Stop::from(error).into_response(),
    }
}

fn refusal(caller: &Caller, needed: Role) -> String {
    let name = |role: Role| format!("{role:?}").to_lowercase();
    format!("\"{}\" is a {} token; this needs {}", caller.name, name(caller.role), name(needed))
}

fn authenticate(tokens: &[Token], headers: &HeaderMap) -> Result<Caller, Error> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let given = values.next().and_then(|value| value.to_str().ok()).and_then(bearer).unwrap_or_default();
    let hash = blake3::Hash::from(token_hash(given));
    // blake3 compares its hashes in constant time; every token is asked.
    let known = tokens.iter().fold(
        None,
        |known, token| {
            if blake3::Hash::from(token.hash) == hash { Some(token) } else { known }
        },
    );
    match known {
        Some(token) if values.next().is_none() => Ok(Caller { name: token.name.as_str().into(), role: token.role }),
        _ => Err(Error::new(Reason::BadToken, "send a token of the configuration as \"Authorization: Bearer rb_…\"")),
    }
}

/// The token of a `Bearer` scheme, whose name is written in any case.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start())
}
