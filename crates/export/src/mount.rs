//! Mounting and unmounting: by system call as root, through `fusermount3` as a normal user.
//!
//! `fuser` could mount as well, but its unmount logs, cannot detach or abort, and would run on a
//! thread that shares the file table (see `outside`).

use std::ffi::CString;
use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

const NAME: &str = "collective";

/// Who may do what on a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// The kernel checks owners and modes.
    Checked { allow_other: bool },
    /// Whoever mounted it may read everything, nobody else anything.
    ReadOnly,
}

impl Access {
    /// Mount options, each after a comma.
    fn options(self) -> &'static str {
        match self {
            Self::Checked { allow_other: false } => ",default_permissions",
            Self::Checked { allow_other: true } => ",default_permissions,allow_other",
            Self::ReadOnly => "",
        }
    }
}

/// Mounts a FUSE file system and returns its connection.
pub(crate) fn mount(dir: &Path, access: Access) -> io::Result<OwnedFd> {
    match mount_direct(dir, access) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            mount_by_helper(dir, access)
        }
        result => result,
    }
}

fn mount_direct(dir: &Path, access: Access) -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={}{}",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
        access.options(),
    );
    let data = CString::new(data)?;
    let mut flags =
        MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NOATIME;
    if access == Access::ReadOnly {
        flags |= MountFlags::RDONLY;
    }
    rustix::mount::mount(NAME, dir, "fuse.collective", flags, data.as_c_str())?;
    Ok(device.into())
}

/// `fusermount3` is setuid root: it opens the device, mounts, and sends the descriptor over the
/// socket named in its environment. The socket is its standard input, so that nothing else needs
/// to be inherited.
fn mount_by_helper(dir: &Path, access: Access) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut options = format!("fsname={NAME},subtype={NAME},nodev,nosuid,noexec,noatime");
    options.push_str(access.options());
    if access == Access::ReadOnly {
        options.push_str(",ro");
    }
    let mut helper = Command::new("fusermount3")
        .arg("-o")
        .arg(options)
        .arg("--")
        .arg(dir)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("fusermount3: {error}")))?;
    let device = receive(&ours);
    let mut message = String::new();
    if let Some(stderr) = helper.stderr.take() {
        stderr.take(4096).read_to_string(&mut message)?;
    }
    helper.wait()?;
    device.map_err(|error| match message.trim() {
        "" => error,
        text => io::Error::new(io::ErrorKind::PermissionDenied, text.to_owned()),
    })
}

fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(socket, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(device) = descriptors.next()
        {
            return Ok(device);
        }
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "fusermount3 sent no descriptor"))
}

/// How a mount went away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Nobody used it: everything was written back and the connection is over.
    Cleanly,
    /// A client still has files open: out of sight, and over when the last one closes.
    Detached,
}

/// Unmounts if nobody uses the mount.
pub(crate) fn unmount(dir: &Path) -> io::Result<()> {
    match rustix::mount::unmount(dir, UnmountFlags::NOFOLLOW) {
        Err(Errno::PERM) => helper_unmount(dir, false),
        result => Ok(result?),
    }
}

/// Takes the mount out of the tree although it is in use. Root also ends the connection, so that
/// clients get errors at once.
pub(crate) fn detach(dir: &Path) -> io::Result<()> {
    let flags = UnmountFlags::DETACH | UnmountFlags::FORCE | UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(dir, flags) {
        Err(Errno::PERM) => {
            match rustix::mount::unmount(dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Err(Errno::PERM) => helper_unmount(dir, true),
                result => Ok(result?),
            }
        }
        result => Ok(result?),
    }
}

fn helper_unmount(dir: &Path, lazily: bool) -> io::Result<()> {
    let output = Command::new("fusermount3")
        .args(if lazily { &["-u", "-z"][..] } else { &["-u"][..] })
        .arg("--")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let kind = if message.contains("busy") {
        io::ErrorKind::ResourceBusy
    } else {
        io::ErrorKind::PermissionDenied
    };
    Err(io::Error::new(kind, message))
}
