//! Requests to whichever member answers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Client;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::stream::Stream;
use super::tls::{self, Tls};
use super::wire::Refusal;
use crate::{KvError, Result};

/// What one attempt may take.
pub const ATTEMPT: Duration = Duration::from_millis(1500);
/// What one call may take, with all its attempts.
pub const CALL: Duration = Duration::from_secs(12);
/// Between two attempts.
pub const PAUSE: Duration = Duration::from_millis(100);
/// A member whose host has gone is noticed after about this long, also by a watch.
const ALIVE: Duration = Duration::from_secs(3);
/// Bytes of an answer: a page of the largest values, and more than etcd gives.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// Why an attempt gave nothing.
#[derive(Debug)]
pub enum Trouble {
    /// It was not sent.
    Unsent(String),
    /// It was sent, and may have been done.
    Silent(String),
    /// etcd says why not, with its gRPC code.
    Code(u64, String),
    /// It has not shown that it is a member.
    Untrusted(String),
    /// It does not know us: whatever was sent, nothing was done.
    Stranger(String),
}

impl Trouble {
    /// Whether this member will say so again, and another one perhaps not.
    fn is_of_tls(&self) -> bool {
        matches!(self, Self::Untrusted(_) | Self::Stranger(_))
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Gateway {
    /// Dropped, it stops the watches.
    runtime: Option<Runtime>,
    client: Client,
    endpoints: Vec<String>,
    /// The member that answered last.
    best: AtomicUsize,
}

impl Gateway {
    pub fn new(endpoints: &[String], tls: &Tls) -> Result<Self> {
        for endpoint in endpoints {
            let url = reqwest::Url::parse(endpoint)
                .ok()
                .filter(|url| url.has_host() && url.path() == "/" && url.query().is_none());
            if url.is_none() {
                return Err(KvError::Invalid { detail: format!("{endpoint:?} as an etcd member") });
            }
        }
        let invalid = |detail: String| KvError::Invalid { detail };
        let secure = is_secure(endpoints);
        let builder = || if secure { tls.of(Client::builder()) } else { Ok(Client::builder()) };
        let client = builder()?
            .connect_timeout(ATTEMPT)
            .tcp_keepalive(ALIVE)
            .tcp_keepalive_interval(ALIVE)
            .tcp_keepalive_retries(1)
            .no_proxy()
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("kv-etcd")
            .enable_all()
            .build()
            .map_err(|error| invalid(error.to_string()))?;
        let gateway = Self {
            runtime: Some(runtime),
            client,
            endpoints: endpoints.iter().map(|e| e.trim_end_matches('/').to_owned()).collect(),
            best: AtomicUsize::new(0),
        };
        if secure {
            let old = builder()?.tls_version_max(reqwest::tls::Version::TLS_1_2).no_proxy();
            gateway.introduce(&old.build().map_err(|error| invalid(error.to_string()))?)?;
        }
        Ok(gateway)
    }

    /// Finds out whether members believe us and are believed. By TLS 1.2, where that is a part of the
    /// handshake: by 1.3 a member that does not know us hangs up some time after it, often without a word.
    fn introduce(&self, client: &Client) -> Result<()> {
        let mut said = None;
        for endpoint in &self.endpoints {
            let url = format!("{endpoint}/v3/kv/range");
            match self.runtime().block_on(attempt::<Value>(client, &url, r#"{"key":"LQ=="}"#)) {
                Err(trouble) if trouble.is_of_tls() => said = Some(trouble),
                // It answers, or is away, or speaks 1.3 alone: then what is asked next will show it.
                _ => return Ok(()),
            }
        }
        said.map_or(Ok(()), |trouble| Err(self.error(trouble, false)))
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until this is dropped")
    }

    /// Asks what may be asked any number of times.
    pub fn read<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T> {
        // What is read did not happen, whether it was sent or not.
        self.write(path, body, true).0.map_err(|trouble| self.error(trouble, false))
    }

    /// Asks; and whether an earlier attempt may have been done that nobody answered. Without
    /// `again`, what may have been done is not sent a second time.
    pub fn write<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        again: bool,
    ) -> (std::result::Result<T, Trouble>, bool) {
        let body = body.to_string();
        let ends = ambient::now() + CALL;
        let mut doubtful = false;
        let mut of_tls = 0;
        loop {
            let member = self.best.load(Ordering::Relaxed) % self.endpoints.len();
            let url = format!("{}/v3/{path}", self.endpoints[member]);
            let trouble = match self.runtime().block_on(attempt(&self.client, &url, &body)) {
                Ok(answer) => return (Ok(answer), doubtful),
                Err(trouble) => trouble,
            };
            if matches!(trouble, Trouble::Code(code, _) if is_final(code)) {
                return (Err(trouble), doubtful);
            }
            if trouble.is_of_tls() {
                of_tls += 1;
                if of_tls >= self.endpoints.len() {
                    return (Err(trouble), doubtful);
                }
            } else {
                of_tls = 0;
                doubtful |= !matches!(trouble, Trouble::Unsent(_));
            }
            if (doubtful && !again) || ambient::now() >= ends {
                return (Err(trouble), doubtful);
            }
            let _ = self.best.compare_exchange(
                member,
                (member + 1) % self.endpoints.len(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            ambient::sleep(PAUSE);
        }
    }

    /// Follows changes in the background.
    pub fn follow(&self, stream: Stream) {
        let (client, endpoints) = (self.client.clone(), self.endpoints.clone());
        self.runtime().spawn(stream.run(client, endpoints));
    }

    pub fn broken(&self, detail: &str) -> KvError {
        KvError::Broken { location: self.location(), detail: detail.to_owned() }
    }

    fn location(&self) -> String {
        let secure = is_secure(&self.endpoints);
        let hosts: Vec<_> = self
            .endpoints
            .iter()
            .map(|endpoint| endpoint.split_once("://").map_or(&**endpoint, |(_, host)| host))
            .collect();
        format!("{}://{}", if secure { "etcds" } else { "etcd" }, hosts.join(","))
    }

    pub fn error(&self, trouble: Trouble, doubtful: bool) -> KvError {
        let location = self.location();
        match trouble {
            Trouble::Code(3, detail) => KvError::Invalid { detail },
            Trouble::Code(5, _) => KvError::LeaseGone,
            Trouble::Code(7 | 16, detail) => KvError::Denied { location, detail },
            Trouble::Code(8, detail) => KvError::NoSpace { location, detail },
            // What an attempt before may have done is still not known.
            Trouble::Untrusted(detail) if !doubtful => KvError::Untrusted { location, detail },
            Trouble::Stranger(detail) if !doubtful => KvError::Stranger { location, detail },
            Trouble::Untrusted(detail) | Trouble::Stranger(detail) => {
                KvError::Unknown { location, detail }
            }
            Trouble::Unsent(detail) | Trouble::Silent(detail) | Trouble::Code(_, detail) => {
                if doubtful {
                    KvError::Unknown { location, detail }
                } else {
                    KvError::Unavailable { location, detail }
                }
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Not waited for: this may be dropped inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn is_secure(endpoints: &[String]) -> bool {
    endpoints.iter().any(|endpoint| endpoint.starts_with("https:"))
}

/// Whether another member would say the same: what was asked is wrong, not who was asked.
fn is_final(code: u64) -> bool {
    matches!(code, 3 | 5 | 7 | 8 | 9 | 11 | 12 | 16)
}

async fn attempt<T: DeserializeOwned>(
    client: &Client,
    url: &str,
    body: &str,
) -> std::result::Result<T, Trouble> {
    let sent = client.post(url).timeout(ATTEMPT).body(body.to_owned()).send().await;
    let mut response = sent.map_err(|error| {
        if let Some(trouble) = tls::trouble(&error) {
            return trouble;
        }
        let text = full(&error);
        if error.is_connect() { Trouble::Unsent(text) } else { Trouble::Silent(text) }
    })?;
    let status = response.status();
    let mut bytes = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| Trouble::Silent(full(&error)))? {
        bytes.extend_from_slice(&part);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(Trouble::Silent("an answer without an end".to_owned()));
        }
    }
    if status.is_success() {
        let read = serde_json::from_slice(&bytes);
        return read.map_err(|error| Trouble::Silent(format!("no answer of etcd's: {error}")));
    }
    match serde_json::from_slice::<Refusal>(&bytes) {
        Ok(refusal) if refusal.code != 0 => Err(Trouble::Code(refusal.code, refusal.message)),
        _ => Err(Trouble::Silent(format!("HTTP {status}"))),
    }
}

/// An error with what lies behind it.
pub fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        text = format!("{text}: {error}");
        behind = error.source();
    }
    text
}
