//! What surrounds the handlers, outermost first: an id for every request, the ledger, access.

pub mod auth;
pub mod ledger;
pub mod request_id;
