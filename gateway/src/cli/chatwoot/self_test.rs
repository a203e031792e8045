//! Proves that webhooks arrive: a message in an inbox made for it comes back as a signed delivery, durable in our inbox.
//!
//! Chatwoot has no ping (contract 7.5). So an API inbox gets the bot, a contact, a conversation and a message, and
//! then `inbox.db` is looked into: a row there means sent, received, verified and on disk. The conversation is opened
//! first: the gateway then takes the message for a human's business, no agent is asked, and nobody is charged.
//!
//! If nothing comes, the inbox's own webhook is sent to the same address, for one reason: of that route, and not of a
//! bot's, Chatwoot tells why it failed. It is signed with another secret, so a gateway that is reached refuses it; hence
//! only then.
//!
//! Whatever was made is removed, also on failure and when interrupted; what a killed run left is removed by the next.

use std::time::Duration;

use relais_gateway::chatwoot::admin::{Account, AdminError, ChatwootInbox, Guest};
use relais_gateway::inbox::report::{Report, ReportError, Which};
use tokio::time::Instant;

use super::steps::{Failed, Steps};
use super::{Context, advice, interrupted};

const STEP: &str = "self-test";
/// By which what was left behind is found again.
const NAME: &str = "Relais self-test (temporary)";
const FIRST: &str = "Self-test of Relais: does this webhook arrive? It is deleted at once.";
const SECOND: &str = "Self-test of Relais: why does no webhook arrive? It is deleted at once.";
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// For the bot's delivery, once the other route's has failed.
const GRACE: Duration = Duration::from_secs(2);
/// A turn that has nothing to do is over long before.
const SETTLED_WAIT: Duration = Duration::from_secs(5);

/// What is proved.
pub(super) struct Proved<'a> {
    pub(super) account: &'a Account,
    pub(super) account_id: u64,
    pub(super) bot_id: u64,
    pub(super) tenant: &'a str,
    pub(super) channel: &'a str,
    /// Where the bot's webhooks go. A secret.
    pub(super) webhook: &'a str,
    /// The same, to be shown.
    pub(super) public: &'a str,
    pub(super) wait: Duration,
}

/// What came of it.
enum Verdict {
    /// It arrived, after so long.
    Arrived(Duration),
    /// It did not. Chatwoot's words, if it has any.
    Missing(Option<String>),
}

enum Broken {
    Call(AdminError),
    Inbox(ReportError),
}

/// What has to be removed that listing does not find.
#[derive(Default)]
struct Made {
    guest: Option<Guest>,
}

/// An inbox of ours that is no customer's.
pub(super) fn is_temporary(inbox: &ChatwootInbox) -> bool {
    inbox.name == NAME && inbox.channel_type.as_deref() == Some("Channel::Api")
}

/// Does it, says what came of it, and cleans up.
pub(super) async fn run(cx: &Context<'_>, proved: &Proved<'_>, steps: &mut Steps) -> Result<(), Failed> {
    remove(proved.account, None)
        .await
        .map_err(|error| steps.fail(STEP, &error.to_string(), &advice::advice(&error)))?;
    let mut made = Made::default();
    let verdict = tokio::select! {
        verdict = attempt(cx, proved, &mut made) => Some(verdict),
        () = interrupted() => None,
    };
    let removed = remove(proved.account, made.guest.as_ref()).await;
    let done = match verdict {
        Some(verdict) => told(proved, verdict, steps),
        None => Err(Failed::INTERRUPTED),
    };
    if let Err(error) = removed {
        let todo = format!("Delete the inbox \"{NAME}\" and its contact in the dashboard, or run this again.");
        let failed = steps.fail(STEP, &format!("what it made is still there: {error}"), &todo);
        return done.and(Err(failed));
    }
    done
}

fn told(proved: &Proved<'_>, verdict: Result<Verdict, Broken>, steps: &mut Steps) -> Result<(), Failed> {
    match verdict {
        Ok(Verdict::Arrived(after)) => {
            let how =
                format!("a webhook came after {} ms, verified and on disk; what it made is removed", after.as_millis());
            steps.ok(STEP, &how);
            return Ok(());
        }
        Ok(Verdict::Missing(Some(error))) => {
            let (what, todo) = advice::webhook(&error, proved.public);
            steps.fail(STEP, &what, &todo);
        }
        Ok(Verdict::Missing(None)) => {
            let what = format!("no webhook came within {} s, and Chatwoot tells no error", proved.wait.as_secs());
            let todo = "Is Chatwoot's Sidekiq running, and not far behind (dashboard /sidekiq, queues high and medium)? \
                If it is, something answers for the gateway: see that --public-url leads to this one, and that storage.dir \
                is its own. --wait gives a slow one longer.";
            steps.fail(STEP, &what, todo);
        }
        Err(Broken::Call(error)) => {
            steps.fail(STEP, &error.to_string(), &advice::advice(&error));
        }
        Err(Broken::Inbox(error)) => {
            let todo = "The proof is a row in the gateway's inbox: run this on its machine, as its user, with its \
                configuration, while it runs. --no-self-test does without.";
            steps.fail(STEP, &error.to_string(), todo);
        }
    }
    Err(Failed::UNPROVEN)
}

async fn attempt(cx: &Context<'_>, proved: &Proved<'_>, made: &mut Made) -> Result<Verdict, Broken> {
    // Before anything is made: without the gateway's inbox there is nothing to see.
    Report::open(&cx.config.storage.dir).map_err(Broken::Inbox)?;
    let account = proved.account;
    let inbox_id = account.create_api_inbox(NAME).await?;
    account.set_bot(inbox_id, Some(proved.bot_id)).await?;
    let guest = made.guest.insert(account.create_contact(NAME, inbox_id).await?);
    let conversation_id = account.create_conversation(inbox_id, guest).await?;
    account.open(conversation_id).await?;

    let began = Instant::now();
    let first = account.say(conversation_id, FIRST).await?;
    if came(cx, proved, conversation_id, &[first], began + proved.wait).await? {
        let after = began.elapsed();
        settled(cx, proved, conversation_id).await?;
        return Ok(Verdict::Arrived(after));
    }
    account.direct_inbox(inbox_id, proved.webhook).await?;
    let second = account.say(conversation_id, SECOND).await?;
    let until = Instant::now() + proved.wait;
    loop {
        if came(cx, proved, conversation_id, &[first, second], Instant::now() + LOOK_EVERY).await? {
            return Ok(Verdict::Arrived(began.elapsed()));
        }
        let error = account.message(conversation_id, second).await?.and_then(|state| state.external_error);
        if error.is_none() && Instant::now() < until {
            continue;
        }
        // The other route's answer may be here before the bot's.
        let grace = Instant::now() + if error.is_some() { GRACE } else { Duration::ZERO };
        return match came(cx, proved, conversation_id, &[first, second], grace).await? {
            true => Ok(Verdict::Arrived(began.elapsed())),
            false => Ok(Verdict::Missing(error)),
        };
    }
}

/// Whether one of these messages is in the inbox before `until`.
async fn came(
    cx: &Context<'_>,
    proved: &Proved<'_>,
    conversation_id: u64,
    messages: &[u64],
    until: Instant,
) -> Result<bool, Broken> {
    loop {
        if deliveries(cx, proved, conversation_id)?.iter().any(|(message_id, _)| messages.contains(message_id)) {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until the gateway is through with the conversation, so that it does not look for it when it is gone.
async fn settled(cx: &Context<'_>, proved: &Proved<'_>, conversation_id: u64) -> Result<(), Broken> {
    let until = Instant::now() + SETTLED_WAIT;
    while Instant::now() < until && deliveries(cx, proved, conversation_id)?.iter().any(|(_, waits)| *waits) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// The conversation's deliveries: which message, and whether it waits.
fn deliveries(cx: &Context<'_>, proved: &Proved<'_>, conversation_id: u64) -> Result<Vec<(u64, bool)>, Broken> {
    let which = Which {
        tenant: Some(proved.tenant.to_owned()),
        channel: Some(proved.channel.to_owned()),
        account_id: Some(proved.account_id),
        conversation_id: Some(conversation_id),
    };
    let mut found = Vec::new();
    let report = Report::open(&cx.config.storage.dir).map_err(Broken::Inbox)?;
    let read = report.stories(&which, false, |story| {
        found.extend(story.deliveries.iter().map(|one| (one.message_id, one.outcome == "unfinished")));
        Ok::<_, std::convert::Infallible>(())
    });
    match read {
        Ok(Ok(())) => Ok(found),
        Ok(Err(never)) => match never {},
        Err(error) => Err(Broken::Inbox(error)),
    }
}

/// Removes what a self-test made, this one or an earlier one.
async fn remove(account: &Account, guest: Option<&Guest>) -> Result<(), AdminError> {
    if let Some(guest) = guest {
        account.delete_contact(guest.contact_id).await?;
    }
    for inbox in account.inboxes().await?.iter().filter(|inbox| is_temporary(inbox)) {
        account.delete_inbox(inbox.id).await?;
    }
    Ok(())
}

impl From<AdminError> for Broken {
    fn from(error: AdminError) -> Self {
        Self::Call(error)
    }
}
