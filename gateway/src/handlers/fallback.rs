//! What is answered where there is nothing.

use crate::error::{ApiError, ErrorCode};

/// No such route.
pub async fn not_found() -> ApiError {
    ApiError::new(ErrorCode::RouteNotFound, "no such route")
}

/// The route is there, but not for this method; the router adds `Allow`.
pub async fn method_not_allowed() -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, "the route does not take this method")
}
