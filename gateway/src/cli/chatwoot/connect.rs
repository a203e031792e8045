//! `relais chatwoot connect`, in the order of the contract (7.4), except that customers come last: the bot goes into
//! their inboxes only when the self-test has shown that webhooks arrive.
//!
//! Each step asks first how things are and changes only what differs, so a second run is a look, and an interrupted one
//! is taken up where it stopped: a bot without a file is found by its address, which holds the path token.

use http::Uri;
use relais_gateway::chatwoot::admin::{Account, Admin, Bot, ChatwootInbox};
use relais_gateway::config::Config;
use secrecy::SecretString;

use super::file::{Connected, OwnFile};
use super::self_test::{self, Proved};
use super::steps::{Failed, Steps};
use super::{Connect, Context, address, administered, advice, interrupted, note_settings, running, seconds};

/// More are named one by one: each takes two calls.
const INBOXES_MAX: usize = 500;
/// The first version that signs a bot's webhooks, and the one from which on all is well (contract 0).
const SIGNS_SINCE: (u32, u32, u32) = (4, 13, 0);
const GOOD_SINCE: (u32, u32, u32) = (4, 14, 2);

/// What can be known before Chatwoot is asked.
struct Plan<'a> {
    url: Uri,
    public: Option<Uri>,
    agent: &'a str,
    token: SecretString,
    file: OwnFile,
}

/// The bot, and how it is addressed.
struct Ours {
    bot: Bot,
    bot_token: SecretString,
    public: Uri,
    path_token: SecretString,
}

pub(super) async fn run(cx: &Context<'_>, arguments: &Connect, steps: &mut Steps) -> Result<(), Failed> {
    let plan = plan(cx, arguments, steps)?;
    let admin = cx.admin(&plan.url, plan.token.clone());
    let (account_id, account) = administered(&admin, arguments.account, steps).await?;
    if let Some(before) = plan.file.number("account_id").filter(|before| *before != account_id) {
        let what = format!("{} is of the account {before}", plan.file.path.display());
        return Err(steps.fail("token", &what, "Disconnect that first, or give this one another --channel."));
    }
    version(&admin, steps).await;
    let ours = bot(cx, arguments, &plan, account_id, &account, steps).await?;
    keep(cx, arguments, &plan, account_id, &ours, steps)?;
    if arguments.no_self_test {
        steps.note("self-test", "left out: whether webhooks arrive is not proved");
    } else {
        prove(cx, arguments, account_id, &account, &ours, steps).await?;
    }
    let attaching = attach(arguments, &account, &ours.bot, steps);
    tokio::select! {
        done = attaching => done,
        () = interrupted() => Err(Failed::INTERRUPTED),
    }
}

fn plan<'a>(cx: &'a Context<'_>, arguments: &'a Connect, steps: &mut Steps) -> Result<Plan<'a>, Failed> {
    const STEP: &str = "configuration";
    if cx.tenant(&arguments.tenant).is_none() {
        let todo = format!("Add a [[tenant]] with this id and its plans to {}.", cx.path.display());
        return Err(steps.fail(STEP, &format!("there is no tenant \"{}\"", arguments.tenant), &todo));
    }
    let file = own_file(cx, arguments, steps)?;
    let url = address::base(&arguments.url).map_err(|why| steps.fail(STEP, &why, "Mend --url."))?;
    let public = arguments.public_url.as_deref().map(address::base).transpose();
    let public = public.map_err(|why| steps.fail(STEP, &why, "Mend --public-url."))?;
    let agent = agent(cx, arguments, &file).map_err(|(what, todo)| steps.fail(STEP, what, &todo))?;
    let token = match arguments.token.read() {
        Ok(Some(token)) => token,
        Ok(None) => {
            let todo = "Give an administrator's access token by --token-file, RELAIS_CHATWOOT_TOKEN or --token \
                (dashboard, Profile settings, Access token).";
            return Err(steps.fail("token", "none was given", todo));
        }
        Err(error) => return Err(steps.fail("token", &format!("{error:#}"), "Mend it, then run this again.")),
    };
    Ok(Plan { url, public, agent, token, file })
}

fn own_file(cx: &Context<'_>, arguments: &Connect, steps: &mut Steps) -> Result<OwnFile, Failed> {
    const STEP: &str = "configuration";
    let found = OwnFile::find(&cx.config, &arguments.tenant, &arguments.channel);
    let file = match found {
        Ok(Some(file)) => file,
        Ok(None) => {
            let what = format!("{} includes no folder to keep the channel in", cx.path.display());
            let todo = "Put `include = [\"conf.d/*.toml\"]` at its top, before the first [section], then run this again. \
                The folder is made.";
            return Err(steps.fail(STEP, &what, todo));
        }
        Err(error) => {
            return Err(steps.fail(STEP, &format!("{error:#}"), "Mend or move that file, then run this again."));
        }
    };
    if !file.exists() && cx.channel(&arguments.tenant, &arguments.channel).is_some() {
        let what = format!("\"{}\" has a channel \"{}\" that you wrote yourself", arguments.tenant, arguments.channel);
        let todo = "Give this one another name with --channel, or take yours out of the configuration.";
        return Err(steps.fail(STEP, &what, todo));
    }
    Ok(file)
}

fn agent<'a>(cx: &'a Context<'_>, arguments: &'a Connect, file: &OwnFile) -> Result<&'a str, (&'static str, String)> {
    let agents = &cx.config.agents;
    let named = |id: &str| agents.get_key_value(id).map(|(id, _)| id.as_str());
    let list = || format!("Name one with --agent: {}.", agents.keys().cloned().collect::<Vec<_>>().join(", "));
    match (&arguments.agent, agents.len()) {
        (_, 0) => {
            Err(("there is no agent to answer", "Add an [[agent]]; kind = \"knowledge\" needs no model.".to_owned()))
        }
        (Some(id), _) => named(id).ok_or_else(|| ("there is no such agent", list())),
        (None, 1) => agents.keys().next().map(String::as_str).ok_or_else(|| ("there is no agent", list())),
        (None, _) => file
            .text("agent")
            .and_then(named)
            .or_else(|| named("default"))
            .ok_or_else(|| ("there are several agents, and none is called \"default\"", list())),
    }
}

async fn version(admin: &Admin, steps: &mut Steps) {
    const STEP: &str = "version";
    let Some(version) = admin.version().await else {
        return steps.note(STEP, "this Chatwoot does not tell its version; 4.14.2 or newer is recommended");
    };
    let mut numbers = version.split(|letter: char| !letter.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    match (next(), next(), next()) {
        read if read < SIGNS_SINCE => {
            let what =
                format!("Chatwoot {version} signs no bot webhooks (4.13.0 does); 4.14.2 or newer is recommended");
            steps.note(STEP, &what);
        }
        read if read < GOOD_SINCE => {
            let what = format!(
                "Chatwoot {version} lets no bot read a conversation (4.14.2 does): --keep-user-token helps, upgrading more"
            );
            steps.note(STEP, &what);
        }
        _ => steps.ok(STEP, &format!("Chatwoot {version}")),
    }
}

async fn bot(
    cx: &Context<'_>,
    arguments: &Connect,
    plan: &Plan<'_>,
    account_id: u64,
    account: &Account,
    steps: &mut Steps,
) -> Result<Ours, Failed> {
    const STEP: &str = "bot";
    let bots = account.bots().await.map_err(|error| steps.fail(STEP, &error.to_string(), &advice(&error)))?;
    let others = others(&cx.config, arguments, &plan.url, account_id);
    let known = plan.file.number("bot_id").and_then(|id| bots.iter().find(|bot| bot.id == id));
    let found = match (known, &plan.public) {
        (Some(bot), _) => vec![bot],
        (None, Some(public)) => address::ours(&bots, &address::tenant(public, &arguments.tenant), &others),
        (None, None) => Vec::new(),
    };
    for more in found.iter().skip(1) {
        let what = format!("the bot {} \"{}\" sends here as well; delete it in the dashboard", more.id, more.name);
        steps.note(STEP, &what);
    }
    let found = found.first().copied();
    let parts = found.and_then(|bot| address::parts(bot.outgoing_url.as_deref()?, &arguments.tenant));
    let (its_public, its_token) = parts.unzip();
    let Some(public) = plan.public.clone().or(its_public) else {
        let todo = "Say with --public-url https://… where Chatwoot reaches this gateway.";
        return Err(steps.fail(STEP, "the gateway's public address is not known", todo));
    };
    let kept = plan.file.text("path_token").map(SecretString::from);
    let path_token = match kept.or(its_token.flatten()) {
        Some(token) => token,
        None => address::new_path_token()
            .map_err(|error| steps.fail(STEP, &format!("no random bytes: {error}"), "Mend the machine first."))?,
    };
    let wanted = address::whole(&public, &arguments.tenant, &path_token);
    let shown = address::tenant(&public, &arguments.tenant);
    let bot = match found {
        Some(bot) if bot.outgoing_url.as_deref() == Some(&wanted) => {
            steps.unchanged(STEP, &format!("{} \"{}\" sends to {shown}/…", bot.id, bot.name));
            bot.clone()
        }
        Some(bot) => {
            let directed = account.direct_bot(bot.id, &wanted).await;
            let bot = directed.map_err(|error| steps.fail(STEP, &error.to_string(), &advice(&error)))?;
            steps.changed(STEP, &format!("{} \"{}\" sends to {shown}/… from here on", bot.id, bot.name));
            bot
        }
        None => {
            let about = format!("Answers for {}, {}. Kept by `relais chatwoot`.", arguments.tenant, arguments.channel);
            let created = account.create_bot("Relais", &about, &wanted).await;
            let bot = created.map_err(|error| steps.fail(STEP, &error.to_string(), &advice(&error)))?;
            steps.changed(STEP, &format!("{} \"{}\" is made and sends to {shown}/…", bot.id, bot.name));
            bot
        }
    };
    let Some(bot_token) = bot.access_token.clone() else {
        let todo = "It must be a bot of the account, not a global one. Delete it in the dashboard and run this again.";
        return Err(steps.fail(STEP, "Chatwoot does not show the bot's token", todo));
    };
    if bot.secret.is_none() {
        let what = "it has no secret: this Chatwoot is older than 4.13 and signs nothing, so the unguessable address is \
            all that keeps strangers out. Upgrade";
        steps.note(STEP, what);
    }
    if public.scheme_str() == Some("http") {
        steps.note(STEP, "its webhooks are not encrypted on their way: give https:// unless the way is private");
    }
    Ok(Ours { bot, bot_token, public, path_token })
}

/// Bots in this account that other channels have.
fn others(config: &Config, arguments: &Connect, url: &Uri, account_id: u64) -> Vec<u64> {
    let channels =
        config.tenants.iter().flat_map(|tenant| tenant.channels.iter().map(move |channel| (tenant, channel)));
    channels
        .filter(|(tenant, channel)| *tenant.id != *arguments.tenant || channel.name != arguments.channel)
        .filter(|(_, channel)| channel.url == *url && channel.account_id == account_id)
        .map(|(_, channel)| channel.bot_id)
        .collect()
}

/// Writes what was found out into the channel's file, if the configuration is good with it.
fn keep(
    cx: &Context<'_>,
    arguments: &Connect,
    plan: &Plan<'_>,
    account_id: u64,
    ours: &Ours,
    steps: &mut Steps,
) -> Result<(), Failed> {
    const STEP: &str = "file";
    let url = plan.url.to_string();
    let connected = Connected {
        channel: &arguments.channel,
        url: url.trim_end_matches('/'),
        account_id,
        bot_id: ours.bot.id,
        bot_token: &ours.bot_token,
        webhook_secret: ours.bot.secret.as_ref(),
        path_token: &ours.path_token,
        user_token: arguments.keep_user_token.then_some(&plan.token),
        agent: plan.agent,
    };
    let again = "Mend that, then run this again: the bot is found by its address.";
    let path = plan.file.path.display();
    let text = plan.file.changed(&connected).map_err(|error| steps.fail(STEP, &format!("{error:#}"), again))?;
    let Some(text) = text else {
        match plan.file.close() {
            Ok(false) => steps.unchanged(STEP, &format!("{path}")),
            Ok(true) => steps.changed(STEP, &format!("{path} was open to others and is closed")),
            Err(error) => return Err(steps.fail(STEP, &format!("{error:#}"), again)),
        }
        return Ok(());
    };
    if let Err(errors) = Config::load_with(cx.path, &plan.file.path, &text) {
        let what = format!("the configuration would not be good with {path}: {errors}");
        return Err(steps.fail(STEP, &what, again));
    }
    plan.file.write(&text).map_err(|error| steps.fail(STEP, &format!("{error:#}"), again))?;
    steps.changed(STEP, &format!("{path} has the bot's token, secret and address, readable by its owner only"));
    Ok(())
}

async fn prove(
    cx: &Context<'_>,
    arguments: &Connect,
    account_id: u64,
    account: &Account,
    ours: &Ours,
    steps: &mut Steps,
) -> Result<(), Failed> {
    let asked = running::Asked {
        public: &ours.public,
        tenant: &arguments.tenant,
        path_token: &ours.path_token,
        secret: ours.bot.secret.as_ref(),
    };
    running::knows(cx, &asked, seconds(arguments.wait), steps).await?;
    let proved = Proved {
        account,
        account_id,
        bot_id: ours.bot.id,
        tenant: &arguments.tenant,
        channel: &arguments.channel,
        webhook: &address::whole(&ours.public, &arguments.tenant, &ours.path_token),
        public: &address::tenant(&ours.public, &arguments.tenant),
        wait: seconds(arguments.wait),
    };
    self_test::run(cx, &proved, steps).await
}

/// Puts the bot into the inboxes. One that another bot has is left to it, and said; the rest is done.
async fn attach(arguments: &Connect, account: &Account, bot: &Bot, steps: &mut Steps) -> Result<(), Failed> {
    const STEP: &str = "inbox";
    let mut all = account.inboxes().await.map_err(|error| steps.fail(STEP, &error.to_string(), &advice(&error)))?;
    all.retain(|inbox| !self_test::is_temporary(inbox));
    let mut done = Ok(());
    let chosen = chosen(arguments, &all, steps)?;
    if chosen.is_empty() {
        steps.note(STEP, "the account has no inbox yet: make one in Chatwoot, then run this again");
    }
    for inbox in chosen {
        let named = format!("{} \"{}\"", inbox.id, inbox.name);
        let seated = account.bot_of(inbox.id).await;
        let seated = seated.map_err(|error| steps.fail(STEP, &format!("{named}: {error}"), &advice(&error)))?;
        let before = match seated {
            Some(seated) if seated.id == bot.id => {
                steps.unchanged(STEP, &format!("{named} has our bot"));
                note_settings(inbox, steps);
                continue;
            }
            Some(other) if !arguments.force => {
                let what = format!("{named} has another bot, {} \"{}\"", other.id, other.name);
                let todo = "--force takes the inbox over from it; --inbox names only those you mean.";
                done = Err(steps.fail(STEP, &what, todo));
                continue;
            }
            Some(other) => format!(" instead of {} \"{}\"", other.id, other.name),
            None => String::new(),
        };
        let set = account.set_bot(inbox.id, Some(bot.id)).await;
        set.map_err(|error| steps.fail(STEP, &format!("{named}: {error}"), &advice(&error)))?;
        steps.changed(STEP, &format!("{named} has our bot{before}"));
        note_settings(inbox, steps);
    }
    done
}

/// The inboxes that are named, or all.
fn chosen<'b>(
    arguments: &Connect,
    all: &'b [ChatwootInbox],
    steps: &mut Steps,
) -> Result<Vec<&'b ChatwootInbox>, Failed> {
    const STEP: &str = "inbox";
    let listed = || {
        let names: Vec<String> = all.iter().take(20).map(|inbox| format!("{} \"{}\"", inbox.id, inbox.name)).collect();
        format!("There are: {}.", names.join(", "))
    };
    if arguments.inbox.is_empty() {
        if all.len() > INBOXES_MAX {
            let what = format!("the account has {} inboxes", all.len());
            return Err(steps.fail(STEP, &what, "Name those the bot goes into with --inbox."));
        }
        return Ok(all.iter().collect());
    }
    let mut chosen: Vec<&ChatwootInbox> = Vec::new();
    for wanted in &arguments.inbox {
        let number = wanted.parse::<u64>().ok();
        let by_number = all.iter().find(|inbox| Some(inbox.id) == number);
        let mut by_name = all.iter().filter(|inbox| inbox.name == *wanted);
        let found = match (by_number, by_name.next(), by_name.next()) {
            (Some(inbox), _, _) | (None, Some(inbox), None) => inbox,
            (None, Some(_), Some(_)) => {
                let what = format!("several inboxes are called \"{wanted}\"");
                return Err(steps.fail(STEP, &what, &format!("Name it by its number. {}", listed())));
            }
            (None, None, _) => {
                return Err(steps.fail(STEP, &format!("there is no inbox \"{wanted}\""), &listed()));
            }
        };
        if !chosen.iter().any(|inbox| inbox.id == found.id) {
            chosen.push(found);
        }
    }
    Ok(chosen)
}
