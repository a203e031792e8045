//! The catalogue against the price lists, written out here a second time on purpose: a slip in
//! either is a failing test.

use super::*;
use crate::limit::Limit::{AtMost, Unlimited};

fn plan(code: &str) -> &'static Plan {
    Catalog::embedded().plan(code).unwrap()
}

/// Price a month, price a year, and whether by contract.
fn price(code: &str) -> (Option<u64>, Option<u64>, bool) {
    let price = plan(code).price;
    (price.month_cents, price.year_cents, price.custom)
}

#[test]
fn exactly_these_are_sold() {
    let codes: Vec<&str> = Catalog::embedded().plans().map(|plan| plan.code.as_str()).collect();
    assert_eq!(
        codes,
        [
            "api.basic",
            "api.enterprise",
            "api.free",
            "api.pro",
            "app.business",
            "app.enterprise",
            "app.free",
            "app.pro",
            "app.starter",
            "chatwoot.enterprise",
            "chatwoot.pro",
            "chatwoot.starter",
            "selfhosted",
        ]
    );
    assert!(Catalog::embedded().plans().all(|plan| plan.version == 1));
}

#[test]
fn app_prices_and_limits() {
    let table = [
        // code, price, tokens, AI agents, storage GB, threads
        ("app.free", (Some(0), None, false), AtMost(500), AtMost(50), AtMost(1), AtMost(5)),
        ("app.starter", (Some(900), Some(12 * 900), false), AtMost(5_000), AtMost(100), AtMost(10), AtMost(50)),
        ("app.pro", (Some(2_900), Some(12 * 2_900), false), AtMost(25_000), AtMost(168), AtMost(50), AtMost(500)),
        ("app.business", (Some(9_900), Some(12 * 9_900), false), AtMost(100_000), AtMost(168), AtMost(500), Unlimited),
        ("app.enterprise", (None, None, true), Unlimited, AtMost(168), Unlimited, Unlimited),
    ];
    for (code, expected_price, tokens, agents, storage, threads) in table {
        assert_eq!(price(code), expected_price, "{code}");
        let expected = Overrides {
            tokens_per_month: Some(tokens),
            agents: Some(agents),
            storage_gb: Some(storage),
            threads: Some(threads),
            ..Overrides::default()
        };
        assert_eq!(plan(code).limits, expected, "{code}");
        assert_eq!(plan(code).spheres, Some(9), "{code}");
    }
}

#[test]
fn app_features() {
    use Feature::{
        AgentsL0, ApiAccess, CustomAgents, Marketplace, MarketplacePublishing, MobilePwa, QuickCapture, Sla, Spheres,
        Sso, WhiteLabel,
    };
    let codes = ["app.free", "app.starter", "app.pro", "app.business", "app.enterprise"];
    let table = [
        (Spheres, [true, true, true, true, true]),
        (AgentsL0, [true, true, true, true, true]),
        (MobilePwa, [true, true, true, true, true]),
        (QuickCapture, [true, true, true, true, true]),
        (ApiAccess, [false, false, true, true, true]),
        (Marketplace, [false, true, true, true, true]),
        (MarketplacePublishing, [false, false, false, true, true]),
        (CustomAgents, [false, false, false, true, true]),
        (Sso, [false, false, false, false, true]),
        (WhiteLabel, [false, false, false, false, true]),
        (Sla, [false, false, false, false, true]),
    ];
    for (feature, row) in table {
        for (code, has) in codes.into_iter().zip(row) {
            assert_eq!(plan(code).features.contains(&feature), has, "{code}: {feature:?}");
        }
    }
    let levels: Vec<Vec<u8>> = codes.iter().map(|code| plan(code).agent_levels().collect()).collect();
    assert_eq!(levels, [vec![0], vec![0, 1], vec![0, 1, 2, 3], vec![0, 1, 2, 3], vec![0, 1, 2, 3]]);
    // Nothing beyond the table: its rows and the four levels.
    let counts = codes.map(|code| plan(code).features.len());
    assert_eq!(counts, [4, 6, 9, 11, 14]);
    assert_eq!(
        codes.map(|code| plan(code).support),
        [Support::Community, Support::Email, Support::Priority, Support::Dedicated, Support::PhoneAndSla].map(Some)
    );
    assert_eq!(
        codes.map(|code| plan(code).target.as_deref().unwrap()),
        [
            "acquisition",
            "freelancers, students",
            "power users, small teams",
            "SMBs, agencies",
            "corporates, government"
        ]
    );
    assert_eq!(codes.map(|code| plan(code).sla_basis_points), [None, None, None, None, Some(9_990)]);
}

#[test]
fn api_prices_and_limits() {
    let table = [
        // code, price a month, by contract, calls a month, calls a minute, in flight (ours)
        ("api.free", Some(0), false, AtMost(1_000), AtMost(10), AtMost(4)),
        ("api.basic", Some(4_900), false, AtMost(100_000), AtMost(100), AtMost(32)),
        ("api.pro", Some(29_900), false, AtMost(1_000_000), AtMost(1_000), AtMost(256)),
        ("api.enterprise", None, true, Unlimited, Unlimited, Unlimited),
    ];
    for (code, month_cents, custom, calls, per_minute, in_flight) in table {
        assert_eq!(price(code), (month_cents, None, custom), "{code}");
        let expected = Overrides {
            calls_per_month: Some(calls),
            calls_per_minute: Some(per_minute),
            calls_in_flight: Some(in_flight),
            ..Overrides::default()
        };
        assert_eq!(plan(code).limits, expected, "{code}");
        assert_eq!(plan(code).features, BTreeSet::from([Feature::ApiAccess]), "{code}");
    }
}

#[test]
fn managed_chatwoot() {
    use Feature::{AiAgent, Analytics, DedicatedEnvironment, Handoff, Sla};
    let codes = ["chatwoot.starter", "chatwoot.pro", "chatwoot.enterprise"];
    let limits = [(AtMost(1), AtMost(1_000)), (AtMost(3), AtMost(2_000)), (Unlimited, Unlimited)];
    for ((code, (seats, conversations)), cents) in codes.into_iter().zip(limits).zip([9_900, 14_900, 49_900]) {
        let expected =
            Overrides { seats: Some(seats), conversations_per_month: Some(conversations), ..Overrides::default() };
        assert_eq!(plan(code).limits, expected, "{code}");
        let expected = Price {
            month_cents: Some(cents),
            setup_cents: Some(50_000),
            setup_waived_from_months: Some(12),
            ..Price::default()
        };
        assert_eq!(plan(code).price, expected, "{code}");
    }
    for (feature, row) in [
        (AiAgent, [true, true, true]),
        (Handoff, [false, true, true]),
        (Analytics, [false, true, true]),
        (Sla, [false, false, true]),
        (DedicatedEnvironment, [false, false, true]),
    ] {
        assert_eq!(codes.map(|code| plan(code).features.contains(&feature)), row, "{feature:?}");
    }
    let common = {
        use Feature::{Branding, DailyBackups, Hosting, IsolatedInstance, Monitoring, Ssl, Updates};
        BTreeSet::from([Hosting, Updates, DailyBackups, Ssl, Monitoring, Branding, IsolatedInstance])
    };
    assert!(codes.iter().all(|code| plan(code).features.is_superset(&common)));
    assert_eq!(codes.map(|code| plan(code).features.len() - common.len()), [1, 3, 5]);
    assert_eq!(
        codes.map(|code| plan(code).support),
        [Support::Email, Support::Priority, Support::AroundTheClock].map(Some)
    );
    assert_eq!(codes.map(|code| plan(code).sla_basis_points), [None, None, Some(9_990)]);
    assert_eq!(codes.map(|code| plan(code).recommended), [false, true, false]);
    assert_eq!(
        codes.map(|code| plan(code).target.as_deref().unwrap()),
        ["small shops, startups", "SMEs", "large accounts"]
    );
}

#[test]
fn selfhosted() {
    let expected = Price { once_cents: Some(250_000), support_year_cents: Some(50_000), ..Price::default() };
    assert_eq!(plan("selfhosted").price, expected);
    assert_eq!(plan("selfhosted").limits, Overrides::default());
    assert_eq!(plan("selfhosted").family(), Some(Family::SelfHosted));
}

#[test]
fn packs() {
    let rows: Vec<(&str, u64, u64, u64, u64)> = Catalog::embedded()
        .packs()
        .iter()
        .map(|pack| (pack.code.as_str(), pack.base_tokens, pack.bonus_percent, pack.credited_tokens, pack.price_cents))
        .collect();
    assert_eq!(
        rows,
        [
            ("pack.100", 100, 0, 100, 100),
            ("pack.1k", 1_000, 10, 1_100, 900),
            ("pack.10k", 10_000, 20, 12_000, 8_000),
            ("pack.100k", 100_000, 30, 130_000, 70_000),
        ]
    );
    let lots = Catalog::embedded().pack("pack.1k").unwrap().lots("pi_1", 5);
    let lots: Vec<(u64, &str)> = lots.iter().map(|lot| (lot.granted, lot.source.as_str())).collect();
    assert_eq!(lots, [(1_000, "pack:pi_1"), (100, "pack:pi_1:bonus")]);
    assert_eq!(Catalog::embedded().pack("pack.100").unwrap().lots("pi_2", 5).len(), 1);
}

#[test]
fn a_catalogue_that_contradicts_itself_is_refused() {
    let plan = "[[plan]]\nname = \"X\"\nversion = 1\nprice = { month_cents = 1 }\nfeatures = []\n";
    for (text, says) in [
        (format!("{plan}code = \"gold\"\n"), "belongs to no family"),
        (format!("{plan}code = \"app.x\"\n{plan}code = \"app.x\"\n"), "twice"),
        (format!("{plan}code = \"app.x\"\nlimits = {{ without = [\"sso\"] }}\n"), "not under its limits"),
        (format!("{plan}code = \"app.x\"\nprize = 1\n"), "reading a catalogue file"),
        (
            "[[pack]]\ncode = \"p\"\nbase_tokens = 100\nbonus_percent = 10\ncredited_tokens = 111\nprice_cents = 1\n"
                .to_owned(),
            "do not come to",
        ),
    ] {
        let error = Catalog::parse(&[&text]).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
