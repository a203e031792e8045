//! Names to addresses, remembered for a while.
//!
//! The general client would call the system's resolver on a thread of its own for every new connection
//! (up to 512 threads). Here one look-up per name is in flight at a time, answers live for 30 s in a bounded
//! cache, and addresses written as numbers are not looked up at all.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::dns::Name;
use moka::future::Cache;
use tower::Service;

/// How long an answer is used. Long enough to spare a burst of connections, short enough to follow a failover.
const ANSWER_LIFE: Duration = Duration::from_secs(30);
/// Names remembered. An installation talks to a handful of upstreams and to its Chatwoots.
const NAMES_MAX: u64 = 10_000;
/// A look-up that takes longer has failed.
const LOOKUP_WAIT: Duration = Duration::from_secs(5);

/// The resolver; clones share one cache.
#[derive(Clone)]
pub struct Resolver {
    answers: Cache<String, Arc<[SocketAddr]>>,
}

impl Resolver {
    /// An empty cache.
    pub fn new() -> Self {
        Self { answers: Cache::builder().max_capacity(NAMES_MAX).time_to_live(ANSWER_LIFE).build() }
    }

    async fn lookup(self, name: String) -> io::Result<Addresses> {
        let answer = self
            .answers
            .try_get_with_by_ref(&name, async {
                let found = tokio::time::timeout(LOOKUP_WAIT, tokio::net::lookup_host((name.as_str(), 0)))
                    .await
                    .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the name server did not answer"))??;
                Ok::<_, io::Error>(found.collect::<Arc<[SocketAddr]>>())
            })
            .await
            .map_err(|error: Arc<io::Error>| io::Error::new(error.kind(), error.to_string()))?;
        Ok(Addresses { answer, next: 0 })
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl Service<Name> for Resolver {
    type Response = Addresses;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Addresses>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(self.clone().lookup(name.as_str().to_owned()))
    }
}

/// The addresses of one name.
pub struct Addresses {
    answer: Arc<[SocketAddr]>,
    next: usize,
}

impl Iterator for Addresses {
    type Item = SocketAddr;

    fn next(&mut self) -> Option<SocketAddr> {
        let address = self.answer.get(self.next).copied();
        self.next += 1;
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr as _;

    #[tokio::test]
    async fn a_name_is_looked_up_and_remembered() {
        let mut resolver = Resolver::new();
        let found: Vec<_> = resolver.call(Name::from_str("localhost").unwrap()).await.unwrap().collect();
        assert!(found.iter().all(|address| address.ip().is_loopback()) && !found.is_empty());
        assert!(resolver.answers.get("localhost").await.is_some());
    }

    #[tokio::test]
    async fn an_unknown_name_is_an_error_and_is_not_remembered() {
        let mut resolver = Resolver::new();
        assert!(resolver.call(Name::from_str("no-such-host.invalid").unwrap()).await.is_err());
        assert!(resolver.answers.get("no-such-host.invalid").await.is_none());
    }
}
