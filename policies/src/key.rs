//! API keys: their form, what is kept of them, and making new ones.
//!
//! A key reads `rk_live_<public id>_<secret>` or `rk_test_…`. The public id finds the key in one look-up, the
//! secret proves it. The secret has 256 random bits, so a fast hash is enough and no pepper has to be shared;
//! what is kept is the public id and the hash, and neither opens anything.
//!
//! Gateway and sidecar link this one text, so a key made by either opens the other (decision D3). Randomness comes
//! in as a value, as time does elsewhere in this crate. Comparing is not done here: whoever looks a key up does it in
//! constant time. `live` and `test` are words for people: the hash covers the secret alone.

use std::fmt;

use blake3::hazmat::HasherExt as _;

use secrecy::{ExposeSecret as _, SecretString};

/// Characters of the public id: 60 bits, so two of a million keys meet with a chance of one in two million.
pub const PUBLIC_ID_CHARS: usize = 12;
/// The shortest secret accepted. What [`NewKey::from_random`] makes is longer.
pub const SECRET_CHARS_MIN: usize = 32;
/// The longest secret read: a bound on what a stranger makes us hash.
pub const SECRET_CHARS_MAX: usize = 128;
/// 5 bits a character: 52 of them hold 260, the first whole number over 256.
const SECRET_CHARS_NEW: usize = 52;
/// Random bytes a new key is made from: one a character.
pub const RANDOM_BYTES: usize = PUBLIC_ID_CHARS + SECRET_CHARS_NEW;
/// Letters and digits without the four that are easily misread (0, 1, 8, 9 beside o, l, B, g): 32 of them.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// `hash_derive_key_context("relais api key v1")`, worked out once: half of the hashing of a key is the same for every
/// key. A test holds it against the words. Changing it makes every key kept so far useless.
const HASH_CONTEXT: blake3::hazmat::ContextKey = [
    0xa3, 0xbd, 0x37, 0xd2, 0x9c, 0x57, 0x3f, 0xf6, 0x60, 0x19, 0x34, 0xce, 0x36, 0x7c, 0x43, 0x18, 0xc9, 0xe5, 0x38,
    0xb4, 0xa5, 0x2c, 0xa5, 0x2c, 0xc1, 0x04, 0x39, 0xa3, 0xf4, 0x05, 0xce, 0xf3,
];

/// A key as a client sends it, taken apart. Well formed, which says nothing of its being known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ParsedKey<'a> {
    /// `rk_live_…` rather than `rk_test_…`.
    pub live: bool,
    /// Finds the key; not a secret.
    pub public_id: &'a [u8; PUBLIC_ID_CHARS],
    /// Proves it.
    pub secret: &'a [u8],
}

impl<'a> ParsedKey<'a> {
    /// Takes a key apart; `None` if it does not have the form. Allocates nothing and looks at each byte once.
    pub fn parse(key: &'a str) -> Option<Self> {
        let rest = key.as_bytes().strip_prefix(b"rk_")?;
        let (live, rest) = match rest.strip_prefix(b"live_") {
            Some(rest) => (true, rest),
            None => (false, rest.strip_prefix(b"test_")?),
        };
        let (public_id, rest) = rest.split_first_chunk::<PUBLIC_ID_CHARS>()?;
        let secret = rest.strip_prefix(b"_")?;
        let well_formed = (SECRET_CHARS_MIN..=SECRET_CHARS_MAX).contains(&secret.len())
            && public_id.iter().all(is_public_id_char)
            && secret.iter().all(u8::is_ascii_alphanumeric);
        well_formed.then_some(Self { live, public_id, secret })
    }

    /// What is kept of the secret.
    pub fn hash(&self) -> [u8; 32] {
        hash(self.secret)
    }
}

/// Shows no secret.
impl fmt::Debug for ParsedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParsedKey").field("public_id", &String::from_utf8_lossy(self.public_id)).finish_non_exhaustive()
    }
}

/// What is kept of a secret.
pub fn hash(secret: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new_from_context_key(&HASH_CONTEXT).update(secret).finalize().as_bytes()
}

/// A public id as written in a file; `None` if it does not have the form.
pub fn public_id(text: &str) -> Option<[u8; PUBLIC_ID_CHARS]> {
    let id: [u8; PUBLIC_ID_CHARS] = text.as_bytes().try_into().ok()?;
    id.iter().all(is_public_id_char).then_some(id)
}

/// A hash as written in a file: 64 hex digits; `None` if it does not have the form.
pub fn hash_from_hex(text: &str) -> Option<[u8; 32]> {
    blake3::Hash::from_hex(text).ok().map(Into::into)
}

fn is_public_id_char(byte: &u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// A key just made. The only moment its secret exists outside its owner's hands.
#[derive(Debug)]
pub struct NewKey {
    /// The whole key, to be shown once.
    pub key: SecretString,
    /// The public id.
    pub public_id: String,
    /// The hash, in hex.
    pub hash: String,
}

impl NewKey {
    /// The key that these random bytes make. They must come from the machine's own source and be used once.
    pub fn from_random(live: bool, random: &[u8; RANDOM_BYTES]) -> Self {
        let (public_id, secret) = random.split_at(PUBLIC_ID_CHARS);
        let (public_id, secret) = (letters(public_id), letters(secret));
        let kind = if live { "live" } else { "test" };
        Self::of(format!("rk_{kind}_{public_id}_{secret}"), public_id, &secret)
    }

    /// The key that takes the place of one with this public id: the same id, another secret. Only the last
    /// 52 of the random bytes are used. `None` if the id does not have the form.
    pub fn rotated(live: bool, public_id: &str, random: &[u8; RANDOM_BYTES]) -> Option<Self> {
        self::public_id(public_id)?;
        let secret = letters(random.split_at(PUBLIC_ID_CHARS).1);
        let kind = if live { "live" } else { "test" };
        Some(Self::of(format!("rk_{kind}_{public_id}_{secret}"), public_id.to_owned(), &secret))
    }

    fn of(key: String, public_id: String, secret: &str) -> Self {
        let hash = blake3::Hash::from(hash(secret.as_bytes())).to_hex().to_string();
        Self { key: SecretString::from(key), public_id, hash }
    }

    /// The lines of the configuration that let this key in. Holds no secret.
    pub fn toml(&self, name: &str) -> String {
        let name = toml::Value::String(name.to_owned());
        format!("[[tenant.key]]\nname = {name}\npublic_id = \"{}\"\nhash = \"{}\"\n", self.public_id, self.hash)
    }

    /// The whole key, to be shown to its owner.
    pub fn expose(&self) -> &str {
        self.key.expose_secret()
    }
}

/// 32 letters divide 256 evenly, so the low 5 bits of a random byte choose one fairly.
fn letters(random: &[u8]) -> String {
    random.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 31))).map(|letter| char::from(*letter)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_that_is_documented() {
        assert_eq!(hash(b"a secret"), blake3::derive_key("relais api key v1", b"a secret"));
    }

    #[test]
    fn what_is_a_key_and_what_is_not() {
        let good = "rk_test_000000000001_0123456789abcdef0123456789abcdef";
        let parsed = ParsedKey::parse(good).unwrap();
        assert_eq!((parsed.live, parsed.public_id), (false, b"000000000001"));
        assert_eq!(parsed.secret, b"0123456789abcdef0123456789abcdef");
        let long = format!("rk_live_000000000001_{}", "x".repeat(SECRET_CHARS_MAX + 1));
        let longest = long.strip_suffix('x').unwrap();
        assert!(ParsedKey::parse(longest).unwrap().live);
        for bad in [
            "",
            "rk_",
            "rk_test_",
            "rk_prod_000000000001_0123456789abcdef0123456789abcdef",
            "RK_test_000000000001_0123456789abcdef0123456789abcdef",
            "rk_test_00000000001_0123456789abcdef0123456789abcdef",
            "rk_test_0000000000001_0123456789abcdef0123456789abcdef",
            "rk_test_00000000000A_0123456789abcdef0123456789abcdef",
            "rk_test_000000000001_0123456789abcdef0123456789abcde",
            "rk_test_000000000001_0123456789abcdef0123456789abcde ",
            "rk_test_000000000001_0123456789abcdef0123456789abcdé",
            "rk_test_0000000000é1_0123456789abcdef0123456789abcdef",
            "sk-proj-0123456789abcdef0123456789abcdef",
            &long,
        ] {
            assert!(ParsedKey::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_new_key_is_found_again_by_what_is_kept_of_it() {
        let random = std::array::from_fn(|at| u8::try_from(at * 7 % 251).unwrap());
        for live in [true, false] {
            let new = NewKey::from_random(live, &random);
            let parsed = ParsedKey::parse(new.expose()).unwrap();
            assert_eq!(parsed.live, live);
            assert_eq!(Some(*parsed.public_id), public_id(&new.public_id));
            assert_eq!(Some(parsed.hash()), hash_from_hex(&new.hash));
            assert_eq!(parsed.secret.len(), SECRET_CHARS_NEW);
            let lines = new.toml("the \"ci\"");
            assert!(!lines.contains(std::str::from_utf8(parsed.secret).unwrap()));
            let read: toml::Table = toml::from_str(&lines).unwrap();
            assert_eq!(read["tenant"]["key"][0]["name"].as_str(), Some("the \"ci\""));
        }
        let (first, second) = (NewKey::from_random(true, &random), NewKey::from_random(true, &[9; RANDOM_BYTES]));
        assert_ne!(first.expose(), second.expose());
    }

    #[test]
    fn a_rotated_key_keeps_its_public_id_and_nothing_else() {
        let old = NewKey::from_random(true, &[3; RANDOM_BYTES]);
        let new = NewKey::rotated(true, &old.public_id, &[4; RANDOM_BYTES]).unwrap();
        assert_eq!(new.public_id, old.public_id);
        assert_ne!(new.hash, old.hash);
        assert_eq!(ParsedKey::parse(new.expose()).map(|key| key.hash()), hash_from_hex(&new.hash));
        assert!(NewKey::rotated(true, "not an id", &[4; RANDOM_BYTES]).is_none());
    }

    #[test]
    fn the_hash_stays_what_it_is() {
        // Kept in files and databases: a change here would lock every customer out.
        let hex = blake3::Hash::from(hash(b"0123456789abcdef0123456789abcdef")).to_hex().to_string();
        assert_eq!(
            hash_from_hex(&hex),
            Some(blake3::derive_key("relais api key v1", b"0123456789abcdef0123456789abcdef"))
        );
        assert!(hash_from_hex("00").is_none() && hash_from_hex(&"g".repeat(64)).is_none());
    }

    #[test]
    fn debug_shows_no_secret() {
        let parsed = ParsedKey::parse("rk_test_000000000001_0123456789abcdef0123456789abcdef").unwrap();
        assert_eq!(format!("{parsed:?}"), "ParsedKey { public_id: \"000000000001\", .. }");
    }
}
