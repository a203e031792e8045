//! The inbox against real files: what is accepted once, what survives, what is set aside, what is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::Connection;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;

mod counted;
mod damage;

const NOW: i64 = 1_780_000_000_000;

fn limits() -> config::Inbox {
    config::Inbox {
        queue_max: 64,
        batch_max: 16,
        ack_wait: Duration::from_secs(20),
        pending_max: 1_000_000,
        keep: Duration::from_secs(3_600),
    }
}

fn open(dir: &TempDir) -> Inbox {
    Inbox::open(dir.path(), &limits(), Clock::manual(NOW), Arc::new(Metrics::new().unwrap())).unwrap()
}

fn key(conversation_id: u64) -> ConversationKey {
    ConversationKey { tenant: "acme".into(), channel: "main".into(), account_id: 1, conversation_id }
}

fn created(conversation_id: u64, message_id: u64) -> Delivery {
    let body = Bytes::from(format!("{{\"event\":\"message_created\",\"id\":{message_id}}}"));
    let conversation = key(conversation_id);
    Delivery::new(conversation, "message_created", Some(message_id), Sameness::Message, None, body, NOW)
}

async fn all_due(inbox: &Inbox) -> Vec<Work> {
    inbox.due(ConversationRow::FIRST, NOW, 10_000).await.unwrap()
}

async fn only(inbox: &Inbox) -> (ConversationRow, Loaded) {
    let due = all_due(inbox).await;
    assert_eq!(due.len(), 1);
    (due[0].row, inbox.load(due[0].row, 0, 100).await.unwrap().unwrap())
}

fn finish(conversation: ConversationRow, deliveries: Vec<i64>) -> Finish {
    let state = ConversationState { answered_message_id: 9, ..ConversationState::default() };
    let deliveries = deliveries.into_iter().map(|seq| (seq, "replied")).collect();
    Finish { conversation, deliveries, outcome: "replied", turn: None, lines: Vec::new(), state, now_ms: NOW }
}

#[tokio::test]
async fn a_message_is_accepted_once_however_it_comes() {
    let dir = TempDir::new().unwrap();
    let inbox = open(&dir);
    let update = |content: &[u8], uuid| {
        let parts = [content];
        let body = Bytes::from_static(b"{}");
        Delivery::new(key(1), "message_updated", Some(5), Sameness::Content(&parts), Some(uuid), body, NOW)
    };
    let opened = |uuid: u128| {
        let body = Bytes::from_static(b"{}");
        let uuid = Some(Uuid::from_u128(uuid));
        Delivery::new(key(1), "conversation_opened", None, Sameness::Delivery, uuid, body, NOW)
    };
    let by_another = Delivery { delivery_uuid: Some(Uuid::from_u128(2)), received_at_ms: NOW + 5, ..created(1, 5) };
    let elsewhere = Delivery { conversation: ConversationKey { tenant: "other".into(), ..key(1) }, ..created(1, 5) };
    let cases = [
        ("new", created(1, 5), Accepted::New),
        ("again", created(1, 5), Accepted::Duplicate),
        ("by another delivery", by_another, Accepted::Duplicate),
        ("another message", created(1, 6), Accepted::New),
        ("another tenant with the same numbers", elsewhere, Accepted::New),
        ("an update", update(b"a", Uuid::from_u128(3)), Accepted::New),
        ("the same update by another delivery", update(b"a", Uuid::from_u128(4)), Accepted::Duplicate),
        ("an update with other content", update(b"b", Uuid::from_u128(5)), Accepted::New),
        ("an event of the conversation", opened(6), Accepted::New),
        ("its retry", opened(6), Accepted::Duplicate),
        ("the same event once more", opened(7), Accepted::New),
    ];
    for (what, delivery, expected) in cases {
        assert_eq!(inbox.accept(delivery).await, Ok(expected), "{what}");
    }
    assert_eq!(inbox.pending(), 7);
}

#[tokio::test]
async fn many_at_once_are_written_in_groups_and_each_is_announced() {
    let dir = TempDir::new().unwrap();
    let inbox = Inbox::open(
        dir.path(),
        &config::Inbox { queue_max: 1_000, ..limits() },
        Clock::manual(NOW),
        Arc::new(Metrics::new().unwrap()),
    )
    .unwrap();
    let mut work = inbox.take_work().unwrap();
    let mut accepting = tokio::task::JoinSet::new();
    for message_id in 1..=500 {
        let inbox = inbox.clone();
        accepting.spawn(async move { inbox.accept(created(message_id % 50, message_id)).await });
    }
    while let Some(accepted) = accepting.join_next().await {
        assert_eq!(accepted.unwrap(), Ok(Accepted::New));
    }
    let mut announced = 0;
    while work.try_recv().is_ok() {
        announced += 1;
    }
    assert_eq!((announced, inbox.pending(), inbox.take_unannounced()), (500, 500, false));
    assert!(inbox.shared.metrics.inbox.commit.get_sample_count() < 500);
}

#[tokio::test]
async fn a_full_queue_and_a_full_inbox_are_said_at_once() {
    let dir = TempDir::new().unwrap();
    let limits = config::Inbox { pending_max: 2, ..limits() };
    let inbox = Inbox::open(dir.path(), &limits, Clock::manual(NOW), Arc::new(Metrics::new().unwrap())).unwrap();
    assert_eq!(inbox.accept(created(1, 1)).await, Ok(Accepted::New));
    assert_eq!(inbox.accept(created(1, 2)).await, Ok(Accepted::New));
    assert_eq!(inbox.accept(created(1, 3)).await, Err(AcceptError::Full));
    let (row, loaded) = only(&inbox).await;
    inbox.finish(finish(row, vec![loaded.deliveries[0].seq])).await.unwrap();
    assert_eq!(inbox.accept(created(1, 3)).await, Ok(Accepted::New));
    assert_eq!(Error::from(AcceptError::Full).reason, Reason::Overloaded);
    assert_eq!(Error::from(AcceptError::Disk).reason, Reason::Disk);
}

#[tokio::test]
async fn what_was_accepted_survives_without_closing_and_what_is_finished_stays_finished() {
    let dir = TempDir::new().unwrap();
    let inbox = open(&dir);
    for message_id in 1..=3 {
        inbox.accept(created(4, message_id)).await.unwrap();
    }
    let (row, loaded) = only(&inbox).await;
    inbox.finish(finish(row, vec![loaded.deliveries[1].seq])).await.unwrap();
    drop(inbox);

    let inbox = open(&dir);
    assert!(inbox.take_unannounced());
    assert_eq!(inbox.pending(), 2);
    let (_, loaded) = only(&inbox).await;
    assert_eq!(loaded.key, key(4));
    assert_eq!(loaded.deliveries.iter().map(|stored| stored.message_id).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(loaded.deliveries[0].body, created(4, 1).body);
    assert_eq!(loaded.state.answered_message_id, 9);
    assert_eq!(inbox.accept(created(4, 2)).await, Ok(Accepted::Duplicate));
    inbox.close().await.unwrap();
}

#[tokio::test]
async fn a_turn_is_durable_step_by_step() {
    let dir = TempDir::new().unwrap();
    let inbox = open(&dir);
    inbox.accept(created(1, 10)).await.unwrap();
    let (row, loaded) = only(&inbox).await;
    assert_eq!(loaded.turn, None);
    let turn = Uuid::from_u128(77);
    let plan = Plan {
        conversation: row,
        turn,
        upto_seq: 1,
        agent: None,
        tokens: TurnTokens::default(),
        counts_in_ms: None,
        known_message_id: 12,
        handoff: None,
        send_now: true,
        posts: vec![(PostKind::Reply, "one".into()), (PostKind::Reply, "two".into())],
        now_ms: NOW,
    };
    inbox.plan(plan.clone()).await.unwrap();
    let states = |loaded: &Loaded| {
        let turn = loaded.turn.as_ref().unwrap();
        turn.posts.iter().map(|post| (post.part, post.text.clone(), post.state)).collect::<Vec<_>>()
    };
    let (_, loaded) = only(&inbox).await;
    assert_eq!(states(&loaded), [(0, "one".into(), PostState::Sending(NOW)), (1, "two".into(), PostState::Planned)]);
    inbox.unsent(turn, 0).await.unwrap();
    assert_eq!(states(&only(&inbox).await.1)[0].2, PostState::Planned);
    inbox.sending(turn, 0).await.unwrap();
    assert_eq!(states(&only(&inbox).await.1)[0].2, PostState::Sending(NOW));
    inbox.posted(turn, 0, 13, Some(1)).await.unwrap();
    drop(inbox);

    let inbox = open(&dir);
    let (_, loaded) = only(&inbox).await;
    assert_eq!(states(&loaded), [(0, "one".into(), PostState::Posted(13)), (1, "two".into(), PostState::Sending(NOW))]);
    // The second part is lost for good: a human takes over within the same turn.
    let posts = vec![(PostKind::Note, "note".into()), (PostKind::Message, "wait".into())];
    inbox.plan(Plan { handoff: Some("delivery_unknown".into()), posts, ..plan }).await.unwrap();
    let (_, loaded) = only(&inbox).await;
    assert_eq!(loaded.turn.as_ref().unwrap().handoff.as_deref(), Some("delivery_unknown"));
    assert_eq!(
        states(&loaded)[1..],
        [
            (1, "two".into(), PostState::Skipped),
            (2, "note".into(), PostState::Sending(NOW)),
            (3, "wait".into(), PostState::Planned)
        ]
    );
    let line = |message_id, voice, text: &str| Line { message_id, voice, text: text.into() };
    let lines = vec![line(13, Voice::Agent, "one"), line(10, Voice::Customer, "hello")];
    let seqs = loaded.deliveries.iter().map(|stored| stored.seq).collect();
    inbox.finish(Finish { turn: Some(turn), lines, ..finish(row, seqs) }).await.unwrap();
    assert!(all_due(&inbox).await.is_empty());
    assert_eq!(inbox.load(row, 0, 10).await.unwrap().unwrap().turn, None);
    let transcript = inbox.transcript(row, 10).await.unwrap();
    assert_eq!(transcript, [line(10, Voice::Customer, "hello"), line(13, Voice::Agent, "one")]);
    assert_eq!(inbox.pending(), 0);
}

#[tokio::test]
async fn a_conversation_put_off_is_due_again_later() {
    let dir = TempDir::new().unwrap();
    let inbox = open(&dir);
    inbox.accept(created(1, 1)).await.unwrap();
    inbox.accept(created(2, 2)).await.unwrap();
    let due = all_due(&inbox).await;
    inbox.defer(due[0].row, NOW + 1).await.unwrap();
    assert_eq!(all_due(&inbox).await.iter().map(|work| work.row).collect::<Vec<_>>(), [due[1].row]);
    assert_eq!(inbox.due(ConversationRow::FIRST, NOW + 1, 10).await.unwrap().len(), 2);
    // The clock was set back by more than any wait: it is due rather than forgotten.
    inbox.defer(due[0].row, NOW + PUT_OFF_MAX_MS).await.unwrap();
    assert_eq!(inbox.due(ConversationRow::FIRST, NOW, 10).await.unwrap().len(), 1);
    assert_eq!(inbox.due(ConversationRow::FIRST, NOW - 1, 10).await.unwrap().len(), 2);
    inbox.defer(due[0].row, NOW + 1).await.unwrap();
    // In pages.
    let page = inbox.due(ConversationRow::FIRST, NOW + 1, 1).await.unwrap();
    assert_eq!(inbox.due(page[0].row, NOW + 1, 1).await.unwrap()[0].key, due[1].key);
}

#[tokio::test]
async fn a_damaged_row_is_set_aside_and_the_others_go_on() {
    let flips = [
        "UPDATE deliveries SET body = '{\"event\":\"message_created\",\"id\":9}' WHERE message_id = 2",
        "UPDATE deliveries SET received_at_ms = received_at_ms + 1 WHERE message_id = 2",
        "UPDATE deliveries SET message_id = 66 WHERE message_id = 2",
        "UPDATE deliveries SET event = 'message_updated' WHERE message_id = 2",
        "UPDATE deliveries SET sum = zeroblob(16) WHERE message_id = 2",
        // Moved to another customer's conversation.
        "UPDATE deliveries SET conversation = (SELECT id FROM conversations WHERE number = 8) WHERE message_id = 2",
    ];
    for flip in flips {
        let dir = TempDir::new().unwrap();
        let inbox = open(&dir);
        for (conversation_id, message_id) in [(7, 1), (7, 2), (7, 3), (8, 4)] {
            inbox.accept(created(conversation_id, message_id)).await.unwrap();
        }
        // As text is not what a STRICT blob column takes, the body's case is cast.
        let flip = flip.replace("body = '", "body = CAST('").replace("}' WHERE", "}' AS BLOB) WHERE");
        assert_eq!(Connection::open(schema::path(dir.path())).unwrap().execute(&flip, []).unwrap(), 1, "{flip}");
        let mut seen = BTreeSet::new();
        for work in all_due(&inbox).await {
            let loaded = inbox.load(work.row, 0, 100).await.unwrap().unwrap();
            seen.extend(loaded.deliveries.iter().map(|stored| (loaded.key.conversation_id, stored.message_id)));
        }
        assert_eq!(seen, BTreeSet::from([(7, 1), (7, 3), (8, 4)]), "{flip}");
        assert_eq!((inbox.shared.metrics.inbox.quarantined.get(), inbox.pending()), (1, 3), "{flip}");
    }
}

#[tokio::test]
async fn a_disk_that_refuses_is_said_and_nothing_is_acknowledged_until_it_takes_writes_again() {
    let dir = TempDir::new().unwrap();
    let inbox = open(&dir);
    inbox.accept(created(1, 1)).await.unwrap();
    // Another process holds the lock: the writer cannot commit.
    let thief = Connection::open(schema::path(dir.path())).unwrap();
    thief.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(inbox.accept(created(1, 2)).await, Err(AcceptError::Disk));
    assert!(!inbox.healthy());
    thief.execute_batch("ROLLBACK").unwrap();
    // Found out without anybody's help: nobody sends anything to one that is not ready.
    while !inbox.healthy() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(inbox.accept(created(1, 2)).await, Ok(Accepted::New));
}

#[tokio::test]
async fn after_a_broken_connection_work_is_refused_until_a_checked_one_is_there() {
    let dir = TempDir::new().unwrap();
    open(&dir).close().await.unwrap();
    let board = Arc::new(Board {
        healthy: AtomicBool::new(false),
        refusing: AtomicBool::new(false),
        pending: AtomicU64::new(0),
        logged_bytes: AtomicU64::new(0),
        unannounced: AtomicBool::new(false),
        commits: AtomicU64::new(0),
    });
    let (jobs, queue) = mpsc::channel(8);
    let (work, mut announced) = mpsc::channel(8);
    let writer = Writer {
        dir: dir.path().to_path_buf(),
        connection: None,
        queue,
        work,
        batch_max: 8,
        board: Arc::clone(&board),
        mark: Arc::new(Mark::open(dir.path()).unwrap().0),
        metrics: Arc::new(Metrics::new().unwrap()),
    };
    let thread = thread::spawn(move || writer.run());
    let accept = async |message_id| {
        let (reply, answer) = oneshot::channel();
        jobs.send(Job { write: Write::Accept(created(1, message_id)), reply }).await.unwrap();
        answer.await.unwrap()
    };
    assert_eq!(accept(1).await, Err(WriteFailed));
    while accept(2).await.is_err() {}
    assert!(board.healthy.load(Ordering::SeqCst));
    assert_eq!(announced.recv().await.unwrap().key, key(1));
    drop(jobs);
    thread.join().unwrap();
    let inbox = open(&dir);
    assert_eq!(only(&inbox).await.1.deliveries[0].message_id, 2);
}

#[tokio::test]
async fn another_version_and_a_damaged_file_are_refused() {
    let dir = TempDir::new().unwrap();
    open(&dir).close().await.unwrap();
    let set_version = |version: i64| {
        Connection::open(schema::path(dir.path())).unwrap().pragma_update(None, "user_version", version).unwrap();
    };
    let reopen = || Inbox::open(dir.path(), &limits(), Clock::manual(NOW), Arc::new(Metrics::new().unwrap()));
    set_version(7);
    assert!(matches!(reopen().err(), Some(InboxError::Version(7))));
    set_version(schema::VERSION);
    let inbox = reopen().unwrap();
    for message_id in 1..500 {
        inbox.accept(created(message_id, message_id)).await.unwrap();
    }
    inbox.close().await.unwrap();
    // Closed properly, so only an unclean stop makes the next start look at every page.
    Connection::open(schema::path(dir.path())).unwrap().execute("UPDATE house SET stopped_cleanly = 0", []).unwrap();
    let file = schema::path(dir.path());
    let mut bytes = std::fs::read(&file).unwrap();
    let from = bytes.len() - 3 * 8192;
    bytes[from..].fill(0xAA);
    std::fs::write(&file, bytes).unwrap();
    assert!(reopen().is_err());
}

#[tokio::test]
async fn finished_deliveries_are_forgotten_after_their_time_and_unfinished_ones_never() {
    let dir = TempDir::new().unwrap();
    let inbox = open(&dir);
    for (conversation_id, message_id) in [(1, 1), (1, 2), (2, 3)] {
        inbox.accept(created(conversation_id, message_id)).await.unwrap();
    }
    let due = all_due(&inbox).await;
    let second = inbox.load(due[1].row, 0, 10).await.unwrap().unwrap();
    inbox.finish(finish(due[1].row, vec![second.deliveries[0].seq])).await.unwrap();
    let prune = |before_ms| Write::Prune(write::Prune { after_seq: 0, before_ms, limit: 100, counted_before_ms: 0 });
    inbox.write(prune(NOW)).await.unwrap();
    assert!(inbox.load(due[1].row, 0, 10).await.unwrap().is_some());
    inbox.write(prune(NOW + 1)).await.unwrap();
    assert!(inbox.load(due[1].row, 0, 10).await.unwrap().is_none());
    assert_eq!(inbox.load(due[0].row, 0, 10).await.unwrap().unwrap().deliveries.len(), 2);
}

/// Action by action beside a model, with crashes (handles dropped) at any point. A failure prints its seed.
#[tokio::test]
async fn whatever_happens_the_inbox_holds_what_it_acknowledged_exactly_once() {
    for seed in 1..=12_u64 {
        let dir = TempDir::new().unwrap();
        let mut inbox = open(&dir);
        let mut random = Random(seed);
        let mut model: BTreeMap<(u64, u64), bool> = BTreeMap::new();
        for _ in 0..150 {
            match random.below(10) {
                0..=5 => {
                    let message = (random.below(4) + 1, random.below(60) + 1);
                    let expected = if model.contains_key(&message) { Accepted::Duplicate } else { Accepted::New };
                    assert_eq!(inbox.accept(created(message.0, message.1)).await, Ok(expected), "seed {seed}");
                    model.entry(message).or_insert(false);
                }
                6..=8 => {
                    let due = all_due(&inbox).await;
                    let Some(work) = due.get(usize::try_from(random.below(4)).unwrap()) else { continue };
                    let loaded = inbox.load(work.row, 0, 3).await.unwrap().unwrap();
                    for stored in &loaded.deliveries {
                        let finished = model.insert((work.key.conversation_id, stored.message_id), true);
                        assert_eq!(finished, Some(false), "seed {seed}: handed out after its end");
                    }
                    inbox.finish(finish(work.row, loaded.deliveries.iter().map(|s| s.seq).collect())).await.unwrap();
                }
                _ => {
                    drop(inbox);
                    inbox = open(&dir);
                }
            }
            let open = model.values().filter(|finished| !**finished).count();
            assert_eq!(inbox.pending(), u64::try_from(open).unwrap(), "seed {seed}");
        }
        let mut held = BTreeMap::new();
        for work in all_due(&inbox).await {
            for stored in inbox.load(work.row, 0, 1_000).await.unwrap().unwrap().deliveries {
                assert_eq!(held.insert((work.key.conversation_id, stored.message_id), false), None, "seed {seed}");
            }
        }
        model.retain(|_, finished| !*finished);
        assert_eq!(held, model, "seed {seed}");
    }
}

/// xorshift64*, enough for a schedule that can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }
}
