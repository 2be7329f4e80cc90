//! What surrounds the handlers, outermost first: an id for every request, the ledger, access, the rate.

pub mod auth;
pub mod ledger;
pub mod origin;
pub mod rate_limit;
pub mod request_id;
