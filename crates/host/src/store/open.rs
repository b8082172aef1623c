//! Opening repositories, and the keys that this host has.

use std::path::Path;
use std::sync::Arc;

use chunk::ChunkSource;
use chunk::crypt::MasterKey;
use model::ChunkId;
use objects::{Counted, Objects};
use repository::{Open, Repository, RepositoryError};

use super::hex;
use crate::dir::HostDir;
use crate::failure::{Failure, Result};

pub(super) fn open_objects(
    host: &HostDir,
    location: &str,
) -> Result<Arc<Counted<Arc<dyn Objects>>>> {
    Ok(Arc::new(Counted::new(host.doors().objects(location)?)))
}

/// Takes a key; with a location, only when it opens what is there.
pub fn key_import(host: &HostDir, location: Option<&str>, text: &str) -> Result<String> {
    let key = repository::import_key(text)?;
    let Some(location) = location else {
        return Err(Failure::new(
            "usage",
            "which repository is this the key of?",
            "name it with --repo",
        ));
    };
    let open = Open { key: Some(key.clone()), ..Open::default() };
    let repository = Repository::open(objects::open(location)?, open)?;
    keep_key(host, &key)?;
    Ok(hex(&repository.id()))
}

pub(super) fn keep_key(host: &HostDir, key: &MasterKey) -> Result<std::path::PathBuf> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let text = repository::export_key(key);
    // Named by a hash of itself: the same key twice is one file, and the name tells nothing.
    let name =
        ChunkId::from_bytes(blake3::derive_key("collective 2026 key file name", text.as_bytes()));
    let path = host.folder("keys")?.join(format!("{}.key", name.short()));
    let temporary = path.with_extension(format!("{:016x}", u64::from_le_bytes(ambient::random())));
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all())?;
    std::fs::rename(&temporary, &path)?;
    std::fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(path)
}

pub(super) fn open_with_keys(
    host: &HostDir,
    objects: Arc<dyn Objects>,
    sources: Vec<Arc<dyn ChunkSource>>,
) -> Result<Repository> {
    open_with_index(host, objects, sources, host.folder("index")?)
}

/// Opens what somebody else serves: it is believed nothing but chunks, by their ids.
pub(super) fn open_stranger(
    host: &HostDir,
    objects: Arc<dyn Objects>,
    location: &str,
) -> Result<Repository> {
    let index = blake3::hash(location.as_bytes()).to_hex();
    let index = host.folder("index")?.join(format!("at-{}", &index[..16]));
    open_with_index(host, objects, Vec::new(), index)
}

/// As [`open_with_keys`], with the copy of its index in a folder of its own: for who could say to be
/// another repository, and is believed nothing.
pub(super) fn open_with_index(
    host: &HostDir,
    objects: Arc<dyn Objects>,
    sources: Vec<Arc<dyn ChunkSource>>,
    index: std::path::PathBuf,
) -> Result<Repository> {
    let local_dir = Some(index);
    let open = |key: Option<MasterKey>| {
        let open = Open { key, local_dir: local_dir.clone(), sources: sources.clone() };
        Repository::open(objects.clone(), open)
    };
    let first = match open(None) {
        Err(error @ RepositoryError::NeedsKey { .. }) => error,
        other => return Ok(other?),
    };
    let mut tried = 0;
    for entry in std::fs::read_dir(host.folder("keys")?)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "key") {
            continue;
        }
        let key = repository::import_key(&std::fs::read_to_string(&path)?)
            .map_err(|e| Failure::from(e).during(path.display()))?;
        tried += 1;
        match open(Some(key)) {
            Err(RepositoryError::WrongKey { .. }) => {}
            other => return Ok(other?),
        }
    }
    let failure = Failure::from(first);
    Err(if tried == 0 {
        failure
    } else {
        Failure::new(
            "key",
            format!("{} (none of this host's {tried} keys fits)", failure.message),
            failure.hint,
        )
    })
}
