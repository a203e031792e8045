//! Chatwoot channels: in which account of which Chatwoot an agent answers for a tenant, and with which tokens.
//!
//! The tokens are sealed before they reach the database, bound to their channel, and no answer shows them again but
//! the address with its path token, once, when it is made. What gateways need of them is opened by
//! [`secrets`] when a policy is compiled.

use relais_policies::{ChannelKind, TenantPolicy};
use schemars::JsonSchema;
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;
use uuid::Uuid;

use crate::agents;
use crate::error::Error;
use crate::instant::Instant;
use crate::page::{List, Page};
use crate::store::{Change, Subject};
use crate::tenants::{self, policy};
use crate::text;
use crate::vault::Vault;

/// 24 random bytes, as 48 hex digits.
const PATH_TOKEN_BYTES: usize = 24;

/// What is said and done when a human takes over. What is not given is the gateways' default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Handoff {
    /// The team that gets the conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team_id: Option<u64>,
    /// What the customer is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What a customer is told whose plan has no handoff.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// What opens a Chatwoot, and what its deliveries prove themselves with.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// The agent bot's access token.
    pub bot_token: String,
    /// What deliveries are signed with. A Chatwoot too old to sign has none.
    #[serde(default)]
    pub webhook_secret: Option<String>,
    /// The one before, while it may still be used.
    #[serde(default)]
    pub previous_webhook_secret: Option<String>,
    /// A user's access token, for what a bot may not ask.
    #[serde(default)]
    pub user_token: Option<String>,
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Sealed {
    path_token: String,
    secrets: Secrets,
}

/// A channel as it is shown: without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Channel {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub tenant_id: String,
    /// Its name, unique with its tenant.
    pub name: String,
    /// Whose Chatwoot it is.
    pub kind: ChannelKind,
    /// The Chatwoot's address.
    pub url: String,
    /// The account there.
    pub account_id: i64,
    /// The agent bot there.
    pub bot_id: i64,
    /// The agent that answers.
    pub agent: String,
    /// When a human takes over.
    pub handoff: Handoff,
    /// Since when it is known.
    pub created_at: Instant,
}

/// A channel to be made.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewChannel {
    /// Its name: small letters, digits, `_` and `-`.
    pub name: String,
    /// Whose Chatwoot it is. Not given: what the tenant's plans say.
    pub kind: Option<ChannelKind>,
    /// The Chatwoot's address.
    pub url: String,
    /// The account there.
    #[schemars(range(min = 1))]
    pub account_id: i64,
    /// The agent bot there.
    #[schemars(range(min = 1))]
    pub bot_id: i64,
    /// The agent that answers.
    pub agent: String,
    /// When a human takes over.
    #[serde(default)]
    pub handoff: Handoff,
    /// What opens it.
    pub secrets: Secrets,
}

/// What of a channel is to be changed; what is not given stays.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EditChannel {
    /// The agent that answers.
    pub agent: Option<String>,
    /// When a human takes over, whole.
    pub handoff: Option<Handoff>,
    /// What opens it, whole.
    pub secrets: Option<Secrets>,
}

/// A channel just made, with its unguessable address. The only time it is shown.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConnectedChannel {
    /// The channel as it will be shown.
    pub channel: Channel,
    /// Where its Chatwoot should post if it signs: below a gateway's public address.
    pub signed_path: String,
    /// Where it should post if it cannot sign. Anybody who knows this may post: it is kept sealed and not shown again.
    pub secret_path: String,
}

row! {
    struct Row {
        id: String,
        tenant_id: String,
        name: String,
        kind: String,
        url: String,
        account_id: i64,
        bot_id: i64,
        agent_id: String,
        handoff_json: String,
        created_at: i64,
    }
}

impl Row {
    fn shown(self) -> Result<Channel, Error> {
        Ok(Channel {
            id: self.id,
            tenant_id: self.tenant_id,
            name: self.name,
            kind: serde_json::from_value(serde_json::Value::String(self.kind))?,
            url: self.url,
            account_id: self.account_id,
            bot_id: self.bot_id,
            agent: self.agent_id,
            handoff: serde_json::from_str(&self.handoff_json)?,
            created_at: Instant(self.created_at),
        })
    }
}

fn object(id: &str) -> String {
    format!("channel:{id}")
}

/// Where a channel's secrets are sealed to.
fn place(id: &str) -> String {
    format!("channels/{id}")
}

/// Makes a channel.
pub async fn connect(change: &mut Change, tenant_id: &str, new: &NewChannel) -> Result<ConnectedChannel, Error> {
    tenants::living(change.sql(), tenant_id).await?;
    text::id("name", &new.name)?;
    let url = text::url("url", &new.url)?;
    if new.account_id < 1 || new.bot_id < 1 {
        return Err(Error::invalid("account_id and bot_id are the numbers Chatwoot shows: at least 1"));
    }
    check_handoff(&new.handoff)?;
    check_secrets(&new.secrets)?;
    known_agent(change.sql(), &new.agent).await?;
    let kind = kind(change, tenant_id, new.kind).await?;
    refuse_twin(change.sql(), tenant_id, &new.name, &url, new.account_id, new.bot_id).await?;

    let id = Uuid::now_v7().simple().to_string();
    let path_token = path_token()?;
    let sealed = Sealed { path_token: path_token.clone(), secrets: new.secrets.clone() };
    let sealed = seal(change.vault(), &id, &sealed)?;
    let now_ms = change.now_ms();
    sqlx::query(
        "INSERT INTO channels (id, tenant_id, name, kind, url, account_id, bot_id, agent_id, handoff_json,
         secrets_sealed, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(id.clone())
    .bind(tenant_id.to_owned())
    .bind(new.name.clone())
    .bind(match kind {
        ChannelKind::Managed => "managed",
        ChannelKind::SelfHosted => "selfhosted",
    })
    .bind(url)
    .bind(new.account_id)
    .bind(new.bot_id)
    .bind(new.agent.clone())
    .bind(serde_json::to_string(&new.handoff)?)
    .bind(sealed)
    .bind(now_ms)
    .execute(change.sql())
    .await?;
    let channel = settled(change, "channel.connect", tenant_id, &id, None).await?;
    let signed_path = format!("/chatwoot/{tenant_id}");
    Ok(ConnectedChannel { channel, secret_path: format!("{signed_path}/{path_token}"), signed_path })
}

/// Changes who answers, when a human takes over, and the tokens.
pub async fn edit(change: &mut Change, tenant_id: &str, id: &str, edit: &EditChannel) -> Result<Channel, Error> {
    let before = get(change.sql(), tenant_id, id).await?;
    let agent = edit.agent.as_ref().unwrap_or(&before.agent);
    known_agent(change.sql(), agent).await?;
    let handoff = edit.handoff.as_ref().unwrap_or(&before.handoff);
    check_handoff(handoff)?;
    sqlx::query("UPDATE channels SET agent_id = $2, handoff_json = $3 WHERE id = $1")
        .bind(id.to_owned())
        .bind(agent.clone())
        .bind(serde_json::to_string(handoff)?)
        .execute(change.sql())
        .await?;
    if let Some(secrets) = &edit.secrets {
        check_secrets(secrets)?;
        let path_token = opened(change, id).await?.path_token;
        let sealed = seal(change.vault(), id, &Sealed { path_token, secrets: secrets.clone() })?;
        sqlx::query("UPDATE channels SET secrets_sealed = $2 WHERE id = $1")
            .bind(id.to_owned())
            .bind(sealed)
            .execute(change.sql())
            .await?;
    }
    settled(change, "channel.edit", tenant_id, id, Some(before)).await
}

/// Takes it away. Deliveries to it are refused from then on.
pub async fn remove(change: &mut Change, tenant_id: &str, id: &str) -> Result<Channel, Error> {
    let before = get(change.sql(), tenant_id, id).await?;
    sqlx::query("DELETE FROM channels WHERE id = $1").bind(id.to_owned()).execute(change.sql()).await?;
    change.touched(Subject::Tenant(tenant_id)).await?;
    change.audit("channel.remove", &object(id), Some(&before), None).await?;
    Ok(before)
}

async fn settled(
    change: &mut Change,
    action: &'static str,
    tenant_id: &str,
    id: &str,
    before: Option<Channel>,
) -> Result<Channel, Error> {
    change.touched(Subject::Tenant(tenant_id)).await?;
    let after = get(change.sql(), tenant_id, id).await?;
    change.audit(action, &object(id), before.as_ref(), Some(&after)).await?;
    Ok(after)
}

/// A channel of this tenant.
pub async fn get(sql: &mut AnyConnection, tenant_id: &str, id: &str) -> Result<Channel, Error> {
    let row: Option<Row> = sqlx::query_as("SELECT * FROM channels WHERE id = $1 AND tenant_id = $2")
        .bind(id.to_owned())
        .bind(tenant_id.to_owned())
        .fetch_optional(sql)
        .await?;
    row.ok_or_else(|| Error::not_found("channel", id))?.shown()
}

/// A tenant's channels by id.
pub async fn list(sql: &mut AnyConnection, tenant_id: &str, page: &Page) -> Result<List<Channel>, Error> {
    let rows: Vec<Row> = sqlx::query_as("SELECT * FROM channels WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3")
        .bind(tenant_id.to_owned())
        .bind(page.after.clone())
        .bind(page.rows())
        .fetch_all(sql)
        .await?;
    let channels = rows.into_iter().map(Row::shown).collect::<Result<_, _>>()?;
    Ok(List::of(channels, page, |channel: &Channel| channel.id.clone()))
}

/// What opens a channel, and its path token: for the policy that a gateway gets, and for nobody else.
pub async fn secrets(sql: &mut AnyConnection, vault: &Vault, id: &str) -> Result<(Secrets, String), Error> {
    let sealed: Option<String> = sqlx::query_scalar("SELECT secrets_sealed FROM channels WHERE id = $1")
        .bind(id.to_owned())
        .fetch_optional(sql)
        .await?;
    let sealed = sealed.ok_or_else(|| Error::not_found("channel", id))?;
    let Sealed { path_token, secrets } = serde_json::from_slice(&vault.open(&place(id), &sealed)?)?;
    Ok((secrets, path_token))
}

async fn opened(change: &mut Change, id: &str) -> Result<Sealed, Error> {
    let sealed: String = sqlx::query_scalar("SELECT secrets_sealed FROM channels WHERE id = $1")
        .bind(id.to_owned())
        .fetch_one(change.sql())
        .await?;
    Ok(serde_json::from_slice(&change.vault().open(&place(id), &sealed)?)?)
}

fn seal(vault: &Vault, id: &str, sealed: &Sealed) -> Result<String, Error> {
    vault.seal(&place(id), &Zeroizing::new(serde_json::to_vec(sealed)?))
}

fn path_token() -> Result<String, Error> {
    let mut random = [0; PATH_TOKEN_BYTES];
    getrandom::fill(&mut random).map_err(|error| Error::internal("asking the machine for random bytes", error))?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A channel that no plan opens would take deliveries and never answer.
async fn kind(change: &mut Change, tenant_id: &str, wanted: Option<ChannelKind>) -> Result<ChannelKind, Error> {
    let now_ms = change.now_ms();
    let compilable = policy::spec(change.sql(), tenant_id, now_ms).await?;
    let compiled = TenantPolicy::compile(&compilable.catalog, &compilable.spec);
    let policy = compiled.map_err(|_| Error::internal("compiling a policy", "it compiled when it was stored"))?;
    let open = match wanted {
        Some(kind) => policy.payer(kind).map(|_| kind),
        None => policy.default_channel(),
    };
    open.ok_or_else(|| {
        Error::invalid(
            "no plan of this tenant opens such a channel; give it a chatwoot.* plan for a managed Chatwoot, or \
             selfhosted for the tenant's own",
        )
    })
}

async fn known_agent(sql: &mut AnyConnection, id: &str) -> Result<(), Error> {
    match agents::get(sql, id).await {
        Ok(_) => Ok(()),
        Err(error) if error.reason == crate::error::Reason::NotFound => {
            Err(Error::invalid(format!("there is no agent \"{id}\"; PUT /v1/admin/agents/{id} makes one")))
        }
        Err(error) => Err(error),
    }
}

/// Two channels that are one bot would both answer a customer.
async fn refuse_twin(
    sql: &mut AnyConnection,
    tenant_id: &str,
    name: &str,
    url: &str,
    account_id: i64,
    bot_id: i64,
) -> Result<(), Error> {
    let same_name: Option<String> = sqlx::query_scalar("SELECT id FROM channels WHERE tenant_id = $1 AND name = $2")
        .bind(tenant_id.to_owned())
        .bind(name.to_owned())
        .fetch_optional(&mut *sql)
        .await?;
    if same_name.is_some() {
        return Err(Error::conflict(format!("the tenant has a channel \"{name}\" already")));
    }
    let same_bot: Option<String> =
        sqlx::query_scalar("SELECT id FROM channels WHERE url = $1 AND account_id = $2 AND bot_id = $3")
            .bind(url.to_owned())
            .bind(account_id)
            .bind(bot_id)
            .fetch_optional(sql)
            .await?;
    if same_bot.is_some() {
        return Err(Error::conflict("another channel is the same bot in the same account; both would answer"));
    }
    Ok(())
}

fn check_handoff(handoff: &Handoff) -> Result<(), Error> {
    for (field, text) in [("handoff.message", &handoff.message), ("handoff.notice", &handoff.notice)] {
        if let Some(text) = text {
            text::sentence(field, text)?;
        }
    }
    Ok(())
}

fn check_secrets(secrets: &Secrets) -> Result<(), Error> {
    text::token("secrets.bot_token", &secrets.bot_token)?;
    for (field, token) in [
        ("secrets.webhook_secret", &secrets.webhook_secret),
        ("secrets.previous_webhook_secret", &secrets.previous_webhook_secret),
        ("secrets.user_token", &secrets.user_token),
    ] {
        if let Some(token) = token {
            text::token(field, token)?;
        }
    }
    if secrets.webhook_secret.is_none() && secrets.previous_webhook_secret.is_some() {
        return Err(Error::invalid("there is no webhook_secret that previous_webhook_secret would precede"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
