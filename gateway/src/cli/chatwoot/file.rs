//! The file a connected channel lives in: `chatwoot-{tenant}-{channel}.toml`, 0600, in a folder the configuration includes.
//!
//! It holds secrets, so it is made with its mode, written whole beside its place and renamed into it. What an operator
//! added to the channel (a team, an agent for one inbox) is kept over later runs; comments are not.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use relais_gateway::config::Config;
use secrecy::{ExposeSecret as _, SecretString};
use toml::{Table, Value};

const HEAD: &str = "# Kept by `relais chatwoot connect`; `relais chatwoot disconnect` removes it. It holds secrets.\n\
    # Keys you add to the channel stay; comments do not.\n\n";
const MODE: u32 = 0o600;

/// The channel's file, as it is or would be.
#[derive(Debug)]
pub(super) struct OwnFile {
    /// Where it is or goes.
    pub(super) path: PathBuf,
    tenant: String,
    /// What is in it; none if there is no file.
    was: Option<Table>,
}

/// What connecting found out.
pub(super) struct Connected<'a> {
    pub(super) channel: &'a str,
    pub(super) url: &'a str,
    pub(super) account_id: u64,
    pub(super) bot_id: u64,
    pub(super) bot_token: &'a SecretString,
    pub(super) webhook_secret: Option<&'a SecretString>,
    pub(super) path_token: &'a SecretString,
    /// None leaves the one that is there.
    pub(super) user_token: Option<&'a SecretString>,
    pub(super) agent: &'a str,
}

impl OwnFile {
    /// Finds the file, or where it would go. None: the configuration includes no folder it could go into.
    pub(super) fn find(config: &Config, tenant: &str, channel: &str) -> anyhow::Result<Option<Self>> {
        let name = format!("chatwoot-{tenant}-{channel}.toml");
        let places: Vec<PathBuf> =
            config.folders.iter().filter(|folder| folder.takes(&name)).map(|folder| folder.dir.join(&name)).collect();
        let Some(path) = places.iter().find(|path| path.exists()).or_else(|| places.first()).cloned() else {
            return Ok(None);
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(Self { path, tenant: tenant.to_owned(), was: None }));
            }
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        // The parser's message would quote the line, which may be a secret.
        let root: Table =
            text.parse().ok().with_context(|| format!("{} is no TOML: mend or remove it", path.display()))?;
        let Some(was) = only_channel(&root, tenant, channel) else {
            bail!("{} holds something else than the channel \"{channel}\" of \"{tenant}\"", path.display());
        };
        Ok(Some(Self { path, tenant: tenant.to_owned(), was: Some(was) }))
    }

    pub(super) fn exists(&self) -> bool {
        self.was.is_some()
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.was.as_ref()?.get(key)?.as_str()
    }

    pub(super) fn number(&self, key: &str) -> Option<u64> {
        self.was.as_ref()?.get(key)?.as_integer().and_then(|number| u64::try_from(number).ok())
    }

    /// What the file is to say; none if it says so already.
    pub(super) fn changed(&self, connected: &Connected<'_>) -> anyhow::Result<Option<String>> {
        let mut table = self.was.clone().unwrap_or_default();
        let mut set = |key: &str, value: Value| table.insert(key.to_owned(), value);
        let number = |number: u64| i64::try_from(number).map(Value::Integer).context("a number beyond all bounds");
        set("channel", connected.channel.into());
        set("url", connected.url.into());
        set("account_id", number(connected.account_id)?);
        set("bot_id", number(connected.bot_id)?);
        set("bot_token", connected.bot_token.expose_secret().into());
        set("path_token", connected.path_token.expose_secret().into());
        set("agent", connected.agent.into());
        if let Some(token) = connected.user_token {
            set("user_token", token.expose_secret().into());
        }
        match connected.webhook_secret {
            Some(secret) => {
                let before = set("webhook_secret", secret.expose_secret().into());
                // Jobs queued before it changed are still signed with the one before.
                if let Some(before) = before.filter(|before| before.as_str() != Some(secret.expose_secret())) {
                    set("previous_webhook_secret", before);
                }
            }
            None => {
                table.remove("webhook_secret");
                table.remove("previous_webhook_secret");
            }
        }
        if self.was.as_ref() == Some(&table) {
            return Ok(None);
        }
        let mut tenant = Table::new();
        tenant.insert("id".to_owned(), self.tenant.as_str().into());
        tenant.insert("chatwoot".to_owned(), Value::Array(vec![Value::Table(table)]));
        let root = Table::from_iter([("tenant".to_owned(), Value::Array(vec![Value::Table(tenant)]))]);
        let text = toml::to_string(&root).context("writing the channel as TOML")?;
        Ok(Some(format!("{HEAD}{text}")))
    }

    /// Writes it: whole, or not at all.
    pub(super) fn write(&self, text: &str) -> anyhow::Result<()> {
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let written = write_beside(dir, &self.path, text);
        written.with_context(|| format!("writing {}", self.path.display()))
    }

    /// Closes it to others, if it was open. True if it had to.
    pub(super) fn close(&self) -> anyhow::Result<bool> {
        let say = || format!("closing {} to others", self.path.display());
        let mode = fs::metadata(&self.path).with_context(say)?.mode() & 0o777;
        if mode & 0o077 == 0 {
            return Ok(false);
        }
        fs::set_permissions(&self.path, Permissions::from_mode(MODE)).with_context(say)?;
        Ok(true)
    }

    /// Removes it.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("removing {}", self.path.display()))
    }
}

fn write_beside(dir: &Path, path: &Path, text: &str) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // No pattern includes a name with a dot before it.
    let beside = dir.join(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&beside)?;
        file.write_all(text.as_bytes())?;
        // Written by root for a gateway that is not: whose folder it is, theirs is the file.
        let (owner, made) = (fs::metadata(dir)?, file.metadata()?);
        if made.uid() == 0 && owner.uid() != 0 {
            std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(dir)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// The channel, if the file holds this one and nothing else.
fn only_channel(root: &Table, tenant: &str, channel: &str) -> Option<Table> {
    let [only] = root.get("tenant")?.as_array()?.as_slice() else { return None };
    let [table] = only.get("chatwoot")?.as_array()?.as_slice() else { return None };
    let named = only.get("id")?.as_str()? == tenant && table.get("channel")?.as_str()? == channel;
    let alone = root.len() == 1 && only.as_table()?.len() == 2;
    (named && alone).then(|| table.as_table().cloned()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected<'a>(secret: &'a SecretString, token: &'a SecretString) -> Connected<'a> {
        Connected {
            channel: "main",
            url: "https://chat.example.com",
            account_id: 1,
            bot_id: 7,
            bot_token: token,
            webhook_secret: Some(secret),
            path_token: token,
            user_token: None,
            agent: "default",
        }
    }

    #[test]
    fn it_is_closed_to_others_whole_and_keeps_what_was_added() {
        let dir = tempfile::tempdir().unwrap();
        let text = "include = [\"conf.d/*.toml\"]\n[[agent]]\nid = \"default\"\nkind = \"knowledge\"\ndir = \".\"\n";
        let config = Config::from_str(text, dir.path(), &|_| None).unwrap();
        let find = || OwnFile::find(&config, "acme", "main").unwrap().unwrap();
        let (secret, token) = (SecretString::from("one"), SecretString::from("t".repeat(30)));
        let text = find().changed(&connected(&secret, &token)).unwrap().unwrap();
        find().write(&text).unwrap();
        let path = dir.path().join("conf.d/chatwoot-acme-main.toml");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("conf.d")).unwrap().count(), 1, "nothing is left beside it");
        assert!(find().changed(&connected(&secret, &token)).unwrap().is_none());

        fs::write(&path, format!("{text}idle = {{ after_minutes = 5 }}\n")).unwrap();
        let other = SecretString::from("two");
        let text = find().changed(&connected(&other, &token)).unwrap().unwrap();
        assert!(text.contains("after_minutes = 5") && text.contains("previous_webhook_secret = \"one\""), "{text}");
        fs::write(&path, "[[tenant]]\nid = \"acme\"\n[[tenant.chatwoot]]\nchannel = \"other\"\n").unwrap();
        assert!(OwnFile::find(&config, "acme", "main").is_err(), "another channel's");
        fs::write(&path, "webhook_secret = \"sesame").unwrap();
        let error = format!("{:#}", OwnFile::find(&config, "acme", "main").unwrap_err());
        assert!(!error.contains("sesame"), "{error}");
    }

    #[test]
    fn without_a_folder_there_is_no_place_for_it() {
        let dir = tempfile::tempdir().unwrap();
        for include in ["[]", "[\"one.toml\"]", "[\"conf.d/tenant-*.toml\"]"] {
            fs::write(dir.path().join("one.toml"), "").unwrap();
            let config = Config::from_str(&format!("include = {include}"), dir.path(), &|_| None).unwrap();
            assert!(OwnFile::find(&config, "acme", "main").unwrap().is_none(), "{include}");
        }
    }
}
