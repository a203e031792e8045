//! The AI agent: given a conversation, an answer or a handoff.
//!
//! Two kinds (D10): `openai`, a model behind an OpenAI-compatible endpoint, and `knowledge`, which answers from a
//! folder of Markdown without any model. Both are asked the same question and give the same kinds of answer, and
//! neither knows Chatwoot, plans or quotas: who may be answered, how often it is tried again and what happens when
//! all tries failed is the relay's.

mod openai;
mod prompt;
mod sanitise;
mod spent;
mod tools;

pub mod knowledge;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::{AgentKind, Config, Level};
use crate::conversation::choice::Choice;
use crate::conversation::{Action, Contact, Medium, Speaker, Utterance};
use crate::http::client::Client;
use crate::llm::upstream::Upstreams;
use crate::metrics::Metrics;
use knowledge::Looked;

pub use spent::Spent;

/// What an agent is asked.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Whose conversation it is.
    pub tenant_id: &'a str,
    /// Its number in that tenant's account.
    pub conversation_id: u64,
    /// What was said, oldest first; it ends with what the customer said last.
    pub history: &'a [Utterance],
    /// The customer: data, never instructions.
    pub contact: &'a Contact,
    /// What it runs over.
    pub medium: Medium,
    /// Teams a handoff may name, each with the helpdesk's number for it.
    pub teams: &'a BTreeMap<String, u64>,
    /// The highest level of agent that the tenant's plans open.
    pub level_max: Level,
}

impl Question<'_> {
    /// What the customer said since anybody answered.
    fn last_words(&self) -> String {
        let said = self.history.iter().rev().take_while(|said| said.from == Speaker::Customer);
        let mut said: Vec<&str> = said.map(|said| said.text.as_str()).collect();
        said.reverse();
        said.join("\n")
    }
}

/// What an agent does about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Says this.
    Reply {
        /// For the customer. Bounded and without control characters, but not yet safe for Chatwoot. Empty only if the
        /// conversation ends without a word.
        text: String,
        /// Titles of what it rests on.
        sources: Vec<String>,
    },
    /// Gives up in favour of a human.
    Handoff {
        /// In a word or a few: `unsure`, or the model's own words.
        reason: String,
        /// What a human should know.
        note: Option<String>,
    },
}

/// An answer and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The answer.
    pub answer: Answer,
    /// What is to be done beside it, in this order.
    pub actions: Vec<Action>,
    /// The tokens; none if no model was asked.
    pub tokens: Option<TokenUse>,
}

/// Model tokens used by one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenUse {
    /// Prompt, the cached part included.
    pub input: u64,
    /// The part of the prompt that the upstream had in its cache.
    pub cached: u64,
    /// Answer, reasoning included.
    pub output: u64,
    /// Counted by us from the length, because the upstream told none or nonsense.
    pub estimated: bool,
}

/// No answer, and what that cost.
#[derive(Debug, thiserror::Error)]
#[error("no answer")]
pub struct Failed {
    /// Why.
    #[source]
    pub error: AgentError,
    /// The tokens that are known to be used; none if no model answered.
    pub tokens: Option<TokenUse>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The model cannot be reached, is overloaded or failed.
    #[error("the model is not available")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer in time.
    #[error("the model did not answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// An answer that is none: empty, or not what this endpoint answers.
    #[error("the model answered nonsense: {0}")]
    Nonsense(&'static str),
    /// The upstream refuses what we ask, or there is no such agent: an operator has to act.
    #[error("the agent is misconfigured: {0}")]
    Misconfigured(String),
}

impl AgentError {
    /// Whether another try could end otherwise.
    pub fn retriable(&self) -> bool {
        !matches!(self, Self::Misconfigured(_))
    }

    fn outcome(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Timeout(_) => "timeout",
            Self::Nonsense(_) => "nonsense",
            Self::Misconfigured(_) => "misconfigured",
        }
    }
}

/// Why an agent cannot be made of its configuration.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Its folder.
    #[error("reading the knowledge of agent {id:?}")]
    Knowledge {
        /// The agent.
        id: String,
        /// What is wrong with it.
        #[source]
        source: knowledge::KnowledgeError,
    },
    /// Its upstream is not among those that were prepared.
    #[error("agent {id:?}: its upstream {upstream:?} was not prepared")]
    Upstream {
        /// The agent.
        id: String,
        /// The upstream.
        upstream: String,
    },
}

enum Built {
    OpenAi(Box<openai::OpenAi>),
    Knowledge(Arc<knowledge::Knowledge>),
}

/// Every configured agent.
pub struct Agents {
    by_id: BTreeMap<String, Built>,
    metrics: Arc<Metrics>,
}

impl Agents {
    /// Makes them: reads knowledge folders, each once, and prepares one client per model, all over the pool of `http`
    /// and by the room and breakers of `upstreams`.
    pub fn build(
        config: &Config,
        upstreams: &Upstreams,
        http: &Client,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BuildError> {
        let mut by_id = BTreeMap::new();
        let mut folders = BTreeMap::new();
        for (id, agent) in &config.agents {
            let built = match &agent.kind {
                AgentKind::OpenAi(model) => {
                    let knowledge = model.knowledge.as_deref().map(|dir| folder(&mut folders, id, dir)).transpose()?;
                    let upstream = upstreams.named(&model.upstream.name).ok_or_else(|| BuildError::Upstream {
                        id: id.clone(),
                        upstream: model.upstream.name.clone(),
                    })?;
                    let (http, metrics) = (http.clone(), Arc::clone(&metrics));
                    Built::OpenAi(Box::new(openai::OpenAi::new(model, upstream, knowledge, http, metrics)))
                }
                AgentKind::Knowledge { dir } => Built::Knowledge(folder(&mut folders, id, dir)?),
            };
            by_id.insert(id.clone(), built);
        }
        let agents = Self { by_id, metrics };
        agents.measure();
        Ok(agents)
    }

    /// One knowledge agent over texts that are built in: of each its name and its Markdown.
    pub fn of_texts(id: &str, texts: &[(&str, &str)], metrics: Arc<Metrics>) -> Self {
        let built = Built::Knowledge(Arc::new(knowledge::Knowledge::of_texts(texts)));
        Self { by_id: BTreeMap::from([(id.to_owned(), built)]), metrics }
    }

    /// Looks at every knowledge folder and reads again what changed. Blocks for as long as that takes; answers go on
    /// from the index before.
    pub fn look(&self) {
        let relay = &self.metrics.relay;
        for (id, agent) in self.knowledge() {
            match agent.look() {
                Looked::Same => {}
                Looked::Reindexed(sections) => {
                    relay.knowledge_ok.with_label_values(&[id]).set(1);
                    relay.knowledge_reads.with_label_values(&["ok"]).inc();
                    tracing::info!(agent = %id, sections, "Knowledge read again.");
                }
                Looked::Broken(error) => {
                    relay.knowledge_ok.with_label_values(&[id]).set(0);
                    relay.knowledge_reads.with_label_values(&["failed"]).inc();
                    let error = crate::error::chain(&error);
                    tracing::error!(agent = %id, error, "Knowledge not read: what was read before goes on serving.");
                }
            }
        }
    }

    /// Agents read for the first time are as their folders are; those that are gone have no gauge.
    fn measure(&self) {
        self.metrics.relay.knowledge_ok.reset();
        for (id, _) in self.knowledge() {
            self.metrics.relay.knowledge_ok.with_label_values(&[id]).set(1);
        }
    }

    fn knowledge(&self) -> impl Iterator<Item = (&str, &knowledge::Knowledge)> {
        self.by_id.iter().filter_map(|(id, built)| match built {
            Built::Knowledge(agent) => Some((id.as_str(), &**agent)),
            Built::OpenAi(agent) => Some((id.as_str(), agent.knowledge.as_deref()?)),
        })
    }

    /// The model that an agent asks; none if it asks none.
    pub fn model(&self, agent_id: &str) -> Option<&str> {
        match self.by_id.get(agent_id)? {
            Built::OpenAi(agent) => Some(&agent.model.model),
            Built::Knowledge(_) => None,
        }
    }

    /// Asks one of them, once, at most for `wait`. `spent` tells what that takes, also if this is dropped before its end.
    pub async fn answer(
        &self,
        agent_id: &str,
        question: &Question<'_>,
        wait: Duration,
        spent: &Spent,
    ) -> Result<Answered, Failed> {
        let (kind, answered) = match self.by_id.get(agent_id) {
            None => {
                let error = AgentError::Misconfigured(format!("there is no agent {agent_id:?}"));
                ("none", Err(Failed { error, tokens: None }))
            }
            Some(Built::Knowledge(agent)) => ("knowledge", Ok(agent.answer(*question))),
            Some(Built::OpenAi(agent)) => ("openai", agent.answer(question, wait, spent).await),
        };
        let outcome = match &answered {
            Ok(Answered { answer: Answer::Reply { text, .. }, .. }) if Choice::read(text).is_some() => "asked_back",
            Ok(Answered { answer: Answer::Reply { .. }, .. }) => "reply",
            Ok(Answered { answer: Answer::Handoff { .. }, .. }) => "handoff",
            Err(failed) => failed.error.outcome(),
        };
        self.metrics.relay.agent_requests.with_label_values(&[agent_id, kind, outcome]).inc();
        answered
    }
}

/// A folder's index, shared by all who use it.
fn folder(
    folders: &mut BTreeMap<PathBuf, Arc<knowledge::Knowledge>>,
    id: &str,
    dir: &Path,
) -> Result<Arc<knowledge::Knowledge>, BuildError> {
    if let Some(known) = folders.get(dir) {
        return Ok(Arc::clone(known));
    }
    let read = knowledge::Knowledge::read(dir);
    let read = read.map(Arc::new).map_err(|source| BuildError::Knowledge { id: id.to_owned(), source })?;
    folders.insert(dir.to_owned(), Arc::clone(&read));
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::http::resolve::Resolver;

    fn build(text: &str, dir: &Path) -> Result<(Agents, Arc<Metrics>), BuildError> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let config = Config::from_str(text, dir, &|_| None).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let http = Client::new(Resolver::new(), Duration::from_secs(1));
        let upstreams = Upstreams::new(&config.upstreams, &Clock::system(), &metrics, None).unwrap();
        Ok((Agents::build(&config, &upstreams, &http, Arc::clone(&metrics))?, metrics))
    }

    const CONFIG: &str = r#"
[[upstream]]
name = "main"
base_url = "http://127.0.0.1:1/v1"
models = ["*"]
[[agent]]
id = "model"
kind = "openai"
upstream = "main"
model = "llama"
system_prompt = "Be kind."
[[agent]]
id = "faq"
kind = "knowledge"
dir = "faq"
"#;

    #[tokio::test]
    async fn each_agent_is_found_by_its_id_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("faq")).unwrap();
        std::fs::write(dir.path().join("faq/hours.md"), "# Opening hours\n\nWe are open from 9 to 5.").unwrap();
        let (agents, metrics) = build(CONFIG, dir.path()).unwrap();
        let ask = async |agent_id: &str, text: &str| {
            let history = [Utterance { from: Speaker::Customer, text: text.to_owned() }];
            let contact = Contact::default();
            let medium = Medium::Web;
            let (teams, level_max) = (BTreeMap::new(), Level::L3);
            let (tenant_id, conversation_id, teams) = ("acme", 1, &teams);
            let (history, contact) = (&history, &contact);
            let question = Question { tenant_id, conversation_id, history, contact, medium, teams, level_max };
            agents.answer(agent_id, &question, Duration::from_secs(5), &Spent::default()).await
        };
        let answered = ask("faq", "What are your opening hours?").await.unwrap();
        let text = "We are open from 9 to 5.\n\nSource: Opening hours".to_owned();
        assert_eq!(answered.answer, Answer::Reply { text, sources: vec!["Opening hours".to_owned()] });
        assert!(matches!(ask("faq", "Sell me a boat").await.unwrap().answer, Answer::Handoff { .. }));
        assert!(matches!(ask("model", "Hello").await.unwrap_err().error, AgentError::Unavailable(_)));
        let unknown = ask("nobody", "Hello").await.unwrap_err().error;
        assert!(matches!(unknown, AgentError::Misconfigured(_)) && !unknown.retriable());
        let page = String::from_utf8(metrics.page()).unwrap();
        for counted in [
            ("faq", "knowledge", "reply"),
            ("faq", "knowledge", "handoff"),
            ("model", "openai", "unavailable"),
            ("nobody", "none", "misconfigured"),
        ] {
            let (agent, kind, outcome) = counted;
            let line =
                format!("relais_agent_requests_total{{agent=\"{agent}\",kind=\"{kind}\",outcome=\"{outcome}\"}} 1");
            assert!(page.contains(&line), "{line}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_told_with_its_agent() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("faq")).unwrap();
        let error = build(CONFIG, dir.path()).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "reading the knowledge of agent \"faq\"");
    }
}
