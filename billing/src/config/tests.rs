//! What a configuration says when it is right, and everything it says when it is wrong.

use super::*;

const KEYS: &str = "k1:0101010101010101010101010101010101010101010101010101010101010101";

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, Path::new("/etc/relais"), &|name| (name == "RELAIS_BILLING_KEYS").then(|| KEYS.to_owned()))
}

#[test]
fn an_empty_file_serves_on_loopback_from_a_file_beside_it() {
    let config = parse("").unwrap();
    assert!(config.api.ip().is_loopback() && config.ops.ip().is_loopback());
    assert_eq!(config.database.to_string(), "SQLite in /etc/relais/billing.db");
    assert_eq!(config.vault.current(), "k1");
    assert!(config.tokens.is_empty());
}

#[test]
fn one_setting_chooses_postgres_and_its_password_is_shown_nowhere() {
    let config = parse("[database]\nurl = \"postgres://me:hunter2@db/relais\"").unwrap();
    assert_eq!(config.database.to_string(), "PostgreSQL");
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_new_token_is_let_in_by_the_lines_printed_with_it() {
    let new = NewToken::from_random(&[7; TOKEN_RANDOM_BYTES]);
    let lines = new.toml("ops", "owner");
    assert!(!lines.contains(new.expose().strip_prefix("rb_").unwrap()));
    let config = parse(&lines).unwrap();
    assert_eq!((config.tokens[0].name.as_str(), config.tokens[0].role), ("ops", Role::Owner));
    assert_eq!(config.tokens[0].hash, token_hash(new.expose()));
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let text = "
        [listen]
        api = \"nowhere\"
        [database]
        url = \"mysql://x\"
        readers = 0
        [secrets]
        keys = \"env:MISSING\"
        [[token]]
        name = \"system\"
        role = \"viewer\"
        hash = \"00\"
    ";
    let errors = parse(text).unwrap_err().0;
    let keys: Vec<&str> = errors.iter().filter_map(|error| error.split(": ").next()).collect();
    assert_eq!(
        keys,
        ["listen.api", "database.url", "secrets.keys", "database.readers", "token[0].name", "token[0].hash"]
    );
    for (text, says) in
        [("[listne]", "listne"), ("[[token]]\nname = \"x\"\nrole = \"king\"\nhash = \"\"", "king"), ("x", "")]
    {
        let errors = parse(text).unwrap_err().to_string();
        assert!(errors.contains(says), "{errors}");
    }
}

#[test]
fn roles_reach_down_and_never_across() {
    use Role::{Gateway, Operator, Owner, Viewer};
    for (has, needed, may) in [
        (Owner, Operator, true),
        (Operator, Operator, true),
        (Operator, Owner, false),
        (Viewer, Operator, false),
        (Viewer, Viewer, true),
        (Gateway, Gateway, true),
        (Gateway, Viewer, false),
        (Owner, Gateway, false),
    ] {
        assert_eq!(has.may(needed), may, "{has:?} {needed:?}");
    }
}
