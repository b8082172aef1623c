//! A store by its location.

use std::path::Path;
use std::sync::Arc;

use crate::{Embedded, Etcd, Kv, KvError, Result};

/// Opens `embedded:FOLDER`, or `etcd://HOST:PORT,HOST:PORT,...[/PREFIX]`.
pub fn open(location: &str) -> Result<Arc<dyn Kv>> {
    if let Some(folder) = location.strip_prefix("embedded:") {
        return Ok(Arc::new(Embedded::open(Path::new(folder))?));
    }
    if let Some(rest) = location.strip_prefix("etcd://") {
        let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, "collective"));
        let endpoints: Vec<_> = hosts.split(',').map(|host| format!("http://{host}")).collect();
        return Ok(Arc::new(Etcd::open(&endpoints, prefix)?));
    }
    Err(KvError::Invalid {
        detail: format!("{location:?}: it is embedded:FOLDER or etcd://HOST:PORT,..."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_one_of_two() {
        for wrong in
            ["", "plane", "/a/folder", "etcds://a:1", "etcd://", "etcd://a b:1", "embedded:"]
        {
            assert!(matches!(open(wrong), Err(KvError::Invalid { .. })), "{wrong}");
        }
    }
}
