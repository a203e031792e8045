//! Whether the gateway that runs has taken the channel over, asked as Chatwoot would ask: by its webhook's address.
//!
//! A signed delivery of an event that Relais does not know is verified, acknowledged and forgotten; one that is not
//! verified is refused. So the two together tell a Relais from whatever else answers, and one that knows the channel
//! from one that does not yet.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::Full;
use relais_gateway::auth::signature;
use relais_gateway::http::unreachable::Unreachable;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;

use super::steps::{Failed, Steps};
use super::{Context, address};

const STEP: &str = "gateway";
/// One question's answer.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// Between two questions: a gateway looks at its files every two seconds.
const ASK_EVERY: Duration = Duration::from_millis(500);
const BODY: &[u8] = br#"{"event":"relais_connect"}"#;

/// Which channel is asked for.
pub(super) struct Asked<'a> {
    pub(super) public: &'a Uri,
    pub(super) tenant: &'a str,
    pub(super) path_token: &'a SecretString,
    pub(super) secret: Option<&'a SecretString>,
}

enum Answer {
    /// A Relais that knows the channel.
    Knows,
    /// Refused: a Relais that does not, or not yet.
    Refuses,
    /// Something else.
    Status(u16),
    Unreachable(Unreachable),
}

/// Waits until the gateway knows the channel. What cannot be asked from here is a note, not a failure: Chatwoot may
/// stand where it can be.
pub(super) async fn knows(
    cx: &Context<'_>,
    asked: &Asked<'_>,
    wait: Duration,
    steps: &mut Steps,
) -> Result<(), Failed> {
    let until = Instant::now() + wait;
    let stranger = address::new_path_token().map_err(|error| {
        steps.fail(STEP, &format!("no random bytes: {error}"), "The machine gives none; mend that first.")
    })?;
    let (base, place) = match ask(cx, asked, asked.public, &stranger).await {
        Answer::Unreachable(why) => {
            let Some(local) = local(cx) else {
                steps.note(STEP, &format!("{} cannot be asked from here: {why}", asked.public));
                return Ok(());
            };
            match ask(cx, asked, &local, &stranger).await {
                Answer::Unreachable(_) => return Err(nobody(steps, asked, &why)),
                _ => {
                    let what =
                        format!("{} cannot be reached from here ({why}); {local} is asked instead", asked.public);
                    steps.note(STEP, &what);
                    (local, "here")
                }
            }
        }
        Answer::Refuses => (asked.public.clone(), "at its public address"),
        Answer::Knows => return Err(no_relais(steps, asked, "it says yes to any delivery")),
        Answer::Status(status) => return Err(no_relais(steps, asked, &format!("it answers {status}"))),
    };
    loop {
        match ask(cx, asked, &base, asked.path_token).await {
            Answer::Knows => {
                steps.ok(STEP, &format!("it runs, is reached {place} and has read the channel"));
                return Ok(());
            }
            Answer::Refuses | Answer::Unreachable(_) if Instant::now() < until => tokio::time::sleep(ASK_EVERY).await,
            Answer::Status(status) => return Err(no_relais(steps, asked, &format!("it answers {status}"))),
            Answer::Refuses | Answer::Unreachable(_) => {
                let what = format!("it answers, and does not know the channel after {} s", wait.as_secs());
                let todo = format!(
                    "Is it started with this configuration ({}), and may it read the folder and the file? Its log says \
                     why a configuration is not taken over; SIGHUP makes it read again.",
                    cx.path.display()
                );
                return Err(steps.fail(STEP, &what, &todo));
            }
        }
    }
}

fn nobody(steps: &mut Steps, asked: &Asked<'_>, why: &Unreachable) -> Failed {
    let what = format!("nobody answers at {}: {why}", asked.public);
    let todo = match why {
        Unreachable::Name => "Mend the name in --public-url or in the DNS, then run this again.",
        Unreachable::Tls(_) => "Chatwoot takes only a certificate that browsers take, for this name, with its chain.",
        _ => {
            "Start the gateway (relais --config …), see that the address leads to its [listen] public, then run this \
             again. --no-self-test connects without asking."
        }
    };
    steps.fail(STEP, &what, todo)
}

fn no_relais(steps: &mut Steps, asked: &Asked<'_>, how: &str) -> Failed {
    let what = format!("what answers at {} is no Relais: {how}", address::tenant(asked.public, asked.tenant));
    let todo = "--public-url must lead to the gateway's [listen] public: a proxy has to pass on POST /chatwoot/… with \
        its path, headers and body as they are.";
    steps.fail(STEP, &what, todo)
}

/// The gateway's own address, as this machine reaches it; none if it is not known or speaks TLS in another name.
fn local(cx: &Context<'_>) -> Option<Uri> {
    let mut listens = cx.config.listen.public;
    if listens.port() == 0 || cx.config.listen.tls.is_some() {
        return None;
    }
    if listens.ip().is_unspecified() {
        listens.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{listens}").parse().ok()
}

/// Whether an answer has a name as Relais gives them: many others refuse what they do not know with 401, too.
fn named_by_us(headers: &HeaderMap) -> bool {
    headers.get("x-request-id").is_some_and(|id| id.as_bytes().starts_with(b"req_"))
}

async fn ask(cx: &Context<'_>, asked: &Asked<'_>, base: &Uri, path_token: &SecretString) -> Answer {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(address::whole(base, asked.tenant, path_token))
        .header(CONTENT_TYPE, "application/json");
    if let Some(secret) = asked.secret {
        let timestamp = (cx.clock.now_ms() / 1000).to_string();
        let signature = signature::sign(secret.expose_secret().as_bytes(), timestamp.as_bytes(), BODY);
        request = request.header(signature::TIMESTAMP, timestamp).header(signature::SIGNATURE, signature);
    }
    let Ok(request) = request.body(Full::new(Bytes::from_static(BODY))) else {
        return Answer::Unreachable(Unreachable::Broken("the address cannot be asked".to_owned()));
    };
    match cx.http.send(request, ANSWER_WAIT).await {
        Ok(response) => match response.status().as_u16() {
            200 => Answer::Knows,
            401 if named_by_us(response.headers()) => Answer::Refuses,
            status => Answer::Status(status),
        },
        Err(error) => Answer::Unreachable(Unreachable::from(&error)),
    }
}
