//! The inbox under `kill -9`: what was acknowledged is there, once, and what was finished does not come back.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use relais_gateway::clock::Clock;
use relais_gateway::config;
use relais_gateway::inbox::{
    Accepted, ConversationKey, ConversationRow, ConversationState, Delivery, Finish, Inbox, Sameness,
};
use relais_gateway::metrics::Metrics;

const DIR: &str = "RELAIS_TEST_INBOX_DIR";
const ROUND: &str = "RELAIS_TEST_INBOX_ROUND";
/// Messages of one round have numbers of their own.
const ROUND_MESSAGES: u64 = 1_000_000;
const LATER_MS: i64 = i64::MAX / 2;

fn open(dir: &Path) -> Inbox {
    let limits = config::Inbox {
        queue_max: 4_096,
        batch_max: 64,
        ack_wait: Duration::from_secs(20),
        pending_max: 1_000_000,
        keep: Duration::from_secs(3_600),
    };
    Inbox::open(dir, &limits, Clock::system(), Arc::new(Metrics::new().unwrap())).unwrap()
}

/// The real time: what ended in 1970 would be forgotten at once.
fn now_ms() -> i64 {
    Clock::system().now_ms()
}

fn delivery(message_id: u64) -> Delivery {
    let conversation = ConversationKey {
        tenant: "acme".into(),
        channel: "main".into(),
        account_id: 1,
        conversation_id: message_id % 97,
    };
    let body = Bytes::from(format!("{{\"id\":{message_id}}}").repeat(50));
    Delivery::new(conversation, "message_created", Some(message_id), Sameness::Message, None, body, now_ms())
}

fn say(word: &str, message_id: u64) {
    let mut out = std::io::stdout().lock();
    // A reader that is gone has killed us already.
    let _ = writeln!(out, "{word} {message_id}").and_then(|()| out.flush());
}

/// The process that is killed: accepts and finishes, and says so only afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process of the test below"]
async fn child() {
    let inbox = open(Path::new(&std::env::var(DIR).unwrap()));
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    for lane in 0..8 {
        let inbox = inbox.clone();
        tokio::spawn(async move {
            for number in 1.. {
                let message_id = round * ROUND_MESSAGES + number * 8 + lane;
                if inbox.accept(delivery(message_id)).await == Ok(Accepted::New) {
                    say("\naccepted", message_id);
                }
            }
        });
    }
    loop {
        for work in inbox.due(ConversationRow::FIRST, LATER_MS, 8).await.unwrap() {
            let Some(loaded) = inbox.load(work.row, 0, 3).await.unwrap() else { continue };
            loaded.deliveries.iter().for_each(|stored| say("\nfinishing", stored.message_id));
            let finish = Finish {
                conversation: work.row,
                deliveries: loaded.deliveries.iter().map(|stored| (stored.seq, "replied")).collect(),
                outcome: "replied",
                turn: None,
                lines: Vec::new(),
                state: ConversationState::default(),
                now_ms: now_ms(),
            };
            if inbox.finish(finish).await.is_err() {
                continue;
            }
            loaded.deliveries.iter().for_each(|stored| say("\nfinished", stored.message_id));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let (mut accepted, mut finishing, mut finished) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for round in 0..6_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "inbox::child", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Killed at another point of its work each time.
        let lines_max = 300 + usize::try_from(round * 137).unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut note = |line: String| {
            let Some((word, message_id)) = line.split_once(' ') else { return false };
            let Ok(message_id) = message_id.parse::<u64>() else { return false };
            match word {
                "accepted" => accepted.insert(message_id),
                "finishing" => finishing.insert(message_id),
                "finished" => finished.insert(message_id),
                _ => false,
            }
        };
        let mut heard = 0;
        let mut lines = lines;
        while heard < lines_max {
            heard += usize::from(note(lines.next().expect("the child ended by itself")));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died was true.
        for line in lines {
            note(line);
        }

        let inbox = open(dir.path());
        let mut held = BTreeSet::new();
        for work in inbox.due(ConversationRow::FIRST, LATER_MS, 1_000).await.unwrap() {
            let loaded = inbox.load(work.row, 0, 100_000).await.unwrap().unwrap();
            for stored in loaded.deliveries {
                assert!(held.insert(stored.message_id), "round {round}: {} is there twice", stored.message_id);
                assert_eq!(stored.body, delivery(stored.message_id).body, "round {round}");
            }
        }
        let lost: Vec<_> = accepted.difference(&held).filter(|id| !finishing.contains(id)).collect();
        assert!(lost.is_empty(), "round {round}: acknowledged and lost: {lost:?}");
        let back: Vec<_> = finished.intersection(&held).collect();
        assert!(back.is_empty(), "round {round}: finished and back: {back:?}");
        for message_id in accepted.iter().step_by(29) {
            assert_eq!(inbox.accept(delivery(*message_id)).await, Ok(Accepted::Duplicate), "round {round}");
        }
        // Half of the times it was closed properly.
        if round % 2 == 0 {
            inbox.close().await.unwrap();
        }
    }
    assert!(accepted.len() > 500 && finished.len() > 100, "{} accepted, {} finished", accepted.len(), finished.len());
}
