//! Whose key this is.
//!
//! A key names itself by its public part; the secret part is hashed and compared in constant time. An unknown key
//! goes the same way, against a dummy, and ends in the same words: neither time nor answer tells the two apart.
//! What is kept is a hash of 256 random bits, so it need not be slow (decision D3).

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use relais_policies::key::{ParsedKey, hash};
use subtle::Choice;

use crate::error::{Error, Reason};
use crate::policy::{KeyState, Store};

/// Proof that a request came with a valid key.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The key, and the tenant behind it.
    pub key: Arc<KeyState>,
}

/// No key has this hash: it is not the hash of anything anybody knows.
const NOBODY: [u8; 32] = [0x5a; 32];

/// The caller of a request with these headers, at this Unix ms.
pub fn authenticate(store: &Store, headers: &HeaderMap, now_ms: i64) -> Result<Caller, Error> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let token = values.next().and_then(|value| value.to_str().ok()).and_then(bearer).unwrap_or_default();
    let parsed = ParsedKey::parse(token);
    let known = parsed.as_ref().and_then(|key| store.key(key.public_id));
    // What is not a key at all is hashed as if it were: a wrong form takes as long as a wrong secret.
    let given = hash(parsed.as_ref().map_or(&b"not a key"[..], |key| key.secret));
    let (expected, previous) = match known.as_deref().map(|known| &known.key) {
        Some(key) => (key.hash, key.previous.filter(|(_, until)| now_ms < *until).map_or(NOBODY, |(hash, _)| hash)),
        None => (NOBODY, NOBODY),
    };
    let matches = equal(given, expected) | equal(given, previous);
    match known {
        Some(key) if bool::from(matches) && values.next().is_none() => Ok(Caller { key }),
        _ => Err(Error::new(Reason::BadKey, "Incorrect API key provided. Send it as \"Authorization: Bearer rk_…\".")),
    }
}

/// In the same time whatever they are: blake3 compares its hashes so, and all 32 bytes at once.
fn equal(given: [u8; 32], kept: [u8; 32]) -> Choice {
    Choice::from(u8::from(blake3::Hash::from(given) == blake3::Hash::from(kept)))
}

/// The token of a `Bearer` scheme, whose name is written in any case.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start())
}
