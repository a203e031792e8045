//! The demo's processes: started with a log each, watched, and stopped one by one by their id.
//!
//! Each is in a process group of its own, so that a Ctrl-C at the terminal reaches the demo alone and
//! the order of stopping stays ours: last started, first stopped. Should the demo itself panic, they
//! are killed when it drops them.

use std::fs::{File, OpenOptions};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

use super::show::Show;

/// How often somebody looks whether all are still alive.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a child has to stop when asked to. The gateway drains no longer than its own 30 s; with
/// nobody connected it is done at once.
const STOP_WAIT_MAX: Duration = Duration::from_secs(10);
/// Lines of a log that are shown when something went wrong.
const LAST_LINES: usize = 12;
/// The end of a log that is read for them.
const LOG_TAIL_BYTES_MAX: u64 = 16 << 10;

struct Member {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// The processes the demo has started.
pub(super) struct Children {
    members: Vec<Member>,
    log_dir: PathBuf,
}

impl Children {
    pub(super) fn new(log_dir: PathBuf) -> Self {
        Self { members: Vec::new(), log_dir }
    }

    /// Starts a process under a name; its output goes to `<name>.log`, after that of one of that name before.
    pub(super) fn start(&mut self, name: &'static str, command: &mut Command) -> anyhow::Result<()> {
        let log = self.log_dir.join(format!("{name}.log"));
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("creating the log of {name}"))?;
        let err = out.try_clone().with_context(|| format!("opening the log of {name} twice"))?;
        let program = command.as_std().get_program().to_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("starting {name} ({})", Path::new(&program).display()))?;
        self.members.push(Member { name, child, log });
        Ok(())
    }

    /// Ends one at once, as a crash would.
    pub(super) async fn crash(&mut self, name: &str) -> anyhow::Result<()> {
        let place = self.members.iter().position(|member| member.name == name);
        let mut member = self.members.remove(place.with_context(|| format!("there is no process {name}"))?);
        member.child.kill().await.with_context(|| format!("killing {name}"))
    }

    /// The first that has ended, if one has: none of them should while the demo runs.
    fn dead(&mut self) -> Option<(&'static str, ExitStatus)> {
        self.members.iter_mut().find_map(|member| Some((member.name, member.child.try_wait().ok()??)))
    }

    /// Does something, unless one of the children dies meanwhile; then that is the error.
    pub(super) async fn or_death<T>(&mut self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let mut work = std::pin::pin!(work);
        loop {
            if let Ok(done) = tokio::time::timeout(LOOK_EVERY, work.as_mut()).await {
                // A child's death explains a failure better than what it led to.
                return match (done, self.dead()) {
                    (Err(_), Some((name, status))) => Err(died(name, status)),
                    (done, _) => done,
                };
            }
            if let Some((name, status)) = self.dead() {
                bail!(died(name, status));
            }
        }
    }

    /// Asks each to stop (SIGTERM), last started first, and waits. True if all ended well.
    pub(super) async fn stop_all(&mut self, show: &Show) -> std::io::Result<bool> {
        let mut all_well = true;
        while let Some(mut member) = self.members.pop() {
            let name = member.name;
            let Some(pid) = member.child.id() else {
                // It had died before; whoever saw that has said so.
                all_well = false;
                continue;
            };
            terminate(pid).await;
            match tokio::time::timeout(STOP_WAIT_MAX, member.child.wait()).await {
                Ok(Ok(status)) if status.success() => show.aside(&format!("Stopped {name} (process {pid})."))?,
                Ok(Ok(status)) => {
                    all_well = false;
                    show.plain(&format!("{name} (process {pid}) did not end well: {status}."))?;
                }
                Ok(Err(error)) => {
                    all_well = false;
                    show.plain(&format!("Waiting for {name} (process {pid}) failed: {error}."))?;
                }
                Err(_) => {
                    all_well = false;
                    show.plain(&format!(
                        "{name} (process {pid}) did not stop within {STOP_WAIT_MAX:?} and is killed."
                    ))?;
                    // If even that fails it is gone already.
                    drop(member.child.kill().await);
                }
            }
        }
        Ok(all_well)
    }

    /// The ends of the logs, for whoever wants to know why.
    pub(super) fn show_last_lines(&self, show: &Show) -> std::io::Result<()> {
        for member in &self.members {
            let lines = last_lines(&member.log);
            if !lines.is_empty() {
                show.plain(&format!("\nThe last lines of {}:", member.log.display()))?;
                lines.iter().try_for_each(|line| show.aside(&format!("  {line}")))?;
            }
        }
        Ok(())
    }
}

fn died(name: &str, status: ExitStatus) -> anyhow::Error {
    anyhow::anyhow!("the process {name} died ({status})")
}

/// Sends SIGTERM through the shell's own `kill`: the standard library has no other signal than KILL.
async fn terminate(pid: u32) {
    let sent =
        Command::new("sh").arg("-c").arg("kill -TERM \"$0\"").arg(pid.to_string()).stderr(Stdio::null()).status();
    // If it is gone already, waiting for it will say so.
    drop(sent.await);
}

fn last_lines(log: &Path) -> Vec<String> {
    use std::io::{Read, Seek, SeekFrom};
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(LOG_TAIL_BYTES_MAX)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    // A log that cannot be read has nothing to tell.
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.get(lines.len().saturating_sub(LAST_LINES)..).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script);
        command
    }

    #[tokio::test]
    async fn a_death_is_named_and_its_log_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let mut children = Children::new(dir.path().to_owned());
        children.start("sleeper", &mut sh("exec sleep 60")).unwrap();
        children.start("victim", &mut sh("echo no such plan; exit 3")).unwrap();
        let error = children.or_death::<()>(std::future::pending()).await.unwrap_err();
        assert!(format!("{error}").contains("victim") && format!("{error}").contains('3'), "{error}");
        assert_eq!(last_lines(&children.members[1].log), ["no such plan"]);
        let show = Show::new();
        // The sleeper ends by the signal, which is not a good end, and the victim had ended before.
        assert!(!children.stop_all(&show).await.unwrap());
        assert!(children.members.is_empty());
    }

    #[tokio::test]
    async fn who_stops_when_asked_ends_well() {
        let dir = tempfile::tempdir().unwrap();
        let mut children = Children::new(dir.path().to_owned());
        children.start("polite", &mut sh("trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done")).unwrap();
        let log = children.members[0].log.clone();
        let up = async {
            while last_lines(&log).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        children.or_death(up).await.unwrap();
        assert!(children.stop_all(&Show::new()).await.unwrap());
    }

    #[test]
    fn only_the_end_of_a_log_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let text: String = (0..5000).map(|number| format!("line {number}\n")).collect();
        std::fs::write(&log, text).unwrap();
        let lines = last_lines(&log);
        assert_eq!((lines.len(), lines[0].as_str(), lines[11].as_str()), (12, "line 4988", "line 4999"));
        assert!(last_lines(&dir.path().join("none")).is_empty());
    }
}
