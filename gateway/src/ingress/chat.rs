//! `POST /v1/chat/completions`: the customer's bytes to a model, its bytes back, and exact accounts.
//!
//! What the key alone decides is decided before the body is read. Client leaves: cancel; what was produced until
//! then is charged.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use relais_policies::plan::Feature;

use crate::auth::api_key;
use crate::error::{Error, Reason};
use crate::http::body::{self, Body};
use crate::ingress::answer::Answer;
use crate::ingress::budget::Budget;
use crate::ingress::trace::Trace;
use crate::llm::request::{Edits, Head};
use crate::llm::upstream::Upstream;
use crate::llm::usage;
use crate::{Core, Gateway};

/// Serves one call.
pub async fn complete(
    gateway: &Arc<Gateway>,
    core: &Core,
    trace: &mut Trace,
    request: Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let config = gateway.config();
    let caller = api_key::authenticate(&gateway.store, request.headers(), gateway.clock.now_ms())?;
    trace.caller(&caller.key);
    caller.may_call()?;
    let permit = caller.key.tenant.account.admit(caller.key.slot).map_err(|denied| trace.denied(denied))?;
    trace.stands(permit.standing);

    let body =
        body::read_bounded(request.into_body(), config.limits.body_bytes_max, config.timeouts.body_stall).await?;
    let head = Head::scan(&body)?;
    if !caller.key.allows_model(head.model()) {
        return Err(Error::new(Reason::ModelNotAllowed, "This key may not use this model.").param("model"));
    }
    let upstreams = gateway.upstreams();
    let upstream = upstreams.choose(head.model()).ok_or_else(|| {
        Error::new(Reason::UnknownModel, "No upstream serves this model. GET /v1/models lists those that are named.")
            .param("model")
    })?;
    trace.upstream(upstream.name());
    let budget =
        Budget::reserve(permit, &caller.key, upstream, &head, body.len()).map_err(|denied| trace.denied(denied))?;
    trace.stands(budget.standing());

    let edits = Edits {
        model: Some(upstream.model(head.model())),
        include_usage: true,
        output_max: budget.clamp().map(|most| (most, upstream.limit_field())),
    };
    let sent = edits.splice(&body, &head);
    let (stream, include_usage, body_bytes) = (head.stream, head.include_usage, body.len());
    drop(body);
    let waiting = Instant::now();
    let answered = upstream.chat(&core.client, sent, config.timeouts.first_byte).await;
    trace.waited(waiting.elapsed());
    let response = match answered {
        Ok(response) => response,
        Err(error) => {
            budget.release();
            return Err(error);
        }
    };
    if response.status().is_success() && stream && is_event_stream(&response) {
        return Ok(Answer::begin(gateway, trace, budget, upstream, response, include_usage, body_bytes));
    }
    unary(gateway, trace, budget, upstream, response, body_bytes).await
}

/// An answer that comes in one piece: read whole, accounted, passed on as it is.
async fn unary(
    gateway: &Gateway,
    trace: &mut Trace,
    budget: Budget,
    upstream: &Upstream,
    response: Response<Incoming>,
    body_bytes: usize,
) -> Result<Response<Body>, Error> {
    let config = gateway.config();
    let status = response.status();
    let content_type = response.headers().get(CONTENT_TYPE).cloned();
    let waiting = Instant::now();
    let collected = Limited::new(response.into_body(), config.limits.upstream_body_bytes_max).collect();
    // If the client leaves here, this future is dropped and the budget with it: what was reserved is charged.
    let collected = tokio::time::timeout(config.timeouts.total, collected).await;
    trace.waited(waiting.elapsed());
    let answer: Bytes = match collected {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) => {
            // It had begun to answer and may bill for it.
            trace.used(budget.settle_unknown());
            return Err(Error::new(Reason::UpstreamFailed, "The model's answer broke off.").caused_by(error));
        }
        Err(_) => {
            trace.used(budget.settle_unknown());
            return Err(Error::new(Reason::UpstreamTimeout, "The model's answer did not end in time."));
        }
    };
    if !status.is_success() {
        // The upstream refused the request itself: the client's to read, and nothing was produced.
        budget.release();
        return Ok(passed_on(status, content_type, answer));
    }
    match usage::answer(&answer, true) {
        Ok(told) => {
            let used = match told {
                Some(usage) => {
                    upstream.learn(body_bytes, usage.input);
                    budget.settle(Some(usage), 0).0
                }
                None => {
                    // It told nothing: four bytes a token of what it wrote, bounded by what was reserved.
                    budget.settle(None, (answer.len() as u64).div_ceil(4)).0
                }
            };
            trace.used(used);
            Ok(passed_on(status, content_type, answer))
        }
        Err(error) => {
            trace.used(budget.settle_unknown());
            Err(Error::new(Reason::UpstreamFailed, "The model's answer is not JSON.").caused_by(error))
        }
    }
}

fn passed_on(status: http::StatusCode, content_type: Option<HeaderValue>, answer: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(answer));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, content_type.unwrap_or(json));
    response
}

fn is_event_stream(response: &Response<Incoming>) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

impl api_key::Caller {
    /// Is the tenant in good standing, and does its plan have the API?
    pub(crate) fn may_call(&self) -> Result<(), Error> {
        let policy = &self.key.tenant.policy;
        if policy.status == relais_policies::tenant::Status::Suspended {
            return Err(Error::new(Reason::PaymentRequired, "This account is suspended. Settle its payment to go on."));
        }
        if !policy.has(Feature::ApiAccess) {
            return Err(Error::new(Reason::FeatureNotInPlan, "The plan has no API access."));
        }
        Ok(())
    }
}
