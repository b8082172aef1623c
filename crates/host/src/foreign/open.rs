//! Opening foreign files: a regular file of a plain name, or nothing.

use std::fs::File;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::failure::{Failure, Result};

/// Opens the file that a person named. Links are followed: the person may name what they like.
pub fn named(path: &Path) -> Result<File> {
    regular(rustix::fs::open(path, flags(), Mode::empty()), &path.display().to_string())
}

/// Opens the file that a foreign file names, beside it. Links are not followed.
pub fn beside(folder: &Path, name: &str) -> Result<File> {
    if !import::names::plain(name) {
        return Err(Failure::new(
            "import",
            format!("it names the file {name:?}, which is no plain name"),
            "put all of its files into one folder, and name them without folders",
        ));
    }
    let folder = File::open(folder)?;
    regular(rustix::fs::openat(&folder, name, flags() | OFlags::NOFOLLOW, Mode::empty()), name)
}

/// NONBLOCK: a pipe must not keep us waiting for somebody who writes.
fn flags() -> OFlags {
    OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK
}

fn regular(opened: rustix::io::Result<rustix::fd::OwnedFd>, name: &str) -> Result<File> {
    let file: File = match opened {
        Ok(fd) => fd.into(),
        Err(rustix::io::Errno::NOENT) => {
            return Err(Failure::new("not_found", format!("there is no file {name}"), ""));
        }
        Err(rustix::io::Errno::LOOP) => {
            return Err(Failure::new(
                "import",
                format!("{name} is a link"),
                "replace it by the file that it leads to",
            ));
        }
        Err(error) => return Err(Failure::from(std::io::Error::from(error)).during(name)),
    };
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(Failure::new("import", format!("{name} is no regular file"), "name a file"))
}
