//! `relais chatwoot disconnect`: the bot leaves its inboxes, then goes, then the file does.
//!
//! In this order, so that whatever fails can be tried again with what the file still knows. A channel that the operator
//! wrote is not touched. What is pending stays pending: it is said, because humans do not see it.

use relais_gateway::chatwoot::admin::Account;

use super::file::OwnFile;
use super::steps::{Failed, Steps};
use super::{Context, Disconnect, advice};

pub(super) async fn run(cx: &Context<'_>, arguments: &Disconnect, steps: &mut Steps) -> Result<(), Failed> {
    const STEP: &str = "configuration";
    let channel = cx.channel(&arguments.tenant, &arguments.channel);
    let found = OwnFile::find(&cx.config, &arguments.tenant, &arguments.channel);
    let file = found.map_err(|error| steps.fail(STEP, &format!("{error:#}"), "Mend or remove that file."))?;
    let (file, channel) = match (file.filter(OwnFile::exists), channel) {
        (Some(file), Some(channel)) => (file, channel),
        (_, Some(_)) => {
            let what = "you wrote this channel yourself, so it is not touched";
            return Err(steps.fail(STEP, what, "Take it out of the configuration, and the bot out of its inboxes."));
        }
        (_, None) => {
            let what = format!("\"{}\" has no channel \"{}\"", arguments.tenant, arguments.channel);
            steps.unchanged(STEP, &what);
            return Ok(());
        }
    };
    let given = arguments.token.read();
    let given = given.map_err(|error| steps.fail("token", &format!("{error:#}"), "Mend it, then run this again."))?;
    let Some(token) = given.or_else(|| channel.user_token.clone()) else {
        let todo = "Give an administrator's access token by --token-file, RELAIS_CHATWOOT_TOKEN or --token.";
        return Err(steps.fail("token", "none was given, and none is kept", todo));
    };
    let account = cx.admin(&channel.url, token).account(channel.account_id);
    leave(&account, channel.bot_id, steps).await?;
    let deleted = account.delete_bot(channel.bot_id).await;
    match deleted.map_err(|error| steps.fail("bot", &error.to_string(), &advice(&error)))? {
        true => steps.changed("bot", &format!("{} is deleted", channel.bot_id)),
        false => steps.unchanged("bot", &format!("{} is gone already", channel.bot_id)),
    }
    file.remove().map_err(|error| steps.fail("file", &format!("{error:#}"), "Remove it yourself."))?;
    steps.changed("file", &format!("{} is removed", file.path.display()));
    Ok(())
}

async fn leave(account: &Account, bot_id: u64, steps: &mut Steps) -> Result<(), Failed> {
    const STEP: &str = "inbox";
    let all = account.inboxes().await.map_err(|error| steps.fail(STEP, &error.to_string(), &advice(&error)))?;
    let mut left = 0;
    for inbox in &all {
        let named = format!("{} \"{}\"", inbox.id, inbox.name);
        let seated = account.bot_of(inbox.id).await;
        let seated = seated.map_err(|error| steps.fail(STEP, &format!("{named}: {error}"), &advice(&error)))?;
        if seated.is_none_or(|seated| seated.id != bot_id) {
            continue;
        }
        let set = account.set_bot(inbox.id, None).await;
        set.map_err(|error| steps.fail(STEP, &format!("{named}: {error}"), &advice(&error)))?;
        steps.changed(STEP, &format!("{named} has no bot"));
        left += 1;
    }
    if left == 0 {
        steps.unchanged(STEP, "none has our bot");
    } else {
        let what = "conversations that are pending in them stay so, which humans see only under the filter \"Pending\": \
            open them there";
        steps.note(STEP, what);
    }
    Ok(())
}
