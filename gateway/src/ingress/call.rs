//! The calls that a model answers (chat completions, responses, completions, embeddings): the customer's bytes to a
//! model, its bytes back, and exact accounts. One flow; what differs is said by [`Endpoint`].
//!
//! What the key alone decides is decided before the body is read. Client leaves: cancel; what was produced until
//! then is charged.

use std::sync::Arc;
use std::time::Instant;

use http::header::CONTENT_TYPE;
use http::{Request, Response};
use hyper::body::Incoming;
use relais_policies::plan::Feature;
use relais_policies::tenant::Status;

use crate::auth::api_key::Caller;
use crate::error::{Error, Reason};
use crate::http::body::{self, Body};
use crate::ingress::answer::Answer;
use crate::ingress::budget::Budget;
use crate::ingress::trace::Trace;
use crate::ingress::unary;
use crate::llm::endpoint::Endpoint;
use crate::llm::request::{Edits, Head};
use crate::llm::upstream::{AnswerBody, Upstream};
use crate::{Core, Gateway};

/// What of a request is needed when its bytes are gone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) endpoint: Endpoint,
    /// The usage at the end of a stream is for the client too.
    pub(super) include_usage: bool,
    pub(super) answers: u64,
    pub(super) body_bytes: usize,
    /// The body says what its prompt weighs: nothing of it is kept elsewhere.
    pub(super) whole_prompt: bool,
}

/// Serves one call.
pub async fn serve(
    gateway: &Arc<Gateway>,
    core: &Core,
    trace: &mut Trace,
    caller: &Caller,
    endpoint: Endpoint,
    request: Request<Incoming>,
) -> Result<Response<Body>, Error> {
    let config = gateway.config();
    may_call(caller)?;
    let permit = caller.key.tenant.account.admit(caller.key.slot).map_err(|denied| trace.denied(denied))?;
    trace.shadowed(permit.shadowed);

    let body =
        body::read_bounded(request.into_body(), config.limits.body_bytes_max, config.timeouts.body_stall).await?;
    let head = Head::scan(endpoint, &body)?;
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
    trace.shadowed(budget.shadowed());

    let clamp = budget.clamp();
    let sent = |upstream: &Upstream| {
        let edits = Edits {
            model: Some(upstream.model(head.model())),
            include_usage: true,
            output_max: clamp.map(|most| (most, upstream.limit_field())),
        };
        edits.splice(&body, &head)
    };
    let waiting = Instant::now();
    let answered = upstreams.send(&core.client, endpoint, head.model(), sent, &config.timeouts).await;
    trace.waited(waiting.elapsed());
    let answered = match answered {
        Ok(answered) => answered,
        Err(error) => {
            budget.release();
            return Err(error);
        }
    };
    trace.upstream(answered.upstream.name());
    let stream = head.stream;
    let asked = Asked {
        endpoint,
        include_usage: head.include_usage,
        answers: head.answers,
        body_bytes: body.len(),
        whole_prompt: !head.continues,
    };
    drop(body);
    let response = &answered.response;
    if response.status().is_success() && stream && is_event_stream(response) {
        return Ok(Answer::begin(gateway, trace, budget, answered, asked));
    }
    unary::answer(gateway, trace, budget, answered, asked).await
}

/// Is the tenant in good standing, and does its plan have the API?
pub(super) fn may_call(caller: &Caller) -> Result<(), Error> {
    let policy = &caller.key.tenant.policy;
    if policy.status == Status::Suspended {
        return Err(Error::new(Reason::PaymentRequired, "This account is suspended. Settle its payment to go on."));
    }
    if !policy.has(Feature::ApiAccess) {
        return Err(Error::new(Reason::FeatureNotInPlan, "The plan has no API access."));
    }
    Ok(())
}

fn is_event_stream(response: &Response<AnswerBody>) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}
