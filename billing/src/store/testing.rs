//! A database for one test: SQLite in a folder that goes with it, or a PostgreSQL database of its own.
//!
//! The same tests run on both: `RELAIS_POSTGRES=postgres://…` names a server on which databases may be made, and then
//! every test gets one. Not for the program itself.

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};

use super::Store;
use crate::clock::Clock;
use crate::config::{Database, Pool};
use crate::vault::Vault;

/// The variable that names a PostgreSQL server.
const SERVER: &str = "RELAIS_POSTGRES";

/// Where a test keeps its database.
#[derive(Debug)]
pub struct Place {
    /// As it is configured.
    pub database: Database,
    folder: PathBuf,
}

/// A store for one test.
#[derive(Debug)]
pub struct Scratch {
    /// The store.
    pub store: Arc<Store>,
    /// Its clock, at 2026-01-01 until it is moved.
    pub clock: Clock,
    /// Where it is.
    pub place: Place,
}

#[expect(clippy::expect_used, reason = "a test's helper is a test: what is missing fails it")]
impl Place {
    /// A place where nothing is.
    pub async fn new() -> Self {
        let name = format!("relais_test_{}", uuid::Uuid::now_v7().simple());
        let folder = std::env::temp_dir().join(&name);
        let pool = Pool { readers: 2, wait_ms: 20_000 };
        let database = match std::env::var(SERVER) {
            Ok(server) => {
                on_server(&server, format!("CREATE DATABASE {name}")).await;
                let (base, _) = server.rsplit_once('/').expect("postgres://USER@HOST:PORT/DATABASE");
                Database::Postgres { url: SecretString::from(format!("{base}/{name}")), pool }
            }
            Err(_) => Database::Sqlite { path: folder.join("billing.db"), pool },
        };
        Self { database, folder }
    }

    /// As `database.url` of a configuration.
    pub fn url(&self) -> String {
        match &self.database {
            Database::Sqlite { path, .. } => format!("sqlite:{}", path.display()),
            Database::Postgres { url, .. } => url.expose_secret().to_owned(),
        }
    }

    /// Takes it away.
    pub async fn remove(self) {
        if let Ok(server) = std::env::var(SERVER) {
            let name = self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            on_server(&server, format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
        // There is none on PostgreSQL.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Scratch {
    /// The keys of its vault.
    pub const KEYS: &str = "test:0101010101010101010101010101010101010101010101010101010101010101";

    /// A new database, empty.
    pub async fn new() -> Self {
        Self::open(Place::new().await, Clock::manual(1_767_225_600_000), Self::KEYS).await
    }

    /// The same database, opened again.
    pub async fn reopened(self) -> Self {
        self.reopened_with(Self::KEYS).await
    }

    /// The same database, opened again with other keys.
    pub async fn reopened_with(self, keys: &str) -> Self {
        self.store.close().await;
        let Self { store, clock, place } = self;
        drop(store);
        Self::open(place, clock, keys).await
    }

    #[expect(clippy::expect_used, reason = "a test's helper is a test: what is missing fails it")]
    async fn open(place: Place, clock: Clock, keys: &str) -> Self {
        let vault = Arc::new(Vault::parse(keys).expect("the keys are good"));
        let store = Store::open(&place.database, clock.clone(), vault).await.expect("the database opens");
        Self { store: Arc::new(store), clock, place }
    }

    /// Ends it and takes it away.
    pub async fn close(self) {
        self.store.close().await;
        drop(self.store);
        self.place.remove().await;
    }
}

#[expect(clippy::expect_used, reason = "a test's helper is a test: what is missing fails it")]
async fn on_server(server: &str, statement: String) {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(server).await.expect("RELAIS_POSTGRES names a server that runs");
    connection.execute(AssertSqlSafe(statement)).await.expect("databases may be made there");
    connection.close().await.expect("the connection ends");
}
