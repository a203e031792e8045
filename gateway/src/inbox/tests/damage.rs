//! What the disk may do to a file at rest: every flip is either told or without effect, and nothing is ever replayed
//! as something else. By hand, longer: `RELAIS_FLIPS=5000 RELAIS_FLIPS_SEED=7`.

use std::time::Instant;

use super::*;

/// What the inbox held before the disk had its way.
struct Held {
    /// By conversation and message: the body, and whether it is finished.
    deliveries: BTreeMap<(u64, u64), (Bytes, bool)>,
    /// By conversation, for those with something unfinished.
    states: BTreeMap<u64, (ConversationState, i64, Option<OpenTurn>)>,
}

/// In the order in which a copy is never ahead of itself.
const FILES: [&str; 3] = ["inbox.mark", "inbox.db", "inbox.db-wal"];

fn copy(from: &Path, to: &Path) {
    for name in FILES {
        if from.join(name).exists() {
            std::fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

/// An inbox with finished and unfinished deliveries, a turn that has begun to post, and one that is put off.
async fn filled(dir: &TempDir) -> (Inbox, Held) {
    let inbox = open(dir);
    let mut held = Held { deliveries: BTreeMap::new(), states: BTreeMap::new() };
    for message_id in 1..=48 {
        let delivery = created(message_id % 8 + 1, message_id);
        held.deliveries.insert((message_id % 8 + 1, message_id), (delivery.body.clone(), false));
        inbox.accept(delivery).await.unwrap();
    }
    for work in all_due(&inbox).await {
        let conversation_id = work.key.conversation_id;
        let loaded = inbox.load(work.row, 0, 100).await.unwrap().unwrap();
        let ended = if conversation_id <= 2 { loaded.deliveries.len() } else { 3 };
        let lines = vec![Line { message_id: 1, voice: Voice::Customer, text: "hello".into() }];
        let seqs: Vec<i64> = loaded.deliveries.iter().take(ended).map(|stored| stored.seq).collect();
        let turn = Uuid::from_u128(u128::from(conversation_id));
        if conversation_id % 2 == 0 {
            let posts = vec![(PostKind::Reply, "one".into()), (PostKind::Reply, "two".into())];
            let (upto_seq, known_message_id) = (*seqs.last().unwrap(), 9);
            let (conversation, handoff, send_now) = (work.row, None, true);
            let plan = Plan {
                conversation,
                turn,
                upto_seq,
                known_message_id,
                handoff,
                send_now,
                posts,
                agent: None,
                tokens: TurnTokens::default(),
                counts_in_ms: None,
                now_ms: NOW,
            };
            inbox.plan(plan).await.unwrap();
            inbox.posted(turn, 0, 50 + conversation_id, Some(1)).await.unwrap();
        }
        if conversation_id == 4 || conversation_id == 6 {
            // Still posting.
            continue;
        }
        let turn = (conversation_id % 2 == 0).then_some(turn);
        inbox.finish(Finish { turn, lines, ..finish(work.row, seqs) }).await.unwrap();
        for stored in loaded.deliveries.iter().take(ended) {
            held.deliveries.get_mut(&(conversation_id, stored.message_id)).unwrap().1 = true;
        }
        if conversation_id == 5 {
            inbox.defer(work.row, NOW - 1).await.unwrap();
        }
    }
    for work in all_due(&inbox).await {
        let loaded = inbox.load(work.row, 0, 100).await.unwrap().unwrap();
        held.states.insert(work.key.conversation_id, (loaded.state, loaded.not_before_ms, loaded.turn));
    }
    (inbox, held)
}

/// One bit, one byte, or a cut; what it was, in words.
fn harm(dir: &Path, random: &mut Random) -> String {
    let log = dir.join("inbox.db-wal");
    let logged = log.metadata().is_ok_and(|log| log.len() > 0);
    let file = if logged && random.below(2) == 0 { log } else { dir.join("inbox.db") };
    let mut bytes = std::fs::read(&file).unwrap();
    let at = usize::try_from(random.below(bytes.len() as u64)).unwrap();
    let what = match random.below(8) {
        0 if file.ends_with("inbox.db-wal") => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        1 => {
            bytes[at] = u8::try_from(random.below(256)).unwrap();
            format!("byte {at} set")
        }
        _ => {
            bytes[at] ^= 1 << random.below(8);
            format!("bit in {at}")
        }
    };
    std::fs::write(&file, bytes).unwrap();
    format!("{what} of {}", file.file_name().unwrap().to_string_lossy())
}

/// What the search for damage, which the keeper makes from the start, has to say.
fn searched(dir: &Path) -> bool {
    let Ok(db) = schema::connect_reader(dir) else { return true };
    if schema::check(&db).is_err() {
        return true;
    }
    match scrub::step(&db, 0, 10_000) {
        Ok(step) => !step.damaged.is_empty() || !step.unlisted.is_empty(),
        Err(_) => true,
    }
}

/// Opens a harmed inbox and takes from it what the relay would. Whether it was told.
async fn judged(dir: &Path, held: &Held, what: &str) -> bool {
    let metrics = Arc::new(Metrics::new().unwrap());
    let Ok(inbox) = Inbox::open(dir, &limits(), Clock::manual(NOW), Arc::clone(&metrics)) else { return true };
    let mut told = metrics.inbox.lost_commits.get() > 0;
    let lost = told;
    // Whatever is asked, no thread may have ended in a panic.
    let alive = || {
        let readers = inbox.shared.readers.iter().any(mpsc::Sender::is_closed);
        assert!(!readers && !inbox.shared.writer.is_closed(), "{what}: a thread is gone");
    };
    let Ok(due) = inbox.due(ConversationRow::FIRST, NOW, 10_000).await else {
        alive();
        return true;
    };
    let mut given = BTreeSet::new();
    for work in due {
        let loaded = match inbox.load(work.row, 0, 100).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => panic!("{what}: due and not there"),
            Err(_) => {
                told = true;
                continue;
            }
        };
        let conversation_id = loaded.key.conversation_id;
        for stored in &loaded.deliveries {
            assert_eq!(loaded.key, key(conversation_id), "{what}: another's");
            let place = (conversation_id, stored.message_id);
            let Some((body, finished)) = held.deliveries.get(&place) else { panic!("{what}: never accepted") };
            assert_eq!(stored.body, body, "{what}: another body");
            assert!(given.insert(place), "{what}: {place:?} twice");
            // Its end may have been in what was lost; then it goes to a human, who sees what was posted.
            let safe = lost && loaded.state.human_message_id.is_some();
            assert!(!finished || safe, "{what}: {place:?} after its end");
        }
        // One that has nothing may look due by a damaged index.
        if !lost && !loaded.distrusted && !loaded.deliveries.is_empty() {
            let (state, not_before_ms, turn) = held.states.get(&conversation_id).expect("it had work");
            assert_eq!((&loaded.state, loaded.not_before_ms, &loaded.turn), (state, *not_before_ms, turn), "{what}");
        }
    }
    alive();
    told |= metrics.inbox.quarantined.get() + metrics.inbox.distrusted.get() + metrics.inbox.unlisted.get() > 0;
    told |= searched(dir);
    if !told {
        let unfinished = held.deliveries.iter().filter(|(_, (_, finished))| !finished).map(|(place, _)| *place);
        assert_eq!(given, unfinished.collect(), "{what}: a silent loss");
    }
    told
}

#[tokio::test]
async fn a_flip_anywhere_is_told_or_without_effect_and_nothing_is_replayed_as_something_else() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (flips, seed) = (number("RELAIS_FLIPS", 80), number("RELAIS_FLIPS_SEED", 1));
    let (dir, running, closed) = (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let (inbox, held) = filled(&dir).await;
    copy(dir.path(), running.path());
    inbox.close().await.unwrap();
    copy(dir.path(), closed.path());
    let mut random = Random(seed);
    let mut told = 0;
    for flip in 0..flips {
        let image = if flip % 2 == 0 { &running } else { &closed };
        // A place of its own: the threads of the last one may still be closing theirs.
        let dir = TempDir::new().unwrap();
        copy(image.path(), dir.path());
        let what = format!("seed {seed}, flip {flip} ({})", harm(dir.path(), &mut random));
        told += u64::from(judged(dir.path(), &held, &what).await);
    }
    // Or the run proves nothing: most of a file is in use, but for pages of small tables.
    assert!(told * 5 > flips, "{told} of {flips} told");
}

#[tokio::test]
async fn a_flipped_state_is_set_aside_whichever_way_it_fell() {
    for (flip, was_finished) in [
        ("UPDATE deliveries SET state = 1, outcome = 'replied' WHERE message_id = 2", false),
        ("UPDATE deliveries SET state = 0 WHERE message_id = 1", true),
        ("UPDATE deliveries SET outcome = 'handed_off' WHERE message_id = 1", true),
    ] {
        let dir = TempDir::new().unwrap();
        let inbox = open(&dir);
        for message_id in [1, 2, 3] {
            inbox.accept(created(7, message_id)).await.unwrap();
        }
        let (row, loaded) = only(&inbox).await;
        inbox.finish(finish(row, vec![loaded.deliveries[0].seq])).await.unwrap();
        inbox.close().await.unwrap();
        assert_eq!(Connection::open(schema::path(dir.path())).unwrap().execute(flip, []).unwrap(), 1);
        let inbox = open(&dir);
        // Found by whoever comes first, the lane or the keeper.
        let (_, loaded) = only(&inbox).await;
        let expected: &[u64] = if was_finished { &[2, 3] } else { &[3] };
        assert_eq!(loaded.deliveries.iter().map(|stored| stored.message_id).collect::<Vec<_>>(), expected, "{flip}");
        let begun = Instant::now();
        let expected = u64::try_from(expected.len()).unwrap();
        while inbox.shared.metrics.inbox.quarantined.get() == 0 || inbox.pending() != expected {
            assert!(begun.elapsed() < Duration::from_secs(20), "{flip}: nobody found it");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        inbox.close().await.unwrap();
        assert!(!searched(dir.path()), "{flip}: not mended");
    }
}

#[tokio::test]
async fn a_flipped_post_turn_or_conversation_goes_to_a_human() {
    for (flip, turn_damaged) in [
        ("UPDATE posts SET state = 0 WHERE part = 1", true),
        ("UPDATE posts SET state = 2, message_id = 7 WHERE part = 1", true),
        ("UPDATE turns SET upto_seq = 99", true),
        ("UPDATE turns SET handoff = 'x'", true),
        ("UPDATE conversations SET not_before_ms = 9000000000000000000", false),
        ("UPDATE conversations SET human_message_id = NULL, owner = 'us'", false),
    ] {
        let dir = TempDir::new().unwrap();
        let inbox = open(&dir);
        inbox.accept(created(1, 10)).await.unwrap();
        let (conversation, _) = only(&inbox).await;
        let posts = vec![(PostKind::Reply, "one".into()), (PostKind::Reply, "two".into())];
        let (turn, upto_seq, known_message_id) = (Uuid::from_u128(5), 1, 9);
        let (handoff, send_now, now_ms) = (None, true, NOW);
        inbox
            .plan(Plan {
                conversation,
                turn,
                upto_seq,
                known_message_id,
                handoff,
                send_now,
                posts,
                agent: None,
                tokens: TurnTokens::default(),
                counts_in_ms: None,
                now_ms,
            })
            .await
            .unwrap();
        inbox.posted(turn, 0, 50, Some(1)).await.unwrap();
        assert_eq!(Connection::open(schema::path(dir.path())).unwrap().execute(flip, []).unwrap(), 1);
        let (_, loaded) = only(&inbox).await;
        assert!(loaded.distrusted, "{flip}");
        assert_eq!(loaded.turn.as_ref().unwrap().damaged, turn_damaged, "{flip}");
        assert_eq!(loaded.state.human_message_id.is_some(), !turn_damaged, "{flip}");
        assert_eq!(inbox.shared.metrics.inbox.distrusted.get(), 1, "{flip}");
    }
}

#[tokio::test]
async fn a_lost_end_of_the_log_is_told_once_and_what_is_unfinished_goes_to_humans() {
    let (dir, image) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let inbox = open(&dir);
    for message_id in 1..=20 {
        inbox.accept(created(1, message_id)).await.unwrap();
    }
    copy(dir.path(), image.path());
    drop(inbox);
    let log = image.path().join("inbox.db-wal");
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..bytes.len() - 8_192 * 12]).unwrap();
    let inbox = open(&image);
    let lost = inbox.shared.metrics.inbox.lost_commits.get();
    assert!(lost > 0 && lost < 20, "{lost}");
    let (_, loaded) = only(&inbox).await;
    assert_eq!(loaded.deliveries.len() as u64, 20 - lost);
    assert!(loaded.state.human_message_id.is_some() && !loaded.distrusted);
    // It goes on from there, and a message that comes again is taken.
    assert_eq!(inbox.accept(created(1, 20)).await, Ok(Accepted::New));
    inbox.close().await.unwrap();
    assert_eq!(open(&image).shared.metrics.inbox.lost_commits.get(), 0);
    // An older copy put in its place, or none at all, is noticed as well.
    let without = TempDir::new().unwrap();
    std::fs::copy(image.path().join("inbox.mark"), without.path().join("inbox.mark")).unwrap();
    assert!(open(&without).shared.metrics.inbox.lost_commits.get() > 20 - lost);
}

#[tokio::test]
async fn a_file_of_the_first_version_is_sealed_and_goes_on() {
    let dir = TempDir::new().unwrap();
    let (inbox, held) = filled(&dir).await;
    inbox.close().await.unwrap();
    let db = Connection::open(schema::path(dir.path())).unwrap();
    for table in ["conversations", "deliveries", "turns", "posts"] {
        db.execute_batch(&format!("ALTER TABLE {table} DROP COLUMN seal")).unwrap();
    }
    db.execute_batch("ALTER TABLE house DROP COLUMN commits; PRAGMA user_version = 1").unwrap();
    drop(db);
    std::fs::remove_file(dir.path().join("inbox.mark")).unwrap();
    assert!(!judged(dir.path(), &held, "migrated").await);
    let inbox = open(&dir);
    assert_eq!(inbox.accept(created(1, 999)).await, Ok(Accepted::New));
    assert_eq!(inbox.accept(created(2, 1)).await, Ok(Accepted::Duplicate));
}
