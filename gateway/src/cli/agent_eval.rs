//! `relais agent eval`: support questions put to an agent, and a scored report of what came back.
//!
//! Each question goes the way a customer's message does: the rules of handoff first, then the agent. Without a
//! configuration it evaluates the embedded agent over the demo's folder with the built-in questions, so that it can be
//! tried at once. It judges by where an answer comes from, or by words a right answer cannot do without; it does not
//! judge style, and it holds no conversation: every question stands alone.

mod judge;
mod report;
mod set;

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use relais_gateway::agent::{Agents, Question, Spent, TokenUse};
use relais_gateway::clock::Clock;
use relais_gateway::config::{AgentKind, Config, Level};
use relais_gateway::conversation::{Contact, Medium, Speaker, Utterance};
use relais_gateway::handoff::{self, Signals};
use relais_gateway::http::client::Client;
use relais_gateway::http::resolve::Resolver;
use relais_gateway::llm::upstream::Upstreams;
use relais_gateway::metrics::Metrics;

use judge::Outcome;
use report::Report;
use set::Set;

/// `relais agent …`
#[derive(Debug, Subcommand)]
pub(crate) enum AgentCommand {
    /// Puts support questions to an agent and scores its answers; fails below the set's minimum.
    Eval(EvalArguments),
}

/// `relais agent eval …`
#[derive(Debug, Args)]
pub(crate) struct EvalArguments {
    /// An agent of the configuration. Without it: its one knowledge agent if --set is given, else the built-in demo.
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// A file of questions. Without it: the built-in ones, which ask about the demo's shoe shop.
    #[arg(long, value_name = "PATH")]
    set: Option<PathBuf>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// Writes the report to this file too, as Markdown.
    #[arg(long, value_name = "PATH")]
    markdown: Option<PathBuf>,
}

const QUESTIONS: &str = include_str!("../../eval/questions.toml");
/// The demo's folder.
const KNOWLEDGE: &[(&str, &str)] = &[
    ("boutique", include_str!("../../../loadtest/demo/knowledge/boutique.md")),
    ("commandes", include_str!("../../../loadtest/demo/knowledge/commandes.md")),
    ("delivery", include_str!("../../../loadtest/demo/knowledge/delivery.md")),
    ("garantie", include_str!("../../../loadtest/demo/knowledge/garantie.md")),
    ("livraison", include_str!("../../../loadtest/demo/knowledge/livraison.md")),
    ("orders", include_str!("../../../loadtest/demo/knowledge/orders.md")),
    ("paiement", include_str!("../../../loadtest/demo/knowledge/paiement.md")),
    ("payment", include_str!("../../../loadtest/demo/knowledge/payment.md")),
    ("products", include_str!("../../../loadtest/demo/knowledge/products.md")),
    ("produits", include_str!("../../../loadtest/demo/knowledge/produits.md")),
    ("retours", include_str!("../../../loadtest/demo/knowledge/retours.md")),
    ("returns", include_str!("../../../loadtest/demo/knowledge/returns.md")),
    ("shop", include_str!("../../../loadtest/demo/knowledge/shop.md")),
    ("warranty", include_str!("../../../loadtest/demo/knowledge/warranty.md")),
];
const DEMO_AGENT: &str = "demo";
/// What the embedded agent may take; it asks nobody, so it never does.
const DEMO_WAIT: Duration = Duration::from_secs(60);

/// Who is evaluated.
struct Subject {
    /// For the report.
    name: String,
    agent_id: String,
    agents: Agents,
    wait: Duration,
}

/// Evaluates, prints, and says by the exit code whether the minimum was reached.
pub(crate) fn run(path: &Path, command: &AgentCommand) -> anyhow::Result<ExitCode> {
    let AgentCommand::Eval(arguments) = command;
    let set = match &arguments.set {
        Some(file) => {
            let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
            Set::read(&text).with_context(|| format!("{} is not a set of questions", file.display()))?
        }
        None => Set::read(QUESTIONS).context("the built-in questions")?,
    };
    // The pool of connections wants a runtime from its first moment.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting a runtime")?;
    let _inside = runtime.enter();
    let subject = if arguments.agent.is_none() && arguments.set.is_none() {
        Subject::demo()?
    } else {
        Subject::configured(&Config::load(path)?, arguments.agent.as_deref())?
    };
    let report = runtime.block_on(evaluate(&subject, &set));
    let text = if arguments.json { report.json()? } else { report.text() };
    io::stdout().write_all(text.as_bytes()).context("printing the report")?;
    if let Some(file) = &arguments.markdown {
        std::fs::write(file, report.markdown()).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(if report.failures().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Subject {
    fn demo() -> anyhow::Result<Self> {
        let agents = Agents::of_texts(DEMO_AGENT, KNOWLEDGE, metrics()?);
        let name = format!("{DEMO_AGENT} (knowledge, built in)");
        Ok(Self { name, agent_id: DEMO_AGENT.to_owned(), agents, wait: DEMO_WAIT })
    }

    fn configured(config: &Config, wanted: Option<&str>) -> anyhow::Result<Self> {
        let known = || config.agents.keys().cloned().collect::<Vec<_>>().join(", ");
        let agent = match wanted {
            Some(id) => {
                config.agents.get(id).with_context(|| format!("there is no agent {id:?}; there are: {}", known()))?
            }
            None => {
                let mut of_knowledge =
                    config.agents.values().filter(|agent| matches!(agent.kind, AgentKind::Knowledge { .. }));
                match (of_knowledge.next(), of_knowledge.next()) {
                    (Some(agent), None) => agent,
                    _ => bail!("say which agent with --agent; there are: {}", known()),
                }
            }
        };
        let kind = match &agent.kind {
            AgentKind::Knowledge { dir } => format!("knowledge, {}", dir.display()),
            AgentKind::OpenAi(model) => format!("model {} at {}", model.model, model.upstream.name),
        };
        let http = Client::new(Resolver::new(), config.timeouts.connect);
        let metrics = metrics()?;
        let upstreams = Upstreams::new(&config.upstreams, &Clock::system(), &metrics, None)?;
        let agents = Agents::build(config, &upstreams, &http, metrics)?;
        let name = format!("{} ({kind})", agent.id);
        Ok(Self { name, agent_id: agent.id.clone(), agents, wait: config.relay.agent_wait })
    }
}

fn metrics() -> anyhow::Result<Arc<Metrics>> {
    Metrics::new().map(Arc::new).context("preparing the metrics")
}

async fn evaluate(subject: &Subject, set: &Set) -> Report {
    let mut report = Report::new(subject.name.clone(), set.minimum.clone());
    for group in &set.groups {
        for (number, text) in group.questions.iter().enumerate() {
            let conversation_id = u64::try_from(number).unwrap_or_default();
            let (outcome, tokens) = ask(subject, text, conversation_id).await;
            report.add(group, text, &outcome, tokens);
        }
    }
    report
}

/// One message, as a turn treats it.
async fn ask(subject: &Subject, text: &str, conversation_id: u64) -> (Outcome, Option<TokenUse>) {
    let signals = Signals { customer_text: text, ..Signals::default() };
    if let Some(reason) = handoff::decide(&signals) {
        return (Outcome::Handoff(reason), None);
    }
    let history = [Utterance { from: Speaker::Customer, text: text.to_owned() }];
    let contact = Contact::default();
    let question = Question {
        tenant_id: "evaluation",
        conversation_id,
        history: &history,
        contact: &contact,
        medium: Medium::Web,
        teams: &BTreeMap::new(),
        level_max: Level::L3,
    };
    match subject.agents.answer(&subject.agent_id, &question, subject.wait, &Spent::default()).await {
        Ok(answered) => (Outcome::of(answered.answer), answered.tokens),
        Err(failed) => (Outcome::Failed(relais_gateway::error::chain(&failed.error)), failed.tokens),
    }
}

#[cfg(test)]
mod tests;
