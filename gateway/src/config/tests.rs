//! What a file may say, and what is said about one that is wrong.

use std::path::Path;

use relais_policies::{Anchor, ChannelKind, Limit, LotKind, Status};
use secrecy::ExposeSecret as _;

use super::{AgentKind, Config, ConfigErrors, Level, LimitField, Model, Tool};
use crate::conversation::Medium;
use relais_policies::key::hash;

/// The smallest file with one of everything.
const SMALL: &str = r#"
[[upstream]]
name = "main"
base_url = "http://127.0.0.1:8000/v1"
[[agent]]
id = "default"
kind = "openai"
upstream = "main"
model = "llama"
[[tenant]]
id = "acme"
plans = ["chatwoot.pro"]
[[tenant.key]]
name = "ci"
secret = "rk_test_000000000001_0123456789abcdef0123456789abcdef"
[[tenant.chatwoot]]
channel = "main"
url = "http://127.0.0.1:3000/"
account_id = 1
bot_id = 7
bot_token = "bot"
webhook_secret = "hook"
agent = "default"
"#;

fn env(name: &str) -> Option<String> {
    match name {
        "UPSTREAM_API_KEY" => Some("sk-upstream".to_owned()),
        "CHATWOOT_BOT_TOKEN" => Some("bot-token".to_owned()),
        "CHATWOOT_WEBHOOK_SECRET" => Some("hook-secret\n".to_owned()),
        "EMPTY" => Some(String::new()),
        "SPACED" => Some("two words".to_owned()),
        _ => None,
    }
}

fn read(text: &str) -> Result<Config, ConfigErrors> {
    Config::from_str(text, Path::new(env!("CARGO_MANIFEST_DIR")), &env)
}

fn good(text: &str) -> Config {
    read(text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Checks that exactly these errors are found, each begun by `line:column: key: ` and holding what follows.
fn check(text: &str, expected: &[(&str, &str)]) {
    let found = match read(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.to_string().lines().map(str::to_owned).collect(),
    };
    let all = found.join("\n");
    assert_eq!(found.len(), expected.len(), "for:\n{text}\nfound:\n{all}");
    for (found, (place, message)) in found.iter().zip(expected) {
        assert!(found.starts_with(&format!("relais.toml:{place}: ")), "expected {place} in:\n{all}");
        assert!(found.contains(message), "expected {message} in:\n{all}");
    }
}

/// As [`check`], with something replaced in or added to [`SMALL`].
fn check_small(from: &str, to: &str, expected: &[(&str, &str)]) {
    assert!(SMALL.contains(from), "{from}");
    check(&SMALL.replacen(from, to, 1), expected);
}

#[test]
fn the_documented_file_works_as_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("prompts")).unwrap();
    std::fs::write(dir.path().join("prompts/support.md"), "Be kind.\n").unwrap();
    let config = Config::from_str(include_str!("tests/documented.toml"), dir.path(), &env)
        .unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.listen.public.to_string(), "127.0.0.1:8080");
    assert_eq!(config.storage.dir, dir.path().join("data"));
    let upstream = &config.upstreams[0];
    assert_eq!(upstream.base_url, "http://127.0.0.1:8000/v1");
    assert_eq!(upstream.api_key.as_ref().unwrap().expose_secret(), "sk-upstream");
    assert_eq!((upstream.models.as_slice(), upstream.weight), (["*".to_owned()].as_slice(), 1));
    assert_eq!(upstream.limit_field, LimitField::MaxTokens);
    let AgentKind::OpenAi(model) = &config.agents["default"].kind else { panic!("{:?}", config.agents) };
    assert_eq!((model.system_prompt.as_str(), model.tokens_max, model.temperature_milli), ("Be kind.", 800, None));
    assert_eq!((model.level, model.tool_rounds_max, model.history_tokens), (Level::L0, 4, 8_000));
    let tenant = &config.tenants[0];
    assert_eq!(&*tenant.id, "acme");
    assert_eq!(tenant.policy.limits.tokens_per_month, Limit::AtMost(20_000));
    assert_eq!(tenant.policy.limits.calls_per_minute, Limit::AtMost(1_000));
    assert_eq!(tenant.policy.status, Status::Active);
    assert_eq!(tenant.keys[0].public_id, *b"000000000001");
    assert_eq!(tenant.keys[0].hash, hash(b"0123456789abcdef0123456789abcdef"));
    let channel = &tenant.channels[0];
    assert_eq!((channel.kind, channel.account_id, channel.bot_id), (ChannelKind::Managed, 1, 7));
    assert_eq!(channel.webhook_secrets[0].expose_secret(), "hook-secret");
    assert!(channel.user_token.is_none());
}

#[test]
fn the_example_in_the_repository_works() {
    let text = include_str!("../../../relais.example.toml");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let config = Config::from_str(text, &root, &env).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(config.tenants.len(), 1);
    // What the example shows commented out are the defaults and further keys: they must be known ones.
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("knowledge")).unwrap();
    if let Err(errors) = Config::from_str(&shown(), dir.path(), &env) {
        panic!("{errors}");
    }
}

/// The example with all it shows switched on.
fn shown() -> String {
    let text = include_str!("../../../relais.example.toml");
    text.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).fold(String::new(), |all, line| all + line + "\n")
}

#[test]
fn an_empty_file_is_all_defaults() {
    let config = good("");
    assert_eq!(config.listen.admin.to_string(), "127.0.0.1:9090");
    assert!(config.runtime.workers >= 1 && config.runtime.per_core);
    assert_eq!(config.timeouts.total.as_secs(), 600);
    assert_eq!(config.inbox.keep.as_secs(), 7 * 86_400);
    assert_eq!((config.log.level.as_str(), config.log.json), ("info", true));
    assert!(config.tenants.is_empty());
}

#[test]
fn what_is_small_is_good_too() {
    let config = good(SMALL);
    assert_eq!(config.tenants[0].channels[0].url, "http://127.0.0.1:3000");
    assert_eq!(config.tenants[0].channels[0].agent.id, "default");
    assert!(!config.tenants[0].channels[0].handoff.message.is_empty());
}

#[test]
fn unknown_keys_are_refused_with_the_nearest() {
    check("[limts]\nbody_bytes_max = 1", &[("1:2: limts", "unknown key; did you mean \"limits\"?")]);
    check("[listen]\npubic = \"x\"", &[("2:1: listen.pubic", "did you mean \"public\"?")]);
    check("[log]\nzzz = 1", &[("2:1: log.zzz", "known here are access, format, level")]);
    check_small(
        "kind = \"openai\"",
        "kind = \"openai\"\nsytem_prompt = \"x\"",
        &[("8:1: agent[0].sytem_prompt", "did you mean \"system_prompt\"?")],
    );
    // A misspelt required key is one error, not an unknown and a missing one.
    check_small("account_id = 1", "acount_id = 1", &[("19:1: tenant[0].chatwoot[0].acount_id", "\"account_id\"?")]);
    check_small(
        "plans = [",
        "overrides = { calls_per_minut = 3 }\nplans = [",
        &[("12:15: tenant[0].overrides.calls_per_minut", "did you mean \"calls_per_minute\"?")],
    );
}

#[test]
fn wrong_types_and_bounds() {
    for (text, place, message) in [
        ("listen = 3", "1:1: listen", "expected a table, found a whole number"),
        ("[runtime]\nworkers = \"two\"", "2:1: runtime.workers", "expected a whole number, found a string"),
        ("[runtime]\nworkers = 0", "2:1: runtime.workers", "from 1 to 1024"),
        ("[limits]\nheader_bytes_max = 100", "2:1: limits.header_bytes_max", "from 8192 to 1048576"),
        ("[limits]\nbody_bytes_max = -1", "2:1: limits.body_bytes_max", "from 1024 to"),
        ("[timeouts]\ntotal_ms = 1.5", "2:1: timeouts.total_ms", "found a number with a fraction"),
        ("[inbox]\nack_wait_ms = 99_999_999_999_999_999_999_999", "2:1: inbox.ack_wait_ms", "from 1 to 4500"),
        ("[log]\naccess = \"yes\"", "2:1: log.access", "expected true or false, found a string"),
        ("[log]\nformat = \"jsn\"", "2:1: log.format", "must be one of \"json\", \"text\"; did you mean \"json\"?"),
        ("include = \"x\"", "1:1: include", "expected an array, found a string"),
        ("include = [1]", "1:12: include[0]", "expected a string"),
        ("[[listen]]\npublic = \"x\"", "1:3: listen", "expected a table, found an array"),
        ("[tenant]\nid = \"x\"", "1:2: tenant", "expected an array, found a table"),
        ("[[rate]]\nmodel = \"x\"\ninput = 5_000_000_000", "3:1: rate[0].input", "from 0 to 4294967295"),
        ("[[rate]]\ninput = 1", "1:1: rate[0].model", "missing: "),
    ] {
        check(text, &[(place, message)]);
    }
    for (key, value, message) in [
        ("anchor", "0", "a day of the month from 1 to 31"),
        ("anchor", "true", "a day of the month from 1 to 31"),
        ("anchor", "\"soon\"", "expected a date such as"),
        ("enabled", "1", "expected true or false"),
        ("overrides", "{ tokens_per_month = -1 }", "whole number from 0, or \"unlimited\""),
        ("overrides", "{ tokens_per_month = \"lots\" }", "did you mean"),
        ("overrides", "{ calls_per_minute = 4294967296 }", "at most 4294967295"),
        ("overrides", "{ features = [\"teleport\"] }", "must be one of"),
        ("overrides", "{ models = [\"a*b\"] }", "a*b"),
    ] {
        let text = format!("[[tenant]]\nid = \"a\"\n{key} = {value}");
        let errors = read(&text).expect_err(&text).0;
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].key.starts_with(&format!("tenant[0].{key}")), "{errors:?}");
        assert_eq!(errors[0].position.unwrap().line, 3);
        if message != "did you mean" {
            assert!(errors[0].message.contains(message), "{errors:?}");
        }
    }
}

#[test]
fn an_origin_is_written_as_a_browser_sends_it() {
    for (origin, is_good) in [
        ("https://app.example.com", true),
        ("http://localhost:5173", true),
        ("https://[::1]:8443", true),
        ("*", true),
        ("https://app.example.com/", false),
        ("https://App.example.com", false),
        ("https://app.example.com:443", false),
        ("https://user@app.example.com", false),
        ("https://*.example.com", false),
        ("app.example.com", false),
        ("null", false),
        ("", false),
    ] {
        let read = read(&format!("[cors]\norigins = [\"https://one.example\", \"{origin}\"]\n"));
        match read {
            Ok(config) => assert!(is_good && config.cors.origins == ["https://one.example", origin], "{origin}"),
            Err(errors) => {
                let about: Vec<_> = errors.0.iter().filter(|error| error.key == "cors.origins[1]").collect();
                assert_eq!(about.len(), usize::from(!is_good), "{origin}: {errors}");
            }
        }
    }
}

/// What the walk lets through must deserialise: no error may come from serde, which stops at its first and names no key.
#[test]
fn whatever_stands_there_every_error_has_a_key_and_a_line() {
    let shown = shown();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("knowledge")).unwrap();
    let mut refused = 0;
    for (index, line) in shown.lines().enumerate() {
        let key = line.split_once('=').filter(|_| !line.starts_with(['#', '['])).map(|(key, _)| key);
        let values = [
            "0",
            "-1",
            "1.5",
            "\"x\"",
            "\"\"",
            "true",
            "1979-05-27",
            "07:32:00",
            "[]",
            "[\"x\"]",
            "[[1]]",
            "{}",
            "nan",
        ];
        let values = values.iter().filter_map(|value| Some(format!("{}= {value}", key?)));
        for replacement in values.chain([String::new()]) {
            let mutated: String = shown
                .lines()
                .enumerate()
                .fold(String::new(), |all, (at, line)| all + if at == index { &replacement } else { line } + "\n");
            let Err(errors) = Config::from_str(&mutated, dir.path(), &env) else { continue };
            refused += 1;
            for error in &errors.0 {
                let not_toml = error.message.starts_with("this is not TOML");
                assert!(error.position.is_some() && (not_toml || !error.key.is_empty()), "{replacement}: {errors}");
            }
        }
    }
    assert!(refused > 500, "{refused}");
}

#[test]
fn what_is_not_toml() {
    check("[listen\npublic = 1", &[("1:8", "this is not TOML: ")]);
    let errors = read("a = 1\na = 2\nb = ?\n").unwrap_err();
    assert!(errors.0.len() >= 2, "{errors}");
}

#[test]
fn all_errors_at_once_in_the_order_of_the_file() {
    let text = r#"
[listen]
public = "here"
admin = 9090
[[upstream]]
name = "Main Model"
base_url = "ftp://x"
weight = 0
[[agent]]
id = "default"
kind = "openai"
upstream = "man"
model = "llama"
dir = "knowledge"
[[tenant]]
id = "acme"
plans = ["api.por", "app.business", "app.pro"]
[[tenant.key]]
name = "ci"
secret = "sk-not-one-of-ours"
[[tenant.chatwoot]]
channel = "main"
agent = "defalt"
"#;
    check(
        text,
        &[
            ("3:1: listen.public", "an IP address and a port"),
            ("4:1: listen.admin", "expected a string, found a whole number"),
            ("6:1: upstream[0].name", "small letters"),
            ("7:1: upstream[0].base_url", "http:// or https://"),
            ("8:1: upstream[0].weight", "from 1 to 1000000"),
            ("12:1: agent[0].upstream", "there is no upstream \"man\""),
            ("14:1: agent[0].dir", "is not a folder that can be read"),
            ("17:10: tenant[0].plans[0]", "there is no plan \"api.por\"; did you mean \"api.pro\"?"),
            ("17:37: tenant[0].plans[2]", "both app plans"),
            ("20:1: tenant[0].key[0].secret", "relais key new"),
            ("21:1: tenant[0].chatwoot[0].url", "missing: "),
            ("21:1: tenant[0].chatwoot[0].account_id", "missing: "),
            ("21:1: tenant[0].chatwoot[0].bot_id", "missing: "),
            ("21:1: tenant[0].chatwoot[0].bot_token", "missing: "),
            ("21:1: tenant[0].chatwoot[0].webhook_secret", "missing: "),
            ("23:1: tenant[0].chatwoot[0].agent", "there is no agent \"defalt\"; did you mean \"default\"?"),
        ],
    );
}

#[test]
fn no_secret_in_any_error() {
    let text = SMALL
        .replace("rk_test_000000000001_0123456789abcdef0123456789abcdef", "rk_test_hunter2")
        .replace("\"bot\"", "\"hunter2 x\"")
        .replace("\"hook\"", "[\"hunter2\"]")
        .replace("account_id = 1", "account_id = \"hunter2\"\npath_token = \"hunter2\"");
    let errors = read(&text).unwrap_err();
    assert_eq!(errors.0.len(), 5, "{errors}");
    assert!(!errors.to_string().contains("hunter2"), "{errors}");
    assert!(!format!("{:?}", good(SMALL)).contains("\"hook"));
}

#[test]
fn secrets_from_elsewhere() {
    for (written, message) in [
        ("env:NO_SUCH_THING", "the variable NO_SUCH_THING is not set"),
        ("env:EMPTY", "the variable EMPTY is empty"),
        ("env:SPACED", "the variable SPACED holds a space"),
        ("file:no/such/file", "no/such/file cannot be read: "),
        ("", "the text is empty"),
    ] {
        check_small("\"bot\"", &format!("\"{written}\""), &[("21:1: tenant[0].chatwoot[0].bot_token", message)]);
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token"), "from-a-file\r\n").unwrap();
    let text = SMALL.replace("\"bot\"", "\"file:token\"");
    let config = Config::from_str(&text, dir.path(), &env).unwrap();
    assert_eq!(config.tenants[0].channels[0].bot_token.expose_secret(), "from-a-file");
    std::fs::write(dir.path().join("token"), "x".repeat(2 << 20)).unwrap();
    let errors = Config::from_str(&text, dir.path(), &env).unwrap_err();
    assert!(errors.to_string().contains("has more than"), "{errors}");
}

#[test]
fn addresses_of_services() {
    for (url, message) in [
        ("127.0.0.1:3000", "must begin with http:// or https://"),
        ("https://", "and a host"),
        ("https://me:pw@host", "user or password"),
        ("https://host/?a=b", "must not hold a ?"),
        ("https://host/#a", "must not hold a #"),
        ("https://ho st", "is no address"),
    ] {
        let from = "http://127.0.0.1:3000/";
        check_small(from, url, &[("18:1: tenant[0].chatwoot[0].url", message)]);
    }
    let config = good(&SMALL.replace("http://127.0.0.1:3000/", "https://help.example.com/chat/"));
    assert_eq!(config.tenants[0].channels[0].url, "https://help.example.com/chat");
}

#[test]
fn what_is_there_twice() {
    let key = "[[tenant.key]]\nname = \"b\"\nsecret = \"rk_live_000000000001_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\"\n";
    check(&format!("{SMALL}{key}"), &[("24:1: tenant[0].key[1]", "public id stands in relais.toml:13 already")]);
    check(&format!("{SMALL}[[tenant]]\nid = \"b\"\n{key}"), &[("26:1: tenant[1].key[0]", "relais.toml:13")]);
    check(&format!("{SMALL}[[tenant]]\nid = \"acme\""), &[("25:1: tenant[1].id", "already (relais.toml:10)")]);
    check(
        &format!("{SMALL}[[agent]]\nid = \"default\"\nkind = \"knowledge\"\ndir = \".\""),
        &[("25:1: agent[1].id", "an agent \"default\" already (relais.toml:5)")],
    );
    check(
        &format!("{SMALL}[[upstream]]\nname = \"main\"\nbase_url = \"http://x\""),
        &[("25:1: upstream[1].name", "already (relais.toml:2)")],
    );
    let channel = SMALL.split_once("[[tenant.chatwoot]]").unwrap().1;
    check(
        &format!("{SMALL}[[tenant.chatwoot]]{channel}"),
        &[
            ("25:1: tenant[0].chatwoot[1].channel", "a channel \"main\" already (relais.toml:16)"),
            ("28:1: tenant[0].chatwoot[1].bot_id", "relais.toml:16 is the same bot"),
        ],
    );
    let other = channel.replace("bot_id = 7", "bot_id = 8");
    // Another tenant may have a channel of that name.
    good(&format!("{SMALL}[[tenant]]\nid = \"b\"\nplans = [\"selfhosted\"]\n[[tenant.chatwoot]]{other}"));
    check("[[rate]]\nmodel = \"a\"\n[[rate]]\nmodel = \"a\"", &[("4:1: rate[1].model", "remove one")]);
}

#[test]
fn keys_by_hash_and_rotation() {
    let hash_hex = blake3::Hash::from(hash(b"0123456789abcdef0123456789abcdef")).to_hex();
    let secret = "secret = \"rk_test_000000000001_0123456789abcdef0123456789abcdef\"";
    let by_hash = format!("public_id = \"000000000001\"\nhash = \"{hash_hex}\"");
    let (a, b) = (good(SMALL), good(&SMALL.replace(secret, &by_hash)));
    assert_eq!(a.tenants[0].keys[0].hash, b.tenants[0].keys[0].hash);

    let rotated = format!(
        "{secret}\nprevious_secret = \"rk_test_000000000001_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\"\nprevious_until = 2026-02-01"
    );
    let until = "2026-02-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap().as_millisecond();
    let key = &good(&SMALL.replace(secret, &rotated)).tenants[0].keys[0];
    assert_eq!(key.previous, Some((hash(&[b'z'; 32]), until)));

    for (to, place, message) in [
        ("", "13:1: tenant[0].key[0]", "give secret, or public_id and hash"),
        ("public_id = \"000000000001\"", "13:1: tenant[0].key[0]", "give secret, or public_id and hash"),
        (&*format!("{secret}\n{by_hash}"), "13:1: tenant[0].key[0]", "not both"),
        ("public_id = \"0\"\nhash = \"0\"", "", ""),
        (&*rotated.replace("\nprevious_until = 2026-02-01", ""), "13:1: tenant[0].key[0].previous_until", "missing"),
        (
            &*format!("{secret}\nprevious_until = 2026-02-01"),
            "16:1: tenant[0].key[0].previous_until",
            "no previous_secret",
        ),
        (
            &*rotated.replacen("000000000001_z", "000000000002_z", 1),
            "16:1: tenant[0].key[0].previous_secret",
            "another public id",
        ),
        (&*format!("{secret}\nmodels = [\"a*b\"]"), "16:11: tenant[0].key[0].models[0]", "ends in *"),
        (
            &*format!("{secret}\ncalls_per_minute = 0"),
            "16:1: tenant[0].key[0].calls_per_minute",
            "from 1 to 4294967295",
        ),
    ] {
        if place.is_empty() {
            check_small("name = \"ci\"", "name = \" \"", &[("14:1: tenant[0].key[0].name", "is empty")]);
            check_small(
                secret,
                to,
                &[
                    ("15:1: tenant[0].key[0].public_id", "12 small letters and digits"),
                    ("16:1: tenant[0].key[0].hash", "64 hex digits"),
                ],
            );
        } else {
            check_small(secret, to, &[(place, message)]);
        }
    }
}

#[test]
fn tenants_of_all_sorts() {
    let text = r#"
[[tenant]]
id = "acme"
enabled = false
anchor = 2026-01-31T10:00:00Z
plans = ["app.pro"]
[[tenant.lot]]
name = "welcome"
tokens = 5000
kind = "promo"
expires = 2026-06-01
[[tenant.lot]]
name = "sorry"
tokens = 1
"#;
    let policy = &good(text).tenants[0].policy;
    assert_eq!(policy.status, Status::Suspended);
    let instant = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond();
    assert_eq!(policy.anchor, Anchor::at(instant("2026-01-31T10:00:00Z")));
    assert_eq!(policy.lots[0].source, "file:acme:welcome");
    assert_eq!((policy.lots[0].kind, policy.lots[0].granted), (LotKind::Promo, 5_000));
    assert_eq!(policy.lots[0].expires_at_ms, Some(instant("2026-06-01T00:00:00Z")));
    assert_eq!((policy.lots[1].kind, policy.lots[1].expires_at_ms), (LotKind::Adjustment, None));
    check(&text.replace("sorry", "welcome"), &[("13:1: tenant[0].lot[1].name", "already (relais.toml:7)")]);
    check(&text.replace("tokens = 1\n", "tokens = 0\n"), &[("14:1: tenant[0].lot[1].tokens", "from 1 to")]);
    check(&text.replace("2026-06-01", "\"June\""), &[("11:1: tenant[0].lot[0].expires", "expected a date")]);
    let day = good(&text.replace("2026-01-31T10:00:00Z", "15"));
    assert_eq!(Some(day.tenants[0].policy.anchor), Anchor::on_day(15));
}

#[test]
fn a_channel_that_no_plan_opens() {
    check_small("plans = [\"chatwoot.pro\"]", "", &[("16:1: tenant[0].chatwoot[0]", "no plan of this tenant opens")]);
    check_small(
        "account_id = 1",
        "account_id = 1\nkind = \"selfhosted\"",
        &[("16:1: tenant[0].chatwoot[0]", "no plan")],
    );
    let config = good(&SMALL.replace("chatwoot.pro", "selfhosted"));
    assert_eq!(config.tenants[0].channels[0].kind, ChannelKind::SelfHosted);
}

#[test]
fn a_chatwoot_too_old_to_sign() {
    let token = "0123456789abcdef01234567";
    let config = good(&SMALL.replace("webhook_secret = \"hook\"", &format!("path_token = \"{token}\"")));
    assert!(config.tenants[0].channels[0].webhook_secrets.is_empty());
    check_small(
        "webhook_secret = \"hook\"",
        "path_token = \"short\"",
        &[("22:1: tenant[0].chatwoot[0].path_token", "24 to 128")],
    );
    check_small(
        "webhook_secret = \"hook\"",
        "previous_webhook_secret = \"x\"",
        &[
            ("16:1: tenant[0].chatwoot[0].webhook_secret", "missing"),
            ("22:1: tenant[0].chatwoot[0].previous_webhook_secret", "no webhook_secret"),
        ],
    );
    let both = good(
        &SMALL.replace("webhook_secret = \"hook\"", "webhook_secret = \"new\"\nprevious_webhook_secret = \"old\""),
    );
    let secrets: Vec<_> = both.tenants[0].channels[0].webhook_secrets.iter().map(|s| s.expose_secret()).collect();
    assert_eq!(secrets, ["new", "old"]);
}

#[test]
fn agents_of_both_kinds() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[[agent]]\nid = \"docs\"\nkind = \"knowledge\"\ndir = \"help\"";
    let errors = Config::from_str(text, dir.path(), &env).unwrap_err();
    assert!(errors.to_string().contains("is not a folder"), "{errors}");
    std::fs::create_dir(dir.path().join("help")).unwrap();
    let config = Config::from_str(text, dir.path(), &env).unwrap();
    let AgentKind::Knowledge { dir: found } = &config.agents["docs"].kind else { panic!("{config:?}") };
    assert_eq!(*found, dir.path().join("help"));
    check(
        "[[agent]]\nid = \"x\"\nkind = \"knowledge\"\nmodel = \"y\"",
        &[("1:1: agent[0].dir", "missing: the folder"), ("4:1: agent[0].model", "does not go with")],
    );
    check(
        "[[agent]]\nid = \"x\"\nkind = \"openai\"",
        &[
            ("1:1: agent[0].upstream", "missing: the name of the upstream"),
            ("1:1: agent[0].model", "missing: the model"),
        ],
    );
    let warm = good(&SMALL.replace("model = \"llama\"", "model = \"llama\"\ntemperature = 0.7"));
    assert!(matches!(&warm.agents["default"].kind, AgentKind::OpenAi(model) if model.temperature_milli == Some(700)));
    check_small(
        "model = \"llama\"",
        "model = \"llama\"\ntemperature = 3",
        &[("10:1: agent[0].temperature", "from 0 to 2")],
    );
    check(
        "[[agent]]\nid = \"x\"\nkind = \"knowledge\"\ndir = \".\"\nlevel = \"L1\"\nfallback = [\"x\", \"nobody\"]",
        &[
            ("5:1: agent[0].level", "does not go with"),
            ("6:13: agent[0].fallback[0]", "a second time"),
            ("6:18: agent[0].fallback[1]", "there is no agent \"nobody\""),
        ],
    );
    check_small(
        "model = \"llama\"",
        "model = \"llama\"\ntools = [\"resolve\"]",
        &[("10:1: agent[0].tools", "resolve needs level L3; this agent has L0")],
    );
    check_small(
        "agent = \"default\"",
        "agent = \"default\"\nagents = [{ agent = \"default\" }, { chatwoot_inbox = 1, agent = \"nobody\" }]",
        &[
            ("24:11: tenant[0].chatwoot[0].agents[0]", "would fit everywhere"),
            ("24:56: tenant[0].chatwoot[0].agents[1].agent", "there is no agent \"nobody\""),
        ],
    );
    // An error in an upstream is not also an error of those who refer to it.
    check_small("http://127.0.0.1:8000/v1", "nowhere", &[("4:1: upstream[0].base_url", "must begin with")]);
}

#[test]
fn numbers_that_do_not_fit_each_other() {
    check(
        "[timeouts]\ntotal_ms = 1000\nconnect_ms = 1\nstall_ms = 1",
        &[("1:2: timeouts.first_byte_ms", "120000 is more than total_ms, which is 1000")],
    );
    check("[relay]\nburst_ms = 5000", &[("2:1: relay.burst_ms", "more than burst_max_ms, which is 4000")]);
    check("[relay]\nturns_max = 4", &[("1:2: relay.turns_per_tenant_max", "more than turns_max")]);
    check("[inbox]\nqueue_max = 4", &[("1:2: inbox.batch_max", "more than queue_max")]);
    check("[listen]\nadmin = \"127.0.0.1:8080\"", &[("2:1: listen.admin", "must not be public")]);
    good("[listen]\npublic = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"");
    check("[log]\nlevel = \"relais=loud\"", &[("2:1: log.level", "is no level and no filter")]);
}

#[test]
fn certificates() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[listen]\ntls = { cert = \"cert.pem\", key = \"key.pem\" }";
    let errors = |text| Config::from_str(text, dir.path(), &env).unwrap_err().0;
    let missing = errors(text);
    assert_eq!(missing.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["listen.tls.cert", "listen.tls.key"]);
    let ours = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(dir.path().join("cert.pem"), ours.cert.pem()).unwrap();
    std::fs::write(dir.path().join("key.pem"), other.signing_key.serialize_pem()).unwrap();
    assert!(errors(text)[0].message.contains("do not serve"));
    std::fs::write(dir.path().join("key.pem"), ours.signing_key.serialize_pem()).unwrap();
    let config = Config::from_str(text, dir.path(), &env).unwrap();
    assert_eq!(config.listen.tls.unwrap().cert, dir.path().join("cert.pem"));
    let half = errors("[listen]\ntls = { cert = \"cert.pem\" }");
    assert_eq!((half[0].key.as_str(), half.len()), ("listen.tls.key", 1));
}

#[test]
fn included_files_add() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let main = format!("include = [\"conf.d/*.toml\"]\n{SMALL}");
    let read = |main: &str| Config::from_str(main, dir.path(), &env);
    // The folder need not be there yet.
    assert_eq!(read(&main).unwrap().files.len(), 1);
    write("conf.d/secret", "rk_live_00000000000b_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\n");
    write("conf.d/.hidden.toml", "nonsense");
    write("conf.d/a.toml", "[[tenant]]\nid = \"acme\"\n[[tenant.key]]\nname = \"b\"\nsecret = \"file:secret\"\n");
    write("conf.d/b.toml", "[[tenant]]\nid = \"new\"\nplans = [\"api.pro\"]\n");
    let config = read(&main).unwrap();
    assert_eq!(config.files.len(), 3);
    assert_eq!(config.tenants.iter().map(|tenant| tenant.keys.len()).collect::<Vec<_>>(), [2, 0]);
    assert_eq!(config.tenants[0].keys[1].public_id, *b"00000000000b");

    write(
        "conf.d/c.toml",
        "[[tenant]]\nid = \"acme\"\nplans = []\n[[agent]]\nid = \"y\"\nkind = \"opnai\"\n[listen]\n",
    );
    let errors = read(&main).unwrap_err();
    let lines: Vec<String> = errors.to_string().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 3, "{errors}");
    assert!(
        lines[0].contains("c.toml:3:1: tenant[0].plans: the tenant \"acme\" is defined in relais.toml:11"),
        "{errors}"
    );
    assert!(lines[1].contains("c.toml:6:1: agent[0].kind: must be one of"), "{errors}");
    assert!(lines[2].contains("c.toml:7:2: listen: unknown key; known here are agent, tenant, upstream"), "{errors}");

    for (pattern, message) in [
        ("*/x.toml", "only after the last slash"),
        ("a*b*c", "only one *"),
        ("no.toml", "cannot be read"),
        ("..", "is no path to a file"),
    ] {
        let errors = read(&format!("include = [\"{pattern}\"]")).unwrap_err();
        assert!(errors.to_string().contains(message), "{errors}");
    }
}

#[test]
fn what_a_command_is_about_to_write_is_tried_before_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("relais.toml");
    std::fs::write(&path, "include = [\"conf.d/a-*.toml\"]\n[[tenant]]\nid = \"acme\"\nplans = [\"api.pro\"]").unwrap();
    let before = Config::load(&path).unwrap();
    let [folder] = before.folders.as_slice() else { panic!("{:?}", before.folders) };
    assert_eq!(folder.dir, dir.path().join("conf.d"));
    assert!(folder.takes("a-b.toml") && folder.takes("a-.toml"));
    assert!(
        !folder.takes("a-b.json") && !folder.takes("b.toml") && !folder.takes("a.toml") && !folder.takes(".a-.toml")
    );
    let included = folder.dir.join("a-new.toml");
    let lot = "[[tenant]]\nid = \"acme\"\n[[tenant.lot]]\nname = \"w\"\ntokens = 5";
    let after = Config::load_with(&path, &included, lot).unwrap();
    assert_eq!((after.files.len(), after.tenants.len()), (2, 1));
    let errors = Config::load_with(&path, &included, "[[tenant]]\nid = \"acme\"\nplans = []").unwrap_err();
    assert_eq!((errors.0[0].file.as_path(), errors.0.len()), (included.as_path(), 1));
    // One that is there is replaced.
    std::fs::create_dir(&folder.dir).unwrap();
    std::fs::write(&included, "nonsense").unwrap();
    assert!(Config::load(&path).is_err());
    assert_eq!(Config::load_with(&path, &included, lot).unwrap().files.len(), 2);
}

#[test]
fn what_only_a_restart_changes() {
    let before = good(SMALL);
    assert_eq!(before.start_only_changes(&good("[log]\nlevel = \"debug\"")), ["log"]);
    assert!(before.start_only_changes(&good("[timeouts]\nstall_ms = 5000")).is_empty());
    let after = "[listen]\npublic = \"127.0.0.1:1\"\n[storage]\ndir = \"elsewhere\"\n[runtime]\nper_core = false";
    assert_eq!(before.start_only_changes(&good(after)), ["listen.public", "storage.dir", "runtime.per_core"]);
}

#[test]
fn the_schema_describes_every_key() {
    let schema = Config::schema().to_value();
    fn undescribed(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
        for (key, property) in value.get("properties").and_then(|p| p.as_object()).into_iter().flatten() {
            let path = format!("{path}.{key}");
            if property.get("description").is_none() {
                found.push(path);
            }
        }
        for (name, definition) in value.get("$defs").and_then(|d| d.as_object()).into_iter().flatten() {
            undescribed(definition, name, found);
        }
    }
    let mut found = Vec::new();
    undescribed(&schema, "", &mut found);
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(schema["$defs"]["RawInbox"]["properties"]["ack_wait_ms"]["default"], 1_000);
}

#[test]
fn a_file_that_is_not_there() {
    let errors = Config::load(Path::new("/no/such/relais.toml")).unwrap_err();
    assert!(errors.to_string().starts_with("/no/such/relais.toml: cannot be read: "), "{errors}");
}

#[test]
fn who_answers_and_with_which_tools() {
    let dir = tempfile::tempdir().unwrap();
    let more = "[[agent]]\nid = \"docs\"\nkind = \"knowledge\"\ndir = \".\"\n[[tenant]]";
    let choices = r#"agents = [
        { chatwoot_inbox = 7, medium = "whatsapp", agent = "default" },
        { chatwoot_inbox = 7, agent = "docs" },
        { medium = "email", agent = "docs" },
    ]"#;
    let text = SMALL
        .replace("model = \"llama\"", "model = \"llama\"\nlevel = \"L2\"\ndir = \".\"\nfallback = [\"docs\"]")
        .replace("[[tenant]]", more)
        .replace("agent = \"default\"", &format!("agent = \"default\"\n{choices}"));
    let config = Config::from_str(&text, dir.path(), &env).unwrap();
    let channel = &config.tenants[0].channels[0];
    for (inbox, medium, expected) in [
        (Some(7), Medium::Whatsapp, "default"),
        (Some(7), Medium::Web, "docs"),
        (Some(8), Medium::Email, "docs"),
        (Some(8), Medium::Web, "default"),
        (None, Medium::Web, "default"),
    ] {
        assert_eq!(channel.agent_for(inbox, medium).id, expected, "{inbox:?} {medium:?}");
    }
    assert_eq!(channel.agent.fallback.iter().map(|agent| agent.id.as_str()).collect::<Vec<_>>(), ["docs"]);
    let AgentKind::OpenAi(model) = &channel.agent.kind else { panic!("{channel:?}") };
    let tools = |level| model.tools(level).map(Tool::as_str).collect::<Vec<_>>();
    let all = ["handoff_to_human", "search_knowledge", "add_label", "set_priority", "set_custom_attribute"];
    assert_eq!(tools(Level::L3), all, "not above its own level");
    assert_eq!(tools(Level::L1), all[..4], "not above the plan's");
    assert_eq!(tools(Level::L0), all[..2]);
    let narrow = Model { tools: Some(vec![Tool::AddLabel]), knowledge: None, ..(**model).clone() };
    assert_eq!(narrow.tools(Level::L3).collect::<Vec<_>>(), [Tool::HandoffToHuman, Tool::AddLabel]);
}
