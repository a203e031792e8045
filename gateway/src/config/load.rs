//! From files to a [`Config`]: the main file, what it includes, and everything that is wrong with them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::agents::agents;
use super::raw::{RawConfig, RawInclude};
use super::report::{ConfigError, ConfigErrors, Place, Report, Source};
use super::tenants::{Context, tenants};
use super::text::{CONFIG_BYTES_MAX, Origin, read_text};
use super::upstreams::{Entry, upstreams};
use super::{Config, IncludedFolder, Storage, check, sections};

/// Files a pattern may lead to.
const INCLUDED_FILES_MAX: usize = 10_000;

/// A file that could be read.
struct ReadFile<T> {
    source: Source,
    dir: PathBuf,
    raw: T,
}

type Env<'a> = &'a dyn Fn(&str) -> Option<String>;
/// An included file and what it is taken to say.
type Written<'a> = Option<(&'a Path, &'a str)>;

/// Where an entry of `include` leads.
enum Include {
    One(PathBuf),
    Folder(IncludedFolder),
}

impl Config {
    /// Reads the file, what it includes, and what its `env:` and `file:` lead to.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::load_if(path, None)
    }

    /// The same, as if a file that it includes held this text: what a command is about to write.
    pub fn load_with(path: &Path, included: &Path, text: &str) -> Result<Self, ConfigErrors> {
        Self::load_if(path, Some((included, text)))
    }

    fn load_if(path: &Path, written: Written<'_>) -> Result<Self, ConfigErrors> {
        match read_text(path, CONFIG_BYTES_MAX) {
            Ok(text) => {
                let dir = path.parent().unwrap_or(Path::new(""));
                read(&text, path, dir, &|name| std::env::var(name).ok(), written)
            }
            Err(error) => Err(ConfigErrors(vec![ConfigError {
                file: path.to_owned(),
                key: String::new(),
                position: None,
                message: format!("cannot be read: {error}"),
            }])),
        }
    }

    /// Reads a text as if it stood in `relais.toml` of that directory.
    pub fn from_str(text: &str, base_dir: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigErrors> {
        read(text, Path::new("relais.toml"), base_dir, env, None)
    }
}

fn read(text: &str, file: &Path, dir: &Path, env: Env<'_>, written: Written<'_>) -> Result<Config, ConfigErrors> {
    let mut report = Report::default();
    let (source, raw) = check::read::<RawConfig>(text, file, &mut report);
    let Some(raw) = raw else { return report.finish(None) };
    let main = ReadFile { source, dir: dir.to_owned(), raw };
    let (folders, included) = included(&main, written, &mut report);
    let config = resolve(main, included, env, &mut report);
    let config = config.map(|config| Config { folders, ..config });
    report.finish(config)
}

fn included(
    main: &ReadFile<RawConfig>,
    written: Written<'_>,
    report: &mut Report,
) -> (Vec<IncludedFolder>, Vec<ReadFile<RawInclude>>) {
    let mut paths = BTreeSet::new();
    let mut folders = Vec::new();
    for (index, pattern) in main.raw.include.iter().enumerate() {
        let place = Place::top(&main.source).key("include").item(index);
        let found = include(&main.dir, pattern).and_then(|include| match include {
            Include::One(path) => Ok(vec![path]),
            Include::Folder(folder) => {
                let found = matching(&folder);
                folders.push(folder);
                found
            }
        });
        match found {
            Ok(found) => paths.extend(found),
            Err(error) => report.add(&place, error),
        }
    }
    paths.extend(written.map(|(path, _)| path.to_owned()));
    let mut files = Vec::new();
    for path in paths {
        let text = match written {
            Some((written, text)) if written == path => Ok(text.to_owned()),
            _ => read_text(&path, CONFIG_BYTES_MAX),
        };
        match text {
            Ok(text) => {
                let (source, raw) = check::read::<RawInclude>(&text, &path, report);
                let dir = path.parent().unwrap_or(Path::new("")).to_owned();
                files.extend(raw.map(|raw| ReadFile { source, dir, raw }));
            }
            Err(error) => {
                let place = Place::top(&main.source).key("include");
                report.add(&place, format!("{} cannot be read: {error}", path.display()));
            }
        }
    }
    (folders, files)
}

/// Where a pattern leads: `*` may stand in its last part. A path without `*` must exist, which reading it finds out.
fn include(dir: &Path, pattern: &str) -> Result<Include, String> {
    let path = dir.join(pattern);
    let (Some(parent), Some(last)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err("is no path to a file".to_owned());
    };
    if parent.to_string_lossy().contains('*') {
        return Err("may hold * only after the last slash".to_owned());
    }
    let Some((before, after)) = last.split_once('*') else { return Ok(Include::One(path)) };
    if after.contains('*') {
        return Err("may hold only one *".to_owned());
    }
    let (before, after) = (before.to_owned(), after.to_owned());
    Ok(Include::Folder(IncludedFolder { dir: parent.to_owned(), before, after }))
}

/// The files of a folder. One that is not there yet holds none.
fn matching(folder: &IncludedFolder) -> Result<Vec<PathBuf>, String> {
    let listing = match folder.dir.read_dir() {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{} cannot be read: {error}", folder.dir.display())),
    };
    let mut found = Vec::new();
    for entry in listing {
        let entry = entry.map_err(|error| format!("{} cannot be read: {error}", folder.dir.display()))?;
        if entry.file_name().to_str().is_some_and(|name| folder.takes(name)) {
            found.push(entry.path());
        }
        if found.len() > INCLUDED_FILES_MAX {
            return Err(format!("leads to more than {INCLUDED_FILES_MAX} files"));
        }
    }
    Ok(found)
}

/// Everything below `[limits]` refers to something else: upstreams first, agents, then tenants.
fn resolve(
    main: ReadFile<RawConfig>,
    included: Vec<ReadFile<RawInclude>>,
    env: Env<'_>,
    report: &mut Report,
) -> Option<Config> {
    let ReadFile { source, dir, raw } = main;
    let top = Place::top(&source);
    let origin = Origin { dir: &dir, env };
    let listen = sections::listen(raw.listen, &top.key("listen"), origin, report);
    let mut upstream_entries = entries(raw.upstream, "upstream", &source, origin);
    let mut agent_entries = entries(raw.agent, "agent", &source, origin);
    let main_tenants = entries(raw.tenant, "tenant", &source, origin);
    let mut included_tenants = Vec::new();
    let (sources, raws): (Vec<_>, Vec<_>) =
        included.into_iter().map(|file| ((file.source, file.dir), file.raw)).unzip();
    for ((source, dir), raw) in sources.iter().zip(raws) {
        let origin = Origin { dir, env };
        upstream_entries.extend(entries(raw.upstream, "upstream", source, origin));
        agent_entries.extend(entries(raw.agent, "agent", source, origin));
        included_tenants.extend(entries(raw.tenant, "tenant", source, origin));
    }
    let (upstreams, named_upstreams) = upstreams(upstream_entries, report);
    let agents = agents(agent_entries, &named_upstreams, report);
    let rate_card = sections::rate_card(raw.rate, &top.key("rate"), report);
    let tenants = tenants(main_tenants, included_tenants, &Context { agents: &agents, rate_card }, report);
    Some(Config {
        listen: listen?,
        storage: Storage { dir: origin.path(&raw.storage.dir) },
        runtime: sections::runtime(&raw.runtime),
        limits: raw.limits,
        errors: raw.errors,
        timeouts: sections::timeouts(&raw.timeouts, &top.key("timeouts"), report),
        inbox: sections::inbox(&raw.inbox, &top.key("inbox"), report),
        usage: raw.usage,
        relay: sections::relay(&raw.relay, &top.key("relay"), report),
        sweep: sections::sweep(&raw.sweep),
        cors: sections::cors(raw.cors, &top.key("cors"), report),
        log: sections::log(raw.log, &top.key("log"), report),
        upstreams,
        agents: agents.into_iter().filter_map(|(id, agent)| Some((id, agent?))).collect(),
        tenants,
        files: std::iter::once(source.file.clone())
            .chain(sources.iter().map(|(source, _)| source.file.clone()))
            .collect(),
        folders: Vec::new(),
    })
}

fn entries<'a, T>(raw: Vec<T>, key: &str, source: &'a Source, origin: Origin<'a>) -> Vec<Entry<'a, T>> {
    let place = Place::top(source).key(key);
    raw.into_iter().enumerate().map(|(index, raw)| Entry { raw, place: place.item(index), origin }).collect()
}
