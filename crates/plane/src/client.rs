//! Asking a plane: what the CLI and a host's agent do.

use std::time::Duration;

use api::Problem;
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

/// What one request may take.
const REQUEST: Duration = Duration::from_secs(20);
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

/// An answer that is not no.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub etag: Option<String>,
    pub body: Vec<u8>,
}

/// A plane, as its callers know it.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    http: reqwest::Client,
    url: String,
    token: String,
}

impl Client {
    /// The plane at `http://HOST:PORT`. Until there is TLS, it is on this machine: a token is never
    /// sent over a network.
    pub fn new(url: &str, token: &str) -> Result<Self, ClientError> {
        let wrong = |why: &str| ClientError::Url { url: url.to_owned(), why: why.to_owned() };
        let parsed = reqwest::Url::parse(url).map_err(|error| wrong(&error.to_string()))?;
        if parsed.scheme() != "http" || parsed.path() != "/" {
            return Err(wrong("a plane is at http://HOST:PORT"));
        }
        let host = parsed.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if !loopback {
            return Err(wrong("only 127.0.0.1 or [::1]: what is said there is not encrypted yet"));
        }
        let http = reqwest::Client::builder().timeout(REQUEST).no_proxy().build();
        let http = http.map_err(|error| wrong(&error.to_string()))?;
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| wrong(&error.to_string()))?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { runtime, http, url, token: token.to_owned() })
    }

    /// Another one to the same plane, for another thread.
    pub fn twin(&self) -> Result<Self, ClientError> {
        Self::new(&self.url, &self.token)
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

    fn read<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, ClientError> {
        serde_json::from_slice(&answer.body).map_err(|error| self.silent(error.to_string()))
    }

    /// Sends anything.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        document: Option<&impl Serialize>,
    ) -> Result<Answer, ClientError> {
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|error| self.silent(error.to_string()))?;
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .header("Authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(document) = document {
            let body = serde_json::to_vec(document).map_err(|e| self.silent(e.to_string()))?;
            request = request.header("Content-Type", "application/json").body(body);
        }
        self.runtime.block_on(async {
            let mut response = request.send().await.map_err(|error| self.silent(full(&error)))?;
            let status = response.status().as_u16();
            let etag = response.headers().get("ETag");
            let etag = etag.and_then(|value| value.to_str().ok()).map(str::to_owned);
            let mut body = Vec::new();
            while let Some(part) =
                response.chunk().await.map_err(|error| self.silent(full(&error)))?
            {
                body.extend_from_slice(&part);
                if body.len() > ANSWER_BYTES_MAX {
                    return Err(self.silent("an answer without an end".to_owned()));
                }
            }
            if status < 400 {
                return Ok(Answer { status, etag, body });
            }
            match serde_json::from_slice(&body) {
                Ok(problem) => Err(ClientError::Refused(Box::new(problem))),
                Err(_) => Err(self.silent(format!("HTTP status {status}"))),
            }
        })
    }

    fn silent(&self, detail: String) -> ClientError {
        ClientError::Unreachable { url: self.url.clone(), detail }
    }
}

/// An error with what lies behind it.
fn full(error: &dyn std::error::Error) -> String {
    let behind = std::iter::successors(error.source(), |error| error.source());
    behind.fold(error.to_string(), |text, error| format!("{text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_sent_over_a_network() {
        for url in ["http://192.0.2.1:80", "http://localhost:80", "https://127.0.0.1:1", "x", ""] {
            assert!(matches!(Client::new(url, "t"), Err(ClientError::Url { .. })), "{url}");
        }
        for url in ["http://127.0.0.1:80", "http://[::1]:80/"] {
            assert!(Client::new(url, "t").is_ok(), "{url}");
        }
    }
}
