//! The demo's world on disk and on the network: a directory with a configuration and a shop's FAQ,
//! free ports, fresh secrets, and the processes that go with them.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tempfile::TempDir;
use tokio::process::Command;

use super::Options;
use super::children::Children;
use super::show::Show;
use crate::http::exchange;

/// The shop's FAQ in English and French, one topic a file.
const KNOWLEDGE: [(&str, &str); 14] = [
    ("boutique.md", include_str!("../../demo/knowledge/boutique.md")),
    ("commandes.md", include_str!("../../demo/knowledge/commandes.md")),
    ("delivery.md", include_str!("../../demo/knowledge/delivery.md")),
    ("garantie.md", include_str!("../../demo/knowledge/garantie.md")),
    ("livraison.md", include_str!("../../demo/knowledge/livraison.md")),
    ("orders.md", include_str!("../../demo/knowledge/orders.md")),
    ("paiement.md", include_str!("../../demo/knowledge/paiement.md")),
    ("payment.md", include_str!("../../demo/knowledge/payment.md")),
    ("products.md", include_str!("../../demo/knowledge/products.md")),
    ("produits.md", include_str!("../../demo/knowledge/produits.md")),
    ("retours.md", include_str!("../../demo/knowledge/retours.md")),
    ("returns.md", include_str!("../../demo/knowledge/returns.md")),
    ("shop.md", include_str!("../../demo/knowledge/shop.md")),
    ("warranty.md", include_str!("../../demo/knowledge/warranty.md")),
];
/// What a real model is told it is.
const SYSTEM_PROMPT: &str = "You are the friendly support agent of a small online shoe shop. Answer in one or two short \
                             sentences. Parcels take two working days. Returns are free within 30 days.";
/// How long the processes have until they are ready. Opening databases on a slow disk takes a while.
const READY_WAIT_MAX: Duration = Duration::from_secs(30);
/// How often we ask whether one is.
const READY_ASK_EVERY: Duration = Duration::from_millis(50);

/// Everything that is decided before the first process starts.
pub(super) struct Stage {
    dir: TempDir,
    relais: PathBuf,
    ports: Ports,
    /// The API key of the demo's tenant.
    pub(super) api_key: String,
    bot_token: String,
    webhook_secret: String,
    llm_key: String,
    llm_url: String,
    /// The model the printed call asks for.
    pub(super) model: String,
    /// The model is the caller's, not our fake.
    has_real_model: bool,
}

#[derive(Clone, Copy)]
struct Ports {
    public: u16,
    admin: u16,
    chatwoot: u16,
    llm: u16,
}

impl Stage {
    pub(super) fn build(options: &Options) -> anyhow::Result<Self> {
        let relais = match &options.relais {
            Some(path) => path.clone(),
            None => std::env::current_exe().context("finding this program's own folder")?.with_file_name("relais"),
        };
        let dir = tempfile::Builder::new().prefix("relais-demo-").tempdir().context("making a temporary directory")?;
        let ports = Ports::free().context("finding free ports")?;
        let stage = Self {
            dir,
            relais,
            ports,
            api_key: format!("rk_test_{}_{}", random_hex::<6>()?, random_hex::<32>()?),
            bot_token: random_hex::<12>()?,
            webhook_secret: random_hex::<16>()?,
            llm_key: options.key.clone().unwrap_or(format!("sk-{}", random_hex::<12>()?)),
            llm_url: options.llm_url.clone().unwrap_or(format!("http://127.0.0.1:{}/v1", ports.llm)),
            model: options.model.clone().unwrap_or_else(|| "fake-model".to_owned()),
            has_real_model: options.llm_url.is_some(),
        };
        stage.write_files().context("writing the demo's files")?;
        Ok(stage)
    }

    fn write_files(&self) -> anyhow::Result<()> {
        let knowledge = self.dir.path().join("knowledge");
        fs::create_dir(&knowledge)?;
        for (name, text) in KNOWLEDGE {
            fs::write(knowledge.join(name), text)?;
        }
        fs::write(self.dir.path().join("system_prompt.md"), SYSTEM_PROMPT)?;
        // The directory is 0700: the secrets in this file are for us alone.
        fs::write(self.config_path(), self.config())?;
        Ok(())
    }

    /// The gateway's configuration, as an operator would write it.
    fn config(&self) -> String {
        let Ports { public, admin, chatwoot, .. } = self.ports;
        let dir = self.dir.path().display();
        let Self { api_key, bot_token, webhook_secret, .. } = self;
        // A string of JSON is a string of TOML.
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let (llm_url, llm_key, model) = (quoted(&self.llm_url), quoted(&self.llm_key), quoted(&self.model));
        let model_agent = format!(
            r#"
[[agent]]
id = "model"
kind = "openai"
upstream = "main"
model = {model}
system_prompt = "file:{dir}/system_prompt.md"
"#
        );
        let (model_agent, agent) = if self.has_real_model { (model_agent.as_str(), "model") } else { ("", "default") };
        format!(
            r#"[listen]
public = "127.0.0.1:{public}"
admin = "127.0.0.1:{admin}"

[storage]
dir = "{dir}/data"

[[upstream]]
name = "main"
base_url = {llm_url}
api_key = {llm_key}
models = ["*"]

[[agent]]
id = "default"
kind = "knowledge"
dir = "{dir}/knowledge"
{model_agent}
[[tenant]]
id = "demo"
plans = ["app.business", "api.pro", "chatwoot.pro"]

[[tenant.key]]
name = "demo"
secret = "{api_key}"

[[tenant.chatwoot]]
channel = "main"
url = "http://127.0.0.1:{chatwoot}"
account_id = 1
bot_id = 7
bot_token = "{bot_token}"
webhook_secret = "{webhook_secret}"
agent = "{agent}"
"#
        )
    }

    /// Starts everything, waits until it is ready and says so.
    pub(super) async fn start_all(&self, children: &mut Children, show: &Show) -> anyhow::Result<()> {
        let this_program = std::env::current_exe().context("finding this program")?;
        let Ports { chatwoot, llm, .. } = self.ports;
        if !self.has_real_model {
            let mut command = Command::new(&this_program);
            command.args(["llm", "--gap-ms", "60", "--tokens", "32", "--port"]).arg(llm.to_string());
            command.env("RELAIS_LOAD_LLM_KEY", &self.llm_key);
            children.start("fake-llm", &mut command)?;
        }
        let mut command = Command::new(&this_program);
        command.args(["chatwoot", "--account", "1", "--bot", "7", "--port"]).arg(chatwoot.to_string());
        command.arg("--gateway-url").arg(format!("{}/chatwoot/demo", self.public_url()));
        // Not as arguments: those are for all to see.
        command.env("RELAIS_LOAD_BOT_TOKEN", &self.bot_token).env("RELAIS_LOAD_SECRET", &self.webhook_secret);
        children.start("fake-chatwoot", &mut command)?;
        self.start_gateway(children)?;

        if self.has_real_model {
            show.aside(&format!("model     {} at {}", self.model, self.llm_url))?;
        } else {
            let url = format!("http://127.0.0.1:{llm}");
            children.or_death(ready("the fake model", &format!("{url}/health"))).await?;
            show.aside(&format!("model     a fake one at {url}/v1"))?;
        }
        children.or_death(ready("the fake Chatwoot", &format!("{}/control/world", self.chatwoot_url()))).await?;
        show.aside(&format!("Chatwoot  a fake one at {}", self.chatwoot_url()))?;
        children.or_death(self.gateway_ready()).await?;
        show.aside(&format!("gateway   {} (the real one)", self.public_url()))?;
        Ok(())
    }

    /// Starts the gateway, on what it left behind if it ran before.
    pub(super) fn start_gateway(&self, children: &mut Children) -> anyhow::Result<()> {
        children.start("relais", Command::new(&self.relais).arg("--config").arg(self.config_path()))
    }

    /// Waits until the gateway takes work.
    pub(super) async fn gateway_ready(&self) -> anyhow::Result<()> {
        ready("the gateway", &format!("{}/readyz", self.admin_url())).await
    }

    /// The gateway's program.
    pub(super) fn relais(&self) -> &Path {
        &self.relais
    }

    /// The page, which the fake Chatwoot serves.
    pub(super) fn page_url(&self) -> String {
        format!("{}/demo", self.chatwoot_url())
    }

    pub(super) fn public_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.public)
    }

    pub(super) fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.admin)
    }

    pub(super) fn chatwoot_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.chatwoot)
    }

    pub(super) fn config_path(&self) -> PathBuf {
        self.dir.path().join("relais.toml")
    }

    pub(super) fn log_dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Leaves the directory behind, for whoever looks for what went wrong.
    pub(super) fn keep(self) -> PathBuf {
        self.dir.keep()
    }
}

impl Ports {
    /// Four ports nobody listens on. Somebody might before we do; then a process dies and says why.
    fn free() -> std::io::Result<Self> {
        // All held until all are known, so that they differ.
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let (first, second, third, fourth) = (bind()?, bind()?, bind()?, bind()?);
        let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port());
        Ok(Self { public: port(&first)?, admin: port(&second)?, chatwoot: port(&third)?, llm: port(&fourth)? })
    }
}

fn random_hex<const BYTES: usize>() -> anyhow::Result<String> {
    let mut bytes = [0u8; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("asking the system for random bytes: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Asks until the answer is 200.
async fn ready(name: &str, url: &str) -> anyhow::Result<()> {
    let asked = async {
        loop {
            let request = Request::get(url).body(Full::<Bytes>::default())?;
            if exchange(request, READY_WAIT_MAX).await.is_ok_and(|answer| answer.status() == http::StatusCode::OK) {
                return Ok(());
            }
            tokio::time::sleep(READY_ASK_EVERY).await;
        }
    };
    tokio::time::timeout(READY_WAIT_MAX, asked)
        .await
        .unwrap_or_else(|_| Err(anyhow::anyhow!("{name} was not ready within {READY_WAIT_MAX:?}")))
}
