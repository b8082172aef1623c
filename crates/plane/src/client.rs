//! Asking a plane: what the CLI and a host's agent do.
//!
//! *When an answer is lost,* it is not known whether the plane has done what it was asked. What a person
//! changes goes with an `Idempotency-Key` of its own ([`AnyPlane::change`]): by that the plane does it once,
//! however often it is sent, and so it is sent again.

mod any;

use std::net::ToSocketAddrs;
use std::time::Duration;

use api::Problem;
use reqwest::{Certificate, Identity, Method};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use crate::identity::{self, Authority, Credentials, PLANE_NAME};
pub use any::{AnyPlane, Heard};

/// What one request may take.
pub const REQUEST: Duration = Duration::from_secs(20);
/// How long a plane may leave what was sent without a sign that it has come. What has lost a connection without
/// a word begins another one well before a lease is over.
const SILENCE: Duration = Duration::from_secs(4);
/// How long what happens is listened to at once.
const STREAM: Duration = Duration::from_secs(365 * 86_400);
/// How often a change is sent whose answer is lost, and for how long.
const SENDS_MAX: u32 = 4;
const SENDS_TIME: Duration = Duration::from_secs(30);
/// Before it is sent for the second time; twice as long each time.
const RESEND: Duration = Duration::from_millis(200);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Why there is no answer, or not the one that was hoped for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Not the address of a plane that may be asked.
    #[error("{url}: {why}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody answers.
    #[error("the plane at {url} does not answer: {detail}")]
    Unreachable {
        /// Where.
        url: String,
        /// What was seen.
        detail: String,
    },
    /// It answers no.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
}

impl ClientError {
    /// Whether another plane may answer in its place: nobody is there, or it does not reach its state.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(problem) => problem.status >= 500,
            Self::Url { .. } => false,
        }
    }

    /// Of something that was taken before, and has had no answer.
    fn and_nobody_knows(mut self) -> Self {
        if let Self::Unreachable { detail, .. } = &mut self {
            detail.push_str("; whether it has done this is not known");
        }
        if let Self::Refused(problem) = &mut self {
            problem.detail.push_str("; whether it was done before is not known");
        }
        self
    }
}

/// An answer that is not no.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub etag: Option<String>,
    /// The id of the operation that the request has begun.
    pub operation: Option<String>,
    /// Where the planes of the state are, as far as the one that was asked says so.
    pub planes: Vec<String>,
    pub body: Vec<u8>,
}

/// Why there is no answer, and whether the plane may have done it all the same.
struct Unanswered {
    error: ClientError,
    may_be_done: bool,
}

/// Before it was sent, or by the answer.
impl From<ClientError> for Unanswered {
    fn from(error: ClientError) -> Self {
        Self { error, may_be_done: false }
    }
}

/// A plane, as its callers know it.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    http: reqwest::Client,
    /// As people write it.
    url: String,
    /// What is asked: the plane by the name that is in its certificate.
    base: String,
    credentials: Credentials,
}

impl Client {
    /// The plane at `https://HOST:PORT`. Nothing is sent before it has shown that it is the one that
    /// the credentials are for.
    pub fn new(url: &str, credentials: Credentials) -> Result<Self, ClientError> {
        let (host, port) = place(url)?;
        let wrong = |why: &str| ClientError::Url { url: url.to_owned(), why: why.to_owned() };
        let unreachable = |detail: String| ClientError::Unreachable { url: url.to_owned(), detail };
        let addresses = (host.trim_matches(['[', ']']), port)
            .to_socket_addrs()
            .map_err(|error| unreachable(error.to_string()))?;
        let addresses: Vec<_> = addresses.collect();
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| wrong(&error.to_string()))?;
        let builder = || {
            reqwest::Client::builder()
                .timeout(REQUEST)
                .connect_timeout(SILENCE)
                .tcp_user_timeout(SILENCE)
                .tcp_keepalive(SILENCE)
                .no_proxy()
                .https_only(true)
                .redirect(reqwest::redirect::Policy::none())
                .resolve_to_addrs(PLANE_NAME, &addresses)
        };
        let base = format!("https://{PLANE_NAME}:{port}");
        let authority = match &credentials {
            Credentials::Admin(secret) => {
                let authority = Authority::of(secret).map_err(|error| wrong(&error.to_string()))?;
                authority.pem().to_owned()
            }
            Credentials::Join { fingerprint, .. }
            | Credentials::User { fingerprint, .. }
            | Credentials::Stranger { fingerprint } => {
                // It says who certifies it, and is believed when that is whom the token names.
                let http = builder().danger_accept_invalid_certs(true).build();
                let http = http.map_err(|error| wrong(&full(&error)))?;
                let asked = http.get(format!("{base}/v1/authority.pem"));
                let pem = runtime
                    .block_on(async { asked.send().await?.text().await })
                    .map_err(|error| unreachable(full(&error)))?;
                let der = CertificateDer::from_pem_slice(pem.as_bytes());
                if der.map_or(true, |der| identity::fingerprint(&der) != *fingerprint) {
                    return Err(wrong("it is another plane than the token is for"));
                }
                pem
            }
            Credentials::Host { authority, .. } => authority.clone(),
        };
        let root = Certificate::from_pem(authority.as_bytes()).map_err(|e| wrong(&full(&e)))?;
        let mut http = builder().tls_certs_only([root]);
        if let Credentials::Host { certificate, key, .. } = &credentials {
            let pem = format!("{certificate}\n{key}");
            let identity = Identity::from_pem(pem.as_bytes()).map_err(|e| wrong(&full(&e)))?;
            http = http.identity(identity);
        }
        let http = http.build().map_err(|error| wrong(&full(&error)))?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { runtime, http, url, base, credentials })
    }

    /// Another one to the same plane, for another thread.
    pub fn twin(&self) -> Result<Self, ClientError> {
        Self::new(&self.url, self.credentials.clone())
    }

    /// Where the plane is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sends a document, and reads the answer.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        document: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.read(&self.send("POST", path, &[], Some(document))?)
    }

    /// Reads a document.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.read(&self.send("GET", path, &[], None::<&()>)?)
    }

    /// Sends a document, and reads the answer.
    pub fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        document: &impl Serialize,
    ) -> Result<T, ClientError> {
        self.read(&self.send("PUT", path, &[], Some(document))?)
    }

    /// The same, and no longer than this.
    pub fn put_within<T: DeserializeOwned>(
        &self,
        path: &str,
        document: &impl Serialize,
        within: Duration,
    ) -> Result<T, ClientError> {
        let sent = self.try_send("PUT", path, &[], Some(document), within);
        self.read(&sent.map_err(|unanswered| unanswered.error)?)
    }

    fn read<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, ClientError> {
        serde_json::from_slice(&answer.body).map_err(|error| self.silent(error.to_string()))
    }

    /// Sends anything, once.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        document: Option<&impl Serialize>,
    ) -> Result<Answer, ClientError> {
        self.try_send(method, path, headers, document, REQUEST)
            .map_err(|unanswered| unanswered.error)
    }

    fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        document: Option<&impl Serialize>,
        within: Duration,
    ) -> Result<Answer, Unanswered> {
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|error| self.silent(error.to_string()))?;
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        request = request.timeout(within);
        if let Some(bearer) = self.bearer() {
            request = request.bearer_auth(bearer);
        }
        if headers.iter().all(|(name, _)| *name != api::RELEASE_HEADER) {
            request = request.header(api::RELEASE_HEADER, api::RELEASE.to_string());
        }
        if let Some(traceparent) = spans::traceparent() {
            request = request.header(spans::TRACEPARENT, traceparent);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(document) = document {
            let body = serde_json::to_vec(document).map_err(|e| self.silent(e.to_string()))?;
            request = request.header("Content-Type", "application/json").body(body);
        }
        let lost = |error: reqwest::Error| Unanswered {
            may_be_done: !error.is_connect(),
            error: self.silent(full(&error)),
        };
        self.runtime.block_on(async {
            let mut response = request.send().await.map_err(lost)?;
            let status = response.status().as_u16();
            let header = |name: &str| {
                let value = response.headers().get(name).and_then(|value| value.to_str().ok());
                value.map(str::to_owned)
            };
            let (etag, operation) = (header("ETag"), header(api::OPERATION_HEADER));
            let planes = header(api::PLANES_HEADER).unwrap_or_default();
            let planes = planes.split(", ").filter(|url| !url.is_empty());
            let planes = planes.map(str::to_owned).collect();
            let mut body = Vec::new();
            while let Some(part) = response.chunk().await.map_err(lost)? {
                body.extend_from_slice(&part);
                if body.len() > ANSWER_BYTES_MAX {
                    return Err(self.silent("an answer without an end".to_owned()).into());
                }
            }
            if status < 400 {
                return Ok(Answer { status, etag, operation, planes, body });
            }
            Err(match serde_json::from_slice(&body) {
                Ok(problem) => ClientError::Refused(Box::new(problem)).into(),
                Err(_) => self.silent(format!("HTTP status {status}")).into(),
            })
        })
    }

    /// Reads what happens, after an id or from now on, until `heard` has heard enough or the plane ends
    /// it: the id of each, and the document. Nothing: the plane says where it begins.
    pub fn events(
        &self,
        after: Option<u64>,
        mut heard: impl FnMut(u64, Option<&str>) -> bool,
    ) -> Result<(), ClientError> {
        let query = after.map_or_else(String::new, |after| format!("?after={after}"));
        let request = self.http.get(format!("{}/v1/events{query}", self.base)).timeout(STREAM);
        let request = match self.bearer() {
            Some(bearer) => request.bearer_auth(bearer),
            None => request,
        };
        self.runtime.block_on(async {
            let mut response = request.send().await.map_err(|error| self.silent(full(&error)))?;
            let status = response.status().as_u16();
            if status >= 400 {
                let body = response.bytes().await.map_err(|error| self.silent(full(&error)))?;
                return Err(match serde_json::from_slice(&body) {
                    Ok(problem) => ClientError::Refused(Box::new(problem)),
                    Err(_) => self.silent(format!("HTTP status {status}")),
                });
            }
            let (mut text, mut id) = (Vec::new(), after.unwrap_or_default());
            loop {
                let part = tokio::time::timeout(REQUEST, response.chunk()).await;
                let part = part.map_err(|_| self.silent("it says nothing".to_owned()))?;
                let part = part.map_err(|error| self.silent(full(&error)))?;
                let Some(part) = part else { return Ok(()) };
                text.extend_from_slice(&part);
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    let line = String::from_utf8_lossy(&line);
                    let line = line.trim_end();
                    let goes_on = match line.split_once(": ") {
                        Some(("id", number)) => {
                            id = number.parse().unwrap_or(id);
                            true
                        }
                        Some(("data", document)) => heard(id, Some(document)),
                        Some(("", _)) => heard(id, None),
                        _ => true,
                    };
                    if !goes_on {
                        return Ok(());
                    }
                }
                if text.len() > ANSWER_BYTES_MAX {
                    return Err(self.silent("a line without an end".to_owned()));
                }
            }
        })
    }

    fn bearer(&self) -> Option<String> {
        match &self.credentials {
            Credentials::Admin(secret) => Some(secret.bearer()),
            Credentials::Join { bearer, .. } | Credentials::User { bearer, .. } => {
                Some(bearer.clone())
            }
            Credentials::Stranger { .. } | Credentials::Host { .. } => None,
        }
    }

    fn silent(&self, detail: String) -> ClientError {
        ClientError::Unreachable { url: self.url.clone(), detail }
    }
}

/// Sends what changes something, and sends it again while it may have been taken and no answer comes: with a key, by
/// which it is done once.
fn resend(
    headers: &[(&str, &str)],
    send: impl Fn(&[(&str, &str)]) -> Result<Answer, Unanswered>,
) -> Result<Answer, ClientError> {
    let key: [u8; 16] = ambient::random();
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let headers: Vec<_> =
        headers.iter().copied().chain([("Idempotency-Key", key.as_str())]).collect();
    let began = ambient::now();
    let mut pause = RESEND;
    let mut was_taken = false;
    for sends in 1.. {
        let unanswered = match send(&headers) {
            Ok(answer) => return Ok(answer),
            Err(unanswered) => unanswered,
        };
        was_taken |= unanswered.may_be_done;
        if !was_taken || !unanswered.error.is_away() {
            return Err(unanswered.error);
        }
        if sends == SENDS_MAX || began.elapsed() > SENDS_TIME {
            return Err(unanswered.error.and_nobody_knows());
        }
        ambient::sleep(pause);
        pause *= 2;
    }
    unreachable!("it is sent a number of times")
}

/// The host and the port of a plane's address.
pub(crate) fn place(url: &str) -> Result<(String, u16), ClientError> {
    let wrong = |why: &str| ClientError::Url { url: url.to_owned(), why: why.to_owned() };
    let parsed = reqwest::Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
    match (parsed.scheme(), parsed.path(), parsed.host_str()) {
        ("https", "/", Some(host)) => Ok((host.to_owned(), parsed.port().unwrap_or(443))),
        _ => Err(wrong("a plane is at https://HOST:PORT")),
    }
}

/// An error with what lies behind it.
pub(crate) fn full(error: &dyn std::error::Error) -> String {
    let behind = std::iter::successors(error.source(), |error| error.source());
    behind.fold(error.to_string(), |text, error| format!("{text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Secret;

    #[test]
    fn a_token_is_not_sent_without_encryption() {
        let admin = || Credentials::Admin(Secret::parse(&"ab".repeat(32)).unwrap());
        for url in ["http://192.0.2.1:80", "http://127.0.0.1:1", "https://127.0.0.1:1/x", "x", ""] {
            assert!(matches!(Client::new(url, admin()), Err(ClientError::Url { .. })), "{url}");
        }
        for url in ["https://127.0.0.1:80", "https://[::1]:80/", "https://192.0.2.1"] {
            assert!(Client::new(url, admin()).is_ok(), "{url}");
        }
    }
}
