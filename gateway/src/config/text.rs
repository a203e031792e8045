//! What a single text of the file means: a secret from elsewhere, an address, an instant, a name.
//!
//! Each function notes what is wrong at the place it was given and returns nothing then. Nothing here quotes a
//! secret: of `env:NAME` and `file:PATH` only the name and the path are shown.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use secrecy::{ExposeSecret as _, SecretString};

use super::report::{Place, Report};

/// A secret or prompt read from a file: more than any model's instructions, less than a mistaken path to a dump.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;
/// A configuration file: 100,000 tenants of 600 bytes.
pub(super) const CONFIG_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// As long as a label of a domain name.
const NAME_CHARS_MAX: usize = 63;

/// Where `env:` and `file:` lead.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    /// Paths are relative to this.
    pub(super) dir: &'a Path,
    /// Variables of the environment.
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
}

impl Origin<'_> {
    /// A path, made absolute or relative to where we were started.
    pub(super) fn path(&self, written: &Path) -> PathBuf {
        self.dir.join(written)
    }

    /// A text that may stand elsewhere. Line ends at its end are cut off, as editors add them. Never empty.
    pub(super) fn text(&self, written: &str, place: &Place<'_>, report: &mut Report) -> Option<String> {
        let text = if let Some(name) = written.strip_prefix("env:") {
            let Some(value) = (self.env)(name) else {
                report.add(place, format!("the variable {name} is not set"));
                return None;
            };
            value
        } else if let Some(path) = written.strip_prefix("file:") {
            let path = self.path(Path::new(path));
            match read_text(&path, TEXT_BYTES_MAX) {
                Ok(text) => text,
                Err(error) => {
                    report.add(place, format!("{} cannot be read: {error}", path.display()));
                    return None;
                }
            }
        } else {
            written.to_owned()
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.trim().is_empty() {
            report.add(place, format!("{} is empty", origin_of(written)));
            return None;
        }
        Some(text.to_owned())
    }

    /// A secret that may stand elsewhere.
    pub(super) fn secret(
        &self,
        written: &SecretString,
        place: &Place<'_>,
        report: &mut Report,
    ) -> Option<SecretString> {
        self.text(written.expose_secret(), place, report).map(SecretString::from)
    }

    /// A secret that is sent in a header.
    pub(super) fn token(&self, written: &SecretString, place: &Place<'_>, report: &mut Report) -> Option<SecretString> {
        let token = self.secret(written, place, report)?;
        if !token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) {
            let origin = origin_of(written.expose_secret());
            report.add(place, format!("{origin} holds a space or a character that cannot be sent in a header"));
            return None;
        }
        Some(token)
    }
}

/// What an error calls a text, without showing it.
fn origin_of(written: &str) -> String {
    match written.split_once(':') {
        Some(("env", name)) => format!("the variable {name}"),
        Some(("file", path)) => format!("the file {path}"),
        _ => "the text".to_owned(),
    }
}

/// A whole text file, if it is not too large.
pub(super) fn read_text(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read > bytes_max) {
        return Err(std::io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    Ok(text)
}

/// The address of a service: `http` or `https`, a host, no query and no user in it. A final slash is cut off.
pub(super) fn url(written: &str, place: &Place<'_>, report: &mut Report) -> Option<http::Uri> {
    let problem = match written.trim_end_matches('/').parse::<http::Uri>() {
        Err(error) => format!("is no address: {error}"),
        Ok(_) if written.contains('#') => "must not hold a #".to_owned(),
        Ok(uri) => match (uri.scheme_str(), uri.authority()) {
            (Some("http" | "https"), Some(authority)) if authority.host().is_empty() => "names no host".to_owned(),
            (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
                "must not hold a user or password".to_owned()
            }
            (Some("http" | "https"), Some(_)) if uri.query().is_some() => "must not hold a ?".to_owned(),
            (Some("http" | "https"), Some(_)) => return Some(uri),
            _ => "must begin with http:// or https:// and a host".to_owned(),
        },
    };
    report.add(place, format!("the address {problem}"));
    None
}

/// An instant: RFC 3339; without a zone, or a date alone, it is UTC. Unix ms.
pub(super) fn instant_ms(written: &str, place: &Place<'_>, report: &mut Report) -> Option<i64> {
    let instant = written.parse::<Timestamp>().ok().or_else(|| {
        let civil: DateTime = written.parse().ok()?;
        TimeZone::UTC.to_timestamp(civil).ok()
    });
    if instant.is_none() {
        report.add(place, "expected a date such as 2026-01-31 or an instant such as 2026-01-31T09:30:00Z");
    }
    instant.map(Timestamp::as_millisecond)
}

/// A name: small letters, digits and `extra`, beginning with a letter or digit.
pub(super) fn name(written: &str, extra: &str, place: &Place<'_>, report: &mut Report) -> bool {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let good = written.len() <= NAME_CHARS_MAX
        && written.starts_with(plain)
        && written.chars().all(|letter| plain(letter) || extra.contains(letter));
    if !good {
        let extra = extra.chars().map(|letter| format!("\"{letter}\"")).collect::<Vec<_>>().join(", ");
        report.add(
            place,
            format!("may hold small letters, digits and {extra}, begins with a letter or digit, and has 1 to {NAME_CHARS_MAX}"),
        );
    }
    good
}

pub(super) const MODEL_PATTERN: &str = "write a model's name, a name that ends in *, or *";

/// Model patterns: a name, a name that ends in `*`, or `*`.
pub(super) fn models(written: &[String], place: &Place<'_>, report: &mut Report) -> bool {
    let mut good = true;
    for (index, pattern) in written.iter().enumerate() {
        let stem = pattern.strip_suffix('*').unwrap_or(pattern);
        if pattern.is_empty() || stem.contains('*') {
            report.add(&place.item(index), MODEL_PATTERN);
            good = false;
        }
    }
    good
}
