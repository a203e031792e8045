//! The database: SQLite or PostgreSQL, one SQL text for both.
//!
//! One text, because two would drift: sqlx's `Any` driver, whole numbers and text only, `$1` placeholders, ON CONFLICT
//! and RETURNING, which both understand. What differs stands in this file: how a connection is opened, how a
//! transaction begins, and how a second sidecar is kept out.
//!
//! **One writer.** Every change is a [`Change`]: one transaction on the only connection that may write, so changes
//! happen one after the other in this process, and a lock keeps other processes out. Revisions and audit entries
//! are therefore numbered in the order in which they are committed, on both engines, without retries. A change that is
//! dropped is rolled back before the next one begins, because both use the same connection.
//!
//! **Reading** goes through [`Store::read`]: a transaction that sees one moment. Waits for a connection have a
//! deadline; a statement is bounded by the deadline of the request it serves.
//!
//! Where no request asks (jobs, commands), a change is begun here with an [`Author`] of its own; where one asks, by
//! `api::write`, which adds the `Idempotency-Key`.

#[macro_use]
mod row;

mod change;
mod lock;
mod testing;

pub use self::change::{Author, Change, Subject};
#[doc(hidden)]
pub use self::testing::{Place, Scratch};

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use sqlx::any::AnyPoolOptions;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{Any, AnyPool, Executor as _, SqlSafeStr as _, Transaction};
use tokio::sync::watch;

use self::lock::Lock;
use crate::clock::Clock;
use crate::config::Database;
use crate::error::Error;
use crate::vault::Vault;

/// Every migration: its number, what it does, its text. One is added for every change of the tables, and none is
/// changed once it was released: what was applied is remembered with a checksum.
const MIGRATIONS: &[(i64, &str, &str)] = &[(1, "base", include_str!("../../migrations/0001_base.sql"))];

/// A transaction that only reads, and sees one moment.
pub type Read = Transaction<'static, Any>;

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// SQLite, in a file beside us.
    Sqlite,
    /// PostgreSQL, over a connection.
    Postgres,
}

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another sidecar has it.
    #[error("another relais-billing uses this database: stop it first; one writer at a time")]
    InUse,
    /// The file or its folder cannot be made, or locked.
    #[error("making or locking {0}")]
    File(String, #[source] std::io::Error),
    /// It does not let us in.
    #[error("connecting to the database")]
    Connect(#[source] sqlx::Error),
    /// Its tables are not what this version knows.
    #[error("bringing the tables up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The first rows cannot be written.
    #[error("reading the database's epoch")]
    Epoch(#[source] sqlx::Error),
    /// The machine gives no random bytes.
    #[error("asking the machine for random bytes")]
    Random(#[source] getrandom::Error),
}

/// The open database. Dropped, its lock is free.
#[derive(Debug)]
pub struct Store {
    /// Which engine it is.
    pub engine: Engine,
    /// The life of this database: a new one when it was made.
    pub epoch: String,
    clock: Clock,
    vault: Arc<Vault>,
    /// One connection: whoever has it is the writer.
    writer: AnyPool,
    readers: AnyPool,
    revisions: watch::Sender<i64>,
    lock: Lock,
}

impl Store {
    /// Opens it, keeps others out, and brings its tables up to date.
    pub async fn open(database: &Database, clock: Clock, vault: Arc<Vault>) -> Result<Self, OpenError> {
        sqlx::any::install_default_drivers();
        let (engine, url) = match database {
            Database::Sqlite { path, .. } => {
                make_file(path).map_err(|error| OpenError::File(path.display().to_string(), error))?;
                (Engine::Sqlite, format!("sqlite:{}?mode=rwc", percent_encoded(path)))
            }
            Database::Postgres { url, .. } => (Engine::Postgres, url.expose_secret().to_owned()),
        };
        let lock = Lock::take(database, &url).await?;
        let pool = |connections: u32| {
            AnyPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(Duration::from_millis(database.wait_ms()))
                .after_connect(move |connection, _| {
                    Box::pin(async move {
                        if engine == Engine::Sqlite {
                            // The rest of sqlx's defaults are ours: foreign keys on, every commit synced.
                            connection.execute("PRAGMA journal_mode = WAL").await?;
                            connection.execute("PRAGMA synchronous = FULL").await?;
                        }
                        Ok(())
                    })
                })
        };
        let writer = pool(1).connect(&url).await.map_err(OpenError::Connect)?;
        migrations().run(&writer).await.map_err(OpenError::Migrate)?;
        let readers = pool(database.readers()).connect_lazy(&url).map_err(OpenError::Connect)?;
        let (epoch, rev) = epoch(&writer).await?;
        Ok(Self { engine, epoch, clock, vault, writer, readers, revisions: watch::Sender::new(rev), lock })
    }

    /// The tenants' secrets are sealed and opened with this.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// Begins reading.
    pub async fn read(&self) -> Result<Read, Error> {
        Ok(match self.engine {
            Engine::Sqlite => self.readers.begin().await?,
            Engine::Postgres => self.readers.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?,
        })
    }

    /// Begins a change, once all changes begun before have ended.
    pub async fn change(&self, author: Author) -> Result<Change, Error> {
        let transaction = match self.engine {
            // Immediate: the lock is taken now, not in the middle.
            Engine::Sqlite => self.writer.begin_with("BEGIN IMMEDIATE").await?,
            Engine::Postgres => self.writer.begin().await?,
        };
        Ok(Change::new(transaction, author, self.clock.now_ms(), Arc::clone(&self.vault), self.revisions.clone()))
    }

    /// The last revision committed, and whoever waits for the next one.
    pub fn revisions(&self) -> watch::Receiver<i64> {
        self.revisions.subscribe()
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), Error> {
        sqlx::query("SELECT rev FROM revision").fetch_one(&self.readers).await?;
        Ok(())
    }

    /// Whether we are still the only writer. If not, somebody else may be: stop.
    pub async fn is_ours(&self) -> Result<(), Error> {
        Ok(self.lock.held().await?)
    }

    /// Ends all connections. What is in the middle of something is waited for.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

fn migrations() -> Migrator {
    let migration = |(number, what, text): &(i64, &'static str, &'static str)| {
        Migration::new(*number, (*what).into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(MIGRATIONS.iter().map(migration).collect())
}

/// The database's life and last revision; made when it is new.
async fn epoch(writer: &AnyPool) -> Result<(String, i64), OpenError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(OpenError::Random)?;
    let fresh: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    sqlx::query("INSERT INTO revision (one, epoch, rev) VALUES (1, $1, 0) ON CONFLICT (one) DO NOTHING")
        .bind(fresh)
        .execute(writer)
        .await
        .map_err(OpenError::Epoch)?;
    sqlx::query_as("SELECT epoch, rev FROM revision").fetch_one(writer).await.map_err(OpenError::Epoch)
}

/// Only its owner may read it; SQLite gives its other files the same rights.
fn make_file(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map(drop)
}

/// What means something in a URL is written by its number.
fn percent_encoded(path: &Path) -> String {
    let mut text = String::new();
    for letter in path.to_string_lossy().chars() {
        match letter {
            '%' | '?' | '#' | ' ' => text += &format!("%{:02X}", u32::from(letter)),
            _ => text.push(letter),
        }
    }
    text
}

#[cfg(test)]
mod tests;
