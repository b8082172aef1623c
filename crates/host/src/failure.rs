//! A failure as a person meets it: a kind to branch on, what happened, and the next step.

use std::fmt;

use api::ErrorBody;
use model::Name;

/// Every error that leaves this crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A stable word: see `docs/errors.md`.
    pub kind: &'static str,
    /// What happened.
    pub message: String,
    /// What to do next; empty when there is nothing to say.
    pub hint: String,
}

/// The result of everything in this crate.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: hint.into() }
    }

    /// Puts what was being done in front of the message.
    pub fn during(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// Says what is to be done after what its hint says.
    pub fn and(mut self, next: &str) -> Self {
        self.hint = if self.hint.is_empty() {
            next.to_owned()
        } else {
            format!("{}; then {next}", self.hint)
        };
        self
    }

    /// Puts the instance's name where who found out did not know it: in the commands that it names.
    pub fn about(self, name: &Name) -> Self {
        Self { message: with_name(&self.message, name), hint: with_name(&self.hint, name), ..self }
    }

    /// The wire form.
    pub fn body(&self) -> ErrorBody {
        ErrorBody {
            kind: self.kind.to_owned(),
            message: self.message.clone(),
            hint: self.hint.clone(),
        }
    }

    /// From the wire form, as a shim sent it.
    pub fn from_body(body: ErrorBody) -> Self {
        let kind = KINDS.iter().find(|kind| **kind == body.kind).copied().unwrap_or("internal");
        Self { kind, message: body.message, hint: body.hint }
    }
}

/// Text of ours, in which a command between backticks may say NAME.
pub(crate) fn with_name(text: &str, name: &Name) -> String {
    let parts = text.split('`').enumerate().map(|(at, part)| match at % 2 {
        1 if part.starts_with("collective ") => part.replace(" NAME", &format!(" {name}")),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}

/// Every kind that exists, in the order of `docs/errors.md`.
pub const KINDS: &[&str] = &[
    "usage",
    "not_found",
    "exists",
    "state",
    "quota",
    "lease",
    "fenced",
    "not_ready",
    "agent",
    "repository",
    "unavailable",
    "changed",
    "damaged",
    "key",
    "trust",
    "format",
    "no_space",
    "recipe",
    "build",
    "import",
    "hypervisor",
    "network",
    "permission",
    "timeout",
    "io",
    "internal",
];

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::new(
                "no_space",
                error.to_string(),
                "free some space on this host; nothing that was stored is lost",
            ),
            std::io::ErrorKind::PermissionDenied => Self::new(
                "permission",
                error.to_string(),
                "run as the user that owns COLLECTIVE_DIR, or as root",
            ),
            _ => Self::new("io", error.to_string(), "see `collective logs NAME --shim`"),
        }
    }
}

/// What to do when the repository does not answer.
const HINT_UNAVAILABLE: &str = "nothing is lost: try again when the repository can be reached";
/// What to do when bytes are not what they should be.
const HINT_DAMAGED: &str = "`collective repo check --repair` mends what somebody else still has (`--from LOCATION` names them); \
     `collective repo repair --from COPY` puts back whole objects from a copy of the repository";
/// What to do when bytes are nowhere.
const HINT_MISSING: &str = "`collective repo check` looks for what else is missing; what a maker's repository holds is found \
     when this host knows it: `collective repo source LOCATION`";
/// What to do when a disk is full.
const HINT_SPACE: &str = "free some space; nothing that was stored is lost";
/// What to do with something newer.
const HINT_NEWER: &str = "it was written by a newer Collective: use that version";

impl From<objects::ObjectError> for Failure {
    fn from(error: objects::ObjectError) -> Self {
        use objects::ObjectError as E;
        let (kind, hint) = match &error {
            E::NoSpace { .. } => ("no_space", HINT_SPACE),
            E::ReadOnly { .. } => (
                "repository",
                "use a repository of your own, with this one as a source: `collective repo init \
                 FOLDER`, then `collective repo source LOCATION`",
            ),
            E::Unsupported { .. } => (
                "repository",
                "a static web server gives only what is asked for by name: open the folder or the \
                 S3 store behind it",
            ),
            E::Denied { .. } => ("permission", "check who may read and write the repository"),
            E::Unavailable { .. } => ("unavailable", HINT_UNAVAILABLE),
            E::NotFound { .. } => {
                ("not_found", "`collective repo check` looks for what is missing")
            }
            E::NoFolder { .. } => (
                "repository",
                "is the name right, and its disk mounted? `collective repo init LOCATION` makes a \
                 new one",
            ),
            E::Invalid { .. } => (
                "repository",
                "name a repository with --repo, COLLECTIVE_REPO or `collective repo use`",
            ),
            _ => ("repository", "`collective repo check` says more"),
        };
        Self::new(kind, error.to_string(), hint)
    }
}

impl From<chunk::FetchError> for Failure {
    fn from(error: chunk::FetchError) -> Self {
        let (kind, hint) = match &error {
            chunk::FetchError::Unavailable { .. } => ("unavailable", HINT_UNAVAILABLE),
            chunk::FetchError::Missing { .. } => ("damaged", HINT_MISSING),
            _ => ("damaged", HINT_DAMAGED),
        };
        Self::new(kind, error.to_string(), hint)
    }
}

impl From<chunk::SinkError> for Failure {
    fn from(error: chunk::SinkError) -> Self {
        let (kind, hint) = match &error {
            chunk::SinkError::NoSpace { .. } => ("no_space", HINT_SPACE),
            chunk::SinkError::Unavailable { .. } => ("unavailable", HINT_UNAVAILABLE),
            chunk::SinkError::Denied { .. } => ("permission", "check who may write the repository"),
            chunk::SinkError::TooLarge { .. } => ("internal", ""),
        };
        Self::new(kind, error.to_string(), hint)
    }
}

impl From<manifest::ManifestError> for Failure {
    fn from(error: manifest::ManifestError) -> Self {
        use chunk::header::HeaderError as H;
        use manifest::ManifestError as E;
        match error {
            E::Sink(error) => error.into(),
            E::Fetch(error) => error.into(),
            E::Header(
                H::NewerVersion { .. } | H::UnknownIncompatible { .. } | H::UnknownReadOnly { .. },
            ) => Self::new("format", error.to_string(), HINT_NEWER),
            other => Self::new("damaged", other.to_string(), HINT_DAMAGED),
        }
    }
}

impl From<repository::RepositoryError> for Failure {
    fn from(error: repository::RepositoryError) -> Self {
        use repository::RepositoryError as E;
        let message = error.to_string();
        match error {
            E::NotARepository { .. } => {
                Self::new("repository", message, "`collective repo init LOCATION` makes one there")
            }
            E::ExistsAlready { .. } => {
                Self::new("exists", message, "use it with --repo, or `collective repo use`")
            }
            E::NeedsKey { .. } | E::WrongKey { .. } | E::NotAKey { .. } => Self::new(
                "key",
                message,
                "`collective repo key export` on a host that has the key, then \
                 `collective repo key import FILE` here",
            ),
            E::Probe(_) => Self::new(
                "repository",
                message,
                "heads would be lost on such a store: use a folder, or an S3 server that honours \
                 If-None-Match",
            ),
            E::Damaged { object, .. } if object.ends_with("/config") => Self::new(
                "damaged",
                message,
                "`collective repo repair --from COPY` puts it back from a copy of the repository: it never \
                 changes",
            ),
            E::Damaged { .. } => Self::new("damaged", message, HINT_DAMAGED),
            E::Header { .. } => Self::new("format", message, HINT_NEWER),
            E::Object(error) => error.into(),
            E::Fetch(error) => error.into(),
            E::Stale { .. } | E::Busy { .. } => {
                Self::new("unavailable", message, "nothing is lost: do it again")
            }
            _ => Self::new("repository", message, "`collective repo check` says more"),
        }
    }
}

impl From<repository::RefError> for Failure {
    fn from(error: repository::RefError) -> Self {
        match error {
            repository::RefError::Repository(error) => error.into(),
            other => Self::new(
                "fenced",
                other.to_string(),
                "another host has moved it; `collective ps` shows where it is",
            ),
        }
    }
}

impl From<volume::VolumeError> for Failure {
    fn from(error: volume::VolumeError) -> Self {
        Self::from(&error)
    }
}

impl From<&volume::VolumeError> for Failure {
    fn from(error: &volume::VolumeError) -> Self {
        use volume::VolumeError as E;
        let message = error.to_string();
        match error {
            E::Fetch { error, .. } => Self { message, ..error.clone().into() },
            E::Seal { error, .. } => Self { message, ..error.clone().into() },
            E::Index { error, .. } | E::SealIndex { error, .. } => {
                Self { message, ..error.clone().into() }
            }
            E::DamagedPage { .. } | E::DamagedFile { .. } => Self::new(
                "damaged",
                message,
                "`collective undo NAME` goes back to the last checkpoint, which is whole",
            ),
            E::BadSize { .. } => Self::new(
                "damaged",
                message,
                "it belongs to another hardware description; `collective undo NAME` goes back",
            ),
            E::Newer { .. } => Self::new("format", message, HINT_NEWER),
            E::NoSpace { .. } => Self::new("no_space", message, HINT_SPACE),
            E::InUse { .. } => Self::new("state", message, "`collective ps` shows what runs here"),
            E::Io { .. } => Self::new("io", message, "see `collective logs NAME --shim`"),
            _ => Self::new("internal", message, ""),
        }
    }
}

impl From<export::ExportError> for Failure {
    fn from(error: export::ExportError) -> Self {
        let refused = match &error {
            export::ExportError::Mount { source, .. } => Some(source.kind()),
            _ => None,
        };
        let (kind, hint) = match refused {
            Some(std::io::ErrorKind::PermissionDenied) => (
                "permission",
                "run as root, or let users open it: chmod 0666 /dev/fuse; `collective doctor` says \
                 what else is missing",
            ),
            Some(std::io::ErrorKind::NotFound) => (
                "permission",
                "ordinary users mount with fusermount3: install fuse3; `collective doctor` says \
                 what else is missing",
            ),
            _ => ("io", "`collective doctor` says what FUSE needs"),
        };
        Self::new(kind, error.to_string(), hint)
    }
}

impl From<import::ImportError> for Failure {
    fn from(error: import::ImportError) -> Self {
        let kind = match &error {
            import::ImportError::Form { .. } | import::ImportError::Configuration { .. } => "usage",
            import::ImportError::Io { source, .. }
                if source.kind() == std::io::ErrorKind::StorageFull =>
            {
                "no_space"
            }
            import::ImportError::Io { .. } => "io",
            _ => "import",
        };
        Self::new(kind, error.to_string(), error.hint())
    }
}

impl From<network::NetworkError> for Failure {
    fn from(error: network::NetworkError) -> Self {
        let hint = error.hint();
        Self::new("network", error.to_string(), hint)
    }
}

impl From<vmm::VmmError> for Failure {
    fn from(error: vmm::VmmError) -> Self {
        let hint = error.hint().unwrap_or("`collective logs NAME --shim` says more");
        Self::new("hypervisor", error.to_string(), hint)
    }
}

impl From<vmm::AgentError> for Failure {
    fn from(error: vmm::AgentError) -> Self {
        let kind = match error {
            vmm::AgentError::TooLong { .. } => "timeout",
            _ => "agent",
        };
        let hint = error.hint().unwrap_or("`collective inspect NAME` shows what it does");
        Self::new(kind, error.to_string(), hint)
    }
}
