//! The mark: how many transactions the inbox had committed, kept in `inbox.mark` beside the database.
//!
//! SQLite checksums its log, and recovery ends at the first frame that does not fit: everything after it is gone
//! without an error. The database counts its transactions in the same transactions; this file has the count outside.
//! Where the database has less than the mark, something that was acknowledged is missing, and that is said.
//!
//! Written after each commit and before anyone is answered, without a sync: a few µs. It is synced once a second,
//! away from those who wait. So the mark is never ahead of what was committed, a crash of the process never takes it
//! back, and a power cut by a second at most.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The file's name.
const NAME: &str = "inbox.mark";
/// Two places, written in turn, each in a sector of its own: a torn write leaves the other.
const PLACES: [u64; 2] = [0, 512];

/// The open file.
#[derive(Debug)]
pub(super) struct Mark {
    file: File,
}

impl Mark {
    /// Opens or makes it; and what it says, if it says something.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Option<u64>)> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(dir.join(NAME))?;
        let mark = Self { file };
        let said = PLACES.iter().filter_map(|place| mark.read(*place)).max();
        Ok((mark, said))
    }

    /// Says that so many are committed.
    pub(super) fn set(&self, commits: u64) -> io::Result<()> {
        let mut record = [0; 16];
        let (count, sum) = record.split_at_mut(8);
        count.copy_from_slice(&commits.to_le_bytes());
        sum.copy_from_slice(&self::sum(commits));
        let [even, odd] = PLACES;
        self.file.write_all_at(&record, if commits.is_multiple_of(2) { even } else { odd })
    }

    /// Makes durable what was said.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn read(&self, place: u64) -> Option<u64> {
        let (mut count, mut sum) = ([0; 8], [0; 8]);
        self.file.read_exact_at(&mut count, place).ok()?;
        self.file.read_exact_at(&mut sum, place + 8).ok()?;
        let commits = u64::from_le_bytes(count);
        (sum == self::sum(commits)).then_some(commits)
    }
}

fn sum(commits: u64) -> [u8; 8] {
    let mut short = [0; 8];
    let mut hash = blake3::Hasher::new();
    hash.update(b"inbox.mark").update(&commits.to_le_bytes()).finalize_xof().fill(&mut short);
    short
}
