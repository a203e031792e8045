//! Who is chosen, and what is kept over a reload. What happens on the wire is in the integration tests.

use super::*;
use breaker::Failure;

struct Set {
    clock: Clock,
    metrics: Metrics,
    upstreams: Upstreams,
}

fn configured(name: &str, models: &[&str], priority: u32, weight: u32) -> config::Upstream {
    config::Upstream {
        name: name.into(),
        base_url: format!("http://{name}.invalid/v1").parse().unwrap(),
        api_key: None,
        models: models.iter().map(|model| (*model).into()).collect(),
        aliases: [("alias".to_owned(), format!("{name}-real"))].into(),
        priority,
        weight,
        limit_field: config::LimitField::MaxTokens,
        connections_max: 1,
        http2: false,
    }
}

fn set(configured: Vec<config::Upstream>) -> Set {
    let (clock, metrics) = (Clock::manual(0), Metrics::new().unwrap());
    let configured: Vec<_> = configured.into_iter().map(Arc::new).collect();
    let upstreams = Upstreams::new(&configured, &clock, &metrics, None).unwrap();
    Set { clock, metrics, upstreams }
}

impl Set {
    fn one(&self, name: &str) -> &Arc<Upstream> {
        self.upstreams.list.iter().find(|upstream| &*upstream.name == name).unwrap()
    }

    fn picked(&self, model: &str) -> &str {
        self.upstreams.pick(model, &[], &[]).unwrap().name()
    }

    fn open(&self, name: &str) {
        while let Some(ticket) = self.one(name).health.breaker.admit() {
            ticket.failed(Failure::Certain);
        }
    }

    fn shares(&self, picks: u32) -> std::collections::BTreeMap<&str, u32> {
        let mut shares = std::collections::BTreeMap::new();
        for _ in 0..picks {
            *shares.entry(self.picked("any")).or_default() += 1;
        }
        shares
    }
}

#[test]
fn the_operator_s_list_chooses() {
    let set = set(vec![configured("all", &["*"], 1, 1), configured("first", &["gpt-*", "x"], 0, 1)]);
    for (model, name) in [("gpt-4o", "first"), ("x", "first"), ("xx", "all"), ("alias", "first")] {
        assert_eq!(set.upstreams.choose(model).unwrap().name().as_ref(), name, "{model}");
        assert_eq!(set.picked(model), name, "{model}");
    }
    assert_eq!(set.upstreams.choose("alias").unwrap().model("alias"), "first-real");
    assert_eq!(set.upstreams.named_models(), [("alias", "all"), ("x", "first")]);
}

#[test]
fn a_model_nobody_serves_is_unknown_whatever_it_looks_like() {
    let set = set(vec![configured("only", &["gpt-4o"], 0, 1)]);
    for model in ["", "*", "gpt-4o ", "GPT-4O", "gpt-4o/../x", "http://evil.example/v1", "only", "only-real"] {
        assert_eq!(set.upstreams.pick(model, &[], &[]).unwrap_err().reason, Reason::UnknownModel, "{model}");
    }
}

#[test]
fn shares_follow_the_weights() {
    let set = set(vec![
        configured("a", &["*"], 0, 1),
        configured("b", &["*"], 0, 3),
        configured("c", &["*"], 0, 6),
        configured("later", &["*"], 1, 1_000_000),
    ]);
    let shares = set.shares(10_000);
    for (name, wanted) in [("a", 1_000), ("b", 3_000), ("c", 6_000)] {
        assert!(shares[name].abs_diff(wanted) < 200, "{shares:?}");
    }
    assert_eq!(shares.len(), 3);
    set.open("c");
    let shares = set.shares(4_000);
    assert!(shares["a"].abs_diff(1_000) < 150 && shares["b"].abs_diff(3_000) < 150 && shares.len() == 2, "{shares:?}");
}

#[test]
fn a_weight_of_0_is_for_when_there_is_nobody_else() {
    let set = set(vec![configured("spare", &["*"], 0, 0), configured("used", &["*"], 0, 1)]);
    assert_eq!(set.shares(100), [("used", 100)].into());
    set.open("used");
    assert_eq!(set.shares(100), [("spare", 100)].into());
    let idle = self::set(vec![configured("one", &["*"], 0, 0), configured("two", &["*"], 0, 0)]);
    assert_eq!(idle.shares(10), [("one", 10)].into());
}

#[test]
fn who_is_away_is_passed_over_and_the_shortest_wait_is_told() {
    let set =
        set(vec![configured("a", &["*"], 0, 1), configured("b", &["*"], 1, 1), configured("other", &["z"], 2, 1)]);
    set.one("a").health.rest(5_000);
    assert_eq!(set.picked("m"), "b");
    set.one("b").health.rest(3_000);
    let error = set.upstreams.pick("m", &[], &[]).unwrap_err();
    assert_eq!((error.reason, error.retry), (Reason::UpstreamBusy, Some(Retry::AfterMs(3_000))));
    set.clock.advance(Duration::from_secs(3));
    assert_eq!(set.picked("m"), "b");
    set.clock.advance(Duration::from_secs(2));
    assert_eq!(set.picked("m"), "a");
    set.open("a");
    set.open("b");
    let error = set.upstreams.pick("m", &[], &[]).unwrap_err();
    assert_eq!((error.reason, error.retry), (Reason::UpstreamFailed, Some(Retry::AfterMs(1_000))));
    assert_eq!(set.picked("z"), "other");
}

#[test]
fn what_is_known_outlives_a_reload_of_the_same_place() {
    let set = set(vec![configured("kept", &["*"], 0, 1), configured("moved", &["*"], 0, 1)]);
    set.open("kept");
    set.open("moved");
    set.one("kept").learn(2_000, 1_000);
    while set.upstreams.budget.take() {}
    let learnt = set.one("kept").estimate(10_000);
    let mut kept = configured("kept", &["gpt-*"], 7, 9);
    kept.connections_max = 5;
    let mut moved = configured("moved", &["*"], 0, 1);
    moved.base_url = "http://elsewhere.invalid/v1".parse().unwrap();
    let after = Upstreams::new(&[kept.into(), moved.into()], &set.clock, &set.metrics, Some(&set.upstreams)).unwrap();
    let one = |name: &str| after.list.iter().find(|upstream| &*upstream.name == name).unwrap();
    assert_eq!((one("kept").state(), one("moved").state()), (State::Open, State::Closed));
    assert_eq!(one("kept").estimate(10_000), learnt);
    assert_eq!(one("kept").config.priority, 7);
    assert!(!after.budget.take(), "a reload filled the budget");
}

#[test]
fn gauges_show_those_there_are() {
    let set = set(vec![configured("a", &["*"], 0, 1), configured("b", &["*"], 0, 1)]);
    set.open("a");
    let page = |upstreams: &Upstreams| {
        upstreams.refresh_gauges(&set.metrics);
        String::from_utf8(set.metrics.page()).unwrap()
    };
    let before = page(&set.upstreams);
    assert!(before.contains("relais_upstream_state{upstream=\"a\"} 2"), "{before}");
    assert!(before.contains("relais_upstream_state{upstream=\"b\"} 0"), "{before}");
    let less = [Arc::new(configured("b", &["*"], 0, 1))];
    let after = page(&Upstreams::new(&less, &set.clock, &set.metrics, Some(&set.upstreams)).unwrap());
    assert!(!after.contains("relais_upstream_state{upstream=\"a\"}"), "{after}");
}
