//! AI agents that a channel may name: a model behind an upstream, or the embedded one over a folder of Markdown.
//!
//! The upstream is named, not described: its address and key are the gateways' configuration, and so no secret is kept
//! here. The words are those of `[[agent]]` in that configuration. An agent that a channel names cannot go.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::AnyConnection;

use crate::error::Error;
use crate::page::{List, Page};
use crate::store::{Change, Subject};
use crate::text;

/// Room for a model's instructions, not for a book.
const PROMPT_BYTES_MAX: usize = 64 * 1024;

/// What answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Body {
    /// A model behind an upstream.
    OpenAi {
        /// The upstream's name in the gateways' configuration.
        upstream: String,
        /// The model, as the upstream calls it.
        model: String,
        /// Instructions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        system_prompt: Option<String>,
        /// Output limit of one answer.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 1, max = 1_000_000))]
        tokens_max: Option<u32>,
        /// Sampling temperature, 0 to 2.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 0, max = 2))]
        temperature: Option<f64>,
    },
    /// The embedded agent over a folder of Markdown.
    Knowledge {
        /// The folder, on the gateways' machines.
        dir: String,
    },
}

/// An agent.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Agent {
    /// Its id, which channels name.
    pub id: String,
    /// What answers.
    pub body: Body,
}

row! {
    struct Row {
        id: String,
        body_json: String,
    }
}

impl Row {
    fn shown(self) -> Result<Agent, Error> {
        Ok(Agent { body: serde_json::from_str(&self.body_json)?, id: self.id })
    }
}

fn object(id: &str) -> String {
    format!("agent:{id}")
}

/// Makes it, or makes it anew.
pub async fn set(change: &mut Change, id: &str, body: &Body) -> Result<Agent, Error> {
    text::id("id", id)?;
    check(body)?;
    let before = find(change.sql(), id).await?;
    let now_ms = change.now_ms();
    sqlx::query(
        "INSERT INTO agents (id, body_json, created_at) VALUES ($1, $2, $3)
         ON CONFLICT (id) DO UPDATE SET body_json = excluded.body_json",
    )
    .bind(id.to_owned())
    .bind(serde_json::to_string(body)?)
    .bind(now_ms)
    .execute(change.sql())
    .await?;
    change.touched(Subject::Agent(id)).await?;
    let after = Agent { id: id.to_owned(), body: body.clone() };
    change.audit("agent.set", &object(id), before.as_ref(), Some(&after)).await?;
    Ok(after)
}

/// Takes it away. Refused while a channel names it.
pub async fn remove(change: &mut Change, id: &str) -> Result<Agent, Error> {
    let before = get(change.sql(), id).await?;
    let channel: Option<String> = sqlx::query_scalar("SELECT id FROM channels WHERE agent_id = $1 ORDER BY id LIMIT 1")
        .bind(id.to_owned())
        .fetch_optional(change.sql())
        .await?;
    if let Some(channel) = channel {
        return Err(Error::conflict(format!("the channel \"{channel}\" is answered by this agent; give it another")));
    }
    sqlx::query("DELETE FROM agents WHERE id = $1").bind(id.to_owned()).execute(change.sql()).await?;
    change.removed(Subject::Agent(id)).await?;
    change.audit("agent.remove", &object(id), Some(&before), None).await?;
    Ok(before)
}

/// One agent.
pub async fn get(sql: &mut AnyConnection, id: &str) -> Result<Agent, Error> {
    find(sql, id).await?.ok_or_else(|| Error::not_found("agent", id))
}

async fn find(sql: &mut AnyConnection, id: &str) -> Result<Option<Agent>, Error> {
    let row: Option<Row> = sqlx::query_as("SELECT id, body_json FROM agents WHERE id = $1")
        .bind(id.to_owned())
        .fetch_optional(sql)
        .await?;
    row.map(Row::shown).transpose()
}

/// Agents by id.
pub async fn list(sql: &mut AnyConnection, page: &Page) -> Result<List<Agent>, Error> {
    let rows: Vec<Row> = sqlx::query_as("SELECT id, body_json FROM agents WHERE id > $1 ORDER BY id LIMIT $2")
        .bind(page.after.clone())
        .bind(page.rows())
        .fetch_all(sql)
        .await?;
    let agents = rows.into_iter().map(Row::shown).collect::<Result<_, _>>()?;
    Ok(List::of(agents, page, |agent: &Agent| agent.id.clone()))
}

fn check(body: &Body) -> Result<(), Error> {
    match body {
        Body::OpenAi { upstream, model, system_prompt, tokens_max, temperature } => {
            text::label("upstream", upstream)?;
            text::label("model", model)?;
            if system_prompt.as_ref().is_some_and(|prompt| prompt.len() > PROMPT_BYTES_MAX) {
                return Err(Error::invalid(format!("system_prompt is at most {PROMPT_BYTES_MAX} bytes")));
            }
            if tokens_max.is_some_and(|tokens| !(1..=1_000_000).contains(&tokens)) {
                return Err(Error::invalid("tokens_max is from 1 to 1000000"));
            }
            if temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
                return Err(Error::invalid("temperature is from 0 to 2"));
            }
            Ok(())
        }
        Body::Knowledge { dir } => text::sentence("dir", dir),
    }
}
