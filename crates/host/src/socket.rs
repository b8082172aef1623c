//! One request and one reply over a unix socket, a JSON line each.
//!
//! A socket's path may be longer than the 107 bytes that the kernel takes, so both ends go through
//! `/proc/self/fd`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use api::{Asked, Reply, Request};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};

/// Longest line, bytes: the output of a guest command (16 MiB each way at most) in base64.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// The socket's name in an instance's folder.
pub const SOCKET: &str = "shim.sock";

/// Runs `with` on a short path of `name` inside `folder`.
fn with_short_path<T>(
    folder: &Path,
    name: &str,
    with: impl FnOnce(&Path) -> std::io::Result<T>,
) -> std::io::Result<T> {
    let folder = rustix::fs::open(
        folder,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    with(Path::new(&format!("/proc/self/fd/{}/{name}", folder.as_raw_fd())))
}

/// Listens in `folder`, replacing what a dead shim left there.
pub fn listen(folder: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(folder.join(SOCKET)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    with_short_path(folder, SOCKET, |path| UnixListener::bind(path))
}

/// Connects to a listening socket `name` in `folder`.
pub fn connect(folder: &Path, name: &str) -> std::io::Result<UnixStream> {
    with_short_path(folder, name, |path| UnixStream::connect(path))
}

/// Whether a shim answers in `folder`.
pub fn is_alive(folder: &Path) -> bool {
    connect(folder, SOCKET).is_ok()
}

/// Asks the shim in `folder`, and waits at most `timeout` for its reply.
///
/// A `Failed` reply comes back as the failure it is.
pub fn ask(folder: &Path, request: &Request, timeout: Duration) -> Result<Reply> {
    let mut stream = connect(folder, SOCKET).map_err(|_| {
        Failure::new(
            "state",
            "it is not running on this host",
            "`collective ps` shows what every instance is doing",
        )
    })?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    let asked = Asked { request: request.clone(), traceparent: spans::traceparent() };
    send(&mut stream, &asked)?;
    let reply: Option<Reply> = receive(&stream).map_err(|error| match error.kind {
        "timeout" => Failure::new(
            "timeout",
            format!("no answer within {} s", timeout.as_secs()),
            "it goes on in the background; `collective inspect NAME` shows what it does",
        ),
        _ => error,
    })?;
    match reply {
        Some(Reply::Failed { error }) => Err(Failure::from_body(error)),
        Some(reply) => Ok(reply),
        None => Err(Failure::new(
            "state",
            "its shim ended without an answer",
            "`collective logs NAME --shim` says why; `collective resume NAME` goes on",
        )),
    }
}

/// Writes one line.
pub fn send<T: Serialize>(stream: &mut UnixStream, value: &T) -> Result<()> {
    let mut line =
        serde_json::to_vec(value).map_err(|e| Failure::new("internal", e.to_string(), ""))?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(())
}

/// Reads one line; none when the other end closed.
pub fn receive<T: for<'de> Deserialize<'de>>(stream: &UnixStream) -> Result<Option<T>> {
    let mut line = Vec::new();
    let read = BufReader::new(stream.take(LINE_BYTES_MAX)).read_until(b'\n', &mut line);
    match read {
        Ok(0) => return Ok(None),
        Ok(_) => {}
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
            ) =>
        {
            return Err(Failure::new("timeout", "no answer in time", ""));
        }
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
        Err(e) => return Err(e.into()),
    }
    if line.last() != Some(&b'\n') {
        return Ok(None);
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|e| Failure::new("internal", format!("a line that is no message: {e}"), ""))
}
