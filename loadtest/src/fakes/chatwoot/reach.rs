//! Which addresses a webhook may go to: Chatwoot's block on private networks, and its way with redirects.
//!
//! A host must have at least one public address unless the operator allows private ones. A redirect is followed with
//! the same POST, body and signature, and every address on the way is checked like the first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::Uri;
use http::header::{HeaderMap, LOCATION};

/// Redirects followed at most.
pub(super) const REDIRECTS_MAX: usize = 10;

/// Why a webhook may not go to a URL, or nothing.
pub(super) async fn refusal(url: &Uri) -> Option<String> {
    let host = url.host()?.trim_matches(['[', ']']).to_owned();
    let port = url.port_u16().unwrap_or(80);
    let addresses = match tokio::net::lookup_host((host.as_str(), port)).await {
        Ok(addresses) => addresses,
        Err(error) => return Some(format!("Could not resolve hostname '{host}': {error}")),
    };
    let reachable = addresses.into_iter().any(|address| is_public(address.ip()));
    (!reachable).then(|| format!("Hostname '{host}' has no public ip addresses"))
}

/// Where an answer sends the caller on to: an absolute URL, or a path on the same host.
pub(super) fn redirected(from: &Uri, status: u16, headers: &HeaderMap) -> Option<String> {
    if !(300..400).contains(&status) {
        return None;
    }
    let location = headers.get(LOCATION)?.to_str().ok()?;
    if location.starts_with('/') {
        return Some(format!("{}://{}{location}", from.scheme_str()?, from.authority()?));
    }
    Some(location.to_owned())
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => is_public_v4(mapped),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let octets = address.octets();
    let reserved = match octets {
        [0 | 10 | 127 | 224.., ..] | [169, 254, ..] | [192, 168, ..] | [198, 18 | 19, ..] => true,
        [100, second, ..] => (64..128).contains(&second),
        [172, second, ..] => (16..32).contains(&second),
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        _ => false,
    };
    !reserved
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let documentation = first == 0x2001 && second == 0x0db8;
    let local = first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80 || first & 0xff00 == 0xff00;
    !(address.is_loopback() || address.is_unspecified() || documentation || local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_not_public() {
        for blocked in [
            "127.0.0.1",
            "10.1.2.3",
            "172.31.0.1",
            "192.168.0.9",
            "100.64.0.1",
            "169.254.1.1",
            "192.0.2.1",
            "198.19.0.1",
            "224.0.0.1",
            "0.0.0.0",
            "::1",
            "fd00::1",
            "fe80::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(!is_public(blocked.parse().unwrap()), "{blocked}");
        }
        for open in ["9.9.9.9", "172.32.0.1", "100.128.0.1", "2620:fe::fe"] {
            assert!(is_public(open.parse().unwrap()), "{open}");
        }
    }
}
