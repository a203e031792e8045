//! The address that a bot's webhooks go to, and which of an account's bots is ours by it.
//!
//! `{public}/chatwoot/{tenant}/{path_token}`: the last part is a secret and is never shown.

use http::Uri;
use relais_gateway::chatwoot::admin::Bot;
use secrecy::{ExposeSecret as _, SecretString};

/// What a configuration takes for a path token.
const TOKEN_CHARS: std::ops::RangeInclusive<usize> = 24..=128;
/// 256 bits.
const RANDOM_BYTES: usize = 32;

/// `http` or `https`, a host, perhaps a path; without a final slash. What is wrong with it, if anything is.
pub(super) fn base(written: &str) -> Result<Uri, String> {
    let trimmed = written.trim_end_matches('/');
    let uri: Uri = trimmed.parse().map_err(|error| format!("{written} is no address: {error}"))?;
    let plain = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.authority().is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'))
        && uri.query().is_none()
        && !trimmed.contains('#');
    if plain { Ok(uri) } else { Err("it must be http:// or https:// and a host, without ?, # or a user".to_owned()) }
}

/// Where everything for a tenant goes.
pub(super) fn tenant(public: &Uri, tenant: &str) -> String {
    format!("{}/chatwoot/{tenant}", public.to_string().trim_end_matches('/'))
}

/// The whole address, secret included.
pub(super) fn whole(public: &Uri, tenant_id: &str, path_token: &SecretString) -> String {
    format!("{}/{}", tenant(public, tenant_id), path_token.expose_secret())
}

/// An unguessable last part.
pub(super) fn new_path_token() -> anyhow::Result<SecretString> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random)?;
    let digits = random.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let text: String = digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect();
    Ok(text.into())
}

/// The bots that send to this tenant's address, by number; `others` belong to channels of their own.
pub(super) fn ours<'b>(bots: &'b [Bot], of_tenant: &str, others: &[u64]) -> Vec<&'b Bot> {
    let fits = |bot: &&Bot| {
        let rest = bot.outgoing_url.as_deref().and_then(|url| url.strip_prefix(of_tenant));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) && !others.contains(&bot.id)
    };
    let mut found: Vec<&Bot> = bots.iter().filter(|bot| bot.account_id.is_some()).filter(fits).collect();
    found.sort_by_key(|bot| bot.id);
    found
}

/// The public address and path token in a bot's address, if it has our form.
pub(super) fn parts(outgoing_url: &str, tenant_id: &str) -> Option<(Uri, Option<SecretString>)> {
    let (public, rest) = outgoing_url.rsplit_once("/chatwoot/")?;
    let token = match rest.strip_prefix(tenant_id)? {
        "" => None,
        token => Some(token.strip_prefix('/')?).filter(|token| is_token(token)).map(SecretString::from),
    };
    Some((base(public).ok()?, token))
}

fn is_token(text: &str) -> bool {
    TOKEN_CHARS.contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bot(id: u64, account_id: Option<u64>, url: &str) -> Bot {
        let outgoing_url = Some(url.to_owned());
        Bot { id, name: String::new(), account_id, outgoing_url, access_token: None, secret: None }
    }

    #[test]
    fn a_bot_is_ours_by_its_address_and_by_nothing_less() {
        let public = base("https://relais.example/hooks/").unwrap();
        let of_tenant = tenant(&public, "acme");
        assert_eq!(of_tenant, "https://relais.example/hooks/chatwoot/acme");
        let bots = [
            bot(9, Some(1), &format!("{of_tenant}/abc")),
            bot(3, Some(1), &of_tenant),
            bot(4, Some(1), &format!("{of_tenant}-two/abc")),
            bot(5, None, &of_tenant),
            bot(6, Some(1), &format!("{of_tenant}/other")),
            bot(7, Some(1), "https://elsewhere.example/chatwoot/acme"),
        ];
        let found: Vec<u64> = ours(&bots, &of_tenant, &[6]).iter().map(|bot| bot.id).collect();
        assert_eq!(found, [3, 9]);
    }

    #[test]
    fn an_address_is_taken_apart_as_it_was_put_together() {
        let public = base("https://relais.example").unwrap();
        let token = new_path_token().unwrap();
        assert_ne!(token.expose_secret(), new_path_token().unwrap().expose_secret());
        let (read, found) = parts(&whole(&public, "acme", &token), "acme").unwrap();
        assert_eq!((read.to_string(), found.unwrap().expose_secret()), (public.to_string(), token.expose_secret()));
        assert!(parts("https://relais.example/chatwoot/acme/short", "acme").unwrap().1.is_none());
        assert!(parts("https://relais.example/chatwoot/acme-two", "acme").is_none());
        assert!(parts("https://other.example/bot", "acme").is_none());
        for wrong in ["relais.example", "ftp://relais.example", "https://a@relais.example", "https://r.example/?x=1"] {
            assert!(base(wrong).is_err(), "{wrong}");
        }
    }
}
