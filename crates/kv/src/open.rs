//! A store by its location.

use std::path::Path;
use std::sync::Arc;

use crate::{Embedded, Etcd, Kv, KvError, Result, Tls};

/// Where a store is, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Location {
    /// `embedded:FOLDER`, `etcd://HOST:PORT,HOST:PORT,...[/PREFIX]`, or `etcds://...`: that by TLS.
    pub text: String,
    /// For `etcds://`.
    pub tls: Tls,
}

impl<T: AsRef<str> + ?Sized> From<&T> for Location {
    fn from(text: &T) -> Self {
        Self { text: text.as_ref().to_owned(), tls: Tls::default() }
    }
}

/// Opens a store at a location, or at one that is only text.
pub fn open(location: impl Into<Location>) -> Result<Arc<dyn Kv>> {
    let Location { text, tls } = location.into();
    if let Some(rest) = text.strip_prefix("etcds://") {
        return etcd(rest, "https", &tls);
    }
    if tls.is_said() {
        let detail = format!("certificates for {text:?}: TLS is etcds://HOST:PORT,...");
        return Err(KvError::Invalid { detail });
    }
    if let Some(folder) = text.strip_prefix("embedded:") {
        return Ok(Arc::new(Embedded::open(Path::new(folder))?));
    }
    if let Some(rest) = text.strip_prefix("etcd://") {
        return etcd(rest, "http", &tls);
    }
    Err(KvError::Invalid {
        detail: format!(
            "{text:?}: it is embedded:FOLDER, etcd://HOST:PORT,... or, by TLS, etcds://HOST:PORT,..."
        ),
    })
}

fn etcd(rest: &str, scheme: &str, tls: &Tls) -> Result<Arc<dyn Kv>> {
    let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, "collective"));
    if prefix.starts_with('/') {
        let detail = format!("{rest:?} as members of etcd: HOST:PORT,HOST:PORT,...[/PREFIX]");
        return Err(KvError::Invalid { detail });
    }
    let endpoints: Vec<_> = hosts.split(',').map(|host| format!("{scheme}://{host}")).collect();
    Ok(Arc::new(Etcd::open(&endpoints, prefix, tls)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_one_of_three() {
        for wrong in [
            "",
            "plane",
            "/a/folder",
            "https://a:1",
            "etcd://",
            "etcds://",
            "etcd://a b:1",
            "etcds://http://a:1",
            "embedded:",
        ] {
            assert!(matches!(open(wrong), Err(KvError::Invalid { .. })), "{wrong}");
        }
    }

    #[test]
    fn certificates_are_for_tls() {
        let tls = Tls { cacert: Some("ca.pem".into()), ..Tls::default() };
        for text in ["etcd://127.0.0.1:1", "embedded:/nowhere"] {
            let location = Location { text: text.to_owned(), tls: tls.clone() };
            assert!(matches!(open(location), Err(KvError::Invalid { .. })), "{text}");
        }
    }
}
