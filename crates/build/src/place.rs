//! Places: where in the recipe a value stands, and where in the recipe's folder a file lies.

use std::fs::File;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

use crate::{BuildError, RecipeError};

/// A value with its place in the recipe, for errors that are found only later.
#[derive(Debug, Clone)]
pub(crate) struct Placed<T> {
    pub value: T,
    pub line: u64,
    pub column: u64,
}

impl<T> Placed<T> {
    pub fn error(&self, origin: &str, message: String, hint: &str) -> RecipeError {
        RecipeError {
            origin: origin.to_owned(),
            line: self.line,
            column: self.column,
            message,
            hint: hint.to_owned(),
        }
    }
}

/// A path that is relative and never climbs: it can only mean something below a folder, as long
/// as no symbolic link on the way says otherwise.
#[derive(Debug, Clone)]
pub(crate) struct RelativePath(String);

impl RelativePath {
    /// Refuses absolute paths, `..`, NUL and the folder itself.
    pub fn new(text: &str) -> Option<Self> {
        let mut names = 0;
        for part in Path::new(text).components() {
            match part {
                Component::Normal(_) => names += 1,
                Component::CurDir => {}
                _ => return None,
            }
        }
        (names > 0 && !text.contains('\0')).then(|| Self(text.to_owned()))
    }
}

impl Placed<RelativePath> {
    /// Opens the file below `folder`. Symbolic links are followed while they stay inside it: the
    /// kernel itself refuses the others, so no race can lead outside.
    pub fn open(&self, origin: &str, folder: &Path) -> Result<File, BuildError> {
        let folder_fd = openat2(
            CWD,
            folder,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            ResolveFlags::empty(),
        )
        .map_err(|e| BuildError::io("opening", folder)(e.into()))?;
        let text = &self.value.0;
        let wrong =
            |message: String, hint: &str| BuildError::from(self.error(origin, message, hint));
        let opened = openat2(
            &folder_fd,
            text.as_str(),
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK,
            Mode::empty(),
            ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
        );
        let file = match opened {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::XDEV) => {
                return Err(wrong(
                    format!("{text:?} leaves the recipe's folder through a symbolic link"),
                    "copy the file into the recipe's folder",
                ));
            }
            Err(errno) => {
                return Err(wrong(
                    format!("{text:?} cannot be opened: {}", std::io::Error::from(errno)),
                    "paths are relative to the recipe's folder",
                ));
            }
        };
        let kind = file.metadata().map_err(BuildError::io("reading", folder.join(text)))?;
        if kind.is_file() {
            Ok(file)
        } else {
            Err(wrong(format!("{text:?} is not a regular file"), "name a file, not a folder"))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.value.0
    }
}

/// An absolute path in a guest, normal: no `.`, no `..`, no doubled or trailing slash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GuestPath(String);

impl GuestPath {
    /// Refuses everything that is not absolute and normal, and the root itself.
    pub fn new(text: &str) -> Option<Self> {
        let rest = text.strip_prefix('/')?;
        let normal = text.len() <= 1024
            && rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
            && !text.contains('\0');
        normal.then(|| Self(text.to_owned()))
    }

    /// The path without its leading slash.
    pub fn relative(&self) -> &str {
        &self.0[1..]
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}
