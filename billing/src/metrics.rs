//! Every metric, named once. Labels come from closed lists (routes, status classes): never a tenant or a key.

use std::time::Duration;

use http::{Method, StatusCode};
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// The handles.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    seconds: HistogramVec,
    /// Connections open to the API.
    pub connections: IntGauge,
    /// The last policy revision committed.
    pub revision: IntGauge,
    /// Times the accepting of a connection failed.
    pub accept_errors: IntCounter,
}

impl Metrics {
    /// All of them, at zero.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("relais_billing_requests_total", "Requests to the API, by route and status class."),
            &["method", "route", "status"],
        )?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("relais_billing_request_seconds", "From a request's head to its answer."),
            &["route"],
        )?;
        let connections = IntGauge::new("relais_billing_connections", "Connections open to the API.")?;
        let revision = IntGauge::new("relais_billing_policy_revision", "The last policy revision committed.")?;
        let accept_errors =
            IntCounter::new("relais_billing_accept_errors_total", "Connections that could not be accepted.")?;
        let build = IntGauge::with_opts(
            Opts::new("relais_billing_build_info", "1, with the version as a label.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build.set(1);
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        for gauge in [&connections, &revision, &build] {
            registry.register(Box::new(gauge.clone()))?;
        }
        registry.register(Box::new(accept_errors.clone()))?;
        Ok(Self { registry, requests, seconds, connections, revision, accept_errors })
    }

    /// Counts one finished request. `route` is the pattern, not the path.
    pub fn request(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        let class = match status.as_u16() {
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        let known = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method);
        let method = if known { method.as_str() } else { "other" };
        self.requests.with_label_values(&[method, route, class]).inc();
        self.seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    }

    /// All of them as Prometheus reads them.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory does not fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8(text).unwrap_or_default()
    }
}
