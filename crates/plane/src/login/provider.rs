//! The provider, as the plane asks it: what it says of itself, an ID token for a code, its keys.
//!
//! *Bounds:* [`REQUEST`] for each of three requests, [`ANSWER_BYTES_MAX`] for each answer; no redirects.
//! What it says of itself is kept for [`KEPT`], and that it does not answer for [`KEPT_FAILURE`], so
//! strangers make the plane ask no more often. Its keys are read for each code that it takes: a key that
//! it takes back counts no longer.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use api::LoginPrint;
use reqwest::{RequestBuilder, Url};
use serde::Deserialize;
use serde_json::Value;
use tokio::runtime::Builder;

use super::id_token::{self, Expected, IdTokenError, Identity};
use super::{nonce, redirect_uri};
use crate::client::full;

const REQUEST: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 256 * 1024;
const KEPT: Duration = Duration::from_secs(300);
const KEPT_FAILURE: Duration = Duration::from_secs(5);
const SECRET_BYTES_MAX: u64 = 4096;
/// What is asked for, of what the provider knows.
const SCOPES: [&str; 4] = ["openid", "email", "profile", "groups"];

/// Why there is no login by a provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// What this plane was told of it cannot be used.
    #[error("{0}")]
    Settings(String),
    /// It does not answer, or not as it should.
    #[error("the provider at {issuer} does not answer as one: {detail}")]
    Silent {
        /// Which.
        issuer: String,
        /// What was seen.
        detail: String,
    },
    /// It takes no such code.
    #[error("the provider does not take the code ({0})")]
    Refused(String),
    /// Its ID token is not believed.
    #[error("the provider's ID token is not believed: {0}")]
    Token(#[from] IdTokenError),
}

/// What a plane is told of its provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub issuer: String,
    pub client_id: String,
    /// The claim that lists groups.
    pub groups_claim: String,
}

/// See the module's documentation.
pub struct Provider {
    settings: Settings,
    secret: Option<String>,
    is_here: bool,
    http: reqwest::Client,
    /// What it says of itself, and when it was asked.
    said: Mutex<Option<(ambient::Instant, Result<Metadata, ProviderError>)>>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Provider").field(&self.settings).finish()
    }
}

/// OpenID Connect Discovery 1.0, section 3: what of it counts here.
#[derive(Debug, Clone, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    scopes_supported: Option<Vec<String>>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Provider {
    /// A provider that is not asked anything yet.
    pub fn new(settings: Settings, secret_file: Option<&Path>) -> Result<Self, ProviderError> {
        let wrong = |why: String| ProviderError::Settings(why);
        let issuer = Url::parse(&settings.issuer)
            .map_err(|error| wrong(format!("{}: {error}", settings.issuer)))?;
        let is_here = is_loopback(&issuer);
        let plain = issuer.query().is_none() && issuer.fragment().is_none();
        if !may_be_asked(&issuer, is_here) || !plain {
            return Err(wrong(format!("{}: a provider is at https://HOST/…", settings.issuer)));
        }
        if settings.client_id.is_empty() || settings.groups_claim.is_empty() {
            return Err(wrong("a client id and a claim have at least a letter".to_owned()));
        }
        let secret = secret_file.map(read_secret).transpose()?;
        let http = reqwest::Client::builder()
            .timeout(REQUEST)
            .redirect(reqwest::redirect::Policy::none())
            // Each login has a runtime of its own, and a connection does not outlive its runtime.
            .pool_max_idle_per_host(0)
            .https_only(!is_here);
        let http = if is_here { http.no_proxy() } else { http };
        let http = http.build().map_err(|error| wrong(error.to_string()))?;
        Ok(Self { settings, secret, is_here, http, said: Mutex::default() })
    }

    /// Which one it is.
    pub fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// Where people log in.
    pub fn print(&self) -> Result<LoginPrint, ProviderError> {
        let said = self.metadata()?;
        let knows = |scope: &&str| {
            *scope == "openid"
                || said.scopes_supported.as_ref().is_none_or(|all| all.iter().any(|s| s == scope))
        };
        // Who does not say what it knows may refuse what is not in the standard.
        let asked = SCOPES.into_iter().filter(knows);
        let asked = asked.filter(|scope| said.scopes_supported.is_some() || *scope != "groups");
        Ok(LoginPrint {
            issuer: self.settings.issuer.clone(),
            client_id: self.settings.client_id.clone(),
            scope: asked.collect::<Vec<_>>().join(" "),
            authorization_endpoint: said.authorization_endpoint,
        })
    }

    /// Who has logged in.
    pub fn identity(
        &self,
        code: &str,
        verifier: &str,
        port: u16,
    ) -> Result<Identity, ProviderError> {
        let said = self.metadata()?;
        let (token, keys) = self.wait(async {
            let token = self.exchange(&said, code, verifier, &redirect_uri(port)).await?;
            let keys = self.read(self.http.get(&said.jwks_uri)).await?;
            Ok((token, keys))
        })?;
        let nonce = nonce(verifier);
        let expected = Expected {
            issuer: &self.settings.issuer,
            client_id: &self.settings.client_id,
            nonce: &nonce,
            groups_claim: &self.settings.groups_claim,
        };
        Ok(id_token::verify(&token, &keys, &expected, ambient::unix_ms())?)
    }

    fn metadata(&self) -> Result<Metadata, ProviderError> {
        // One asks, the others wait for it: as long as one request takes, whatever it says.
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, kept)) = &*said
            && at.elapsed() < if kept.is_ok() { KEPT } else { KEPT_FAILURE }
        {
            return kept.clone();
        }
        let new = self.ask();
        *said = Some((ambient::now(), new.clone()));
        new
    }

    fn ask(&self) -> Result<Metadata, ProviderError> {
        let issuer = self.settings.issuer.trim_end_matches('/');
        let url = format!("{issuer}/.well-known/openid-configuration");
        let said = self.wait(self.read(self.http.get(url)))?;
        let said: Metadata =
            serde_json::from_value(said).map_err(|error| self.silent(error.to_string()))?;
        if said.issuer != self.settings.issuer {
            return Err(self.silent(format!("it calls itself {:?}", said.issuer)));
        }
        for url in [&said.authorization_endpoint, &said.token_endpoint, &said.jwks_uri] {
            if !Url::parse(url).is_ok_and(|url| may_be_asked(&url, self.is_here)) {
                return Err(self.silent(format!("{url:?} is not at https://HOST/…")));
            }
        }
        Ok(said)
    }

    /// RFC 6749, section 4.1.3, with RFC 7636: an ID token for a code.
    async fn exchange(
        &self,
        said: &Metadata,
        code: &str,
        verifier: &str,
        redirect_uri: &str,
    ) -> Result<String, ProviderError> {
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        let client_id = self.settings.client_id.as_str();
        let methods = said.token_endpoint_auth_methods_supported.as_deref();
        let takes = |method: &str| methods.is_some_and(|all| all.iter().any(|one| one == method));
        let in_body = takes("client_secret_post") && !takes("client_secret_basic");
        let request = self.http.post(&said.token_endpoint);
        let request = match &self.secret {
            // RFC 6749, section 2.3.1: each is a form's value first.
            Some(secret) if !in_body => request.basic_auth(value(client_id), Some(value(secret))),
            secret => {
                fields.push(("client_id", client_id));
                fields.extend(secret.as_deref().map(|secret| ("client_secret", secret)));
                request
            }
        };
        let request = request
            .header("Content-Type", "application/x-www-form-urlencoded")
            .header("Accept", "application/json")
            .body(form(&fields));
        let answer = self.read(request).await?;
        let token = answer.get("id_token").and_then(Value::as_str);
        token.map(str::to_owned).ok_or_else(|| self.silent("it gives no ID token".to_owned()))
    }

    /// Reads a document.
    async fn read(&self, request: RequestBuilder) -> Result<Value, ProviderError> {
        let silent = |error: reqwest::Error| self.silent(full(&error));
        let mut response = request.send().await.map_err(silent)?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(silent)? {
            body.extend_from_slice(&part);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(self.silent("an answer without an end".to_owned()));
            }
        }
        let document: Result<Value, _> = serde_json::from_slice(&body);
        if status.is_success() {
            return document.map_err(|error| self.silent(error.to_string()));
        }
        // Only its own word for it (RFC 6749, section 5.2): what was sent is in nothing that is said.
        let word =
            document.ok().and_then(|document| Some(document.get("error")?.as_str()?.to_owned()));
        let word =
            word.filter(|word| word.len() <= 64 && word.bytes().all(|b| b.is_ascii_graphic()));
        Err(match word {
            Some(word) if status.is_client_error() => ProviderError::Refused(word),
            _ => self.silent(format!("HTTP status {}", status.as_u16())),
        })
    }

    fn wait<T>(
        &self,
        asked: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| self.silent(error.to_string()))?.block_on(asked)
    }

    fn silent(&self, detail: String) -> ProviderError {
        ProviderError::Silent { issuer: self.settings.issuer.clone(), detail }
    }
}

fn read_secret(file: &Path) -> Result<String, ProviderError> {
    use std::io::Read;
    let wrong = |why: String| ProviderError::Settings(format!("{}: {why}", file.display()));
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(|error| wrong(error.to_string()))?;
    let read = opened.take(SECRET_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| wrong(error.to_string()))?;
    let secret = text.trim();
    if secret.is_empty() || secret.chars().any(char::is_control) {
        return Err(wrong("one line with the client's secret is expected".to_owned()));
    }
    Ok(secret.to_owned())
}

/// Whether what is said to it is read by nobody else.
fn may_be_asked(url: &Url, is_here: bool) -> bool {
    let is_bare = url.username().is_empty() && url.password().is_none();
    is_bare && url.has_host() && (url.scheme() == "https" || (is_here && is_loopback(url)))
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_address = host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    url.scheme() == "http" && (is_address || host == "localhost")
}

/// `application/x-www-form-urlencoded`.
fn form(fields: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://form").expect("it is a URL");
    url.query_pairs_mut().extend_pairs(fields);
    url.query().unwrap_or_default().to_owned()
}

/// One value of it; a space as all read it who read either form.
fn value(text: &str) -> String {
    form(&[("v", text)])["v=".len()..].replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_is_asked_by_https_or_here() {
        let settings = |issuer: &str| Settings {
            issuer: issuer.to_owned(),
            client_id: "us".to_owned(),
            groups_claim: "groups".to_owned(),
        };
        for issuer in [
            "https://id.example",
            "https://id.example/realms/a",
            "http://127.0.0.1:80",
            "http://[::1]",
            "http://localhost:8080",
        ] {
            assert!(Provider::new(settings(issuer), None).is_ok(), "{issuer}");
        }
        for issuer in [
            "",
            "id.example",
            "http://id.example",
            "http://127.0.0.1.evil.example",
            "ftp://127.0.0.1",
            "https://a:b@id.example",
            "https://id.example?x",
            "https://id.example/#x",
            "http://192.0.2.1",
        ] {
            let refused = Provider::new(settings(issuer), None);
            assert!(matches!(refused, Err(ProviderError::Settings(_))), "{issuer}");
        }
        // One that is elsewhere names nothing that is here.
        let url = Url::parse("http://127.0.0.1/token").unwrap();
        assert!(may_be_asked(&url, true) && !may_be_asked(&url, false));
        assert_eq!(form(&[("a", "b c"), ("d", "&=ä")]), "a=b+c&d=%26%3D%C3%A4");
        assert_eq!(value("=a: b+"), "%3Da%3A%20b%2B");
    }

    #[test]
    fn a_secret_is_read_from_its_file_and_said_to_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        assert!(read_secret(&file).is_err());
        for (text, expected) in [(" s3cret\n", Some("s3cret")), ("\n", None), ("a\nb", None)] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(read_secret(&file).ok().as_deref(), expected);
        }
        std::fs::write(&file, "s3cret").unwrap();
        let settings = Settings {
            issuer: "https://id.example".to_owned(),
            client_id: "us".to_owned(),
            groups_claim: "groups".to_owned(),
        };
        let provider = Provider::new(settings, Some(&file)).unwrap();
        assert!(!format!("{provider:?}").contains("s3cret"));
    }
}
