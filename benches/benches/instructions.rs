//! The same pieces as `hot_path`, one at a time and so many times, to count their instructions.
//!
//! `instructions PIECE TIMES` does one piece so often and ends; `instructions.py` runs it under callgrind twice, with
//! different counts, so that start-up falls out of the difference. An instruction count does not depend on how busy
//! the machine is, a time does. Without arguments it names the pieces; so does `cargo bench`, which runs every bench.

#![expect(clippy::unwrap_used, reason = "a bench that is refused measures nothing and must say so")]
#![expect(clippy::print_stdout, reason = "its list of pieces is what it is asked for")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use relais_benches::{body, frames, store, token};
use relais_gateway::admission::{Account, Call, Kind, Use};
use relais_gateway::auth::api_key::authenticate;
use relais_gateway::llm::endpoint::Endpoint;
use relais_gateway::llm::request::{Edits, Head};
use relais_gateway::llm::stream::Stream;
use relais_gateway::policy::Store;

const CALL: Call<'_> = Call { model: "gpt-4o-mini", kind: Kind::Chat };
const USED: Use = Use { budget: 40, input: 30, cached: 0, output: 10, estimated: false };

/// What every piece is run with, made before the counting.
struct Given {
    store: Store,
    headers: HeaderMap,
    unknown: HeaderMap,
    body: Bytes,
    frame: Bytes,
    stream: Stream,
}

impl Given {
    fn new() -> Self {
        Self {
            store: store(1_000),
            headers: token(7),
            unknown: token(2_000_000),
            body: body(4_096),
            frame: frames(1),
            stream: Stream::new(Endpoint::Chat, 1 << 20, 1, false),
        }
    }

    fn account(&self) -> (Arc<Account>, relais_gateway::admission::KeySlot) {
        let caller = authenticate(&self.store, &self.headers, 0).unwrap();
        (Arc::clone(&caller.key.tenant.account), caller.key.slot)
    }
}

type Piece = fn(&mut Given);

const PIECES: [(&str, Piece); 9] = [
    ("auth+limits+reserve+settle", |given| {
        let caller = authenticate(&given.store, black_box(&given.headers), 0).unwrap();
        let permit = caller.key.tenant.account.admit(caller.key.slot).unwrap();
        permit.reserve(CALL, 100, 400).unwrap().settle(USED);
    }),
    ("auth", |given| drop(black_box(authenticate(&given.store, black_box(&given.headers), 0).unwrap()))),
    ("auth-unknown-key", |given| {
        drop(black_box(authenticate(&given.store, black_box(&given.unknown), 0).unwrap_err()));
    }),
    // Beside finding the account again: `auth` taken off leaves the limits alone.
    ("auth+limits", |given| {
        let (account, slot) = given.account();
        drop(black_box(account.admit(slot).unwrap()));
    }),
    ("auth+refusal-for-budget", |given| {
        let (account, slot) = given.account();
        drop(black_box(account.admit(slot).unwrap().reserve(CALL, u64::MAX / 2, u64::MAX).unwrap_err()));
    }),
    ("scan-4KB", |given| {
        black_box(Head::scan(Endpoint::Chat, black_box(&given.body)).unwrap());
    }),
    ("scan+splice-4KB", |given| {
        let edits = Edits { model: Some("other"), include_usage: true, output_max: Some((256, "max_tokens")) };
        let head = Head::scan(Endpoint::Chat, black_box(&given.body)).unwrap();
        drop(black_box(edits.splice(&given.body, &head)));
    }),
    ("sse-frame", |given| {
        let frame = given.frame.clone();
        drop(black_box(given.stream.push(black_box(frame), |_| true)));
    }),
    ("nothing", |given| {
        black_box(given);
    }),
];

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let (Some(name), Some(times)) = (arguments.next(), arguments.next()) else {
        PIECES.iter().for_each(|(name, _)| println!("{name}"));
        return;
    };
    let (_, piece) = PIECES.iter().find(|(known, _)| *known == name).unwrap();
    let times: u64 = times.parse().unwrap();
    let mut given = Given::new();
    for _ in 0..times {
        piece(&mut given);
    }
}
