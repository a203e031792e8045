//! The data directory belongs to one gateway at a time: two on one inbox would answer customers twice.
//!
//! Held by a lock on a file in it, which the kernel lets go when the process ends, however it ends. It does not make
//! files safe on a network file system that does not lock.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The file's name.
const NAME: &str = "relais.lock";
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(50);

/// Why the data directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another gateway has it, and did not let go.
    #[error("another Relais{} uses {}: stop it first, or give this one a storage.dir of its own", process(.0), .1.display())]
    InUse(Option<u32>, PathBuf),
    /// It cannot be made, written or locked.
    #[error("taking {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// Makes the data directory if it is missing. Only its owner may read what customers wrote.
pub fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn process(id: &Option<u32>) -> String {
    id.map(|id| format!(" (process {id})")).unwrap_or_default()
}

/// Proof that the data directory is ours. Dropped, it is free again.
#[derive(Debug)]
pub struct StorageLock {
    _file: File,
}

impl StorageLock {
    /// Takes the directory, made if missing. Waits as long for a gateway that is just stopping. Blocks.
    pub fn take(dir: &Path, wait: Duration) -> Result<Self, StorageError> {
        let failed = |error| StorageError::Io(dir.to_path_buf(), error);
        make_dir(dir).map_err(failed)?;
        // Never removed: a removed file could be locked by two.
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join(NAME))
            .map_err(failed)?;
        let began = Instant::now();
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) if began.elapsed() >= wait => {
                    return Err(StorageError::InUse(holder(&mut file), dir.to_path_buf()));
                }
                Err(TryLockError::WouldBlock) => {}
            }
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(dir = %dir.display(), "Waiting for another Relais to let go of the data directory.");
            }
            std::thread::sleep(TRY_EVERY.min(wait));
        }
        // For people who look, and for the message above.
        file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(20).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let first = StorageLock::take(&data, Duration::ZERO).unwrap();
        let refused = StorageLock::take(&data, Duration::ZERO).unwrap_err().to_string();
        assert!(refused.contains(&format!("(process {})", std::process::id())), "{refused}");
        drop(first);
        let _second = StorageLock::take(&data, Duration::ZERO).unwrap();
    }

    #[test]
    fn who_waits_gets_it_when_it_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let first = StorageLock::take(dir.path(), Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| StorageLock::take(dir.path(), Duration::from_secs(20)));
            drop(first);
            second.join().unwrap().unwrap();
        });
    }
}
