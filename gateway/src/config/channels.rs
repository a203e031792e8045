//! `[[tenant.chatwoot]]`: which Chatwoot we answer in, and as whom.

use std::collections::BTreeMap;
use std::time::Duration;

use relais_policies::ChannelKind;
use secrecy::{ExposeSecret as _, SecretString};

use super::agents::choices;
use super::raw::RawChannel;
use super::report::{Place, Report};
use super::text::{self, Origin};
use super::upstreams::{Entry, Named, reference};
use super::{Agent, Channel, Idle, handoffs};

/// 24 characters of 64: 144 bits if they are random.
const PATH_TOKEN_CHARS_MIN: usize = 24;
const PATH_TOKEN_CHARS_MAX: usize = 128;

/// The channels so far, to find what is there twice.
#[derive(Default)]
pub(super) struct Channels<'a> {
    /// Within the tenant, by name.
    names: BTreeMap<String, Place<'a>>,
    /// Within the tenant: addresses that would lead to two channels.
    path_tokens: Vec<(SecretString, Place<'a>)>,
    /// In all: two channels that are one bot would both answer a customer.
    bots: BTreeMap<(String, u64, u64), Place<'a>>,
}

impl Channels<'_> {
    /// Names and path tokens are a tenant's own.
    pub(super) fn next_tenant(&mut self) {
        self.names.clear();
        self.path_tokens.clear();
    }
}

/// One channel.
pub(super) fn channel<'a>(
    entry: Entry<'a, RawChannel>,
    kind: ChannelKind,
    agents: &Named<Agent>,
    channels: &mut Channels<'a>,
    report: &mut Report,
) -> Option<Channel> {
    let Entry { raw, place, origin } = entry;
    let url = raw.url.as_ref().and_then(|written| text::url(written, &place.key("url"), report));
    if let Some(name) = &raw.channel {
        text::name(name, "_-", &place.key("channel"), report);
        if let Some(first) = channels.names.insert(name.clone(), place.clone()) {
            let message = format!("this tenant has a channel \"{name}\" already ({}); rename one", first.said());
            report.add(&place.key("channel"), message);
        }
    }
    if let (Some(url), Some(account_id), Some(bot_id)) = (&url, raw.account_id, raw.bot_id)
        && let Some(first) = channels.bots.insert((url.to_string(), account_id, bot_id), place.clone())
    {
        let message = format!("{} is the same bot in the same account; both would answer", first.said());
        report.add(&place.key("bot_id"), message);
    }
    let mut token = |key: &str, written: &Option<SecretString>| optional(key, written, &place, origin, report);
    let bot_token = token("bot_token", &raw.bot_token);
    let user_token = token("user_token", &raw.user_token);
    let webhook_secret = token("webhook_secret", &raw.webhook_secret);
    let previous_secret = token("previous_webhook_secret", &raw.previous_webhook_secret);
    let path_token = token("path_token", &raw.path_token);
    if let Ok(Some(path_token)) = &path_token {
        check_path_token(path_token, &place.key("path_token"), channels, report);
    }
    if raw.webhook_secret.is_none() && raw.path_token.is_none() {
        let message = "missing: the secret that deliveries are signed with; a Chatwoot too old to sign needs a \
            path_token instead";
        report.add(&place.key("webhook_secret"), message);
    }
    if raw.webhook_secret.is_none() && raw.previous_webhook_secret.is_some() {
        report.add(&place.key("previous_webhook_secret"), "there is no webhook_secret that it would precede");
    }
    let agent = raw.agent.as_ref().and_then(|id| reference("agent", id, agents, &place, report));
    let choices = choices(raw.agents, agents, &place.key("agents"), report);
    let handoff = handoffs::handoff(raw.handoff.unwrap_or_default(), &place.key("handoff"), report);
    Some(Channel {
        name: raw.channel?,
        kind,
        url: url?,
        account_id: raw.account_id?,
        bot_id: raw.bot_id?,
        bot_token: bot_token.ok()??,
        webhook_secrets: webhook_secret.ok()?.into_iter().chain(previous_secret.ok()?).collect(),
        user_token: user_token.ok()?,
        path_token: path_token.ok()?,
        agent: agent?,
        choices: choices?,
        handoff: handoff?,
        idle: Idle {
            after: (raw.idle.after_minutes > 0).then(|| Duration::from_secs(raw.idle.after_minutes.saturating_mul(60))),
            answered: raw.idle.answered,
        },
    })
}

/// What is in error, and noted.
struct Noted;

fn optional(
    key: &str,
    written: &Option<SecretString>,
    place: &Place<'_>,
    origin: Origin<'_>,
    report: &mut Report,
) -> Result<Option<SecretString>, Noted> {
    match written {
        Some(written) => origin.token(written, &place.key(key), report).map(Some).ok_or(Noted),
        None => Ok(None),
    }
}

fn check_path_token<'a>(token: &SecretString, place: &Place<'a>, channels: &mut Channels<'a>, report: &mut Report) {
    let text = token.expose_secret();
    let lengths = PATH_TOKEN_CHARS_MIN..=PATH_TOKEN_CHARS_MAX;
    if !lengths.contains(&text.len())
        || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    {
        let message = format!(
            "has {PATH_TOKEN_CHARS_MIN} to {PATH_TOKEN_CHARS_MAX} letters, digits, _ and -; `openssl rand -hex 24` \
             makes one"
        );
        report.add(place, message);
    }
    if let Some((_, first)) = channels.path_tokens.iter().find(|(other, _)| other.expose_secret() == text) {
        report.add(place, format!("{} has the same token; each channel needs its own", first.said()));
    }
    channels.path_tokens.push((token.clone(), place.clone()));
}
