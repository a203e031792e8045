//! Why nobody answered, in words an operator can act on: the name, the port, the certificate, or time.
//!
//! Reads what the client's error is made of. It sends nothing and decides nothing.

use std::error::Error;
use std::io;

use crate::http::client::SendError;

/// What stands between us and an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// The name leads nowhere.
    #[error("its name cannot be resolved")]
    Name,
    /// Nobody listens there.
    #[error("it refuses connections")]
    Refused,
    /// No TLS with it: the certificate, or a port that speaks no TLS.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// It says nothing.
    #[error("it does not answer in time")]
    Slow,
    /// The connection ended, or what came is no HTTP.
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl From<&SendError> for Unreachable {
    fn from(error: &SendError) -> Self {
        let source: &(dyn Error + 'static) = match error {
            SendError::Timeout(_) => return Self::Slow,
            SendError::Connect(source) | SendError::Broken(source) => source,
        };
        let mut last = String::new();
        let mut next = Some(source);
        while let Some(error) = next {
            last = error.to_string();
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                return Self::Tls(tls.to_string());
            }
            if last.contains("dns error") {
                return Self::Name;
            }
            let io = error.downcast_ref::<io::Error>();
            match io.map(io::Error::kind) {
                Some(io::ErrorKind::ConnectionRefused) => return Self::Refused,
                Some(io::ErrorKind::TimedOut) => return Self::Slow,
                _ => {}
            }
            // An I/O error passes over the one it wraps when asked for its source.
            let wrapped = io.and_then(io::Error::get_ref).map(|inner| inner as &(dyn Error + 'static));
            next = wrapped.or_else(|| error.source());
        }
        Self::Broken(last)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::Request;
    use http_body_util::Full;

    use super::*;
    use crate::http::client::Client;
    use crate::http::resolve::Resolver;

    async fn why(url: &str) -> Unreachable {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = Client::new(Resolver::new(), Duration::from_secs(5));
        let request = Request::builder().uri(url).body(Full::<Bytes>::default()).unwrap();
        Unreachable::from(&client.send(request, Duration::from_secs(10)).await.unwrap_err())
    }

    #[tokio::test]
    async fn each_way_of_not_answering_has_its_name() {
        assert_eq!(why("http://no-such-host.invalid/").await, Unreachable::Name);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // Somebody who speaks neither HTTP nor TLS.
        let babbler = tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                tokio::io::AsyncWriteExt::write_all(&mut socket, b"220 mail.example.com ready\r\n\r\n").await.unwrap();
            }
        });
        assert!(matches!(why(&format!("https://127.0.0.1:{port}/")).await, Unreachable::Tls(_)));
        assert!(matches!(why(&format!("http://127.0.0.1:{port}/")).await, Unreachable::Broken(_)));
        babbler.abort();
        let _ = babbler.await;
        assert_eq!(why(&format!("http://127.0.0.1:{port}/")).await, Unreachable::Refused);
    }
}
