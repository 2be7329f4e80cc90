//! The two routes of a Hugging Face Hub: what a repository holds, and the bytes of one of its files.
//!
//! Redirects are followed here rather than by the HTTP client, so that the rule stands in one place: the
//! token goes to the Hub's own origin only (files usually lie at another), and never from https to http.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Client, Response, redirect};
use serde::Deserialize;
use url::Url;

use super::{PullError, source::is_plain};

const MAX_REDIRECTS: usize = 10;
/// A repository's listing; the longest have some thousand files.
const MAX_LISTING: usize = 16 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Without a byte for so long, a connection counts as broken.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A Hub and who asks.
#[derive(Debug, Clone)]
pub struct Hub {
    client: Client,
    endpoint: Url,
    /// Marked sensitive: `Debug` does not show it.
    authorization: Option<HeaderValue>,
}

/// What a repository holds at one commit.
#[derive(Debug)]
pub(super) struct Repository {
    pub(super) name: String,
    pub(super) commit: String,
    pub(super) files: Vec<RemoteFile>,
}

/// A file at a Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteFile {
    pub(super) name: String,
    pub(super) size: u64,
    /// In lowercase hex; known of large files.
    pub(super) sha256: Option<String>,
}

/// Why an exchange failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Trying again may help.
    Passing(String),
    /// Trying again is pointless.
    Final(PullError),
}

#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    sha256: Option<String>,
    size: Option<u64>,
}

impl Hub {
    /// A Hub at `endpoint`, asked with `token` if there is one.
    pub fn new(endpoint: &str, token: Option<&str>) -> Result<Self, PullError> {
        let invalid = |reason: String| PullError::Endpoint(format!("`{endpoint}` {reason}"));
        let url = Url::parse(endpoint).map_err(|error| invalid(format!("is not a URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(invalid("is not an http or https URL".to_owned()));
        }
        let authorization = token.map(|token| HeaderValue::try_from(format!("Bearer {token}")));
        let mut authorization = authorization.transpose().map_err(|_| PullError::Token)?;
        authorization.iter_mut().for_each(|value| value.set_sensitive(true));
        let client = Client::builder()
            .user_agent(concat!("llm-gateway/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()
            .map_err(|error| invalid(format!("cannot be reached: {error}")))?;
        Ok(Self { client, endpoint: url, authorization })
    }

    /// What the repository's main branch holds now.
    pub(super) async fn repository(&self, repository: &str) -> Result<Repository, Failure> {
        let mut url = self.url(&["api", "models"], repository, &["revision", "main"]);
        url.set_query(Some("blobs=true"));
        let response = self.get(url, repository, repository, HeaderMap::new()).await?;
        let body = read_bounded(response, repository).await?;
        let answer = |reason| Failure::Final(PullError::Answer { what: repository.to_owned(), reason });
        let listing: Listing =
            serde_json::from_slice(&body).map_err(|error| answer(format!("is not a listing: {error}")))?;
        if !is_plain(&listing.sha) {
            return Err(answer("names no commit".to_owned()));
        }
        // Files in folders, and those with names unfit for a file here, are none of a model's.
        let siblings = listing.siblings.into_iter().filter(|sibling| is_plain(&sibling.rfilename));
        let files = siblings.map(|sibling| sibling.into_file().map_err(answer));
        Ok(Repository { name: repository.to_owned(), commit: listing.sha, files: files.collect::<Result<_, _>>()? })
    }

    /// The file's bytes from `offset` on; the answer is 206, or 200 with all of them.
    pub(super) async fn open(&self, from: &Repository, file: &str, offset: u64) -> Result<Response, Failure> {
        let url = self.url(&[], &from.name, &["resolve", &from.commit, file]);
        let mut headers = HeaderMap::new();
        // A compressed body would have other lengths and offsets than the file.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={offset}-"));
            headers.insert(header::RANGE, range.map_err(|error| Failure::Passing(error.to_string()))?);
        }
        self.get(url, &from.name, &format!("{}:{file}", from.name), headers).await
    }

    fn url(&self, before: &[&str], repository: &str, after: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(before).extend(repository.split('/')).extend(after);
        }
        url
    }

    /// The first answer that is not a redirect, if it is a success.
    async fn get(&self, mut url: Url, repository: &str, what: &str, headers: HeaderMap) -> Result<Response, Failure> {
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.client.get(url.clone()).headers(headers.clone());
            if let Some(authorization) = self.authorization.as_ref().filter(|_| url.origin() == self.endpoint.origin())
            {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let response = request.send().await.map_err(passing)?;
            if !response.status().is_redirection() {
                return self.judge(response, repository, what);
            }
            let answer =
                |reason: &str| Failure::Final(PullError::Answer { what: what.to_owned(), reason: reason.to_owned() });
            let location = response.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| url.join(location).ok());
            let next = next.ok_or_else(|| answer("redirects to nowhere"))?;
            if !(next.scheme() == "https" || next.scheme() == "http" && url.scheme() == "http") {
                return Err(answer("redirects to an address that is not https"));
            }
            url = next;
        }
        Err(Failure::Final(PullError::Answer { what: what.to_owned(), reason: "redirects too often".to_owned() }))
    }

    fn judge(&self, response: Response, repository: &str, what: &str) -> Result<Response, Failure> {
        let status = response.status();
        let page = || self.url(&[], repository, &[]).to_string();
        // The Hub answers 401 for what does not exist, too, and tells the two apart in a header.
        let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
        let what = what.to_owned();
        match status {
            status if status.is_success() => Ok(response),
            // What is here already fits no longer; the caller begins anew.
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(response),
            StatusCode::NOT_FOUND => Err(Failure::Final(PullError::Missing { what, page: page() })),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if code == Some("RepoNotFound") => {
                Err(Failure::Final(PullError::Missing { what, page: page() }))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(Failure::Final(PullError::Gated { what, page: page(), status: status.as_u16() }))
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Err(Failure::Passing(status.to_string())),
            status if status.is_server_error() => Err(Failure::Passing(status.to_string())),
            status => Err(Failure::Final(PullError::Answer { what, reason: format!("is {status}") })),
        }
    }
}

impl Sibling {
    fn into_file(self) -> Result<RemoteFile, String> {
        let (sha256, size) = self.lfs.map_or((None, None), |lfs| (lfs.sha256, lfs.size));
        let size = size.or(self.size).ok_or_else(|| format!("does not say the size of {}", self.rfilename))?;
        Ok(RemoteFile { name: self.rfilename, size, sha256: sha256.map(|sha256| sha256.to_ascii_lowercase()) })
    }
}

async fn read_bounded(mut response: Response, what: &str) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(passing)? {
        if body.len() + chunk.len() > MAX_LISTING {
            let reason = format!("is longer than {MAX_LISTING} bytes");
            return Err(Failure::Final(PullError::Answer { what: what.to_owned(), reason }));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A broken exchange, told without the URL: a redirect's can hold a signature.
pub(super) fn passing(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Failure::Passing(text)
}
