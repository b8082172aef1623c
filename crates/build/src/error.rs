//! What can go wrong, each with enough to tell a user the kind and the next step.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// What is wrong with a recipe, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipeError {
    /// The file, as the user named it.
    pub origin: String,
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for RecipeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.origin, self.line, self.column, self.message)
    }
}

impl std::error::Error for RecipeError {}

/// Why an appliance could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The recipe is wrong, or names a file that is not there.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// Building needs to make device nodes, mounts and files of other users.
    #[error("building an appliance from packages needs root")]
    NotRoot,
    /// A program that the build uses is not installed.
    #[error("the program {tool} is not installed")]
    MissingTool {
        /// The program.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// The system's apt configuration has no Debian source.
    #[error("apt has no Debian source configured from which to take the suite {suite}")]
    NoSource {
        /// The suite that was asked for.
        suite: String,
    },
    /// apt could not find or fetch packages.
    #[error("packages of {suite}: {detail}")]
    Packages {
        /// The suite.
        suite: String,
        /// apt's own words.
        detail: String,
    },
    /// A program that the build started failed.
    #[error("{doing} failed ({status}): {detail}")]
    Failed {
        /// What was being done.
        doing: String,
        /// How the program ended.
        status: String,
        /// The end of what it printed.
        detail: String,
    },
    /// The content does not fit on the disk.
    #[error("disk {disk}: its content does not fit: {detail}")]
    DiskTooSmall {
        /// The disk.
        disk: String,
        /// The words of the program that wrote the file system.
        detail: String,
    },
    /// A kernel that cannot be used.
    #[error("kernel: {detail}")]
    Kernel {
        /// What is wrong with it.
        detail: String,
    },
    /// A file or folder could not be read or written.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done, for example `writing`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
}

impl BuildError {
    /// A word for programs, one of those in docs/errors.md.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Recipe(_) => "recipe",
            Self::NotRoot => "permission",
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => "no_space",
            Self::Io { .. } => "io",
            _ => "build",
        }
    }

    /// What the user can do next.
    pub fn hint(&self) -> String {
        match self {
            Self::Recipe(error) => error.hint.clone(),
            Self::NotRoot => "run the same command with sudo, or as root".into(),
            Self::MissingTool { package, .. } => format!("install it: apt-get install {package}"),
            Self::NoSource { .. } => {
                "add a Debian source to /etc/apt/sources.list.d, then apt-get update".into()
            }
            Self::Packages { .. } => {
                "check the package's name in the recipe, and the network if apt could not fetch"
                    .into()
            }
            Self::Failed { .. } => {
                "the build's log in the work folder has all of its output".into()
            }
            Self::DiskTooSmall { disk, .. } => {
                format!("raise `size` of the disk {disk} in the recipe")
            }
            Self::Kernel { .. } => {
                "use a Debian kernel package, or a bzImage or ELF file of your own".into()
            }
            Self::Io { .. } => "check free space and permissions there".into(),
        }
    }

    /// An adapter for `map_err`: what was being done to which path.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> BuildError {
        let path = path.into();
        move |source| BuildError::Io { doing, path, source }
    }
}
