//! `relais-load` as a process: what scripts and `make run` rely on.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test's helpers are tests: what is missing fails the test"
)]

use std::process::{Output, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use relais_loadtest::http::{exchange, read_all};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

/// Longer than anything here takes; reached only when something hangs that should not.
const PATIENCE: Duration = Duration::from_secs(60);

fn relais_load(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relais-load"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn output(command: &mut Command) -> Output {
    tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").unwrap()
}

async fn terminate(pid: u32) {
    let kill = Command::new("sh").arg("-c").arg("kill -TERM \"$0\"").arg(pid.to_string()).status().await.unwrap();
    assert!(kill.success());
}

/// The first URL in a text, without what follows it.
fn url_in(text: &str) -> &str {
    let from = text.find("http://").expect("a URL");
    text.get(from..).unwrap().split([' ', ')', ',', '\n']).next().unwrap()
}

#[tokio::test]
async fn the_fake_model_says_where_it_is_answers_and_stops_when_told() {
    let mut child = relais_load(&["llm", "--port", "0", "--tokens", "3"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let url = format!("{}/chat/completions", url_in(&line));
    let request = Request::post(url).body(Full::new(Bytes::from_static(br#"{"model": "m", "messages": []}"#))).unwrap();
    let answer = exchange(request, PATIENCE).await.unwrap();
    let body = read_all(answer.into_body(), 1 << 20).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer.pointer("/usage/completion_tokens"), Some(&serde_json::json!(3)));

    terminate(child.id().unwrap()).await;
    let status = tokio::time::timeout(PATIENCE, child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = output(&mut relais_load(&["llm", "--port", &port])).await;
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains(&port));
}

#[tokio::test]
async fn a_demo_whose_gateway_dies_says_so_and_leaves_nothing_running() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = dir.path().join("gateway");
    // Dies once the fakes are up, so that there is something to stop.
    let script = r#"#!/bin/sh
logs="$(dirname "$2")"
until grep -q listening "$logs/fake-llm.log" && grep -q listening "$logs/fake-chatwoot.log"; do sleep 0.05; done
echo "cannot read $2"
exit 7
"#;
    std::fs::write(&gateway, script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&gateway, executable).unwrap();
    let mut command = relais_load(&["demo", "--once", "--relais", gateway.to_str().unwrap()]);
    // Its own directory is kept after a failure; here it goes with the test's.
    let output = output(command.env("TMPDIR", dir.path())).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the process relais died") && said.contains("exit status: 7"), "{said}");
    assert!(said.contains("relais.toml"), "the last lines of its log: {said}");
    assert!(said.contains("Stopped fake-llm") && said.contains("Stopped fake-chatwoot"), "{said}");
    // Whoever answered there a moment ago does not any more.
    let request = Request::get(url_in(&said)).body(Full::<Bytes>::default()).unwrap();
    assert!(exchange(request, PATIENCE).await.is_err());
}

#[tokio::test]
async fn a_demo_without_a_gateway_says_where_it_looked() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = relais_load(&["demo", "--once", "--relais", "/nowhere/relais"]);
    let output = output(command.env("TMPDIR", dir.path())).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("/nowhere/relais"), "{said}");
}
