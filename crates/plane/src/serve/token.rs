//! The token that callers show.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Reads the token, or makes one. It is complete before it has its name: two planes that begin at
/// once have the same.
pub fn read_or_make(file: &Path) -> io::Result<String> {
    if !file.exists() {
        let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        folder.map_or(Ok(()), |folder| {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)
        })?;
        let mark: [u8; 8] = ambient::random();
        let mut name = file.as_os_str().to_owned();
        name.push(format!(".{}", hex(&mark)));
        let token: [u8; 32] = ambient::random();
        let mut draft = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name)?;
        writeln!(draft, "{}", hex(&token))?;
        draft.sync_all()?;
        let linked = fs::hard_link(&name, file);
        fs::remove_file(&name)?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?,
        }
    }
    Ok(fs::read_to_string(file)?.trim().to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares in a time that does not tell where the first difference is.
pub fn is_same(one: &str, other: &str) -> bool {
    let pairs = one.bytes().zip(other.bytes());
    one.len() == other.len() && pairs.fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_read_by_its_owner() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/token");
        let token = read_or_make(&file).unwrap();
        assert_eq!(token.len(), 64);
        assert_eq!(read_or_make(&file).unwrap(), token);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        assert!(is_same(&token, &token.clone()) && !is_same(&token, &token[1..]));
        assert!(!is_same("ab", "aa"));
    }
}
