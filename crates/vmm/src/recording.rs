//! What somebody says into a pipe, kept: a bounded log file and the last part in memory.
//!
//! The guest (or QEMU on its behalf) decides how much it says, so the log is bounded: at
//! [`LOG_BYTES_MAX`] it becomes `<name>.1`, replacing the one before. A thread of ours does
//! the copying and only ever writes to a local file, so that nobody waits for long at the
//! other end. A log that cannot be written (a full disk) loses lines; the speaker goes on.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of a log, and as many again in its predecessor.
pub(crate) const LOG_BYTES_MAX: u64 = 4 << 20;
/// Bytes kept in memory to search for a text: at least so many, at most twice as many.
const RECENT_BYTES: usize = 64 << 10;

#[derive(Default)]
struct Recent {
    bytes: Vec<u8>,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    recent: Mutex<Recent>,
    changed: Condvar,
}

/// What came out of one pipe since this recording started.
#[derive(Clone)]
pub(crate) struct Recording(Arc<Shared>);

impl Recording {
    /// Starts to record; goes on after what is in the file already.
    pub fn start(name: &str, pipe: PipeReader, path: &Path) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let recording = Self(Arc::clone(&shared));
        let mut log = Log::open(path.to_owned())?;
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            copy(pipe, &mut log, &shared);
            lock(&shared.recent).ended = true;
            shared.changed.notify_all();
        })?;
        Ok(recording)
    }

    /// Waits until `text` was said; false when the time is over or there is no more to come.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> bool {
        self.wait(timeout, |recent| contains(&recent.bytes, text.as_bytes()))
    }

    /// Waits until the other end is closed and all of it is recorded.
    pub fn wait_end(&self, timeout: Duration) -> bool {
        self.wait(timeout, |recent| recent.ended)
    }

    fn wait(&self, timeout: Duration, done: impl Fn(&Recent) -> bool) -> bool {
        let deadline = ambient::now() + timeout;
        let mut recent = lock(&self.0.recent);
        loop {
            if done(&recent) {
                return true;
            }
            let left = deadline.saturating_duration_since(ambient::now());
            if recent.ended || left.is_zero() {
                return false;
            }
            let waited = self.0.changed.wait_timeout(recent, left);
            recent = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The last part, as text.
    pub fn recent(&self) -> String {
        String::from_utf8_lossy(&lock(&self.0.recent).bytes).into_owned()
    }
}

fn copy(mut pipe: PipeReader, log: &mut Log, shared: &Shared) {
    let mut buffer = [0; 4096];
    loop {
        let count = match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let said = &buffer[..count];
        log.append(said);
        let mut recent = lock(&shared.recent);
        recent.bytes.extend_from_slice(said);
        // Forgotten in halves, not byte by byte.
        if recent.bytes.len() > 2 * RECENT_BYTES {
            let keep_from = recent.bytes.len() - RECENT_BYTES;
            recent.bytes.drain(..keep_from);
        }
        shared.changed.notify_all();
    }
}

struct Log {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Log {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }

    fn append(&mut self, said: &[u8]) {
        if self.bytes + said.len() as u64 > LOG_BYTES_MAX {
            let mut old = self.path.clone().into_os_string();
            old.push(".1");
            let renamed = std::fs::rename(&self.path, old);
            match renamed.and_then(|()| Self::open(self.path.clone())) {
                Ok(new) => *self = new,
                Err(_) => return,
            }
        }
        if self.file.write_all(said).is_ok() {
            self.bytes += said.len() as u64;
        }
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_kept_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        let (reader, mut writer) = std::io::pipe().unwrap();
        let recording = Recording::start("test", reader, &path).unwrap();
        assert!(!recording.wait_for("login", Duration::from_millis(10)));
        writer.write_all(b"debian log").unwrap();
        writer.write_all(b"in: ").unwrap();
        assert!(recording.wait_for("login:", Duration::from_secs(10)));
        let chatter = vec![b'x'; LOG_BYTES_MAX as usize];
        writer.write_all(&chatter).unwrap();
        writer.write_all(b"the end").unwrap();
        assert!(recording.wait_for("the end", Duration::from_secs(10)));
        assert!(recording.recent().len() <= 2 * RECENT_BYTES);
        assert!(!recording.wait_end(Duration::from_millis(10)));
        drop(writer);
        assert!(!recording.wait_for("more", Duration::from_secs(60)));
        assert!(recording.wait_end(Duration::ZERO));
        for name in ["x.log", "x.log.1"] {
            let bytes = std::fs::metadata(dir.path().join(name)).unwrap().len();
            assert!(bytes > 0 && bytes <= LOG_BYTES_MAX, "{name}: {bytes}");
        }
    }
}
