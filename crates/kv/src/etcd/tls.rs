//! TLS to a cluster: who is believed to be a member, and what is shown to it.

use std::path::{Path, PathBuf};

use reqwest::{Certificate, ClientBuilder, Identity};

use super::http::{Trouble, full};
use crate::{KvError, Result};

/// Files of PEM, as `etcdctl` takes them. None: what the system trusts, and nothing is shown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// The authorities that sign members' certificates.
    pub cacert: Option<PathBuf>,
    /// What is shown to members that want to know who asks, and its key.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl Tls {
    /// Whether any of it was said.
    pub fn is_said(&self) -> bool {
        *self != Self::default()
    }

    /// The client with it. The files are read now, and not again.
    pub(super) fn of(&self, builder: ClientBuilder) -> Result<ClientBuilder> {
        let mut builder = builder.https_only(true);
        if let Some(file) = &self.cacert {
            let authorities = Certificate::from_pem_bundle(&read(file)?)
                .map_err(|error| unusable(file, full(&error)))?;
            if authorities.is_empty() {
                return Err(unusable(file, "there is no certificate in it".to_owned()));
            }
            builder = builder.tls_certs_only(authorities);
        }
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let pem = [read(cert)?, read(key)?].join(&b'\n');
                let identity =
                    Identity::from_pem(&pem).map_err(|error| unusable(cert, full(&error)))?;
                Ok(builder.identity(identity))
            }
            (None, None) => Ok(builder),
            (Some(file), None) | (None, Some(file)) => {
                let what = "a certificate and its key are given together";
                Err(unusable(file, what.to_owned()))
            }
        }
    }
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).map_err(|error| unusable(file, error.to_string()))
}

fn unusable(file: &Path, detail: String) -> KvError {
    KvError::Unusable { file: file.display().to_string(), detail }
}

/// What TLS has to say to a request that failed, if that is why.
pub fn trouble(error: &reqwest::Error) -> Option<Trouble> {
    let mut behind: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = behind {
        // What an I/O error was made of is not what it says to come from.
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let inside = inside.map(|inside| inside as &(dyn std::error::Error + 'static));
        if let Some(said) = [Some(error), inside].into_iter().flatten().find_map(of_rustls) {
            return Some(said);
        }
        behind = inside.filter(|inside| inside.is::<std::io::Error>()).or(error.source());
    }
    None
}

fn of_rustls(error: &(dyn std::error::Error + 'static)) -> Option<Trouble> {
    match error.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion) => None,
        rustls::Error::AlertReceived(alert) => Some(Trouble::Stranger(format!("{alert:?}"))),
        other => Some(Trouble::Untrusted(other.to_string())),
    }
}
