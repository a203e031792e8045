//! Every metric, named once, with its handle resolved once.
//!
//! Labels come from closed lists (routes, reasons, outcomes) or from the configuration (upstream names): never a
//! tenant, a key, a path or a model's name, whose number a stranger could choose. A handle costs a few ns to
//! bump; looking one up by its labels costs ten times that, so the hot path holds handles.
//!
//! What a tenant uses is not here: that is the ledger's, exact and by key.

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder as _, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
    TextEncoder,
};
use relais_policies::shadow::Shadowed;

use crate::error::{Error, Fault, Reason};

/// What a route did with a request, as the `outcome` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Served.
    Ok,
    /// A limit said no.
    Denied,
    /// The client's fault.
    Client,
    /// The upstream's fault.
    Upstream,
    /// Ours.
    Gateway,
    /// The client left before the end.
    ClientLeft,
}

impl Outcome {
    const ALL: [Self; 6] = [Self::Ok, Self::Denied, Self::Client, Self::Upstream, Self::Gateway, Self::ClientLeft];

    /// The outcome of a request that was not served.
    pub fn of(error: &Error) -> Self {
        match (error.reason, error.reason.fault()) {
            (
                Reason::RateLimited
                | Reason::TooManyInFlight
                | Reason::CallsUsedUp
                | Reason::TokensUsedUp
                | Reason::Overloaded,
                _,
            ) => Self::Denied,
            (_, Fault::Client) => Self::Client,
            (_, Fault::Upstream) => Self::Upstream,
            (_, Fault::Gateway) => Self::Gateway,
        }
    }

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Denied => "denied",
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
            Self::ClientLeft => "client_left",
        }
    }
}

/// One route's handles.
#[derive(Debug)]
pub struct RouteMetrics {
    outcomes: [IntCounter; 6],
    /// Time in the gateway itself: the whole request less the wait for the upstream. Seconds.
    pub overhead: Histogram,
    /// Until the first byte of a streamed answer left. Seconds.
    pub first_token: Histogram,
    /// Requests being served.
    pub in_flight: IntGauge,
}

impl RouteMetrics {
    /// Counts one finished request.
    pub fn finished(&self, outcome: Outcome) {
        if let Some(counter) = self.outcomes.get(outcome as usize) {
            counter.inc();
        }
    }
}

/// Token counts by direction.
#[derive(Debug)]
pub struct TokenMetrics {
    /// Prompt tokens, cached ones included.
    pub input: IntCounter,
    /// The part of the prompt that the upstream had cached.
    pub cached: IntCounter,
    /// Answer tokens, reasoning included.
    pub output: IntCounter,
    /// Calls charged by our own count because the upstream told none, or nonsense.
    pub estimated: IntCounter,
}

/// The inbox's handles.
#[derive(Debug)]
pub struct InboxMetrics {
    /// Deliveries durable and answered 200.
    pub accepted: IntCounter,
    /// Deliveries known already, answered 200 without effect.
    pub duplicate: IntCounter,
    /// Verified deliveries that are not ours to answer, answered 200.
    pub ignored: IntCounter,
    /// Deliveries turned away because the inbox is full or slow.
    pub shed: IntCounter,
    /// Deliveries the disk did not take.
    pub failed: IntCounter,
    /// Deliveries found damaged on the disk and set aside.
    pub quarantined: IntCounter,
    /// Whole deliveries that an index of the file had lost, and has again.
    pub unlisted: IntCounter,
    /// Conversations whose record, or whose open turn's, was found damaged.
    pub distrusted: IntCounter,
    /// Acknowledged transactions that were missing when the file was opened.
    pub lost_commits: IntCounter,
    /// 1 if the last search found the file itself damaged.
    pub file_damaged: IntGauge,
    /// Deliveries that are set aside as damaged and were not dismissed.
    pub damaged: IntGauge,
    /// Conversations with something unfinished that are put off.
    pub put_off: IntGauge,
    /// 1 while the disk takes deliveries.
    pub healthy: IntGauge,
    /// Pages in SQLite's log at the last checkpoint.
    pub log_pages: IntGauge,
    /// Deliveries not finished.
    pub pending: IntGauge,
    /// Age of the oldest unfinished delivery. Seconds.
    pub oldest_age_seconds: IntGauge,
    /// One transaction with its sync. Seconds.
    pub commit: Histogram,
    /// Deliveries in one transaction.
    pub batch: Histogram,
    /// From the request's head to the answer of a durable delivery. Seconds.
    pub ack: Histogram,
}

/// The relay's handles.
#[derive(Debug)]
pub struct RelayMetrics {
    /// Customers' messages by outcome: `replied`, `handed_off`, `superseded` (answered together with a newer one, or
    /// deleted), `not_ours`.
    pub messages: IntCounterVec,
    /// Turns by outcome: `replied`, `handed_off`, `superseded` (stopped for a newer message), `not_ours`.
    pub turns: IntCounterVec,
    /// From the burst's last message to the outcome. Seconds.
    pub turn: Histogram,
    /// Handoffs by reason.
    pub handoffs: IntCounterVec,
    /// Conversations that went round in a circle and were stopped, by sign: `turns`, `status`.
    pub loops: IntCounterVec,
    /// Calls to Chatwoot, by call and outcome.
    pub chatwoot_requests: IntCounterVec,
    /// Tries of an agent, by agent, kind and outcome.
    pub agent_requests: IntCounterVec,
    /// Tools a model called, by tool and outcome: `ok`, `error` (it was told why).
    pub agent_tool_calls: IntCounterVec,
    /// What agents decided beside their answers, by action and outcome: `done`, `left_out`.
    pub actions: IntCounterVec,
    /// What became of calls to Chatwoot in their installation's budget, by call and result: `at_once`, `waited`,
    /// `no_room` (not sent), `dropped` (a courtesy, not sent), `throttled` (sent, and turned away by Chatwoot).
    pub chatwoot_budget: IntCounterVec,
    /// 1 while an agent answers from its folder as it is, 0 while from what was read before.
    pub knowledge_ok: prometheus::IntGaugeVec,
    /// Folders that had changed and were read again.
    pub knowledge_reads: IntCounterVec,
    /// Conversations with work.
    pub lanes: IntGauge,
    /// Turns running.
    pub turns_running: IntGauge,
    /// Times a conversation was put off because Chatwoot or the disk could not be used.
    pub deferred: IntCounter,
    /// Handoffs decided and not done yet, because Chatwoot cannot be reached.
    pub handoffs_waiting: IntGauge,
}

/// The sweeps' handles.
#[derive(Debug)]
pub struct SweepMetrics {
    /// Runs over one channel, by sweep (`missed`, `idle`) and outcome (`done`, `failed`).
    pub runs: IntCounterVec,
    /// Messages that a sweep found in pending conversations, by what became of them: `entered`, `known`, `too_old`.
    pub missed: IntCounterVec,
    /// Idle conversations, by what became of them: `resolved`, `handed_off`, `left`.
    pub idle: IntCounterVec,
}

/// The upstreams' metrics, by upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    /// Tries, by upstream and outcome: `ok`, `refused` (the request itself), `busy` (their limit), `full` (ours:
    /// `connections_max`), `failed`, `timeout`.
    pub requests: IntCounterVec,
    /// Whether it is used: 0 closed (yes), 1 half-open (one probe), 2 open (no). Written when the page is asked for.
    pub state: prometheus::IntGaugeVec,
    /// Tries after a first one that failed, by the upstream they went to.
    pub retries: IntCounterVec,
    /// Tries that were due and not made, because the retry budget was spent.
    pub retries_withheld: IntCounter,
    /// From sending to the head of the answer, or to the failure. Seconds.
    pub wait: HistogramVec,
}

/// The ledger's handles.
#[derive(Debug)]
pub struct LedgerMetrics {
    /// Alerts given, by meter and level.
    pub alerts: IntCounterVec,
    /// Budget tokens charged and not on disk.
    pub unflushed_tokens: IntGauge,
    /// One transaction with its sync. Seconds.
    pub flush: Histogram,
    /// Transactions that failed, and checkpoints that were damaged.
    pub errors: IntCounter,
}

/// All of it.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    overhead: HistogramVec,
    first_token: HistogramVec,
    in_flight: prometheus::IntGaugeVec,
    denials: Vec<(Reason, IntCounter)>,
    shadow_denials: IntCounterVec,
    /// Keys and signatures that did not verify.
    pub auth_failures: IntCounter,
    /// Those of them without a line in the access log, because there were too many from one address.
    pub auth_throttled: IntCounter,
    /// Tokens of `/v1` calls.
    pub tokens: TokenMetrics,
    /// Upstreams.
    pub upstreams: UpstreamMetrics,
    /// Open connections on the public listener.
    pub connections: IntGauge,
    /// Connections turned away because there were too many.
    pub connections_refused: IntCounter,
    /// Connections that could not be accepted, for want of descriptors above all.
    pub accept_failures: IntCounter,
    /// Access-log lines dropped because the writer could not keep up.
    pub access_log_dropped: IntCounter,
    /// The ledger.
    pub ledger: LedgerMetrics,
    /// 1 while the configuration on disk is the one in force, 0 after a reload that failed.
    pub config_ok: IntGauge,
    /// Reloads that were taken over.
    pub config_reloads_ok: IntCounter,
    /// Reloads that were refused.
    pub config_reloads_failed: IntCounter,
    /// The inbox.
    pub inbox: InboxMetrics,
    /// The relay.
    pub relay: RelayMetrics,
    /// The sweeps.
    pub sweep: SweepMetrics,
}

/// Seconds, from 10 µs: what a gateway adds.
const OVERHEAD_BUCKETS: [f64; 14] =
    [0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0];
/// Seconds, from 5 ms: what a model or a Chatwoot takes.
const WAIT_BUCKETS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
/// Seconds, around one fdatasync (0.25–4 ms).
const COMMIT_BUCKETS: [f64; 12] = [0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.035, 0.075, 0.15, 0.5, 1.0];
const BATCH_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

impl Metrics {
    /// Registers everything. Fails only if two metrics had one name, which a test excludes.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        // CPU, memory, descriptors, start: under the names that every Prometheus client uses for them.
        r.register(Box::new(ProcessCollector::for_self()))?;
        let build = gauge_vec(r, "relais_build_info", "Always 1; the version is the label.", &["version"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let denials = counter_vec(r, "relais_denials_total", "Requests refused, by reason.", &["reason"])?;
        let tokens = counter_vec(r, "relais_tokens_total", "Model tokens of /v1 calls, by direction.", &["direction"])?;
        let deliveries = counter_vec(r, "relais_inbox_deliveries_total", "Verified webhook deliveries.", &["result"])?;
        // From the first scrape on: an alert cannot see the first of a series that was not there.
        let loops = counter_vec(
            r,
            "relais_loops_total",
            "Conversations that went round in a circle and were stopped, by what showed it.",
            &["sign"],
        )?;
        for sign in ["turns", "status"] {
            loops.with_label_values(&[sign]);
        }
        let reloads = counter_vec(r, "relais_config_reloads_total", "Reloads of the configuration.", &["result"])?;
        Ok(Self {
            requests: counter_vec(r, "relais_requests_total", "Requests by route and outcome.", &["route", "outcome"])?,
            overhead: histogram_vec(
                r,
                "relais_request_overhead_seconds",
                "Time in the gateway: the whole request less the wait for the upstream.",
                &OVERHEAD_BUCKETS,
                "route",
            )?,
            first_token: histogram_vec(
                r,
                "relais_time_to_first_token_seconds",
                "Until the first piece of a streamed answer left the gateway.",
                &WAIT_BUCKETS,
                "route",
            )?,
            in_flight: gauge_vec(r, "relais_requests_in_flight", "Requests being served, by route.", &["route"])?,
            denials: Reason::ALL.iter().map(|reason| (*reason, denials.with_label_values(&[reason.code()]))).collect(),
            shadow_denials: counter_vec(
                r,
                "relais_shadow_denials_total",
                "Calls and conversations that a limit in shadow would have refused, by reason.",
                &["reason"],
            )?,
            auth_failures: counter(r, "relais_auth_failures_total", "Keys and signatures that did not verify.")?,
            auth_throttled: counter(
                r,
                "relais_auth_throttled_total",
                "Failed authentications beyond the limit of their address: answered alike, and not logged.",
            )?,
            tokens: TokenMetrics {
                input: tokens.with_label_values(&["input"]),
                cached: tokens.with_label_values(&["cached"]),
                output: tokens.with_label_values(&["output"]),
                estimated: counter(r, "relais_usage_estimated_total", "Calls charged by our own count.")?,
            },
            upstreams: UpstreamMetrics {
                requests: counter_vec(
                    r,
                    "relais_upstream_requests_total",
                    "Tries at an upstream, by upstream and outcome.",
                    &["upstream", "outcome"],
                )?,
                state: gauge_vec(
                    r,
                    "relais_upstream_state",
                    "0: the upstream is used; 1: one request probes it; 2: it is left alone.",
                    &["upstream"],
                )?,
                retries: counter_vec(
                    r,
                    "relais_upstream_retries_total",
                    "Tries after a first one that failed, by the upstream they went to.",
                    &["upstream"],
                )?,
                retries_withheld: counter(
                    r,
                    "relais_upstream_retries_withheld_total",
                    "Tries not made because the retry budget was spent.",
                )?,
                wait: histogram_vec(
                    r,
                    "relais_upstream_wait_seconds",
                    "From sending to an upstream to the head of its answer, or to the failure.",
                    &WAIT_BUCKETS,
                    "upstream",
                )?,
            },
            connections: gauge(r, "relais_connections", "Open connections on the public listener.")?,
            accept_failures: counter(
                r,
                "relais_accept_failures_total",
                "Connections that could not be accepted, for want of descriptors above all.",
            )?,
            connections_refused: counter(r, "relais_connections_refused_total", "Connections over the limit.")?,
            access_log_dropped: counter(r, "relais_access_log_dropped_total", "Access-log lines dropped.")?,
            ledger: LedgerMetrics {
                alerts: counter_vec(
                    r,
                    "relais_quota_alerts_total",
                    "Tenants that came to an alert level of a billing period.",
                    &["meter", "level"],
                )?,
                unflushed_tokens: gauge(
                    r,
                    "relais_ledger_unflushed_tokens",
                    "Budget tokens charged and not on disk when the ledger last wrote.",
                )?,
                flush: histogram(
                    r,
                    "relais_ledger_flush_seconds",
                    "One transaction of the ledger with its sync.",
                    &COMMIT_BUCKETS,
                )?,
                errors: counter(
                    r,
                    "relais_ledger_errors_total",
                    "Transactions of the ledger that failed, and damaged checkpoints.",
                )?,
            },
            config_ok: gauge(r, "relais_config_ok", "1 while the configuration on disk is the one in force.")?,
            config_reloads_ok: reloads.with_label_values(&["ok"]),
            config_reloads_failed: reloads.with_label_values(&["failed"]),
            inbox: InboxMetrics {
                accepted: deliveries.with_label_values(&["accepted"]),
                duplicate: deliveries.with_label_values(&["duplicate"]),
                ignored: deliveries.with_label_values(&["ignored"]),
                shed: deliveries.with_label_values(&["shed"]),
                failed: deliveries.with_label_values(&["failed"]),
                quarantined: counter(r, "relais_inbox_quarantined_total", "Deliveries found damaged and set aside.")?,
                unlisted: counter(
                    r,
                    "relais_inbox_unlisted_total",
                    "Whole deliveries that an index had lost to damage, found again.",
                )?,
                distrusted: counter(
                    r,
                    "relais_inbox_distrusted_total",
                    "Conversations whose record was found damaged and which a human gets.",
                )?,
                lost_commits: counter(
                    r,
                    "relais_inbox_lost_commits_total",
                    "Acknowledged transactions that were not in the inbox when it was opened.",
                )?,
                file_damaged: gauge(
                    r,
                    "relais_inbox_file_damaged",
                    "1 if the last search found the file's structure damaged.",
                )?,
                damaged: gauge(r, "relais_inbox_damaged", "Deliveries set aside as damaged and not dismissed.")?,
                put_off: gauge(
                    r,
                    "relais_inbox_put_off",
                    "Conversations with unfinished deliveries that are put off.",
                )?,
                healthy: gauge(r, "relais_inbox_healthy", "1 while the disk takes deliveries.")?,
                log_pages: gauge(r, "relais_inbox_log_pages", "Pages in the log at the last checkpoint.")?,
                pending: gauge(r, "relais_inbox_pending", "Deliveries not finished.")?,
                oldest_age_seconds: gauge(
                    r,
                    "relais_inbox_oldest_age_seconds",
                    "Age of the oldest unfinished delivery.",
                )?,
                commit: histogram(
                    r,
                    "relais_inbox_commit_seconds",
                    "One transaction of the inbox with its sync.",
                    &COMMIT_BUCKETS,
                )?,
                batch: histogram(r, "relais_inbox_batch_deliveries", "Deliveries in one transaction.", &BATCH_BUCKETS)?,
                ack: histogram(
                    r,
                    "relais_webhook_ack_seconds",
                    "From a delivery's head to its answer.",
                    &COMMIT_BUCKETS,
                )?,
            },
            relay: RelayMetrics {
                messages: counter_vec(r, "relais_messages_total", "Customers' messages by outcome.", &["outcome"])?,
                turns: counter_vec(r, "relais_turns_total", "Turns by outcome.", &["outcome"])?,
                turn: histogram(
                    r,
                    "relais_turn_seconds",
                    "From a burst's last message to its outcome.",
                    &WAIT_BUCKETS,
                )?,
                handoffs: counter_vec(r, "relais_handoffs_total", "Handoffs to a human, by reason.", &["reason"])?,
                loops,
                chatwoot_requests: counter_vec(
                    r,
                    "relais_chatwoot_requests_total",
                    "Calls to Chatwoot, by call and outcome.",
                    &["call", "outcome"],
                )?,
                knowledge_ok: gauge_vec(
                    r,
                    "relais_knowledge_ok",
                    "1 while an agent's changed folder could be read, 0 while it answers from what was read before.",
                    &["agent"],
                )?,
                knowledge_reads: counter_vec(
                    r,
                    "relais_knowledge_reads_total",
                    "Knowledge folders read again because they changed.",
                    &["result"],
                )?,
                chatwoot_budget: counter_vec(
                    r,
                    "relais_chatwoot_budget_total",
                    "Calls to Chatwoot in the budget of their installation, by call and result.",
                    &["call", "result"],
                )?,
                agent_requests: counter_vec(
                    r,
                    "relais_agent_requests_total",
                    "Tries of an agent, by agent, kind and outcome.",
                    &["agent", "kind", "outcome"],
                )?,
                agent_tool_calls: counter_vec(
                    r,
                    "relais_agent_tool_calls_total",
                    "Tools a model called, by tool and outcome.",
                    &["tool", "outcome"],
                )?,
                actions: counter_vec(
                    r,
                    "relais_agent_actions_total",
                    "What agents decided beside their answers, by action and outcome.",
                    &["action", "outcome"],
                )?,
                lanes: gauge(r, "relais_lanes", "Conversations with work.")?,
                turns_running: gauge(r, "relais_turns_running", "Turns running.")?,
                deferred: counter(r, "relais_turns_deferred_total", "Times a conversation was put off.")?,
                handoffs_waiting: gauge(r, "relais_handoffs_waiting", "Handoffs decided and not done yet.")?,
            },
            sweep: SweepMetrics {
                runs: counter_vec(
                    r,
                    "relais_sweeps_total",
                    "Sweeps over a channel, by sweep and outcome.",
                    &["sweep", "outcome"],
                )?,
                missed: counter_vec(
                    r,
                    "relais_missed_messages_total",
                    "Messages found by a sweep, by what became of them.",
                    &["result"],
                )?,
                idle: counter_vec(
                    r,
                    "relais_idle_conversations_total",
                    "Idle conversations, by what became of them.",
                    &["end"],
                )?,
            },
            registry,
        })
    }

    /// The handles of one route. Called once per route, at start.
    pub fn route(&self, route: &'static str) -> RouteMetrics {
        RouteMetrics {
            outcomes: Outcome::ALL.map(|outcome| self.requests.with_label_values(&[route, outcome.as_str()])),
            overhead: self.overhead.with_label_values(&[route]),
            first_token: self.first_token.with_label_values(&[route]),
            in_flight: self.in_flight.with_label_values(&[route]),
        }
    }

    /// Counts a refusal.
    pub fn denied(&self, reason: Reason) {
        if let Some((_, counter)) = self.denials.get(reason as usize) {
            counter.inc();
        }
    }

    /// Counts a refusal that a limit in shadow did not make.
    pub fn shadow_denied(&self, limit: Shadowed) {
        self.shadow_denials.with_label_values(&[shadow_code(limit)]).inc();
    }

    /// The page Prometheus scrapes.
    pub fn page(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(16 * 1024);
        // Writing to a Vec does not fail; a metric that cannot be encoded would be a bug a test sees.
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut page) {
            tracing::error!(%error, "Metrics not encoded.");
        }
        page
    }
}

/// The word for why a limit refuses, if it does.
pub fn shadow_code(limit: Shadowed) -> &'static str {
    match limit {
        Shadowed::CallsPerMinute => Reason::RateLimited.code(),
        Shadowed::CallsPerMonth => Reason::CallsUsedUp.code(),
        Shadowed::CallsInFlight => Reason::TooManyInFlight.code(),
        Shadowed::TokensPerMonth => Reason::TokensUsedUp.code(),
        // No request is refused for it: a human gets the conversation.
        Shadowed::ConversationsPerMonth => "conversations_used_up",
    }
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let metric = IntCounter::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counter_vec(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let metric = IntGauge::new(name, help)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge_vec(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<prometheus::IntGaugeVec, prometheus::Error> {
    let metric = prometheus::IntGaugeVec::new(Opts::new(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
    let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram_vec(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
    label: &str,
) -> Result<HistogramVec, prometheus::Error> {
    let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), &[label])?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_what_was_counted() {
        let metrics = Metrics::new().unwrap();
        metrics.route("chat").finished(Outcome::Ok);
        metrics.denied(Reason::RateLimited);
        let page = String::from_utf8(metrics.page()).unwrap();
        assert!(page.contains("relais_requests_total{outcome=\"ok\",route=\"chat\"} 1"), "{page}");
        assert!(page.contains("relais_denials_total{reason=\"rate_limited\"} 1"), "{page}");
    }

    #[test]
    fn a_reason_is_found_by_its_place() {
        let metrics = Metrics::new().unwrap();
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, place);
            assert_eq!(metrics.denials[place].0, *reason);
        }
    }
}
