//! Voice notes and pictures: words that come late, and those that never do.

use super::*;

const WORDS: &str = "Where is my parcel with the blue ribbon?";

impl World {
    fn sends(&self, key: Key, file_type: &str) -> u64 {
        let (file_type, url) = (file_type.to_owned(), "https://chat.example.com/note.bin".to_owned());
        self.chatwoot.act(key, Act::CustomerSendsFile { file_type, url }).unwrap().unwrap()
    }

    fn transcribed(&self, key: Key, message_id: u64) {
        self.chatwoot.act(key, Act::Transcribe { message_id, text: WORDS.to_owned() }).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voice_note_waits_for_its_words_and_is_answered_by_them() {
    let world = World::start_with("voice_wait_ms = 600000", "", Settings::default()).await;
    let key = world.chatwoot.new_conversation().unwrap();
    let note = world.sends(key, "audio");
    world.settled_deliveries().await;
    assert_eq!(world.llm.totals().started, 0);
    world.transcribed(key, note);
    world.until_replied(key, 1).await;
    world.settled().await;
    assert!(world.llm.calls()[0].body.contains(WORDS));
    assert_eq!((world.turns("replied"), world.turns("handed_off"), world.messages("replied")), (1, 0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voice_note_waits_over_a_restart_too() {
    let mut world = World::start_with("voice_wait_ms = 600000", "", Settings::default()).await;
    let key = world.chatwoot.new_conversation().unwrap();
    let note = world.sends(key, "audio");
    world.settled_deliveries().await;
    world.crash().await;
    world.up();
    let taken_up = async {
        while world.lanes() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, taken_up).await.expect("nobody took it up");
    world.transcribed(key, note);
    world.until_replied(key, 1).await;
    world.settled().await;
    assert!(world.llm.calls()[0].body.contains(WORDS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_that_do_not_come_leave_it_to_a_human_or_to_the_agent_by_rule() {
    for file_type in ["audio", "image"] {
        let world = World::start_with("voice_wait_ms = 100", "", Settings::default()).await;
        let key = world.chatwoot.new_conversation().unwrap();
        world.sends(key, file_type);
        world.until("open", |world| world.chatwoot.status(key) == Some(Status::Open)).await;
        world.settled().await;
        assert_eq!((world.llm.totals().started, world.turns("handed_off")), (0, 1), "{file_type}");

        let rule = "handoff = { unreadable = \"agent\" }";
        let world = World::start_with("voice_wait_ms = 100", rule, Settings::default()).await;
        let key = world.chatwoot.new_conversation().unwrap();
        world.sends(key, file_type);
        world.until_replied(key, 1).await;
        world.settled().await;
        let named = if file_type == "audio" { "[voice note]" } else { "[image]" };
        assert!(world.llm.calls()[0].body.contains(named), "{}", world.llm.calls()[0].body);
        assert_eq!((world.turns("replied"), world.chatwoot.status(key)), (1, Some(Status::Pending)), "{file_type}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_that_come_while_the_agent_thinks_start_the_turn_over() {
    let rule = "handoff = { unreadable = \"agent\" }";
    let world = World::start_with("voice_wait_ms = 0", rule, Settings::default()).await;
    world.llm.set(|behaviour| behaviour.first_byte_ms = 1_500);
    let key = world.chatwoot.new_conversation().unwrap();
    let note = world.sends(key, "audio");
    world.model_asked(1).await;
    world.transcribed(key, note);
    world.model_asked(2).await;
    world.until_replied(key, 1).await;
    world.settled().await;
    assert!(world.llm.calls()[1].body.contains(WORDS));
    assert_eq!((world.turns("superseded"), world.turns("replied")), (1, 1));
}
