//! Who this host is to its plane: a key that never leaves it, and a certificate that it renews.
//!
//! `plane/identity.json` in the host's directory; lost, the host joins again with a token.

use std::time::Duration;

use api::{HostIdentity, HostKey, OrderPrint, OrdersKnown};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use host::{Failure, Host};
use plane::client::{Client, ClientError};
use plane::identity::{CERTIFICATE_LASTS, Credentials, IdentityError, new_key, public_part};
use serde::{Deserialize, Serialize};

use crate::planes::Planes;

const FILE: &str = "identity.json";
const FORMAT: u32 = 1;
/// A certificate is renewed when it lasts less than this.
const RENEW: Duration = Duration::from_secs(CERTIFICATE_LASTS.as_secs() / 2);

/// See the module's documentation.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    format: u32,
    /// The plane that it is for.
    pub url: String,
    /// PEM, as all of these.
    key: String,
    certificate: String,
    authority: String,
    ends_unix_ms: u64,
}

impl Identity {
    fn credentials(&self) -> Credentials {
        Credentials::Host {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            authority: self.authority.clone(),
        }
    }

    /// Who this host is to its peers.
    pub fn to_peers(&self) -> peer::Identity {
        peer::Identity {
            key: self.key.clone(),
            certificate: self.certificate.clone(),
            authority: self.authority.clone(),
        }
    }

    /// What its certificate calls it.
    pub fn name(&self) -> Option<String> {
        plane::identity::name_in(&self.certificate)
    }

    /// Whether it is to be renewed.
    pub fn is_old(&self) -> bool {
        self.ends_unix_ms < ambient::unix_ms() + RENEW.as_millis() as u64
    }

    /// The plane that it joined by, as this host.
    fn client(&self) -> Result<Client, ClientError> {
        self.client_at(&self.url)
    }

    /// A plane at this address, as this host.
    pub fn client_at(&self, url: &str) -> Result<Client, ClientError> {
        Client::new(url, self.credentials())
    }

    /// One that lasts longer.
    pub fn renewed(&self, host: &Host, client: &Client) -> Result<Self, Failure> {
        let given = certify(host, client, &self.key)?;
        let new = Self::of(&self.url, &self.key, given);
        host.write_for_plane(FILE, &new)?;
        Ok(new)
    }

    fn of(url: &str, key: &str, given: HostIdentity) -> Self {
        Self {
            format: FORMAT,
            url: url.to_owned(),
            key: key.to_owned(),
            certificate: given.certificate,
            authority: given.authority,
            ends_unix_ms: given.ends_unix_ms,
        }
    }
}

/// The identity that this host has for a plane; with a token it gets one where it has none, or none
/// that the plane accepts.
pub fn join(host: &Host, url: &str, token: Option<Credentials>) -> Result<Identity, Failure> {
    let url = url.trim_end_matches('/');
    let kept = host.read_for_plane::<Identity>(FILE)?;
    let kept = kept.filter(|kept| {
        // With a token for another plane, it is that one that is meant.
        let same = token.as_ref().is_none_or(|token| token.is_for(&kept.authority));
        same && kept.ends_unix_ms > ambient::unix_ms()
    });
    if let Some(kept) = kept {
        let kept = Identity { url: url.to_owned(), ..kept };
        match is_accepted(host, &kept) {
            Ok(true) => return Ok(kept),
            Ok(false) => {}
            // Nobody answers: it goes on trying as who it is.
            Err(ClientError::Unreachable { .. }) => return Ok(kept),
            Err(error) => return Err(not_asked(error)),
        }
    }
    let Some(token) = token else {
        return Err(Failure::new(
            "permission",
            format!("the plane at {url} does not know this host"),
            "join with a token: `collective plane` says where it is",
        ));
    };
    let client = Client::new(url, token).map_err(not_asked)?;
    let (key, _) = new_key().map_err(no_key)?;
    let identity = Identity::of(url, &key, certify(host, &client, &key)?);
    host.write_for_plane(FILE, &identity)?;
    // Those of another authority are none of its own.
    Planes::forget(host)?;
    Ok(identity)
}

fn is_accepted(host: &Host, identity: &Identity) -> Result<bool, ClientError> {
    let client = identity.client()?;
    let nothing = OrdersKnown::default();
    match client.post::<Vec<OrderPrint>>(&format!("/v1/hosts/{}/orders", host.id()), &nothing) {
        Ok(_) => Ok(true),
        Err(ClientError::Refused(problem)) if problem.status == 401 => Ok(false),
        Err(error) => Err(error),
    }
}

fn certify(host: &Host, client: &Client, key: &str) -> Result<HostIdentity, Failure> {
    let public_key = STANDARD.encode(public_part(key).map_err(no_key)?);
    let path = format!("/v1/hosts/{}/certificate", host.id());
    client.post(&path, &HostKey { public_key }).map_err(not_asked)
}

fn no_key(error: IdentityError) -> Failure {
    Failure::new("internal", error.to_string(), "")
}

fn not_asked(error: ClientError) -> Failure {
    match error {
        ClientError::Refused(problem) => {
            let kinds = ["state", "format"];
            let known = kinds.into_iter().find(|kind| *kind == problem.kind);
            let kind = known.unwrap_or("permission");
            Failure::new(kind, problem.detail, problem.hint)
        }
        ClientError::Url { .. } => {
            let hint = "`collective plane` says where it listens when it starts";
            Failure::new("usage", error.to_string(), hint)
        }
        ClientError::Unreachable { .. } => Failure::new(
            "unavailable",
            error.to_string(),
            "is `collective plane` running there, and is the token its own?",
        ),
    }
}
