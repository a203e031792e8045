//! Conversations that count in a month: once, with their reply, for as long as it matters.

use super::*;

/// Plans a reply to what is unfinished in a conversation, which counts it in this month.
async fn plan(inbox: &Inbox, conversation: ConversationRow, turn: u128, period_ms: i64) -> Uuid {
    let turn = Uuid::from_u128(turn);
    let plan = Plan {
        conversation,
        turn,
        upto_seq: i64::MAX,
        known_message_id: 0,
        handoff: None,
        agent: Some("default".into()),
        tokens: TurnTokens { input: 30, cached: 5, output: 7 },
        counts_in_ms: Some(period_ms),
        send_now: true,
        posts: vec![(PostKind::Reply, "one".into()), (PostKind::Reply, "two".into())],
        now_ms: NOW,
    };
    inbox.plan(plan).await.unwrap();
    turn
}

async fn end(inbox: &Inbox, conversation: ConversationRow, turn: Uuid) -> Option<i64> {
    let loaded = inbox.load(conversation, 0, 100).await.unwrap().unwrap();
    let seqs = loaded.deliveries.iter().map(|stored| stored.seq).collect();
    inbox.finish(Finish { turn: Some(turn), ..finish(conversation, seqs) }).await.unwrap()
}

fn all(inbox: &Inbox) -> Vec<(i64, u64)> {
    inbox.counted_before().iter().map(|counted| (counted.period_ms, counted.conversations)).collect()
}

#[tokio::test]
async fn it_counts_once_in_each_month_and_is_taken_back_with_a_reply_that_never_came() {
    let dir = TempDir::new().unwrap();
    let inbox = open(&dir);
    inbox.accept(created(1, 10)).await.unwrap();
    let row = all_due(&inbox).await[0].row;
    assert!(!inbox.is_counted(key(1), 100).await.unwrap());
    let turn = plan(&inbox, row, 1, 100).await;
    assert!(inbox.is_counted(key(1), 100).await.unwrap(), "from the plan on");
    assert_eq!(end(&inbox, row, turn).await, Some(100), "nothing of it arrived");
    assert!(!inbox.is_counted(key(1), 100).await.unwrap());

    // One part of two is enough.
    inbox.accept(created(1, 11)).await.unwrap();
    let turn = plan(&inbox, row, 2, 100).await;
    inbox.posted(turn, 0, 50, None).await.unwrap();
    assert_eq!(end(&inbox, row, turn).await, None);
    // A later turn neither counts again nor takes it back, whatever becomes of it.
    inbox.accept(created(1, 12)).await.unwrap();
    let turn = plan(&inbox, row, 3, 100).await;
    assert_eq!(end(&inbox, row, turn).await, None);
    assert!(inbox.is_counted(key(1), 100).await.unwrap());
    assert!(!inbox.is_counted(key(1), 200).await.unwrap(), "the next month is another");
    inbox.accept(created(1, 13)).await.unwrap();
    let turn = plan(&inbox, row, 4, 200).await;
    inbox.posted(turn, 0, 60, None).await.unwrap();
    end(&inbox, row, turn).await;
    assert_eq!(all(&inbox), [], "of what was there before");
    inbox.close().await.unwrap();
    let inbox = open(&dir);
    assert_eq!(all(&inbox), [(100, 1), (200, 1)]);
    assert!(!inbox.is_counted(key(2), 100).await.unwrap());
}

#[tokio::test]
async fn it_outlives_the_conversation_and_is_forgotten_in_its_own_time() {
    let dir = TempDir::new().unwrap();
    let inbox = open(&dir);
    inbox.accept(created(1, 10)).await.unwrap();
    let row = all_due(&inbox).await[0].row;
    let turn = plan(&inbox, row, 1, 100).await;
    inbox.posted(turn, 0, 50, None).await.unwrap();
    end(&inbox, row, turn).await;
    let prune = |counted_before_ms| {
        Write::Prune(write::Prune { after_seq: 0, before_ms: NOW + 1, limit: 100, counted_before_ms })
    };
    inbox.write(prune(100)).await.unwrap();
    assert!(inbox.load(row, 0, 10).await.unwrap().is_none(), "the conversation is forgotten");
    assert!(inbox.is_counted(key(1), 100).await.unwrap());
    inbox.write(prune(101)).await.unwrap();
    assert!(!inbox.is_counted(key(1), 100).await.unwrap());
}

#[tokio::test]
async fn a_row_that_the_disk_has_changed_counts_nothing_and_is_written_anew() {
    let dir = TempDir::new().unwrap();
    let inbox = open(&dir);
    inbox.accept(created(1, 10)).await.unwrap();
    let row = all_due(&inbox).await[0].row;
    let turn = plan(&inbox, row, 1, 100).await;
    inbox.posted(turn, 0, 50, None).await.unwrap();
    end(&inbox, row, turn).await;
    let db = Connection::open(dir.path().join("inbox.db")).unwrap();
    db.busy_timeout(Duration::from_secs(5)).unwrap();
    db.execute("UPDATE counted SET turn = x'00'", []).unwrap();
    assert!(!inbox.is_counted(key(1), 100).await.unwrap());
    inbox.accept(created(1, 11)).await.unwrap();
    plan(&inbox, row, 2, 100).await;
    assert!(inbox.is_counted(key(1), 100).await.unwrap());
}

#[tokio::test]
async fn a_turn_keeps_the_tokens_it_took_however_often_it_is_planned() {
    let dir = TempDir::new().unwrap();
    let inbox = open(&dir);
    inbox.accept(created(1, 10)).await.unwrap();
    let row = all_due(&inbox).await[0].row;
    for _ in 0..2 {
        plan(&inbox, row, 1, 100).await;
    }
    let mut turns = Vec::new();
    let told = report::Report::open(dir.path()).unwrap().stories(&report::Which::default(), false, |story| {
        turns.extend(story.turns);
        Ok::<_, ()>(())
    });
    told.unwrap().unwrap();
    let [turn] = turns.as_slice() else { panic!("{turns:?}") };
    assert_eq!((turn.input_tokens, turn.cached_tokens, turn.output_tokens), (30, 5, 7));
}
