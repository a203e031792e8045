//! Secrets at rest: tenants' tokens and stored answers are sealed before they reach the database.
//!
//! The keys come from the environment, never from the database: `ID:HEX[,ID:HEX…]`, 256 bits each. The first seals,
//! all open, so a key is rotated by putting a new one in front, sealing everything again (`secrets rotate`), and taking
//! the old one away. AES-256-GCM-SIV: a nonce that came twice would show only that two secrets are equal. What is sealed
//! is bound to its place (table and row), so a sealed text that is copied to another row does not open there.
//!
//! A sealed text reads `ID.NONCE.CIPHERTEXT`, in hex, so a search for the old id finds what is not rotated yet.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey};
use secrecy::zeroize::Zeroizing;

use crate::error::Error;

/// 256 bits.
const KEY_BYTES: usize = 32;
/// 96 bits.
const NONCE_BYTES: usize = 12;

/// Seals and opens.
pub struct Vault {
    /// The first one seals.
    keys: Vec<(String, RandomizedNonceKey)>,
}

/// Why the keys cannot be used. Quotes none of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Not `ID:HEX`.
    #[error("key {0} is not ID:HEX, with small letters and digits for the id; `relais-billing secrets new` makes one")]
    Form(usize),
    /// Not 64 hex digits.
    #[error("the key \"{0}\" has not 64 hex digits; `relais-billing secrets new` makes one")]
    Length(String),
    /// The same id twice.
    #[error("the key \"{0}\" is there twice")]
    Twice(String),
}

impl Vault {
    /// A vault with these keys, `ID:HEX[,ID:HEX…]`.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let mut keys: Vec<(String, RandomizedNonceKey)> = Vec::new();
        for (at, written) in text.split(',').enumerate() {
            let (id, hex) = written.trim().split_once(':').ok_or(KeysError::Form(at + 1))?;
            let well_formed = id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            if id.is_empty() || !well_formed {
                return Err(KeysError::Form(at + 1));
            }
            if keys.iter().any(|(other, _)| other == id) {
                return Err(KeysError::Twice(id.to_owned()));
            }
            let bytes = from_hex(hex).filter(|bytes| bytes.len() == KEY_BYTES);
            let bytes = Zeroizing::new(bytes.ok_or_else(|| KeysError::Length(id.to_owned()))?);
            let key = RandomizedNonceKey::new(&AES_256_GCM_SIV, &bytes);
            keys.push((id.to_owned(), key.map_err(|_| KeysError::Length(id.to_owned()))?));
        }
        Ok(Self { keys })
    }

    /// The id of the key that seals.
    pub fn current(&self) -> &str {
        self.keys.first().map_or("", |(id, _)| id)
    }

    /// Seals a text for this place, such as `channels/ID`.
    pub fn seal(&self, place: &str, plain: &[u8]) -> Result<String, Error> {
        let (id, key) = self.keys.first().ok_or_else(|| Error::internal("sealing a secret", "there is no key"))?;
        let mut bytes = plain.to_vec();
        let nonce = key
            .seal_in_place_append_tag(Aad::from(place), &mut bytes)
            .map_err(|unspecified| Error::internal("sealing a secret", unspecified))?;
        Ok(format!("{id}.{}.{}", hex(nonce.as_ref()), hex(&bytes)))
    }

    /// Opens what was sealed for this place.
    pub fn open(&self, place: &str, sealed: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
        let damaged = || Error::internal("opening a secret", format!("what is sealed at {place} is damaged"));
        let mut parts = sealed.split('.');
        let (Some(id), Some(nonce), Some(bytes), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(damaged());
        };
        let Some((_, key)) = self.keys.iter().find(|(known, _)| known == id) else {
            let message = format!("what is sealed at {place} needs the key \"{id}\", which is not configured");
            return Err(Error::internal("opening a secret", message));
        };
        let nonce: [u8; NONCE_BYTES] = from_hex(nonce).and_then(|bytes| bytes.try_into().ok()).ok_or_else(damaged)?;
        let mut bytes = Zeroizing::new(from_hex(bytes).ok_or_else(damaged)?);
        let length = key.open_in_place(Nonce::from(&nonce), Aad::from(place), &mut bytes).map_err(|_| damaged())?.len();
        bytes.truncate(length);
        Ok(bytes)
    }

    /// Whether this was sealed with the key that seals now.
    pub fn is_current(&self, sealed: &str) -> bool {
        sealed.split('.').next() == Some(self.current())
    }
}

/// Shows the ids only.
impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, digit: char) -> String {
        format!("{id}:{}", digit.to_string().repeat(64))
    }

    #[test]
    fn what_is_sealed_opens_at_its_place_and_nowhere_else() {
        let vault = Vault::parse(&key("k1", 'a')).unwrap();
        let sealed = vault.seal("channels/1", b"token").unwrap();
        assert!(sealed.starts_with("k1.") && !sealed.contains("746f6b656e"), "{sealed}");
        assert_eq!(&**vault.open("channels/1", &sealed).unwrap(), b"token");
        assert!(vault.open("channels/2", &sealed).is_err());
        assert_ne!(vault.seal("channels/1", b"token").unwrap(), sealed);
        assert_eq!(&**vault.open("x", &vault.seal("x", b"").unwrap()).unwrap(), b"");
        for damaged in ["", "k1", "k1..", "k1.00.00", &sealed[..sealed.len() - 2], &format!("{sealed}.00")] {
            assert!(vault.open("channels/1", damaged).is_err(), "{damaged}");
        }
        let mut flipped = sealed.clone();
        let last = if flipped.pop() == Some('0') { '1' } else { '0' };
        flipped.push(last);
        assert!(vault.open("channels/1", &flipped).is_err());
    }

    #[test]
    fn a_new_key_in_front_seals_and_the_old_one_still_opens() {
        let old = Vault::parse(&key("k1", 'a')).unwrap();
        let sealed = old.seal("x", b"token").unwrap();
        let both = Vault::parse(&format!("{},{}", key("k2", 'b'), key("k1", 'a'))).unwrap();
        assert_eq!(&**both.open("x", &sealed).unwrap(), b"token");
        assert!(!both.is_current(&sealed));
        let again = both.seal("x", b"token").unwrap();
        assert!(both.is_current(&again) && !old.is_current(&again));
        let missing = old.open("x", &again).unwrap_err();
        assert!(missing.causes().contains("\"k2\""), "{}", missing.causes());
        assert_eq!(format!("{both:?}"), "[\"k2\", \"k1\"]");
    }

    #[test]
    fn keys_that_are_none() {
        for (text, error) in [
            (String::new(), KeysError::Form(1)),
            ("k1".to_owned(), KeysError::Form(1)),
            ("K:00".to_owned(), KeysError::Form(1)),
            ("k1:00".to_owned(), KeysError::Length("k1".to_owned())),
            (key("k1", 'g'), KeysError::Length("k1".to_owned())),
            (format!("{},{}", key("k1", 'a'), key("k1", 'b')), KeysError::Twice("k1".to_owned())),
            (format!("{},", key("k1", 'a')), KeysError::Form(2)),
        ] {
            assert_eq!(Vault::parse(&text).unwrap_err(), error, "{text}");
        }
    }
}
