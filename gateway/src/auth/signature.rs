//! Who sent a webhook: the Chatwoot channel whose secret signed it.
//!
//! The signature is an HMAC-SHA256 of the timestamp header, a dot and the body's raw bytes, so it is checked before
//! anything is parsed. A delivery does not say which of a tenant's channels it is for: each secret is tried, the
//! secrets still accepted after a rotation too. Chatwoot signs every attempt anew, so an old timestamp is a replay.
//!
//! Missing, malformed, stale and forged are one outcome, as are an unknown tenant and a tenant without a match: the
//! caller passes no channels then, and the same work is done.

use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderValue};
use secrecy::ExposeSecret as _;
use sha2::Sha256;

use crate::config::Channel;
use crate::error::{Error, Reason};

/// `sha256=` and the signature in hex.
pub const SIGNATURE: &str = "x-chatwoot-signature";
/// When it was signed: Unix seconds.
pub const TIMESTAMP: &str = "x-chatwoot-timestamp";
/// How far a delivery's timestamp may be from our clock, either way: clocks that drift, and the 6 s of retries.
const WINDOW_MS: i64 = 300_000;
/// Stands in where there is no secret, so that an unknown tenant costs what a known one does.
const NO_SECRET: &[u8] = b"no channel has this secret";

/// The channel that signed this delivery.
///
/// `now_ms` is the clock's wall time. Fails with [`Reason::BadSignature`], whatever is wrong.
pub fn verify<'a>(
    channels: impl IntoIterator<Item = &'a Arc<Channel>>,
    headers: &HeaderMap,
    body: &[u8],
    now_ms: i64,
) -> Result<&'a Arc<Channel>, Error> {
    let timestamp = only(headers, TIMESTAMP).map(HeaderValue::as_bytes).unwrap_or_default();
    let signature = only(headers, SIGNATURE).and_then(parse_signature);
    let fresh = parse_seconds(timestamp)
        .is_some_and(|seconds| now_ms.saturating_sub(seconds.saturating_mul(1000)).abs() <= WINDOW_MS);
    let (Some(signature), true) = (signature, fresh) else { return Err(unverified()) };
    let mut tried = false;
    for channel in channels {
        for secret in &channel.webhook_secrets {
            tried = true;
            if signs(secret.expose_secret().as_bytes(), timestamp, body, &signature) {
                return Ok(channel);
            }
        }
    }
    if !tried {
        let _ = signs(NO_SECRET, timestamp, body, &signature);
    }
    Err(unverified())
}

/// The signature header of a body, as Chatwoot makes it; `timestamp` is the other header's value.
pub fn sign(secret: &[u8], timestamp: &[u8], body: &[u8]) -> String {
    let Some(mac) = mac(secret, timestamp, body) else { return String::new() };
    let digits = mac.finalize().into_bytes().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).fold("sha256=".to_owned(), |mut text, digit| {
        text.push(digit);
        text
    })
}

/// The header's value, unless it stands twice: two readers could then believe different ones.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Compares in constant time.
fn signs(secret: &[u8], timestamp: &[u8], body: &[u8], signature: &[u8; 32]) -> bool {
    // An empty secret signs nothing.
    mac(secret, timestamp, body).is_some_and(|mac| mac.verify_slice(signature).is_ok()) && !secret.is_empty()
}

/// Of what is signed. HMAC takes a key of any length, so there is always one.
fn mac(secret: &[u8], timestamp: &[u8], body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    mac.update(timestamp);
    mac.update(b".");
    mac.update(body);
    Some(mac)
}

/// `sha256=` and 64 hexadecimal digits.
fn parse_signature(header: &HeaderValue) -> Option<[u8; 32]> {
    let digits = header.as_bytes().strip_prefix(b"sha256=")?;
    let mut signature = [0; 32];
    let (pairs, rest) = digits.as_chunks::<2>();
    if pairs.len() != signature.len() || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in signature.iter_mut().zip(pairs) {
        let digit = |c: u8| char::from(c).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(signature)
}

/// Digits only: no sign, no space, nothing that two parsers could read differently.
fn parse_seconds(timestamp: &[u8]) -> Option<i64> {
    if timestamp.is_empty() || timestamp.len() > 12 || !timestamp.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(timestamp).ok()?.parse().ok()
}

/// A delivery that does not verify, whatever is wrong with it.
pub fn unverified() -> Error {
    Error::new(Reason::BadSignature, "The delivery could not be verified.")
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::config::{Agent, AgentKind, Handoff};

    /// Computed with two other tools.
    const BODY: &[u8] = br#"{"event":"message_created","id":90001,"content":"a \u003c b"}"#;
    const SIGNED: &str = "sha256=1aa680ac5174d1d8edfb3c79b803685262900f4762a1f896708e0c74496aec4d";
    const SECRET: &str = "example-secret";
    const AT_S: i64 = 1_781_774_100;

    fn channel(name: &str, secrets: &[&str]) -> Arc<Channel> {
        Arc::new(Channel {
            name: name.to_owned(),
            kind: relais_policies::ChannelKind::SelfHosted,
            url: "http://127.0.0.1:3000".parse().unwrap(),
            account_id: 1,
            bot_id: 7,
            bot_token: "token".into(),
            webhook_secrets: secrets.iter().map(|secret| SecretString::from(*secret)).collect(),
            user_token: None,
            path_token: None,
            agent: Arc::new(Agent {
                id: "a".to_owned(),
                kind: AgentKind::Knowledge { dir: ".".into() },
                fallback: Vec::new(),
            }),
            choices: Vec::new(),
            handoff: Handoff {
                team_id: None,
                teams: Default::default(),
                unreadable: Default::default(),
                message: String::new(),
                notice: String::new(),
                quota_notice: String::new(),
            },
            idle: crate::config::Idle::default(),
        })
    }

    fn headers(timestamp: &str, signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TIMESTAMP, timestamp.parse().unwrap());
        headers.insert(SIGNATURE, signature.parse().unwrap());
        headers
    }

    fn check(channels: &[Arc<Channel>], headers: &HeaderMap, body: &[u8], now_s: i64) -> Option<String> {
        match verify(channels, headers, body, now_s * 1000) {
            Ok(channel) => Some(channel.name.clone()),
            Err(error) => {
                assert_eq!(
                    (error.reason, error.message.as_ref()),
                    (Reason::BadSignature, "The delivery could not be verified.")
                );
                None
            }
        }
    }

    #[test]
    fn the_known_signature_names_its_channel() {
        let channels = [channel("other", &["x", "y"]), channel("main", &["new", SECRET])];
        let signed = headers(&AT_S.to_string(), SIGNED);
        assert_eq!(check(&channels, &signed, BODY, AT_S).as_deref(), Some("main"));
        assert_eq!(sign(SECRET.as_bytes(), AT_S.to_string().as_bytes(), BODY), SIGNED);
        assert_eq!(check(&channels, &headers(&AT_S.to_string(), &SIGNED.to_uppercase()), BODY, AT_S), None);
    }

    #[test]
    fn the_window_is_five_minutes_either_way() {
        let channels = [channel("main", &[SECRET])];
        let signed = headers(&AT_S.to_string(), SIGNED);
        for (now, expected) in [(AT_S + 300, true), (AT_S - 300, true), (AT_S + 301, false), (AT_S - 301, false)] {
            assert_eq!(check(&channels, &signed, BODY, now).is_some(), expected, "{}", now - AT_S);
        }
    }

    #[test]
    fn whatever_is_wrong_is_one_outcome() {
        let channels = [channel("main", &[SECRET, ""])];
        let at = AT_S.to_string();
        let hex = SIGNED.trim_start_matches("sha256=");
        let forged = [
            HeaderMap::new(),
            headers(&at, hex),
            headers(&at, &format!("sha256={}", &hex[1..])),
            headers(&at, &format!("{SIGNED}00")),
            headers(&at, &SIGNED.replace('1', "g")),
            headers(&at, &SIGNED.replacen('1', "2", 1)),
            headers(&(AT_S + 1).to_string(), SIGNED),
            headers(&format!("+{at}"), SIGNED),
            headers(&format!("{at} "), SIGNED),
            headers("", SIGNED),
            headers("99999999999999999999", SIGNED),
        ];
        for headers in &forged {
            assert_eq!(check(&channels, headers, BODY, AT_S), None, "{headers:?}");
        }
        let signed = headers(&at, SIGNED);
        assert_eq!(check(&channels, &signed, b"{}", AT_S), None);
        assert_eq!(check(&[], &signed, BODY, AT_S), None);
        assert_eq!(check(&[channel("unsigned", &[])], &signed, BODY, AT_S), None);
    }

    #[test]
    fn a_header_that_stands_twice_does_not_verify() {
        let channels = [channel("main", &[SECRET])];
        let at = AT_S.to_string();
        for (name, value) in [(SIGNATURE, SIGNED), (TIMESTAMP, at.as_str()), (SIGNATURE, "sha256="), (TIMESTAMP, "0")] {
            let mut headers = headers(&at, SIGNED);
            headers.append(name, value.parse().unwrap());
            assert_eq!(check(&channels, &headers, BODY, AT_S), None, "{headers:?}");
        }
    }

    #[test]
    fn what_the_fake_signs_verifies() {
        let at = AT_S.to_string();
        let signed = relais_loadtest::fakes::chatwoot::sign(SECRET, &at, BODY);
        assert!(check(&[channel("main", &[SECRET])], &headers(&at, &signed), BODY, AT_S).is_some(), "{signed}");
    }

    #[test]
    fn an_empty_secret_verifies_nothing() {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"").unwrap();
        mac.update(format!("{AT_S}.").as_bytes());
        mac.update(BODY);
        let hex: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let signed = headers(&AT_S.to_string(), &format!("sha256={hex}"));
        assert_eq!(check(&[channel("main", &[""])], &signed, BODY, AT_S), None);
    }
}
