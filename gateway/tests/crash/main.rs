//! The promise, under `kill -9`: the real binary between a Chatwoot and a model that misbehave, killed at random while
//! customers write and humans take over.
//!
//! Small by default. By hand, long: `RELAIS_CRASH_SEED=7 RELAIS_CRASH_MESSAGES=20000 RELAIS_CRASH_KILLS=20 cargo test
//! -p relais-gateway --test crash -- --nocapture`. A failure names its seed, which makes the same schedule again.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test's helpers are tests: what is missing fails the test"
)]

mod replay;
mod schedule;
mod verdict;
mod world;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use relais_gateway::clock::Clock;
use relais_loadtest::fakes::chatwoot::{Act, ConversationKey, Status};

use crate::schedule::{Size, Step, schedule};
use crate::verdict::{Books, Humans, judge};
use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_lost_and_no_reply_doubled_through_kill_9() {
    let size = Size::of_environment();
    let begun = Instant::now();
    let mut world = World::start(size).await;
    let mut run = Run { keys: BTreeMap::new(), humans: BTreeMap::new() };
    let mut kills = 0;
    for (wait, step) in schedule(size) {
        tokio::time::sleep(wait).await;
        assert!(!world.died(), "{size:?}: it ended by itself:\n{}", log(&world));
        if let Step::Kill(down) = step {
            world.kill();
            kills += 1;
            // Its customers go on writing while it starts.
            tokio::time::sleep(down).await;
            world.spawn();
        } else {
            run.step(&world, &step);
        }
    }
    settle(&world, size).await;
    let settled = begun.elapsed();
    world.kill();
    let books = Books::read(&verdict::open(&world.database()));
    let verdict = judge(&world.chatwoot, &books, &run.humans);
    let mut out = std::io::stdout();
    writeln!(
        out,
        "seed {}: {} messages in {} conversations, {kills} kills, {:.1} s; outcomes {:?}, {} not acknowledged, {} \
         reply messages",
        size.seed,
        size.messages,
        run.keys.len(),
        settled.as_secs_f64(),
        verdict.outcomes,
        verdict.unacknowledged,
        verdict.replies
    )
    .unwrap();
    assert!(
        verdict.wrong.is_empty(),
        "{size:?}: {} wrong:\n{}\n{}",
        verdict.wrong.len(),
        verdict.wrong.iter().take(30).cloned().collect::<Vec<_>>().join("\n"),
        log(&world)
    );
    // Or the run proves nothing.
    let replied = verdict.outcomes.get("replied").copied().unwrap_or(0);
    assert!(kills == size.kills && replied * 4 > size.messages, "{size:?}: {kills} kills, {replied} replied");
    assert!(size.messages < 400 || verdict.outcomes.contains_key("handed_off"), "{size:?}: nothing was handed off");
}

fn log(world: &World) -> String {
    world.log.lock().unwrap().iter().cloned().collect::<Vec<_>>().join("\n")
}

/// Waits until every delivery and every conversation has come to its end.
async fn settle(world: &World, size: Size) {
    let db = verdict::open(&world.database());
    let pending =
        || -> i64 { db.query_row("SELECT count(*) FROM deliveries WHERE state = 0", [], |row| row.get(0)).unwrap() };
    let mut best = (i64::MAX, Instant::now());
    loop {
        let waiting = i64::try_from(world.chatwoot.deliveries_waiting()).unwrap() + pending();
        if waiting == 0 {
            return;
        }
        if waiting < best.0 {
            best = (waiting, Instant::now());
        }
        assert!(best.1.elapsed() < Duration::from_secs(30), "{size:?}: {waiting} never end:\n{}", log(world));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the driver has done.
struct Run {
    keys: BTreeMap<usize, ConversationKey>,
    humans: BTreeMap<ConversationKey, Humans>,
}

impl Run {
    fn step(&mut self, world: &World, step: &Step) {
        let (Step::Says(place, _)
        | Step::TakesOver(place)
        | Step::HumanWrites(place)
        | Step::PhoneWrites(place)
        | Step::GivesBack(place)
        | Step::Resolves(place)
        | Step::Notes(place)) = step
        else {
            return;
        };
        let chatwoot = &world.chatwoot;
        let key = *self.keys.entry(*place).or_insert_with(|| chatwoot.new_conversation().unwrap());
        let humans = self.humans.entry(key).or_default();
        let act = |act| chatwoot.act(key, act).unwrap();
        let now_ms = || Clock::system().now_ms();
        match step {
            Step::Says(_, text) => {
                act(Act::CustomerSays { text: text.clone() });
            }
            Step::TakesOver(_) => {
                act(Act::HumanTakesOver);
                humans.had.push((now_ms(), i64::MAX));
            }
            Step::HumanWrites(_) => {
                humans.wrote.extend(act(Act::HumanReplies { text: "A colleague here.".to_owned() }));
            }
            Step::PhoneWrites(_) => {
                humans.wrote.extend(act(Act::ExternalEcho { text: "From the phone.".to_owned() }));
            }
            Step::GivesBack(_) => {
                humans.given_back_ms.push(now_ms());
                humans.had.iter_mut().filter(|had| had.1 == i64::MAX).for_each(|had| had.1 = now_ms());
                if chatwoot.status(key) == Some(Status::Pending) {
                    act(Act::SetOpen);
                }
                act(Act::AssignHuman { human_id: None });
                act(Act::SetPending);
            }
            Step::Resolves(_) => {
                act(Act::Resolve);
                // The customer's next message makes it pending again, and the bot's.
                humans.given_back_ms.push(now_ms());
                humans.had.iter_mut().filter(|had| had.1 == i64::MAX).for_each(|had| had.1 = now_ms());
            }
            Step::Notes(_) => {
                act(Act::PrivateNote { text: "Look at this.".to_owned() });
            }
            Step::Kill(_) => {}
        }
        humans.touched |= !matches!(step, Step::Says(..));
    }
}
