//! The master key as text, and the file that may hold it inside a repository in a folder.
//!
//! The text form is one line: `collective-key-1:<64 hexadecimal digits>:<8 digits of checksum>`.
//! The checksum finds a typing error; it says nothing about which repository the key opens
//! (the configuration's key check does).

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use chunk::crypt::MasterKey;
use zeroize::Zeroizing;

use crate::RepositoryError;
use crate::layout::KEY;
use crate::wire::{hex, unhex};

const PREFIX: &str = "collective-key-1";
const TEXT_BYTES_MAX: u64 = 256;

/// Where a private repository's key is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPlace {
    /// With the host; the store never has it.
    Host,
    /// In the object `key` of a repository in a folder, readable by its owner alone: for one
    /// computer with one disk, where a lost key would be worse than a read one.
    InRepository,
}

/// Makes a new key.
pub fn new_key() -> MasterKey {
    MasterKey::from_bytes(ambient::random())
}

/// The key as one line of text, to be written down or moved to another host.
pub fn export_key(key: &MasterKey) -> Zeroizing<String> {
    let digits = Zeroizing::new(hex(key.expose()));
    let sum = checksum(key.expose());
    Zeroizing::new(format!("{PREFIX}:{}:{}", &*digits, hex(&sum)))
}

/// Reads what [`export_key`] wrote; surrounding white space does not matter.
pub fn import_key(text: &str) -> Result<MasterKey, RepositoryError> {
    let bad = |detail: &str| RepositoryError::NotAKey { detail: detail.to_owned() };
    let mut parts = text.trim().split(':');
    match parts.next() {
        Some(PREFIX) => {}
        Some(other) if other.starts_with("collective-key-") => {
            return Err(bad("it was exported by a newer Collective"));
        }
        _ => return Err(bad("it does not begin with collective-key-1:")),
    }
    let (Some(digits), Some(sum), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(bad("it does not have three parts"));
    };
    let bytes = Zeroizing::new(unhex::<32>(digits).ok_or(bad("it is cut or has a wrong digit"))?);
    if unhex(sum) != Some(checksum(&bytes)) {
        return Err(bad("its checksum does not match: a digit is wrong"));
    }
    Ok(MasterKey::from_bytes(*bytes))
}

fn checksum(key: &[u8; 32]) -> [u8; 4] {
    // A derived digest of 32 bits tells too little about a random key to matter.
    let digest = blake3::derive_key("collective 2026 exported key checksum", key);
    [digest[0], digest[1], digest[2], digest[3]]
}

/// Places a key in the folder of a repository that has no configuration yet, mode 0600, in one
/// step. Gives the key that is there then: one that another `init` placed, which died or is
/// racing us, stays, so that it fits whichever configuration is created.
pub(crate) fn place_key_file(folder: &Path, key: &MasterKey) -> Result<MasterKey, RepositoryError> {
    let path = folder.join(KEY);
    let temporary = folder.join(format!("{KEY}-{}", hex(&ambient::random::<8>())));
    let error = local_error(&path);
    let place = || {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(export_key(key).as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::hard_link(&temporary, &path)?;
        fs::File::open(folder)?.sync_all()
    };
    let placed = place();
    // Its second name, or a part of it: neither must stay behind.
    let _ = fs::remove_file(&temporary);
    match placed {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        other => other.map_err(&error)?,
    }
    read_key_file(folder)?.ok_or_else(|| error(ErrorKind::NotFound.into()))
}

/// Reads the key from the repository's folder, if it is there for us: one that only another user
/// may read is none.
pub(crate) fn read_key_file(folder: &Path) -> Result<Option<MasterKey>, RepositoryError> {
    let path = folder.join(KEY);
    let error = local_error(&path);
    let file = match fs::File::open(&path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            return Ok(None);
        }
        other => other.map_err(&error)?,
    };
    let mut text = Zeroizing::new(String::new());
    file.take(TEXT_BYTES_MAX).read_to_string(&mut text).map_err(&error)?;
    import_key(&text).map(Some)
}

fn local_error(path: &Path) -> impl Fn(std::io::Error) -> RepositoryError {
    let path = path.display().to_string();
    move |error| RepositoryError::Local { path: path.clone(), detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text_and_no_other_text_is_one() {
        let key = new_key();
        let text = export_key(&key);
        assert_eq!(import_key(&format!(" {}\n", &*text)).unwrap().expose(), key.expose());
        let mut flipped = text.to_string();
        let digit = flipped.as_bytes()[20];
        flipped.replace_range(20..21, if digit == b'0' { "1" } else { "0" });
        let newer = text.replacen("key-1", "key-2", 1);
        for bad in ["", "collective-key-1", &flipped, &newer, &text[..text.len() - 1]] {
            let error = import_key(bad).unwrap_err();
            assert!(matches!(error, RepositoryError::NotAKey { .. }), "{error}");
        }
        assert!(import_key(&newer).unwrap_err().to_string().contains("newer"));
    }

    #[test]
    fn the_key_file_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        assert!(read_key_file(dir.path()).unwrap().is_none());
        let key = new_key();
        assert_eq!(place_key_file(dir.path(), &key).unwrap().expose(), key.expose());
        let second = place_key_file(dir.path(), &new_key()).unwrap();
        assert_eq!(second.expose(), key.expose(), "the first stays");
        assert_eq!(read_key_file(dir.path()).unwrap().unwrap().expose(), key.expose());
        let mode = fs::metadata(dir.path().join(KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
