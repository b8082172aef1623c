//! A login, for whom it is: what the browser is sent to, and what comes back.

use api::LoginPrint;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use sha2::{Digest, Sha256};

/// The path on the loopback address to which a provider sends the browser back.
pub const PATH: &str = "/login";

/// Why what came back is not the end of this login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttemptError {
    /// Another request than the one that is waited for.
    #[error("it is not the answer to this login")]
    Another,
    /// The provider says no.
    #[error("the provider refused it: {0}")]
    Refused(String),
}

/// One login.
pub struct Attempt {
    verifier: String,
    state: String,
}

impl Attempt {
    /// A new one.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let random = || URL_SAFE_NO_PAD.encode(ambient::random::<32>());
        Self { verifier: random(), state: random() }
    }

    /// Where the browser goes first.
    pub fn url(&self, at: &LoginPrint, port: u16) -> Option<String> {
        let mut url = Url::parse(&at.authorization_endpoint).ok()?;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.as_bytes()));
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &at.client_id)
            .append_pair("redirect_uri", &redirect_uri(port))
            .append_pair("scope", &at.scope)
            .append_pair("state", &self.state)
            .append_pair("nonce", &super::nonce(&self.verifier))
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        Some(url.into())
    }

    /// Reads the target of the request with which the browser comes back; gives what is shown to the
    /// plane.
    pub fn read(&self, target: &str, issuer: &str) -> Result<String, AttemptError> {
        let url = Url::parse("http://127.0.0.1").and_then(|base| base.join(target));
        let url = url.map_err(|_| AttemptError::Another)?;
        let value = |name: &str| {
            url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        // Whoever else can reach this port does not know the state.
        if url.path() != PATH || value("state").as_ref() != Some(&self.state) {
            return Err(AttemptError::Another);
        }
        // RFC 9207: an answer of another provider.
        if value("iss").is_some_and(|said| said != issuer) {
            return Err(AttemptError::Another);
        }
        match (value("code"), value("error")) {
            (Some(code), None) => Ok(format!("Login {code}.{}", self.verifier)),
            (_, error) => {
                let word = |text: &String| text.bytes().all(|byte| byte.is_ascii_graphic());
                let said = error.filter(word).unwrap_or_else(|| "it says nothing".to_owned());
                Err(AttemptError::Refused(said.chars().take(64).collect()))
            }
        }
    }
}

/// Where a provider sends the browser back.
pub fn redirect_uri(port: u16) -> String {
    format!("http://127.0.0.1:{port}{PATH}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_takes_its_own_answer_and_no_other() {
        let attempt = Attempt::new();
        let at = LoginPrint {
            issuer: "https://id.example".to_owned(),
            client_id: "us".to_owned(),
            authorization_endpoint: "https://id.example/authorize?tenant=1".to_owned(),
            scope: "openid email".to_owned(),
        };
        let url = attempt.url(&at, 7).unwrap();
        assert!(
            url.starts_with("https://id.example/authorize?tenant=1&response_type=code&"),
            "{url}"
        );
        assert!(url.contains("redirect_uri=http%3A%2F%2F127.0.0.1%3A7%2Flogin&"), "{url}");
        assert!(!url.contains(&attempt.verifier), "it is a secret until the end");
        // RFC 7636, appendix B.
        let known = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        let known = Attempt { verifier: known, state: "s".to_owned() }.url(&at, 7).unwrap();
        assert!(known.contains("code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&"));

        let read =
            |target: &str| attempt.read(&target.replace("STATE", &attempt.state), &at.issuer);
        let shown = read("/login?code=a.b%20c&state=STATE").unwrap();
        let (code, verifier) = crate::login::shown(shown.strip_prefix("Login ").unwrap()).unwrap();
        assert_eq!((code, verifier), ("a.b c", attempt.verifier.as_str()));
        assert!(read("/login?code=c&state=STATE&iss=https%3A%2F%2Fid.example").is_ok());
        for other in [
            "/login?code=c",
            "/login?code=c&state=x",
            "/favicon.ico?state=STATE&code=c",
            "/login?code=c&state=STATE&iss=https%3A%2F%2Fevil.example",
            "http://[",
        ] {
            assert_eq!(read(other), Err(AttemptError::Another), "{other}");
        }
        let denied = read("/login?error=access_denied&state=STATE");
        assert_eq!(denied, Err(AttemptError::Refused("access_denied".to_owned())));
        assert!(read("/login?state=STATE").is_err());
        for wrong in ["", "code", ".", "code.short", &format!(".{}", attempt.verifier)] {
            assert_eq!(crate::login::shown(wrong), None, "{wrong}");
        }
    }
}
