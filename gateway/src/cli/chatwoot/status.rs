//! `relais chatwoot status`: how each connected channel stands, here and at its Chatwoot. Changes nothing.
//!
//! What is at Chatwoot takes an administrator's token: one that is given, or the channel's own. Without one, what is
//! known here is told, and that the rest was not looked at.

use jiff::Timestamp;
use relais_gateway::chatwoot::admin::{Account, Bot};
use relais_gateway::config::Channel;
use relais_gateway::inbox::report::{Report, ReportError};
use secrecy::{ExposeSecret as _, SecretString};

use super::steps::{Failed, Steps};
use super::{Context, StatusOf, address, advice, note_settings, self_test};

/// Looked at, at most.
const INBOXES_MAX: usize = 500;

pub(super) async fn run(cx: &Context<'_>, arguments: &StatusOf, steps: &mut Steps) -> Result<(), Failed> {
    let given = match arguments.token.read() {
        Ok(given) => given,
        Err(error) => return Err(steps.fail("token", &format!("{error:#}"), "Mend it, then run this again.")),
    };
    let mut count = 0;
    let mut done = Ok(());
    for tenant in cx.config.tenants.iter().filter(|of| arguments.tenant.as_deref().is_none_or(|id| *of.id == *id)) {
        let wanted = |of: &&std::sync::Arc<Channel>| arguments.channel.as_ref().is_none_or(|name| of.name == *name);
        for channel in tenant.channels.iter().filter(wanted) {
            count += 1;
            steps.about(&tenant.id, &channel.name);
            here(cx, &tenant.id, channel, steps);
            let Some(token) = given.clone().or_else(|| channel.user_token.clone()) else {
                let what = "not looked at: that takes an administrator's token (--token-file, RELAIS_CHATWOOT_TOKEN, or \
                    one kept by connect --keep-user-token)";
                steps.note("chatwoot", what);
                continue;
            };
            // One channel in trouble hides no other.
            done = done.and(there(cx, &tenant.id, channel, token, steps).await);
        }
    }
    if count == 0 {
        let todo = "`relais chatwoot connect` connects one.";
        return Err(steps.fail("configuration", "no such Chatwoot channel is configured", todo));
    }
    done
}

/// What is known without asking anybody.
fn here(cx: &Context<'_>, tenant: &str, channel: &Channel, steps: &mut Steps) {
    match (channel.webhook_secrets.is_empty(), &channel.path_token) {
        (false, _) => steps.ok("secret", "the bot's secret is kept: deliveries are verified by signature"),
        (true, _) => steps.note("secret", "none is kept: the unguessable address is all that keeps strangers out"),
    }
    let last = Report::open(&cx.config.storage.dir).and_then(|inbox| inbox.last_delivery_ms(tenant, &channel.name));
    match last {
        Ok(Some(at_ms)) => {
            let at = Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH);
            steps.ok("deliveries", &format!("the last one came at {at:.0}"));
        }
        Ok(None) | Err(ReportError::NoInbox(_)) => {
            steps.note("deliveries", "none came within inbox.keep_hours");
        }
        Err(error) => steps.note("deliveries", &format!("not known: {error}")),
    }
}

/// What is at Chatwoot.
async fn there(
    cx: &Context<'_>,
    tenant: &str,
    channel: &Channel,
    token: SecretString,
    steps: &mut Steps,
) -> Result<(), Failed> {
    let account = cx.admin(&channel.url, token).account(channel.account_id);
    let bots = account.bots().await.map_err(|error| steps.fail("chatwoot", &error.to_string(), &advice(&error)))?;
    let Some(bot) = bots.iter().find(|bot| bot.id == channel.bot_id) else {
        let what = format!("the bot {} is gone from the account {}", channel.bot_id, channel.account_id);
        return Err(steps.fail("bot", &what, "Run `relais chatwoot connect` again, which makes another."));
    };
    steps.ok("bot", &format!("{} \"{}\" is there", bot.id, bot.name));
    let agrees = agrees(tenant, channel, bot, steps);
    let seated = inboxes(&account, bot, steps).await;
    agrees.and(seated)
}

/// Whether Chatwoot's bot is the one we know: address, token, secret.
fn agrees(tenant: &str, channel: &Channel, bot: &Bot, steps: &mut Steps) -> Result<(), Failed> {
    const AGAIN: &str = "Run `relais chatwoot connect` again, which sets it right.";
    let mut done = Ok(());
    let known = channel.path_token.as_ref().map(|token| token.expose_secret());
    match bot.outgoing_url.as_deref().and_then(|url| address::parts(url, tenant)) {
        Some((public, token)) if token.as_ref().is_none_or(|token| known == Some(token.expose_secret())) => {
            steps.ok("address", &format!("its webhooks go to {}/…", address::tenant(&public, tenant)));
        }
        Some(_) => done = Err(steps.fail("address", "its path token is not the channel's", AGAIN)),
        None => done = Err(steps.fail("address", "its webhooks do not go to this tenant's address", AGAIN)),
    }
    let same = |theirs: &SecretString, ours: &SecretString| theirs.expose_secret() == ours.expose_secret();
    if bot.access_token.as_ref().is_some_and(|token| !same(token, &channel.bot_token)) {
        done = Err(steps.fail("bot", "its token was changed at Chatwoot: replies are refused", AGAIN));
    }
    if let Some(secret) = &bot.secret
        && !channel.webhook_secrets.first().is_some_and(|ours| same(secret, ours))
    {
        done = Err(steps.fail("secret", "it is not the one Chatwoot signs with: deliveries are refused", AGAIN));
    }
    done
}

async fn inboxes(account: &Account, bot: &Bot, steps: &mut Steps) -> Result<(), Failed> {
    const STEP: &str = "inbox";
    let all = account.inboxes().await.map_err(|error| steps.fail(STEP, &error.to_string(), &advice(&error)))?;
    let mut seats = 0;
    for inbox in all.iter().filter(|inbox| !self_test::is_temporary(inbox)).take(INBOXES_MAX) {
        let seated = account.bot_of(inbox.id).await;
        let seated = seated.map_err(|error| steps.fail(STEP, &error.to_string(), &advice(&error)))?;
        if seated.is_some_and(|seated| seated.id == bot.id) {
            seats += 1;
            steps.ok(STEP, &format!("{} \"{}\" has our bot", inbox.id, inbox.name));
            note_settings(inbox, steps);
        }
    }
    if seats == 0 {
        let todo = "Run `relais chatwoot connect` again, or choose the bot in the inbox's settings.";
        return Err(steps.fail(STEP, "no inbox has our bot: no customer reaches the agent", todo));
    }
    Ok(())
}
