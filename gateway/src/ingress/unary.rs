//! An answer that comes in one piece: read whole within bounds, accounted, and passed on as it is.
//!
//! It cannot be stopped half-way, so whatever ends it but its own end charges all that was reserved.

use std::time::Instant;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};

use crate::Gateway;
use crate::error::{Error, Reason};
use crate::http::body::Body;
use crate::ingress::budget::Budget;
use crate::ingress::call::Asked;
use crate::ingress::trace::Trace;
use crate::llm::upstream::Answered;
use crate::llm::usage;

/// Reads the answer whose head has come.
pub(super) async fn answer(
    gateway: &Gateway,
    trace: &mut Trace,
    budget: Budget,
    answered: Answered,
    asked: Asked,
) -> Result<Response<Body>, Error> {
    let config = gateway.config();
    let Answered { upstream, response, ends_by } = answered;
    let status = response.status();
    let content_type = response.headers().get(CONTENT_TYPE).cloned();
    let waiting = Instant::now();
    let (bytes_max, stall) = (config.limits.upstream_body_bytes_max, config.timeouts.stall);
    // If the client leaves here, this future is dropped and the budget with it: what was reserved is charged.
    let collected = response.into_body().whole(bytes_max, stall, ends_by).await;
    trace.waited(waiting.elapsed());
    let answer = match collected {
        Ok(answer) => answer,
        Err(error) if status.is_success() => {
            // It had begun to answer and may bill for it.
            trace.used(budget.settle_unknown());
            return Err(error);
        }
        Err(error) => {
            budget.release();
            return Err(error);
        }
    };
    if !status.is_success() {
        // The upstream refused the request itself: the client's to read, and nothing was produced.
        budget.release();
        return Ok(passed_on(status, content_type, answer));
    }
    match usage::answer(&answer, asked.endpoint.has_output()) {
        Ok(Some(told)) => {
            if asked.whole_prompt {
                upstream.learn(asked.body_bytes, told.input);
            }
            trace.used(budget.settle(Some(told), 0));
        }
        Ok(None) => trace.used(budget.settle_words(usage::written_bytes(&answer))),
        Err(error) => {
            trace.used(budget.settle_unknown());
            return Err(Error::new(Reason::UpstreamFailed, "The model's answer is not JSON.").caused_by(error));
        }
    }
    Ok(passed_on(status, content_type, answer))
}

fn passed_on(status: StatusCode, content_type: Option<HeaderValue>, answer: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(answer));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, content_type.unwrap_or(json));
    response
}
