//! Mounts left behind by a process that was killed.
//!
//! The kernel ends the connection but leaves the mount in the table: every access says "Transport
//! endpoint is not connected", and nothing can be mounted or removed there.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use rustix::io::Errno;

use crate::error::ExportError;
use crate::{fdtable, mount};

/// A live server answers in microseconds; one that takes this long is alive but stuck.
const ANSWER: Duration = Duration::from_secs(5);

/// Mounts that may lie on top of each other on one directory.
const STACKED_MAX: usize = 64;

/// What was found on a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// No FUSE file system is mounted there.
    Nothing,
    /// One is, and its process lives.
    Live,
    /// Dead ones were, so many, and are gone.
    Removed(usize),
}

/// Unmounts what a killed process left mounted on `mount_dir`; a live mount is left alone.
pub fn cleanup_stale(mount_dir: &Path) -> Result<Stale, ExportError> {
    let failed = |error: io::Error| ExportError::Unmount {
        dir: mount_dir.to_owned(),
        detail: error.to_string(),
    };
    let dir = resolve(mount_dir).map_err(failed)?;
    let mut removed = 0;
    while removed < STACKED_MAX && is_fuse_mount(&dir).map_err(failed)? {
        if !is_dead(&dir).map_err(failed)? {
            return Ok(Stale::Live);
        }
        mount::detach(&dir).map_err(failed)?;
        removed += 1;
    }
    Ok(if removed == 0 { Stale::Nothing } else { Stale::Removed(removed) })
}

/// The directory's true path, without asking what is mounted on it.
pub(crate) fn resolve(dir: &Path) -> io::Result<PathBuf> {
    match (dir.parent(), dir.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            Ok(parent.canonicalize()?.join(name))
        }
        _ => dir.canonicalize(),
    }
}

/// Whether the topmost mount on exactly this directory is FUSE.
pub(crate) fn is_fuse_mount(dir: &Path) -> io::Result<bool> {
    let table = fs::read("/proc/self/mountinfo")?;
    let mut found = false;
    for line in table.split(|byte| *byte == b'\n') {
        if let Some((point, kind)) = parse(line)
            && point == dir
        {
            found = kind == b"fuse" || kind.starts_with(b"fuse.");
        }
    }
    Ok(found)
}

/// Mount point and file system type of a line of mountinfo (proc_pid_mountinfo(5)).
fn parse(line: &[u8]) -> Option<(PathBuf, &[u8])> {
    let mut fields = line.split(|byte| *byte == b' ');
    let point = fields.nth(4)?;
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some((PathBuf::from(OsString::from_vec(unescape(point))), kind))
}

/// Spaces and the like stand as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let octal = |byte: &u8| (b'0'..=b'7').contains(byte).then(|| u32::from(byte - b'0'));
        if first == b'\\'
            && let [a, b, c, ..] = after
            && let (Some(a), Some(b), Some(c)) = (octal(a), octal(b), octal(c))
            && let Ok(byte) = u8::try_from(a * 64 + b * 8 + c)
        {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(first);
        }
    }
    bytes
}

/// Asks the mount something the kernel cannot answer from its caches, on a thread that may be
/// left behind when the server is stopped and never answers.
fn is_dead(dir: &Path) -> io::Result<bool> {
    let (answer, answered) = sync_channel(1);
    let asked = dir.to_owned();
    std::thread::Builder::new().name("export-stale".to_owned()).spawn(move || {
        // The mount may be this process's own: see `outside`.
        let _ = fdtable::leave_shared_table();
        let _ = answer.send(rustix::fs::statfs(&asked).map(drop));
    })?;
    match answered.recv_timeout(ANSWER) {
        Ok(Ok(())) | Err(RecvTimeoutError::Timeout) => Ok(false),
        Ok(Err(Errno::NOTCONN | Errno::CONNABORTED)) => Ok(true),
        // Somebody else's live mount: not ours to judge.
        Ok(Err(Errno::ACCESS | Errno::PERM)) => Ok(false),
        Ok(Err(error)) => Err(error.into()),
        Err(RecvTimeoutError::Disconnected) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines() {
        let line = b"36 35 98:0 / /mnt/a\\040b rw,noatime shared:1 - fuse.collective x rw";
        let (point, kind) = parse(line).unwrap();
        assert_eq!(point, Path::new("/mnt/a b"));
        assert_eq!(kind, b"fuse.collective");
        assert!(parse(b"").is_none());
        assert!(parse(b"1 2 3").is_none());
        assert_eq!(unescape(b"\\04"), b"\\04");
        assert_eq!(unescape(b"\\777"), b"\\777");
    }

    #[test]
    fn an_ordinary_directory_has_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(cleanup_stale(dir.path()).unwrap(), Stale::Nothing);
    }
}
