//! The serial console: a bounded log of what it said, a way to wait for a line, and the socket
//! for whoever wants to type.
//!
//! QEMU writes a copy of the console into a pipe; a thread of ours appends it to `console.log`
//! and keeps the last part in memory. The guest decides how much it says, so the log is bounded:
//! at [`LOG_BYTES_MAX`] it becomes `console.log.1`, replacing the one before.
//! The thread only ever writes to a local file, so that a guest never waits for long. When we
//! die, QEMU dies with us, and the log keeps what was read until then.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::descriptors;

/// The socket of the console in the run directory.
pub const CONSOLE_SOCKET: &str = "console.sock";
/// The log of the console in the run directory.
pub const CONSOLE_LOG: &str = "console.log";

/// Bytes of `console.log`, and as many again in `console.log.1`.
pub const LOG_BYTES_MAX: u64 = 4 << 20;
/// Bytes kept in memory to search for a line.
const RECENT_BYTES_MAX: usize = 64 << 10;

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

/// What the guest said on its serial console since this QEMU started.
#[derive(Clone)]
pub struct Console {
    shared: Arc<Shared>,
    run_dir: PathBuf,
}

impl Console {
    /// Starts to record what comes out of `pipe`.
    pub(crate) fn record(pipe: PipeReader, run_dir: &Path) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let console = Self { shared: Arc::clone(&shared), run_dir: run_dir.to_owned() };
        let mut log = Log::open(run_dir.join(CONSOLE_LOG))?;
        std::thread::Builder::new().name("console".to_owned()).spawn(move || {
            copy(pipe, &mut log, &shared);
            lock(&shared.recent).ended = true;
            shared.changed.notify_all();
        })?;
        Ok(console)
    }

    /// Waits until the console has said `text`; false when the time is over or QEMU ended.
    /// Searches the last 64 KiB.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> bool {
        let deadline = ambient::now() + timeout;
        let mut recent = lock(&self.shared.recent);
        loop {
            if contains(&recent.bytes, text.as_bytes()) {
                return true;
            }
            let left = deadline.saturating_duration_since(ambient::now());
            if recent.ended || left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(recent, left);
            recent = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The last part of what was said, at most 64 KiB, as text.
    pub fn recent(&self) -> String {
        String::from_utf8_lossy(&lock(&self.shared.recent).bytes).into_owned()
    }

    /// Opens the console to read and type; one at a time, the next one waits for the first.
    pub fn attach(&self) -> io::Result<UnixStream> {
        attach(&self.run_dir)
    }
}

/// Opens the console of the instance whose run directory this is, from any process of its user.
pub fn attach(run_dir: &Path) -> io::Result<UnixStream> {
    let (_dir, path) = descriptors::short_path(run_dir, CONSOLE_SOCKET)?;
    UnixStream::connect(path)
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
        if recent.bytes.len() > 2 * RECENT_BYTES_MAX {
            let keep_from = recent.bytes.len() - RECENT_BYTES_MAX;
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
    /// Goes on after what earlier starts of the same instance have said.
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }

    /// A log that cannot be written (a full disk) loses lines; the guest goes on.
    fn append(&mut self, said: &[u8]) {
        if self.bytes + said.len() as u64 > LOG_BYTES_MAX {
            let old = self.path.with_extension("log.1");
            let opened =
                std::fs::rename(&self.path, old).and_then(|()| Self::open(self.path.clone()));
            match opened {
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
        let dir = std::env::temp_dir().join(format!("vmm-console-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let console = Console::record(reader, &dir).unwrap();
        assert!(!console.wait_for("login", Duration::from_millis(10)));
        writer.write_all(b"debian log").unwrap();
        writer.write_all(b"in: ").unwrap();
        assert!(console.wait_for("login:", Duration::from_secs(10)));
        let chatter = vec![b'x'; LOG_BYTES_MAX as usize];
        writer.write_all(&chatter).unwrap();
        writer.write_all(b"the end").unwrap();
        assert!(console.wait_for("the end", Duration::from_secs(10)));
        assert!(console.recent().len() <= 2 * RECENT_BYTES_MAX);
        drop(writer);
        assert!(!console.wait_for("more", Duration::from_secs(60)));
        for name in [CONSOLE_LOG, "console.log.1"] {
            assert!(std::fs::metadata(dir.join(name)).unwrap().len() <= LOG_BYTES_MAX, "{name}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
