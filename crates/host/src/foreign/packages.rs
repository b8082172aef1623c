//! The packages of a foreign system, as its package manager wrote them on its disks: dpkg's list and apk's, on
//! ext2, ext3 and ext4. Whoever publishes it says with them what is in it.
//!
//! Nothing is run and nothing mounted (`files` says how a stranger's disk is read). What cannot be read
//! hinders nobody: then nothing is said of its packages, and why not.
//!
//! RPM's list is a database of several kinds, and a disk behind LVM or encryption is not one of the parts that are
//! looked at: neither is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use files::{FileSystem, FilesError};
use model::Media;

use super::computer::Disk;

/// The longest list that is read, bytes: a desktop's has 4 MiB.
const LIST_BYTES_MAX: u64 = 64 << 20;
/// The longest description of a system that is read, bytes.
const RELEASE_BYTES_MAX: u64 = 64 << 10;
/// Names and versions together, bytes at most: a record has to hold them.
const ALL_BYTES_MAX: usize = 512 << 10;
/// Of one name or version, bytes.
const WORD_BYTES_MAX: usize = 256;

/// How a system says what it is: the first that is there.
const RELEASES: [&str; 2] = ["/usr/lib/os-release", "/etc/os-release"];
/// Where a package manager keeps its list; the shorter path is that on a part of its own for `/var`.
const LISTS: [(&str, Kind); 3] = [
    ("/var/lib/dpkg/status", Kind::Deb),
    ("/lib/apk/db/installed", Kind::Apk),
    ("/lib/dpkg/status", Kind::Deb),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Deb,
    Apk,
}

impl Kind {
    /// The type of a package URL, and the distribution where the system does not say which it is.
    fn says(self) -> (&'static str, &'static str) {
        match self {
            Self::Deb => ("deb", "debian"),
            Self::Apk => ("apk", "alpine"),
        }
    }
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Packages {
    /// Names and versions, by name.
    pub list: Vec<(String, String)>,
    /// Whose they are, as a package URL begins: `deb/ubuntu`.
    pub of: Option<String>,
    /// Why something could not be read.
    pub note: Option<String>,
}

/// Looks for them on these disks.
pub fn find(disks: &[Disk]) -> Packages {
    let (mut found, mut distribution) = (None, None);
    let mut note = None;
    for disk in disks.iter().filter(|disk| disk.media == Media::Disk) {
        // A disk that is not whole is no disk that is read; its import says so if it matters.
        let Some(file) = disk.content.file.as_ref().and_then(|file| file.try_clone().ok()) else {
            continue;
        };
        let bytes: Arc<dyn files::Disk> = Arc::new(file);
        let mut look = |error: FilesError| {
            let said = || format!("its packages are not listed: disk {}: {error}", disk.name);
            note.get_or_insert_with(said);
        };
        let parts = files::parts(&*bytes).unwrap_or_else(|error| {
            look(error);
            Vec::new()
        });
        for part in parts {
            let system = match FileSystem::open(bytes.clone(), &part) {
                Ok(system) => system,
                Err(FilesError::Unknown { .. }) => continue,
                Err(error) => {
                    look(error);
                    continue;
                }
            };
            for path in RELEASES {
                if distribution.is_some() {
                    break;
                }
                let text = read(&system, path, RELEASE_BYTES_MAX).unwrap_or_default();
                distribution = text.as_deref().and_then(id_of);
            }
            for (path, kind) in LISTS {
                if found.is_some() {
                    break;
                }
                match read(&system, path, LIST_BYTES_MAX) {
                    Ok(Some(text)) => found = Some((kind, text)),
                    Ok(None) => {}
                    Err(error) => look(error),
                }
            }
        }
    }
    let Some((kind, text)) = found else { return Packages { note, ..Packages::default() } };
    let list = match kind {
        Kind::Deb => build::installed(&text),
        Kind::Apk => of_apk(&text),
    };
    let is_word = |word: &String| {
        (1..=WORD_BYTES_MAX).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_graphic())
    };
    let list: Vec<_> = list.into_iter().filter(|(name, v)| is_word(name) && is_word(v)).collect();
    let bytes: usize = list.iter().map(|(name, version)| name.len() + version.len() + 8).sum();
    if bytes > ALL_BYTES_MAX {
        let note = format!("its {} packages are not listed: they are too many", list.len());
        return Packages { note: Some(note), ..Packages::default() };
    }
    let (type_, usual) = kind.says();
    let of =
        (!list.is_empty()).then(|| format!("{type_}/{}", distribution.as_deref().unwrap_or(usual)));
    Packages { list, of, note: None }
}

/// A text; none: there is none.
fn read(system: &FileSystem, path: &str, bytes_max: u64) -> files::Result<Option<String>> {
    let not_there = |error: FilesError| match error {
        FilesError::NotFound { .. } | FilesError::WrongKind { .. } => Ok(None),
        error => Err(error),
    };
    let path = match system.follow(path.as_bytes()) {
        Ok(path) => path,
        Err(error) => return not_there(error),
    };
    let size = system.stat(&path)?.size_bytes;
    if size > bytes_max {
        let detail = format!("{} has {size} bytes", String::from_utf8_lossy(&path).escape_debug());
        return Err(FilesError::Damaged { detail });
    }
    let mut content = Vec::new();
    while (content.len() as u64) < size {
        match system.read(&path, content.len() as u64, 1 << 20) {
            Ok(more) if more.is_empty() => break,
            Ok(more) => content.extend(more),
            Err(error) => return not_there(error),
        }
    }
    Ok(Some(String::from_utf8_lossy(&content).into_owned()))
}

/// `ID` of an os-release (<https://www.freedesktop.org/software/systemd/man/os-release.html>).
fn id_of(text: &str) -> Option<String> {
    let id = text.lines().find_map(|line| line.strip_prefix("ID="))?;
    let id = id.trim().trim_matches(['"', '\'']);
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let fits = (1..=64).contains(&id.len()) && id.bytes().all(plain);
    fits.then(|| id.to_owned())
}

/// What apk's list says is installed: paragraphs of lines, a letter before each.
fn of_apk(text: &str) -> Vec<(String, String)> {
    let mut packages = BTreeMap::new();
    for paragraph in text.split("\n\n") {
        let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name));
        if let (Some(name), Some(version)) = (field("P:"), field("V:")) {
            packages.insert(name.to_owned(), version.to_owned());
        }
    }
    packages.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apks_list_is_read() {
        let text =
            "C:Q1x=\nP:musl\nV:1.2.5-r0\nA:x86_64\nF:lib\nR:libc.so\n\nP:busybox\nV:1.36\n\nX:y\n";
        let found = of_apk(text);
        let is = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        assert_eq!(found, [is("busybox", "1.36"), is("musl", "1.2.5-r0")]);
    }

    #[test]
    fn a_system_says_what_it_is() {
        let text =
            "PRETTY_NAME=\"Ubuntu 24.04\"\nVERSION_ID=\"24.04\"\nID=ubuntu\nID_LIKE=debian\n";
        assert_eq!(id_of(text).as_deref(), Some("ubuntu"));
        assert_eq!(id_of("ID=\"opensuse-leap\"\n").as_deref(), Some("opensuse-leap"));
        for none in ["", "ID=", "ID=a b", "ID=../x", "PLATFORM_ID=x"] {
            assert_eq!(id_of(none), None, "{none}");
        }
    }
}
