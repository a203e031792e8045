//! The sections that are there once: addresses, threads, waits, bounds, logs.
//!
//! The schema has held each number within its bounds; here it is asked whether they fit each other.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use relais_policies::{Rate, RateCard};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tracing_subscriber::EnvFilter;

use super::raw::{
    RawCors, RawInbox, RawListen, RawLog, RawLogFormat, RawRelay, RawRuntime, RawSweep, RawTimeouts, RawTls,
};
use super::report::{Place, Report};
use super::text::{self, Origin};
use super::{Cors, Inbox, Listen, Log, Relay, Runtime, Sweep, Timeouts, TlsFiles};

pub(super) fn listen(raw: RawListen, place: &Place<'_>, origin: Origin<'_>, report: &mut Report) -> Option<Listen> {
    let public = address(&raw.public, &place.key("public"), report);
    let admin = address(&raw.admin, &place.key("admin"), report);
    if let (Some(public), Some(admin)) = (public, admin)
        && public == admin
        && public.port() != 0
    {
        report.add(&place.key("admin"), "is the public address too; metrics and operations must not be public");
    }
    let tls = match raw.tls {
        Some(raw) => Some(tls(&raw, &place.key("tls"), origin, report)?),
        None => None,
    };
    Some(Listen { public: public?, admin: admin?, tls })
}

fn address(written: &str, place: &Place<'_>, report: &mut Report) -> Option<SocketAddr> {
    let address = written.parse().ok();
    if address.is_none() {
        report.add(place, "expected an IP address and a port, such as 127.0.0.1:8080 or [::]:8080");
    }
    address
}

/// Reads both files once: a certificate that does not go with its key is found here, not by the first client.
fn tls(raw: &RawTls, place: &Place<'_>, origin: Origin<'_>, report: &mut Report) -> Option<TlsFiles> {
    let cert = origin.path(raw.cert.as_ref()?);
    let key = origin.path(raw.key.as_ref()?);
    let chain = CertificateDer::pem_file_iter(&cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = match chain {
        Ok(chain) if chain.is_empty() => {
            report.add(&place.key("cert"), format!("{} holds no certificate", cert.display()));
            None
        }
        Ok(chain) => Some(chain),
        Err(error) => {
            report.add(&place.key("cert"), format!("{} cannot be read: {error}", cert.display()));
            None
        }
    };
    let private_key = match PrivateKeyDer::from_pem_file(&key) {
        Ok(private_key) => Some(private_key),
        Err(error) => {
            report.add(&place.key("key"), format!("{} cannot be read: {error}", key.display()));
            None
        }
    };
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    if let Err(error) = CertifiedKey::from_der(chain?, private_key?, &provider) {
        report.add(place, format!("the certificate and the key do not serve: {error}"));
    }
    Some(TlsFiles { cert, key })
}

pub(super) fn runtime(raw: &RawRuntime) -> Runtime {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    Runtime {
        workers: raw.workers.unwrap_or_else(cores),
        per_core: raw.per_core,
        background_workers: raw.background_workers,
    }
}

pub(super) fn timeouts(raw: &RawTimeouts, place: &Place<'_>, report: &mut Report) -> Timeouts {
    for (key, part) in
        [("connect_ms", raw.connect_ms), ("first_byte_ms", raw.first_byte_ms), ("stall_ms", raw.stall_ms)]
    {
        at_most(key, part, "total_ms", raw.total_ms, place, report);
    }
    Timeouts {
        header: Duration::from_millis(raw.header_ms),
        body_stall: Duration::from_millis(raw.body_stall_ms),
        idle: Duration::from_millis(raw.idle_ms),
        tls: Duration::from_millis(raw.tls_ms),
        write_stall: Duration::from_millis(raw.write_stall_ms),
        connect: Duration::from_millis(raw.connect_ms),
        first_byte: Duration::from_millis(raw.first_byte_ms),
        stall: Duration::from_millis(raw.stall_ms),
        total: Duration::from_millis(raw.total_ms),
        drain: Duration::from_millis(raw.drain_ms),
    }
}

pub(super) fn inbox(raw: &RawInbox, place: &Place<'_>, report: &mut Report) -> Inbox {
    at_most("batch_max", raw.batch_max, "queue_max", raw.queue_max, place, report);
    Inbox {
        queue_max: raw.queue_max,
        batch_max: raw.batch_max,
        ack_wait: Duration::from_millis(raw.ack_wait_ms),
        pending_max: raw.pending_max,
        keep: Duration::from_secs(raw.keep_hours.saturating_mul(3_600)),
    }
}

pub(super) fn relay(raw: &RawRelay, place: &Place<'_>, report: &mut Report) -> Relay {
    at_most("burst_ms", raw.burst_ms, "burst_max_ms", raw.burst_max_ms, place, report);
    at_most("turns_per_tenant_max", raw.turns_per_tenant_max, "turns_max", raw.turns_max, place, report);
    Relay {
        lanes_max: raw.lanes_max,
        turns_max: raw.turns_max,
        turns_per_tenant_max: raw.turns_per_tenant_max,
        burst: Duration::from_millis(raw.burst_ms),
        burst_max: Duration::from_millis(raw.burst_max_ms),
        agent_wait: Duration::from_millis(raw.agent_wait_ms),
        agent_tries: raw.agent_tries,
        chatwoot_wait: Duration::from_millis(raw.chatwoot_wait_ms),
        chatwoot_tries: raw.chatwoot_tries,
        chatwoot_calls_per_minute: NonZeroU32::new(raw.chatwoot_calls_per_minute).unwrap_or(NonZeroU32::MIN),
        chatwoot_pause: Duration::from_millis(raw.chatwoot_pause_ms),
        loop_window: Duration::from_millis(raw.loop_window_ms),
        loop_turns_max: raw.loop_turns_max,
        loop_flips_max: raw.loop_flips_max,
        typing_every: Duration::from_millis(raw.typing_every_ms),
        voice_wait: Duration::from_millis(raw.voice_wait_ms),
        history_max: raw.history_max,
    }
}

pub(super) fn sweep(raw: &RawSweep) -> Sweep {
    Sweep {
        missed_age_max: Duration::from_secs(raw.missed_hours.saturating_mul(3_600)),
        missed_calm: Duration::from_millis(raw.missed_calm_ms),
        conversations_max: raw.conversations_max,
        channels_at_once: raw.channels_at_once,
        idle_every: Duration::from_millis(raw.idle_every_ms),
        idle_per_run_max: raw.idle_per_run_max,
    }
}

pub(super) fn cors(raw: RawCors, place: &Place<'_>, report: &mut Report) -> Cors {
    for (index, origin) in raw.origins.iter().enumerate() {
        if origin != "*" && !is_origin(origin) {
            let message = "is no origin: write the scheme and the host as a browser does, in small letters and without a \
                           path (https://app.example.com), or * for any";
            report.add(&place.key("origins").item(index), message);
        }
    }
    Cors { origins: raw.origins }
}

/// What a browser would send as `Origin`: compared byte for byte, so anything else would never match.
fn is_origin(text: &str) -> bool {
    let Some((scheme @ ("http" | "https"), host)) = text.split_once("://") else { return false };
    let authority = host.parse::<http::uri::Authority>();
    let default_port = if scheme == "http" { 80 } else { 443 };
    !text.contains(char::is_uppercase)
        && !host.contains(['@', '*'])
        && authority.is_ok_and(|authority| !authority.host().is_empty() && authority.port_u16() != Some(default_port))
}

pub(super) fn log(raw: RawLog, place: &Place<'_>, report: &mut Report) -> Log {
    if let Err(error) = EnvFilter::builder().parse(&raw.level) {
        report.add(&place.key("level"), format!("is no level and no filter: {error}"));
    }
    Log { level: raw.level, access: raw.access, json: raw.format == RawLogFormat::Json }
}

/// The rate card; empty if something was wrong with it.
pub(super) fn rate_card(rates: Vec<Rate>, place: &Place<'_>, report: &mut Report) -> RateCard {
    let mut good = true;
    for (index, rate) in rates.iter().enumerate() {
        let place = place.item(index).key("model");
        let stem = rate.model.strip_suffix('*').unwrap_or(&rate.model);
        if rate.model.is_empty() || stem.contains('*') {
            report.add(&place, text::MODEL_PATTERN);
            good = false;
        }
        if rates.iter().take(index).any(|other| other.model == rate.model) {
            report.add(&place, "there is a rate for the same models already; remove one");
            good = false;
        }
    }
    RateCard::new(if good { rates } else { Vec::new() })
}

fn at_most<T: PartialOrd + std::fmt::Display>(
    key: &str,
    value: T,
    bound_key: &str,
    bound: T,
    place: &Place<'_>,
    report: &mut Report,
) {
    if value > bound {
        report.add(&place.key(key), format!("{value} is more than {bound_key}, which is {bound}"));
    }
}
