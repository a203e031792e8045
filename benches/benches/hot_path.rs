//! The pieces of a `/v1` call that run on every request, one at a time.
//!
//! Wall time by criterion: compare within one run only, machines are noisy. The bodies are those of the speed goals: a
//! 4 KB chat request, an SSE frame of about 230 bytes.

#![expect(clippy::unwrap_used, reason = "a bench that is refused measures nothing and must say so")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use relais_benches::{body, frames, store, token};
use relais_gateway::admission::{Call, Kind, Use};
use relais_gateway::auth::api_key::authenticate;
use relais_gateway::llm::endpoint::Endpoint;
use relais_gateway::llm::request::{Edits, Head};
use relais_gateway::llm::stream::Stream;

const CALL: Call<'_> = Call { model: "gpt-4o-mini", kind: Kind::Chat };

fn admission(c: &mut Criterion) {
    let store = store(1_000);
    let headers = token(7);
    let used = Use { budget: 40, input: 30, output: 10, ..Use::default() };
    c.bench_function("auth + limits + reserve + settle", |b| {
        b.iter(|| {
            let caller = authenticate(&store, black_box(&headers), 0).unwrap();
            let permit = caller.key.tenant.account.admit(caller.key.slot).unwrap();
            permit.reserve(CALL, 100, 400).unwrap().settle(used);
        });
    });
    c.bench_function("auth", |b| b.iter(|| authenticate(&store, black_box(&headers), 0).unwrap()));
    let unknown = token(2_000_000);
    c.bench_function("auth of an unknown key", |b| {
        b.iter(|| authenticate(&store, black_box(&unknown), 0).unwrap_err())
    });
    let caller = authenticate(&store, &headers, 0).unwrap();
    let account = Arc::clone(&caller.key.tenant.account);
    c.bench_function("admit + reserve + settle", |b| {
        b.iter(|| account.admit(caller.key.slot).unwrap().reserve(CALL, 100, 400).unwrap().settle(used));
    });
    c.bench_function("a refusal for want of budget", |b| {
        b.iter(|| account.admit(caller.key.slot).unwrap().reserve(CALL, u64::MAX / 2, u64::MAX).unwrap_err());
    });
}

fn request(c: &mut Criterion) {
    let body = body(4_096);
    c.bench_function("scan of a 4 KB body", |b| b.iter(|| Head::scan(Endpoint::Chat, black_box(&body)).unwrap()));
    let edits = Edits { model: Some("other"), include_usage: true, output_max: Some((256, "max_tokens")) };
    c.bench_function("scan + splice of a 4 KB body", |b| {
        b.iter(|| {
            let head = Head::scan(Endpoint::Chat, black_box(&body)).unwrap();
            edits.splice(&body, &head)
        });
    });
}

fn stream(c: &mut Criterion) {
    let one: Bytes = frames(1);
    c.bench_function("one SSE frame", |b| {
        let mut stream = Stream::new(Endpoint::Chat, 1 << 20, 1, false);
        b.iter(|| stream.push(black_box(one.clone()), |_| true));
    });
    let many = frames(20);
    c.bench_function("twenty SSE frames in one chunk", |b| {
        let mut stream = Stream::new(Endpoint::Chat, 1 << 20, 1, false);
        b.iter(|| stream.push(black_box(many.clone()), |_| true));
    });
}

criterion_group!(benches, admission, request, stream);
criterion_main!(benches);
