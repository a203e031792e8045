//! Request ids: `req_` and 24 hex digits, on every answer and every access-log line.
//!
//! Unique within a process by a counter, across processes by a random start; the counter is scrambled
//! so that an id tells nobody how many requests came before. Not a secret, and no proof of anything.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

/// Gives out ids.
#[derive(Debug)]
pub struct RequestIds {
    /// Random per process.
    prefix: u32,
    /// Random start.
    next: AtomicU64,
}

/// One request's id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u8; 28]);

impl RequestIds {
    /// A source of ids of its own. Without the machine's randomness it starts at the process id, still unique here.
    pub fn new() -> Self {
        let mut seed = [0u8; 12];
        if getrandom::fill(&mut seed).is_err() {
            seed[..4].copy_from_slice(&std::process::id().to_be_bytes());
        }
        let (prefix, start) = seed.split_at(4);
        Self {
            prefix: prefix.iter().fold(0, |n, byte| (n << 8) | u32::from(*byte)),
            next: AtomicU64::new(start.iter().fold(0, |n, byte| (n << 8) | u64::from(*byte))),
        }
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        let n = scramble(self.next.fetch_add(1, Ordering::Relaxed));
        let mut text = *b"req_000000000000000000000000";
        let (_, digits) = text.split_at_mut(4);
        let (head, tail) = digits.split_at_mut(8);
        hex(u64::from(self.prefix), head);
        hex(n, tail);
        RequestId(text)
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("req_")
    }

    /// The id as a header's value.
    pub fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static("req_"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// splitmix64's finisher: a bijection, so ids stay unique.
fn scramble(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn hex(mut n: u64, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        let nibble = u8::try_from(n & 15).unwrap_or(0);
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
        n >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_of_one_shape() {
        let ids = RequestIds::new();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let id = ids.next();
            assert!(id.as_str().starts_with("req_") && id.as_str().len() == 28, "{id}");
            assert!(seen.insert(id.to_string()));
        }
    }
}
