//! Each way in which connecting fails: what is said, what to do, and that nothing half-done meets a customer.

use relais_loadtest::fakes::chatwoot::{CallEffect, CallFault, Endpoint, Role};

use super::{Author, BOT, Command, DeliveryEffect, DeliveryFault, Faults, Said, Settings, World};

fn with_token(mut command: Command, token: &str) -> Said {
    Said::of(&command.env("RELAIS_CHATWOOT_TOKEN", token).output().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_block_on_private_networks_is_named() {
    let world = World::start(Settings { private_network_allowed: false, ..Settings::default() }).await;
    world.vacate().await;
    let said = world.connect(&["--wait", "5"]);
    assert_eq!((said.exit, said.states("self-test")), (3, vec!["failed"]), "{}", said.text);
    assert!(said.text.contains("SAFE_FETCH_ALLOW_PRIVATE_NETWORK=true"), "{}", said.text);
    assert_eq!(said.states("inbox"), Vec::<&str>::new(), "no customer meets a bot that hears nothing");
    assert_eq!(world.seated().await, None);
    world.is_clean().await;
    let said = world.connect(&["--no-self-test"]);
    assert_eq!((said.exit, said.states("inbox")), (0, vec!["changed"]), "{}", said.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_that_never_leave_point_at_sidekiq() {
    let world = World::start(Settings::default()).await;
    world.vacate().await;
    let deliveries = vec![DeliveryFault::share(1000, DeliveryEffect::Drop)];
    world.chatwoot.set_faults(Faults { deliveries, ..Faults::default() });
    let said = world.connect(&["--wait", "5"]);
    assert_eq!((said.exit, said.states("self-test")), (3, vec!["failed"]), "{}", said.text);
    assert!(said.text.contains("Sidekiq"), "{}", said.text);
    world.is_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_is_lost_once_is_followed_by_another() {
    let world = World::start(Settings::default()).await;
    world.vacate().await;
    let deliveries = vec![DeliveryFault::next("message_created", 1, DeliveryEffect::Drop)];
    world.chatwoot.set_faults(Faults { deliveries, ..Faults::default() });
    let said = world.connect(&["--wait", "3"]);
    assert_eq!((said.exit, said.states("self-test")), (0, vec!["ok"]), "{}", said.text);
    world.is_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_will_not_do_is_refused_before_anything_is_made() {
    let world = World::start(Settings::default()).await;
    let human = world.chatwoot.add_human("Ada Agent", Role::Agent);
    let human = world.chatwoot.token_of(Author::Human(human)).unwrap();
    for (token, what) in [
        ("wrong", "does not take this token"),
        (BOT, "does not take this token"),
        (human.as_str(), "not an administrator"),
    ] {
        let said = with_token(world.connecting(&[]), token);
        assert_eq!((said.exit, said.states("token"), said.changed()), (1, vec!["failed"], false), "{}", said.text);
        assert!(said.text.contains(what) && !said.text.contains(token), "{}", said.text);
    }
    let said = world.connect(&["--account", "9"]);
    assert_eq!((said.exit, said.states("token")), (1, vec!["failed"]), "{}", said.text);
    assert!(said.text.contains("--account: 1"), "{}", said.text);
    let none = world.connecting(&[]).env_remove("RELAIS_CHATWOOT_TOKEN").output().unwrap();
    assert!(Said::of(&none).text.contains("--token-file"));
    assert_eq!(world.bots().await.len(), 1);
    assert!(!world.file().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_of_chatwoot_says_what_to_do() {
    let world = World::start(Settings::default()).await;
    for (effect, todo) in [
        (CallEffect::Status(402), "plan allows no more"),
        (CallEffect::Status(404), "without a path"),
        (CallEffect::Status(422), "for the reason it gives"),
        (CallEffect::Status(429), "RACK_ATTACK_ALLOWED_IPS"),
        (CallEffect::Status(500), "Chatwoot itself is in trouble"),
        (CallEffect::Hangup, "The connection ended"),
    ] {
        let calls = vec![CallFault::share(Endpoint::Other, 1000, effect)];
        world.chatwoot.set_faults(Faults { calls, ..Faults::default() });
        let said = world.connect(&[]);
        assert_eq!((said.exit, said.states("token"), said.changed()), (1, vec!["failed"], false), "{}", said.text);
        assert!(said.text.contains(todo), "{effect:?}: {}", said.text);
    }
    // One that fails later leaves what was done, and is taken up.
    let calls = vec![CallFault::share(Endpoint::CreateMessage, 1000, CallEffect::Status(402))];
    world.chatwoot.set_faults(Faults { calls, ..Faults::default() });
    let said = world.connect(&["--inbox", "Website chat"]);
    assert_eq!((said.exit, said.states("self-test")), (3, vec!["failed"]), "{}", said.text);
    assert!(said.text.contains("--no-self-test does without it"), "{}", said.text);
    world.is_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_leads_elsewhere_is_told_by_how_it_answers() {
    let world = World::start(Settings::default()).await;
    world.vacate().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let connect = |url: &str, public: &str| {
        world.relais(&["connect", "--url", url, "--tenant", "acme", "--public-url", public, "--wait", "1"])
    };
    let (public, model) = (world.public(), world.llm.url());
    for (url, step, what) in [
        (closed.as_str(), "token", "refuses connections"),
        ("http://no-such-host.invalid", "token", "cannot be resolved"),
        (public.as_str(), "token", "404"),
        (&public.replace("http:", "https:"), "token", "TLS failed"),
        ("chat.example.com", "configuration", "Mend --url"),
    ] {
        let said = connect(url, &public);
        assert_eq!((said.exit, said.states(step), said.changed()), (1, vec!["failed"], false), "{url}: {}", said.text);
        assert!(said.text.contains(what), "{url}: {}", said.text);
    }
    let url = world.chatwoot.url();
    for (public, what) in [(&model, "is no Relais"), (&url, "is no Relais")] {
        let said = connect(&url, public);
        assert_eq!((said.exit, said.states("gateway")), (1, vec!["failed"]), "{}", said.text);
        assert!(said.text.contains(what), "{}", said.text);
    }
    assert_eq!(world.seated().await, None);
    assert_eq!(world.bots().await.len(), 2, "one bot, whose address was mended each time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_configuration_lacks_is_said_before_chatwoot_is_asked() {
    let world = World::start(Settings::default()).await;
    let url = world.chatwoot.url();
    let connect = |more: &[&str]| world.relais(&[&["connect", "--url", &url], more].concat());
    for (more, what) in [
        (vec!["--tenant", "nobody"], "there is no tenant"),
        (vec!["--tenant", "acme", "--agent", "nobody"], "there is no such agent"),
    ] {
        let said = connect(&more);
        assert_eq!((said.exit, said.states("configuration")), (1, vec!["failed"]), "{}", said.text);
        assert!(said.text.contains(what), "{}", said.text);
    }
    let said = connect(&["--tenant", "acme"]);
    assert_eq!((said.exit, said.states("bot")), (1, vec!["failed"]), "{}", said.text);
    assert!(said.text.contains("--public-url"), "{}", said.text);
    let said = world.connect(&["--inbox", "Nowhere"]);
    assert_eq!((said.exit, said.states("inbox")), (1, vec!["failed"]), "{}", said.text);
    assert!(said.text.contains("Website chat"), "{}", said.text);

    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text.replace("include = [\"conf.d/*.toml\"]", "")).unwrap();
    let said = connect(&["--tenant", "acme"]);
    assert_eq!((said.exit, said.states("configuration")), (1, vec!["failed"]), "{}", said.text);
    assert!(said.text.contains("at its top"), "{}", said.text);
    // A plan that opens no Chatwoot is found before the file is written.
    let refused = text.replace("\"chatwoot.pro\"", "").replace("\"app.business\", ", "");
    std::fs::write(world.config(), refused).unwrap();
    std::fs::remove_file(world.file()).unwrap();
    let said = world.connect(&[]);
    assert_eq!((said.exit, said.states("file")), (1, vec!["failed"]), "{}", said.text);
    assert!(said.text.contains("no plan of this tenant"), "{}", said.text);
    assert!(!world.file().exists());
}
