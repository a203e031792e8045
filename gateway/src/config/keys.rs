//! `[[tenant.key]]`: from the key itself, or from what `relais key new` printed of it.

use std::collections::HashMap;

use relais_policies::key::{PUBLIC_ID_CHARS, ParsedKey, SECRET_CHARS_MIN, hash_from_hex, public_id};
use relais_policies::{KeyLimits, Limit, Shadowed};
use secrecy::{ExposeSecret as _, SecretString};

use super::Key;
use super::raw::RawKey;
use super::report::{Place, Report};
use super::text;
use super::upstreams::Entry;

/// Room for words, not for a page: the name is on every access-log line.
const NAME_BYTES_MAX: usize = 100;

type PublicId = [u8; PUBLIC_ID_CHARS];

/// One key. `places` holds the public ids so far: an id opens one tenant only.
pub(super) fn key<'a>(
    entry: Entry<'a, RawKey>,
    places: &mut HashMap<PublicId, Place<'a>>,
    report: &mut Report,
) -> Option<Key> {
    let current = current(&entry, report);
    if let Some((public_id, _)) = current {
        if let Some(first) = places.get(&public_id) {
            let message = format!("a key with this public id stands in {} already; make a new one", first.said());
            report.add(&entry.place, message);
        } else {
            places.insert(public_id, entry.place.clone());
        }
    }
    if let Some(name) = &entry.raw.name
        && (name.trim().is_empty() || name.len() > NAME_BYTES_MAX || name.contains(char::is_control))
    {
        let message =
            format!("is empty, longer than {NAME_BYTES_MAX} bytes or not plain text; it appears in usage and logs");
        report.add(&entry.place.key("name"), message);
    }
    let previous = previous(&entry, current.map(|(public_id, _)| public_id), report);
    if let Some(models) = &entry.raw.models {
        text::models(models, &entry.place.key("models"), report);
    }
    let limits = limits(&entry, report);
    let (public_id, hash) = current?;
    Some(Key { name: entry.raw.name?.into(), public_id, hash, previous, limits, models: entry.raw.models })
}

fn limits(entry: &Entry<'_, RawKey>, report: &mut Report) -> KeyLimits {
    let Entry { raw, place, .. } = entry;
    let limit = |written: Option<u64>| written.map_or(Limit::Unlimited, Limit::AtMost);
    for (index, shadowed) in raw.shadow.iter().enumerate() {
        let (key, given) = match shadowed {
            Shadowed::CallsPerMinute => ("calls_per_minute", raw.calls_per_minute),
            Shadowed::CallsPerMonth => ("calls_per_month", raw.calls_per_month),
            Shadowed::CallsInFlight => ("calls_in_flight", raw.calls_in_flight),
            Shadowed::TokensPerMonth => ("tokens_per_month", raw.tokens_per_month),
            Shadowed::ConversationsPerMonth => ("conversations_per_month", None),
        };
        if given.is_none() {
            let message =
                format!("the key has no {key} of its own; its tenant's is in shadow where the tenant says so");
            report.add(&place.key("shadow").item(index), message);
        }
    }
    KeyLimits {
        calls_per_minute: limit(raw.calls_per_minute),
        calls_per_month: limit(raw.calls_per_month),
        calls_in_flight: limit(raw.calls_in_flight),
        tokens_per_month: limit(raw.tokens_per_month),
        tokens_per_call: limit(raw.tokens_per_call),
        shadow: raw.shadow.iter().copied().collect(),
    }
}

fn current(entry: &Entry<'_, RawKey>, report: &mut Report) -> Option<(PublicId, [u8; 32])> {
    let Entry { raw, place, .. } = entry;
    match (&raw.secret, &raw.public_id, &raw.hash) {
        (Some(written), None, None) => parsed(entry, written, &place.key("secret"), report),
        (None, Some(id), Some(hash)) => {
            let parsed_id = public_id(id);
            if parsed_id.is_none() {
                report.add(&place.key("public_id"), format!("has {PUBLIC_ID_CHARS} small letters and digits"));
            }
            let parsed_hash = parsed_hash(hash, &place.key("hash"), report);
            Some((parsed_id?, parsed_hash?))
        }
        (Some(_), _, _) => {
            report.add(place, "give either secret, or public_id and hash, not both");
            None
        }
        (None, _, _) => {
            report.add(place, "give secret, or public_id and hash as `relais key new` prints them");
            None
        }
    }
}

fn previous(entry: &Entry<'_, RawKey>, current: Option<PublicId>, report: &mut Report) -> Option<([u8; 32], i64)> {
    let Entry { raw, place, .. } = entry;
    let until_place = place.key("previous_until");
    let until = raw.previous_until.as_ref().and_then(|text| text::instant_ms(text, &until_place, report));
    let hash = match (&raw.previous_secret, &raw.previous_hash) {
        (None, None) => {
            if raw.previous_until.is_some() {
                report.add(&until_place, "there is no previous_secret or previous_hash it could be about");
            }
            return None;
        }
        (Some(_), Some(_)) => {
            report.add(place, "give either previous_secret or previous_hash, not both");
            return None;
        }
        (None, Some(hash)) => parsed_hash(hash, &place.key("previous_hash"), report),
        (Some(written), None) => {
            let secret_place = place.key("previous_secret");
            let (public_id, hash) = parsed(entry, written, &secret_place, report)?;
            if current.is_some_and(|current| current != public_id) {
                report.add(&secret_place, "has another public id than the key; a rotated key keeps its public id");
            }
            Some(hash)
        }
    };
    if raw.previous_until.is_none() {
        report.add(&until_place, "missing: until when the previous key still opens");
    }
    Some((hash?, until?))
}

fn parsed(
    entry: &Entry<'_, RawKey>,
    written: &SecretString,
    place: &Place<'_>,
    report: &mut Report,
) -> Option<(PublicId, [u8; 32])> {
    let secret = entry.origin.secret(written, place, report)?;
    let Some(parsed) = ParsedKey::parse(secret.expose_secret()) else {
        let message = format!(
            "a key is rk_live_ or rk_test_, {PUBLIC_ID_CHARS} small letters and digits, _, and at least \
             {SECRET_CHARS_MIN} letters and digits; `relais key new` makes one"
        );
        report.add(place, message);
        return None;
    };
    Some((*parsed.public_id, parsed.hash()))
}

fn parsed_hash(written: &str, place: &Place<'_>, report: &mut Report) -> Option<[u8; 32]> {
    let hash = hash_from_hex(written);
    if hash.is_none() {
        report.add(place, "has 64 hex digits, as `relais key new` prints them");
    }
    hash
}
