//! The maker's objects as `tough` asks for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use objects::{ObjectError, Objects};
use tough::schema::{Signed, Snapshot};
use tough::{Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

/// Everything signed lies below this.
pub(crate) const SIGNED: &str = "signed/";
/// Where `tough` believes that to be: an address that nobody has.
const BASE: &str = "https://maker.invalid/";
/// The longest root that is read, bytes: some hundred keys.
pub(crate) const ROOT_BYTES_MAX: u64 = 256 << 10;
/// The longest timestamp and snapshot that are read, bytes.
pub(crate) const TIMESTAMP_BYTES_MAX: u64 = 64 << 10;
pub(crate) const SNAPSHOT_BYTES_MAX: u64 = 256 << 10;
/// The longest list of documents that is read, bytes.
pub(crate) const TARGETS_BYTES_MAX: u64 = 16 << 20;

/// The address of metadata.
pub(crate) fn metadata_url() -> Url {
    Url::parse(&format!("{BASE}{SIGNED}")).expect("a constant")
}

/// The address of documents: `tough` has to be told one. We read them ourselves.
pub(crate) fn documents_url() -> Url {
    Url::parse(&format!("{BASE}{SIGNED}targets/")).expect("a constant")
}

/// Where metadata comes from.
#[derive(Clone)]
pub(crate) struct Source {
    objects: Arc<dyn Objects>,
    /// Roots with higher numbers are not seen.
    roots_max: u64,
    /// The lengths of the lists of documents, by their objects' names, once a snapshot has said them: how
    /// long a slow server is listened to follows from it. What the snapshot says is verified before it
    /// is asked for.
    lengths: Arc<Mutex<HashMap<String, u64>>>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({})", self.objects.location())
    }
}

impl Source {
    pub(crate) fn new(objects: Arc<dyn Objects>, roots_max: u64) -> Self {
        Self { objects, roots_max, lengths: Arc::default() }
    }

    fn read(&self, url: &Url) -> Result<bytes::Bytes, TransportError> {
        let error = |kind, cause: String| TransportError::new_with_cause(kind, url.path(), cause);
        let key = url.path().trim_start_matches('/');
        let name = key.trim_start_matches(SIGNED);
        let root: Option<u64> =
            name.strip_suffix(".root.json").and_then(|number| number.parse().ok());
        if root.is_some_and(|number| number > self.roots_max) {
            return Err(error(TransportErrorKind::FileNotFound, "not looked at".to_owned()));
        }
        let bytes_max = match name {
            _ if root.is_some() => ROOT_BYTES_MAX,
            "timestamp.json" => TIMESTAMP_BYTES_MAX,
            _ if name.ends_with(".snapshot.json") => SNAPSHOT_BYTES_MAX,
            _ => self.lengths().get(name).copied().unwrap_or(TARGETS_BYTES_MAX),
        };
        let bytes = self.objects.get(key, bytes_max).map_err(|cause| match cause {
            ObjectError::NotFound { .. } => {
                error(TransportErrorKind::FileNotFound, cause.to_string())
            }
            _ => error(TransportErrorKind::Other, cause.to_string()),
        })?;
        if name.ends_with(".snapshot.json")
            && let Ok(snapshot) = serde_json::from_slice::<Signed<Snapshot>>(&bytes)
        {
            let mut lengths = self.lengths();
            for (file, meta) in &snapshot.signed.meta {
                let bytes = meta.length.unwrap_or(TARGETS_BYTES_MAX).min(TARGETS_BYTES_MAX);
                lengths.insert(format!("{}.{file}", meta.version), bytes);
            }
        }
        Ok(bytes)
    }

    fn lengths(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.lengths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tough::async_trait]
impl Transport for Source {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        // Blocking: this runtime has nothing else to do. What goes wrong is said in the stream:
        // `tough` would take an error here for a root that does not exist.
        let read = self.read(&url);
        Ok(Box::pin(futures::stream::once(std::future::ready(read))))
    }
}
