//! `relais ready`: whether the gateway of this configuration takes traffic, for images that hold no other program.
//!
//! One question to `/readyz` of its admin listener, by hand: the answer is one line of a program we wrote, and a
//! health check runs every few seconds. It does not say whether it works well; metrics do.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// For each of connecting, asking and reading; less than what a health check is given.
const WAIT: Duration = Duration::from_secs(2);
/// More than it ever says.
const ANSWER_BYTES_MAX: u64 = 16_384;

/// What it said.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// It takes traffic.
    pub(super) ready: bool,
    /// The same in its words.
    pub(super) text: String,
}

/// Asks the gateway whose admin listener has this address.
pub(super) fn ask(admin: SocketAddr) -> anyhow::Result<Answer> {
    let address = reachable(admin);
    let mut socket =
        TcpStream::connect_timeout(&address, WAIT).with_context(|| format!("no gateway answers on {address}"))?;
    socket.set_read_timeout(Some(WAIT)).context("setting a deadline")?;
    socket.set_write_timeout(Some(WAIT)).context("setting a deadline")?;
    let question = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(question.as_bytes()).context("asking")?;
    let mut answer = String::new();
    socket.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).context("reading the answer")?;
    read(&answer)
}

/// An address to listen on everywhere is reached at the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, address.port()).into(),
        _ => address,
    }
}

fn read(answer: &str) -> anyhow::Result<Answer> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("the answer is none of a gateway") };
    let Some(status) = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)) else {
        bail!("the answer is none of a gateway")
    };
    Ok(Answer { ready: status == "200", text: body.trim().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_200_is_ready_and_nothing_else() {
        let answer = |text| read(text).map(|answer| answer.ready);
        assert!(answer("HTTP/1.1 200 OK\r\na: b\r\n\r\nready\n").unwrap());
        assert!(!answer("HTTP/1.1 503 Service Unavailable\r\n\r\ndraining").unwrap());
        assert!(answer("SSH-2.0\r\n\r\n").is_err());
        assert!(answer("").is_err());
    }

    #[test]
    fn an_address_for_all_interfaces_is_asked_on_the_loopback_one() {
        let reached = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:9090"), "127.0.0.1:9090");
        assert_eq!(reached("[::]:9090"), "[::1]:9090");
        assert_eq!(reached("10.0.0.7:9090"), "10.0.0.7:9090");
    }
}
