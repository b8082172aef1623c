//! What a version was built from: hashes, for who wants to build it again and compare.
//!
//! It lies beside what makes the version its appliance's newest, and not in its record: the same content is
//! the same version, whoever built it from what.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Files of a recipe's folder that are hashed, at most. A folder with more is no recipe's alone, and has no
/// hash.
const FILES_MAX: usize = 1 << 14;
/// How deep.
const DEPTH_MAX: usize = 32;

/// See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The version that it is of.
    pub version: String,
    /// The program that built it.
    pub by: String,
    /// BLAKE3 of the recipe's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// BLAKE3 of the packages in it, by name and version, a line each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<String>,
}

/// The hash of a list of packages.
pub fn of_packages(packages: &[(String, String)]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, version) in packages {
        hasher.update(format!("{name} {version}\n").as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

/// The hash of a folder: of every file below it, in the order of their paths, its path, whether it may be
/// executed, and its content; of a link, where it leads.
pub fn of_folder(folder: &Path) -> Option<String> {
    let (mut files, mut hasher) = (Vec::new(), blake3::Hasher::new());
    collect(folder, Path::new(""), &mut files, 0)?;
    files.sort();
    for path in files {
        let at = folder.join(&path);
        let kind = fs::symlink_metadata(&at).ok()?;
        let (what, content) = if kind.is_symlink() {
            ("link", blake3::hash(fs::read_link(&at).ok()?.as_os_str().as_bytes()))
        } else {
            let mut content = blake3::Hasher::new();
            content.update_reader(fs::File::open(&at).ok()?).ok()?;
            let what = if kind.permissions().mode() & 0o100 != 0 { "program" } else { "file" };
            (what, content.finalize())
        };
        let name = path.as_os_str().as_bytes();
        hasher.update(format!("{what} {} {} ", content.to_hex(), name.len()).as_bytes());
        hasher.update(name);
        hasher.update(b"\n");
    }
    Some(hasher.finalize().to_hex().to_string())
}

fn collect(
    folder: &Path,
    below: &Path,
    files: &mut Vec<std::path::PathBuf>,
    depth: usize,
) -> Option<()> {
    for entry in fs::read_dir(folder.join(below)).ok()? {
        let entry = entry.ok()?;
        let (path, kind) = (below.join(entry.file_name()), entry.file_type().ok()?);
        if files.len() >= FILES_MAX || depth >= DEPTH_MAX {
            return None;
        }
        if kind.is_dir() {
            collect(folder, &path, files, depth + 1)?;
        } else if kind.is_file() || kind.is_symlink() {
            files.push(path);
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_hash_and_whatever_counts_changes_it() {
        let make = || {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir_all(folder.path().join("files/etc")).unwrap();
            fs::write(folder.path().join("appliance.yaml"), "name: web\n").unwrap();
            fs::write(folder.path().join("files/etc/motd"), "hello").unwrap();
            folder
        };
        let (one, other) = (make(), make());
        let first = of_folder(one.path()).unwrap();
        assert_eq!(of_folder(other.path()).unwrap(), first, "wherever it lies");
        let motd = other.path().join("files/etc/motd");
        let mut seen = vec![first];
        let mut differs = |what: &str| {
            let now = of_folder(other.path()).unwrap();
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        fs::write(&motd, "hello!").unwrap();
        differs("another content");
        fs::set_permissions(&motd, fs::Permissions::from_mode(0o755)).unwrap();
        differs("it may be executed");
        fs::rename(&motd, other.path().join("files/motd")).unwrap();
        differs("another place");
        std::os::unix::fs::symlink("motd", other.path().join("files/etc/motd")).unwrap();
        differs("a link");
        assert_eq!(of_folder(&other.path().join("nowhere")), None);
    }
}
