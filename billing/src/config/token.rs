//! Bearer tokens of operators and gateways: `rb_` and 52 random letters, of which only the hash is kept.
//!
//! Other than an API key a token has no public id: there are few, and each is compared. The hash has a context of its
//! own, so a token's hash is never a key's.

use secrecy::{ExposeSecret as _, SecretString};

/// Random bytes a new token is made from.
pub const TOKEN_RANDOM_BYTES: usize = 52;
/// What the hash is for.
const CONTEXT: &str = "relais billing token v1";
/// 32 letters: the low 5 bits of a random byte choose one fairly.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// A token just made: the only moment it exists outside its owner's hands.
#[derive(Debug)]
pub struct NewToken(SecretString);

impl NewToken {
    /// The token these random bytes make.
    pub fn from_random(random: &[u8; TOKEN_RANDOM_BYTES]) -> Self {
        let letters = random.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 31)));
        Self(SecretString::from(
            std::iter::once("rb_")
                .map(str::to_owned)
                .chain(letters.map(|l| char::from(*l).to_string()))
                .collect::<String>(),
        ))
    }

    /// The token, to be shown once.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The lines of the configuration that let it in. Hold no secret.
    pub fn toml(&self, name: &str, role: &str) -> String {
        let hash = blake3::Hash::from(token_hash(self.expose())).to_hex();
        let name = toml::Value::String(name.to_owned());
        format!("[[token]]\nname = {name}\nrole = \"{role}\"\nhash = \"{hash}\"\n")
    }
}

/// What is kept of a token.
pub fn token_hash(token: &str) -> [u8; 32] {
    blake3::derive_key(CONTEXT, token.as_bytes())
}
