//! File descriptors over unix sockets: how QEMU gets what it may not open itself.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Descriptors in one message: a bound, far below the kernel's 253.
pub(crate) const FDS_MAX: usize = 16;

/// Sends all of `bytes`, with `fds` beside the first of them.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other("too many descriptors for one message"));
    }
    let mut sent = 0;
    while sent < bytes.len() {
        let rest = [IoSlice::new(&bytes[sent..])];
        match sendmsg(socket, &rest, &mut control, SendFlags::NOSIGNAL) {
            Ok(count) => {
                sent += count;
                control.clear();
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Receives one message of at most `bytes.len()` bytes with its descriptors, close-on-exec.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let parts = &mut [IoSliceMut::new(bytes)];
        match recvmsg(socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("more descriptors than expected"));
    }
    let mut fds = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = part {
            fds.extend(rights);
        }
    }
    Ok((message.bytes, fds))
}

/// A path that reaches `name` in `dir` however long `dir`'s own path is: unix socket addresses
/// end at 108 bytes. Valid while the returned descriptor is open.
pub(crate) fn short_path(dir: &Path, name: &str) -> io::Result<(OwnedFd, std::path::PathBuf)> {
    use std::os::fd::AsRawFd;
    let dir: OwnedFd = std::fs::File::open(dir)?.into();
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()).into();
    Ok((dir, path))
}

/// Listens at `name` in `dir`, replacing what a dead predecessor left there.
pub(crate) fn listen(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let (_dir, path) = short_path(dir, name)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn descriptors_travel_with_bytes() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(ours.as_fd(), b"hello", &[writer.as_fd()]).unwrap();
        drop(writer);
        let mut bytes = [0; 16];
        let (count, fds) = receive(theirs.as_fd(), &mut bytes).unwrap();
        assert_eq!((&bytes[..count], fds.len()), (&b"hello"[..], 1));
        std::fs::File::from(fds.into_iter().next().unwrap()).write_all(b"x").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn deep_directories_have_sockets_too() {
        let deep = std::env::temp_dir()
            .join(format!("vmm-deep-{}", std::process::id()))
            .join("d".repeat(100))
            .join("e".repeat(100));
        std::fs::create_dir_all(&deep).unwrap();
        let listener = listen(&deep, "s.sock").unwrap();
        drop(listener);
        let listener = listen(&deep, "s.sock").unwrap();
        let (_dir, path) = short_path(&deep, "s.sock").unwrap();
        UnixStream::connect(path).unwrap();
        drop(listener);
        std::fs::remove_dir_all(deep.ancestors().nth(2).unwrap()).unwrap();
    }
}
