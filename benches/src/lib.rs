//! What the benches are fed: tenants, keys, bodies and frames of the sizes that the speed goals name.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use relais_gateway::clock::Clock;
use relais_gateway::config::{Key, Tenant};
use relais_gateway::policy::Store;
use relais_policies::key;
use relais_policies::limit::{KeyLimits, Limit, Overrides};
use relais_policies::plan::{Catalog, PlanCode};
use relais_policies::tenant::{TenantPolicy, TenantSpec};

/// A store of so many tenants with one key each, on plans with every limit, wide enough never to refuse a bench.
pub fn store(tenants: u32) -> Store {
    let store = Store::new(Clock::system(), Arc::default());
    let spec = TenantSpec {
        tenant_id: "bench".to_owned(),
        plans: vec![PlanCode::from("app.business"), PlanCode::from("api.pro")],
        overrides: Overrides {
            tokens_per_month: Some(Limit::AtMost(1 << 50)),
            calls_per_month: Some(Limit::AtMost(1 << 50)),
            calls_per_minute: Some(Limit::AtMost(4_000_000_000)),
            ..Overrides::default()
        },
        ..TenantSpec::default()
    };
    let policy = TenantPolicy::compile(Catalog::embedded(), &spec).map(Arc::new);
    let Ok(policy) = policy else { return store };
    let tenants: Vec<Tenant> = (0..tenants)
        .map(|number| Tenant {
            id: format!("tenant-{number}").into(),
            policy: Arc::clone(&policy),
            keys: vec![Key {
                name: "bench".into(),
                public_id: public_id(number),
                hash: key::hash(secret(number).as_bytes()),
                previous: None,
                limits: KeyLimits::NONE,
                models: None,
            }],
            channels: Vec::new(),
        })
        .collect();
    store.apply(&tenants);
    store
}

/// The headers of a request with the key of this tenant, known or not.
pub fn token(number: u32) -> HeaderMap {
    let id = String::from_utf8_lossy(&public_id(number)).into_owned();
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(&format!("Bearer rk_live_{id}_{}", secret(number))) {
        headers.insert(header::AUTHORIZATION, value);
    }
    headers
}

/// A chat request of about so many bytes, its `model` at the end as SDKs write it.
pub fn body(bytes: usize) -> Bytes {
    let mut text = String::from(r#"{"messages":[{"role":"system","content":"You are helpful."}"#);
    while text.len() + 120 < bytes {
        text.push_str(r#",{"role":"user","content":"What is the meaning of \"relay\" in this sentence, please?\n"}"#);
    }
    text.push_str(r#"],"model":"gpt-4o-mini","stream":true,"temperature":0.7}"#);
    Bytes::from(text)
}

/// So many frames as OpenAI sends them.
pub fn frames(count: usize) -> Bytes {
    let mut text = String::new();
    for number in 0..count {
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "data: {{\"id\":\"chatcmpl-abcdefghijklmnop\",\"object\":\"chat.completion.chunk\",\"created\":1781774100,\
             \"model\":\"gpt-4o-mini-2024-07-18\",\"system_fingerprint\":\"fp_0\",\"choices\":[{{\"index\":0,\"delta\":\
             {{\"content\":\" word{number}\"}},\"logprobs\":null,\"finish_reason\":null}}],\"usage\":null}}\n\n"
        );
    }
    Bytes::from(text)
}

fn public_id(number: u32) -> [u8; 12] {
    let mut id = *b"000000000000";
    for (place, digit) in id.iter_mut().rev().zip(format!("{number:010}").bytes().rev()) {
        *place = digit;
    }
    id
}

fn secret(number: u32) -> String {
    format!("{number:052}")
}
