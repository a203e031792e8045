//! Keeps a second sidecar out: two writers would number revisions and hand out tokens each on its own.
//!
//! SQLite: a lock on a file beside the database. PostgreSQL: an advisory lock, held by a connection of its own. Both go
//! when the process ends, however it ends. A PostgreSQL that restarts drops the lock while we live: that is found by
//! [`Lock::held`], and the process then ends.

use std::fs::{File, OpenOptions, TryLockError};

use sqlx::{AnyConnection, Connection as _};
use tokio::sync::Mutex;

use super::OpenError;
use crate::config::Database;

/// "relaisbi" in ASCII: any number nobody else uses in this database.
const ADVISORY: i64 = 0x7265_6c61_6973_6269;

/// Proof that the database is ours.
#[derive(Debug)]
pub(super) enum Lock {
    /// Held as long as the file is open.
    File { _file: File },
    /// Held as long as the connection is open.
    Connection(Box<Mutex<AnyConnection>>),
}

impl Lock {
    pub(super) async fn take(database: &Database, url: &str) -> Result<Self, OpenError> {
        match database {
            Database::Sqlite { path, .. } => {
                // Never removed: a removed file could be locked by two.
                let path = path.with_added_extension("lock");
                let failed = |error| OpenError::File(path.display().to_string(), error);
                let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
                match file.try_lock() {
                    Ok(()) => Ok(Self::File { _file: file }),
                    Err(TryLockError::WouldBlock) => Err(OpenError::InUse),
                    Err(TryLockError::Error(error)) => Err(failed(error)),
                }
            }
            Database::Postgres { .. } => {
                let mut connection = AnyConnection::connect(url).await.map_err(OpenError::Connect)?;
                let ours: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
                    .bind(ADVISORY)
                    .fetch_one(&mut connection)
                    .await
                    .map_err(OpenError::Connect)?;
                if ours { Ok(Self::Connection(Box::new(Mutex::new(connection)))) } else { Err(OpenError::InUse) }
            }
        }
    }

    /// Whether it is ours still. A connection that answers is the one that took it.
    pub(super) async fn held(&self) -> Result<(), sqlx::Error> {
        match self {
            Self::File { .. } => Ok(()),
            Self::Connection(connection) => connection.lock().await.ping().await,
        }
    }
}
