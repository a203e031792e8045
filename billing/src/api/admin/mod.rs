//! `/v1/admin`: what operators do. A handler reads a request, calls one function of the domain, answers.

mod agents;
mod channels;
mod keys;
mod plans;
mod service;
mod tenants;

use super::Api;

pub(super) fn routes(api: Api) -> Api {
    let api = service::routes(api);
    let api = plans::routes(api);
    let api = tenants::routes(api);
    let api = keys::routes(api);
    let api = channels::routes(api);
    agents::routes(api)
}
