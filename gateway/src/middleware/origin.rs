//! Who may speak to the gateway from where: by the name it is asked under, and by the page that a browser asks for.
//!
//! A web page can reach what listens on its reader's machine: by a request across origins, or by a name of its own
//! that turns into a loopback address. Without keys nothing else would stand in its way.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, Version, header, uri::Authority};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer, ExposeHeaders};

use crate::{
    error::{ApiError, ErrorCode},
    state::App,
};

/// Lets through who asks under a name that is ours, from a page that may.
pub async fn check_origin(State(app): State<App>, request: Request, next: Next) -> Response {
    match check_host(&app, &request).and_then(|host| check_page(&app, &request, host.as_ref())) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// What browsers are told of the pages of `--cors-origin`, where there are any.
pub fn cors(app: &App) -> Option<CorsLayer> {
    let pages = &app.config().server.cors_origin;
    if pages.is_empty() {
        return None;
    }
    let listed: Vec<_> = pages.iter().filter_map(|page| page.parse().ok()).collect();
    let allowed = if pages.iter().any(|page| page == "*") { AllowOrigin::any() } else { AllowOrigin::list(listed) };
    let methods = [Method::GET, Method::POST];
    let headers = AllowHeaders::mirror_request();
    let layer = CorsLayer::new().allow_origin(allowed).allow_methods(methods).allow_headers(headers);
    Some(layer.expose_headers(ExposeHeaders::any()))
}

/// One `Host` that can be one, and where only some names are answered to, one of them.
fn check_host(app: &App, request: &Request) -> Result<Option<Authority>, ApiError> {
    let invalid = |message| Err(ApiError::new(ErrorCode::InvalidHost, message));
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if request.version() < Version::HTTP_11 => return Ok(None),
        (None, _) => return invalid("the request has no host header"),
        (Some(_), Some(_)) => return invalid("the request has more than one host header"),
        (Some(host), None) => host,
    };
    let Some(host) = Authority::try_from(host.as_bytes()).ok().filter(|host| !host.as_str().contains('@')) else {
        return invalid("the host header is not a host and a port");
    };
    let names = [Some(&host), request.uri().authority()];
    if names.into_iter().flatten().all(|name| app.config().server.answers_to(name.host(), app.keys().is_empty())) {
        return Ok(Some(host));
    }
    let message = "this host is not answered to; `--allowed-hosts` names those that are, besides this machine's own";
    Err(ApiError::new(ErrorCode::HostNotAllowed, message))
}

/// No page of another origin, unless it is one of `--cors-origin`. A link that is followed is no request of a page.
fn check_page(app: &App, request: &Request, host: Option<&Authority>) -> Result<(), ApiError> {
    let headers = request.headers();
    let refused = || {
        let message = "pages of other origins may not ask; `--cors-origin` names those that may";
        Err(ApiError::new(ErrorCode::OriginNotAllowed, message))
    };
    let Some(origin) = headers.get(header::ORIGIN) else {
        let across = text(headers, "sec-fetch-site").is_some_and(|site| matches!(site, "cross-site" | "same-site"));
        let follows = request.method() == Method::GET && text(headers, "sec-fetch-mode") == Some("navigate");
        return if across && !follows { refused() } else { Ok(()) };
    };
    let origin = origin.to_str().unwrap_or_default();
    let is_ours = host.is_some_and(|host| is_same(origin, host));
    let pages = &app.config().server.cors_origin;
    let may = pages.iter().any(|page| page == "*" || page.eq_ignore_ascii_case(origin));
    if is_ours || may { Ok(()) } else { refused() }
}

/// Whether an origin such as `https://a.example:8443` is what `host` names.
fn is_same(origin: &str, host: &Authority) -> bool {
    let Ok(origin) = url::Url::parse(origin) else { return false };
    let Ok(own) = url::Url::parse(&format!("{}://{host}", origin.scheme())) else { return false };
    origin.host() == own.host() && origin.port_or_known_default() == own.port_or_known_default()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
