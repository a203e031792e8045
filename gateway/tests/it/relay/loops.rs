//! Circles: two bots that answer each other, and a status that is changed back each time.

use super::*;

/// Words of the note that a broken circle leaves.
const CIRCLE: &str = "two automations may be answering each other";

impl World {
    fn circles(&self, sign: &str) -> u64 {
        self.metrics.relay.loops.with_label_values(&[sign]).get()
    }

    fn circle_notes(&self, key: Key) -> usize {
        self.notes(key).iter().filter(|note| note.contains(CIRCLE)).count()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_bots_that_answer_each_other_are_stopped_and_a_human_is_told_once() {
    let world = World::start_with("loop_turns_max = 3", "", Settings::default()).await;
    let key = world.customer_says("I am away until Monday.").await;
    for turn in 1..=3 {
        world.until_replied(key, turn).await;
        world.settled().await;
        assert_eq!(world.chatwoot.status(key), Some(Status::Pending));
        world.chatwoot.customer(key).says("I am away until Monday.").unwrap();
    }
    world.until("open", |world| world.chatwoot.status(key) == Some(Status::Open)).await;
    world.settled().await;
    assert_eq!((world.circle_notes(key), world.circles("turns"), world.turns("handed_off")), (1, 1, 1));
    // The three answers, and that a human comes.
    assert_eq!((world.replies(key).len(), world.llm.totals().started), (4, 3));
    world.chatwoot.customer(key).says("I am away until Monday.").unwrap();
    world.settled().await;
    assert_eq!((world.replies(key).len(), world.llm.totals().started), (4, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_that_an_automation_undoes_is_not_fought_over() {
    // Where a human is assigned when it opens, it comes back pending and a human's; else it comes back ours.
    for online in [false, true] {
        let mut world = World::start_with("loop_flips_max = 4", "", Settings::default()).await;
        world.chatwoot.set_human_online(world.chatwoot.world().human_id, online);
        let key = world.chatwoot.new_conversation().unwrap();
        for _ in 0..6 {
            if world.circles("status") > 0 {
                break;
            }
            world.chatwoot.customer(key).says("I want to talk to a human").unwrap();
            world.until("open", |world| world.chatwoot.status(key) == Some(Status::Open)).await;
            world.settled().await;
            world.chatwoot.set_pending(key).unwrap();
            world.settled().await;
        }
        assert_eq!((world.circle_notes(key), world.circles("status")), (1, 1), "{online}");
        let notes = world.notes(key).len();
        // It is pending and asks again, and in the next process too: nothing is said and nothing opened.
        for _ in 0..2 {
            world.chatwoot.customer(key).says("I want to talk to a human").unwrap();
            world.settled_deliveries().await;
            let idle = async {
                while world.lanes() > 0 || !world.nothing_due().await {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(DEADLINE, idle).await.expect("it does not rest");
            let seen = (world.notes(key).len(), world.chatwoot.status(key));
            assert_eq!(seen, (notes, Some(Status::Pending)), "{online}");
            world.crash().await;
            world.up();
        }
    }
}

impl World {
    /// Whether what is unfinished, if anything, is put off.
    async fn nothing_due(&self) -> bool {
        let inbox = self.inbox.lock().unwrap().clone().unwrap();
        let first = relais_gateway::inbox::ConversationRow::FIRST;
        inbox.due(first, Clock::system().now_ms(), 1).await.unwrap().is_empty()
    }
}
