//! What is known of one request while it is served, and its one line in the log and in the metrics at the end.
//!
//! It is finished exactly once: by the answer's end, by a failure, or by being dropped, which means that the client
//! left. It holds no text of the request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use relais_policies::shadow::Shadow;

use crate::admission::{Denied, Standing, Use};
use crate::error::{Error, Fault, Reason};
use crate::http::body::Body;
use crate::http::request_id::RequestId;
use crate::http::respond::X_REQUEST_ID;
use crate::metrics::{Outcome, RouteMetrics};
use crate::policy::KeyState;
use crate::telemetry::AccessRecord;
use crate::{Gateway, Route};

/// One request's trace.
#[derive(Debug)]
pub struct Trace {
    open: Option<Open>,
    request_id: RequestId,
    /// What was left when a limit said no.
    denied: Option<Standing>,
}

#[derive(Debug)]
struct Open {
    gateway: Arc<Gateway>,
    route: Route,
    method: Method,
    started: Instant,
    upstream_wait: Duration,
    first_token: Option<Duration>,
    key: Option<Arc<KeyState>>,
    tenant: Option<Arc<str>>,
    upstream: Option<Arc<str>>,
    status: StatusCode,
    reason: Option<Reason>,
    /// Limits in shadow that would have refused it.
    shadowed: Shadow,
    /// It gets no line in the access log.
    quiet: bool,
    used: Use,
    bytes_in: u64,
    bytes_out: u64,
    peer: SocketAddr,
    stream: bool,
}

impl Trace {
    /// A request has come.
    pub fn begin<B: http_body::Body>(
        gateway: &Arc<Gateway>,
        route: Route,
        peer: SocketAddr,
        request: &Request<B>,
    ) -> Self {
        gateway.route_metrics(route).in_flight.inc();
        Self {
            request_id: gateway.request_ids.next(),
            denied: None,
            open: Some(Open {
                gateway: Arc::clone(gateway),
                route,
                method: request.method().clone(),
                started: Instant::now(),
                upstream_wait: Duration::ZERO,
                first_token: None,
                key: None,
                tenant: None,
                upstream: None,
                status: StatusCode::OK,
                reason: None,
                shadowed: Shadow::NONE,
                quiet: false,
                used: Use::default(),
                bytes_in: request.body().size_hint().lower(),
                bytes_out: 0,
                peer,
                stream: false,
            }),
        }
    }

    /// Its id.
    pub fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// A limit said no: what is left goes into the answer's headers as the refusal saw it.
    pub fn denied(&mut self, denied: Denied) -> Error {
        self.denied = Some(denied.standing);
        denied.into()
    }

    /// The headers of every answer: the request's id and, once the caller is known, what is left to it now.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        headers.insert(X_REQUEST_ID, self.request_id.header());
        let key = self.open.as_ref().and_then(|open| open.key.as_ref());
        if let Some(standing) = self.denied.or_else(|| key.map(|key| key.tenant.account.standing(key.slot))) {
            standing.write(headers);
        }
    }

    /// Limits in shadow would have refused it. Counted, and told in the access log.
    pub fn shadowed(&mut self, shadowed: Shadow) {
        let Some(open) = &mut self.open else { return };
        for limit in shadowed.iter() {
            open.gateway.metrics.shadow_denied(limit);
            open.shadowed.add(limit);
        }
    }

    /// One of very many: it is counted, and gets no line in the access log.
    pub fn quiet(&mut self) {
        if let Some(open) = &mut self.open {
            open.quiet = true;
        }
    }

    /// Who asks.
    pub fn caller(&mut self, key: &Arc<KeyState>) {
        if let Some(open) = &mut self.open {
            open.tenant = Some(Arc::clone(&key.tenant.id));
            open.key = Some(Arc::clone(key));
        }
    }

    /// Whose delivery it is.
    pub fn tenant(&mut self, tenant: &Arc<str>) {
        if let Some(open) = &mut self.open {
            open.tenant = Some(Arc::clone(tenant));
        }
    }

    /// Who answers.
    pub fn upstream(&mut self, name: &Arc<str>) {
        if let Some(open) = &mut self.open {
            open.upstream = Some(Arc::clone(name));
        }
    }

    /// Time spent waiting for the upstream.
    pub fn waited(&mut self, wait: Duration) {
        if let Some(open) = &mut self.open {
            open.upstream_wait += wait;
        }
    }

    /// A piece of a streamed answer leaves.
    pub fn streamed(&mut self, bytes: usize) {
        if let Some(open) = &mut self.open {
            open.stream = true;
            open.bytes_out += bytes as u64;
            open.first_token.get_or_insert_with(|| open.started.elapsed());
        }
    }

    /// What the call used.
    pub fn used(&mut self, used: Use) {
        if let Some(open) = &mut self.open {
            open.used = used;
        }
    }

    /// Why it is not served. An inner cause is logged here, once.
    pub fn refused(&mut self, error: &Error) {
        let Some(open) = &mut self.open else { return };
        open.reason = Some(error.reason);
        open.gateway.metrics.denied(error.reason);
        if error.reason.fault() != Fault::Client {
            let request_id = self.request_id;
            tracing::warn!(%request_id, reason = error.reason.code(), cause = error.causes(), "{}", error.message);
        }
    }

    /// An answer that is all there leaves now; a streamed one takes the trace with it and finishes it itself.
    pub fn answered(mut self, mut response: Response<Body>) -> Response<Body> {
        if self.open.is_some() {
            self.write_headers(response.headers_mut());
        }
        if let Some(open) = &mut self.open {
            open.bytes_out = response.body().size_hint().lower();
        }
        let outcome = if response.status().is_client_error() { Outcome::Client } else { Outcome::Ok };
        self.finish(response.status(), outcome);
        response
    }

    /// For a body that outlives the handler: what is left behind does nothing more.
    #[must_use]
    pub fn hand_over(&mut self) -> Self {
        Self { open: self.open.take(), request_id: self.request_id, denied: self.denied }
    }

    /// The end.
    pub fn finish(&mut self, status: StatusCode, outcome: Outcome) {
        let Some(mut open) = self.open.take() else { return };
        open.status = status;
        open.close(self.request_id, outcome);
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.close(self.request_id, Outcome::ClientLeft);
        }
    }
}

impl Open {
    fn close(self, request_id: RequestId, outcome: Outcome) {
        let total = self.started.elapsed();
        let metrics: &RouteMetrics = self.gateway.route_metrics(self.route);
        metrics.in_flight.dec();
        metrics.finished(outcome);
        if self.stream {
            if let Some(first_token) = self.first_token {
                metrics.first_token.observe(first_token.as_secs_f64());
            }
        } else {
            metrics.overhead.observe(total.saturating_sub(self.upstream_wait).as_secs_f64());
        }
        let tokens = &self.gateway.metrics.tokens;
        tokens.input.inc_by(self.used.input);
        tokens.cached.inc_by(self.used.cached);
        tokens.output.inc_by(self.used.output);
        if self.used.estimated {
            tokens.estimated.inc();
        }
        if self.quiet {
            return;
        }
        self.gateway.access_log.record(AccessRecord {
            request_id,
            route: self.route.name(),
            method: self.method,
            // A client that left before its answer's head has seen no status.
            status: if outcome == Outcome::ClientLeft && !self.stream { 0 } else { self.status.as_u16() },
            outcome,
            reason: self.reason,
            shadowed: self.shadowed,
            tenant_id: self.tenant,
            key_name: self.key.map(|key| Arc::clone(&key.key.name)),
            upstream: self.upstream,
            tokens_in: self.used.input,
            tokens_out: self.used.output,
            total,
            upstream_wait: self.upstream_wait,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            client: Some(self.peer.ip()),
        });
    }
}
