//! What to do about a failure: of a call to Chatwoot, and of a webhook that Chatwoot says it could not deliver.
//!
//! Words only. Chatwoot's own text about a webhook is matched loosely: it comes from Ruby's libraries, in many forms.

use relais_gateway::chatwoot::admin::{AdminError, Fault};
use relais_gateway::http::unreachable::Unreachable;

/// What to do about a call that failed.
pub(super) fn advice(error: &AdminError) -> String {
    match &error.fault {
        Fault::Unauthorized => {
            "Chatwoot does not take this token for this. It must be the access token of an administrator of an active \
             account (dashboard, Profile settings, Access token); a bot's or a platform's token will not do."
        }
        Fault::NotFound => {
            "Chatwoot has no such record: it may just have been deleted. The account's number is in the dashboard's \
             address, /app/accounts/N. Run this again."
        }
        Fault::PlanLimit(_) => {
            "Chatwoot's own plan allows no more of these. Free one or raise the plan; if it is the self-test's inbox, \
             --no-self-test does without it."
        }
        Fault::Invalid(_) => "Chatwoot refuses it for the reason it gives. Mend that, then run this again.",
        Fault::Throttled => {
            "Chatwoot has had too many calls from this address. Wait a minute and run this again; for good, add our \
             address to its RACK_ATTACK_ALLOWED_IPS."
        }
        Fault::Status(500..) => "Chatwoot itself is in trouble: see its log, then run this again.",
        Fault::Status(_) => "Something before Chatwoot may have answered. See that --url leads to it directly.",
        Fault::NotChatwoot(_) => {
            "--url must be the Chatwoot's address as its dashboard has it, without a path, and where it no longer \
             redirects."
        }
        Fault::Unreachable(Unreachable::Name) => "The name in --url leads nowhere from here. Mend it, or the DNS.",
        Fault::Unreachable(Unreachable::Refused) => {
            "Nothing listens there: is Chatwoot running, and is it this port? Its own default is 3000."
        }
        Fault::Unreachable(Unreachable::Tls(_)) => {
            "Its certificate must be one that browsers take, for this name, with its chain; or the port speaks no TLS \
             and the address begins with http://."
        }
        Fault::Unreachable(Unreachable::Slow) => {
            "It does not answer in time: a firewall, or a Chatwoot under load. Run this again; relay.chatwoot_wait_ms \
             is how long a call may take."
        }
        Fault::Unreachable(Unreachable::Broken(_)) => {
            "The connection ended, or what answers speaks no HTTP: is it https:// rather than http://? Run this again."
        }
    }
    .to_owned()
}

/// What a webhook that failed at Chatwoot's end means: what is wrong, and what to do.
pub(super) fn webhook(error: &str, public: &str) -> (String, String) {
    let text = error.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let (what, todo) = if has(&["no public ip", "private network", "private ip", "private address", "unsafe"]) {
        (
            "Chatwoot's block on private networks: it sends no webhook to a loopback or private address",
            "Set SAFE_FETCH_ALLOW_PRIVATE_NETWORK=true for Chatwoot's web and worker processes (4.14.1 or newer) and \
             restart them, or give --public-url an address that is public.",
        )
    } else if has(&["certificate", "ssl", "tls", "handshake"]) {
        (
            "Chatwoot does not trust the gateway's TLS",
            "The certificate must be one that browsers take, for the name in --public-url, with its chain.",
        )
    } else if has(&["resolve", "getaddrinfo", "name or service", "nodename", "dns"]) {
        (
            "Chatwoot cannot resolve the gateway's name",
            "The name in --public-url must be known where Chatwoot's worker runs; inside a container that is not \
             always where you are.",
        )
    } else if has(&["refused"]) {
        (
            "connections from Chatwoot to the gateway are refused",
            "See that --public-url has the right port, that the gateway or its proxy listens on an address Chatwoot can \
             reach (127.0.0.1 is only its own machine or container), and that no firewall refuses it.",
        )
    } else if has(&["timed out", "timeout", "execution expired", "in time"]) {
        (
            "Chatwoot waits for the gateway in vain",
            "A firewall between them drops what Chatwoot sends, or something before the gateway holds it: it has to \
             answer within 5 s.",
        )
    } else {
        match status(&text) {
            Some(401) => (
                "Chatwoot reaches the gateway, but the bot's own delivery did not arrive, or not with the bot's secret",
                "Run this again, which takes up a changed secret. If it goes on, see Chatwoot's Sidekiq (queue high) \
                 and the gateway's log for signatures that are refused.",
            ),
            Some(404 | 405) => (
                "Chatwoot reaches something that does not know the webhook's path",
                "--public-url leads to another server, or a proxy changes the path: POST /chatwoot/… must arrive as it is.",
            ),
            Some(300..=399) => ("the public address redirects", "Give --public-url the address it redirects to."),
            Some(502..=504) => (
                "a proxy before the gateway cannot reach it",
                "See that the proxy leads to the gateway's [listen] public and that the gateway runs.",
            ),
            _ => (
                "Chatwoot could not deliver the webhook",
                "See what it says, and whether --public-url leads to the gateway from where Chatwoot runs.",
            ),
        }
    };
    let said: String = error.chars().filter(|letter| !letter.is_control()).take(200).collect();
    (format!("{what} ({public}; Chatwoot says: {said})"), todo.to_owned())
}

/// A status in a text such as `HTTP 404` or `404 Not Found`.
fn status(text: &str) -> Option<u16> {
    let mut words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.find_map(|word| word.parse().ok().filter(|number| (300..600).contains(number) && word.len() == 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_chatwoot_says_names_the_cause() {
        for (said, cause) in [
            ("Hostname 'relais.internal' has no public ip addresses", "private networks"),
            ("Could not resolve hostname 'relais.example'", "cannot resolve"),
            ("Failed to open TCP connection (getaddrinfo: Name or service not known)", "cannot resolve"),
            ("SSL_connect returned=1 errno=0 state=error: certificate verify failed", "TLS"),
            ("Failed to open TCP connection to 192.0.2.1:443 (Connection refused - connect(2))", "refused"),
            ("Net::ReadTimeout with #<TCPSocket:(closed)>", "in vain"),
            ("execution expired", "in vain"),
            ("401 Unauthorized", "reaches the gateway"),
            ("HTTP 404", "does not know the webhook's path"),
            ("HTTP 302", "redirects"),
            ("502 Bad Gateway", "proxy"),
            ("something else", "could not deliver"),
        ] {
            let (what, todo) = webhook(said, "https://relais.example");
            assert!(what.contains(cause) && what.contains(said), "{said}: {what}");
            assert!(!todo.is_empty());
        }
        assert!(webhook("no public ip", "x").1.contains("SAFE_FETCH_ALLOW_PRIVATE_NETWORK=true"));
    }
}
