//! The maker's objects as `tough` asks for them, and what a host keeps of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use objects::{ObjectError, Objects};
use tough::{Transport, TransportError, TransportErrorKind, TransportStream};
use url::Url;

/// Everything signed lies below this.
pub(crate) const SIGNED: &str = "signed/";
/// Where `tough` believes that to be: an address that nobody has.
const BASE: &str = "https://maker.invalid/";
/// The largest object of a maker's that is read, bytes: documents are small.
pub(crate) const OBJECT_BYTES_MAX: u64 = 16 << 20;

/// The address of metadata.
pub(crate) fn metadata_url() -> Url {
    Url::parse(&format!("{BASE}{SIGNED}")).expect("a constant")
}

/// The address of documents.
pub(crate) fn documents_url() -> Url {
    Url::parse(&format!("{BASE}{SIGNED}targets/")).expect("a constant")
}

/// Where objects come from.
#[derive(Clone)]
pub(crate) struct Source {
    /// None: only what this host has.
    pub(crate) objects: Option<Arc<dyn Objects>>,
    /// What was read is kept here.
    pub(crate) kept: PathBuf,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({})", self.kept.display())
    }
}

impl Source {
    fn read(&self, url: &Url) -> Result<bytes::Bytes, TransportError> {
        let error = |kind, cause: String| TransportError::new_with_cause(kind, url.path(), cause);
        let key = url.path().trim_start_matches('/').to_owned();
        let file = self.kept.join(kept_name(&key));
        // A document has its hash in its name: once read it is read for ever.
        let for_ever = key.contains("/targets/");
        if (for_ever || self.objects.is_none())
            && let Ok(bytes) = std::fs::read(&file)
        {
            return Ok(bytes.into());
        }
        let Some(objects) = &self.objects else {
            return Err(error(TransportErrorKind::FileNotFound, "not on this host".to_owned()));
        };
        let bytes = objects.get(&key, OBJECT_BYTES_MAX).map_err(|cause| match cause {
            ObjectError::NotFound { .. } => {
                error(TransportErrorKind::FileNotFound, cause.to_string())
            }
            _ => error(TransportErrorKind::Other, cause.to_string()),
        })?;
        write(&file, &bytes)
            .map_err(|cause| error(TransportErrorKind::Other, cause.to_string()))?;
        Ok(bytes)
    }
}

/// The name of a kept object: its key in one piece.
fn kept_name(key: &str) -> String {
    key.trim_start_matches(SIGNED).replace('/', "_")
}

pub(crate) fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[tough::async_trait]
impl Transport for Source {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        // Blocking: this runtime has nothing else to do.
        let bytes = self.read(&url)?;
        Ok(Box::pin(futures::stream::once(std::future::ready(Ok(bytes)))))
    }
}
