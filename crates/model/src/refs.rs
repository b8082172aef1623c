//! Names, generations and leases: what makes a version or a checkpoint visible, and who may
//! move an instance's head.

use std::fmt;

use crate::HostId;

/// A name that a person gave to an appliance or an instance.
///
/// 1 to 63 characters of `a-z 0-9 - _ .`, starting with a letter or digit; an appliance's may
/// have one `/` between maker and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError {
    /// What was written.
    pub text: String,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a name: use 1 to 63 of a-z, 0-9, '-', '_' and '.', starting with a letter or digit",
            self.text
        )
    }
}

impl std::error::Error for NameError {}

impl Name {
    /// Reads the name of an instance or an unqualified appliance (no `/`).
    pub fn new(text: &str) -> Result<Self, NameError> {
        if is_name(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError { text: text.to_owned() })
        }
    }

    /// Reads the name of an appliance: `name` or `maker/name`.
    pub fn appliance(text: &str) -> Result<Self, NameError> {
        let valid = match text.split_once('/') {
            Some((maker, name)) => is_name(maker) && is_name(name),
            None => is_name(text),
        };
        if valid { Ok(Self(text.to_owned())) } else { Err(NameError { text: text.to_owned() }) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    first
        && text.len() <= 63
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
}

/// The number of one advance of a ref; 0 means that the ref does not exist yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Generation(pub u64);

impl Generation {
    /// The generation that the next advance creates.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who may run an instance now. Whoever holds it is fenced out by the next generation of the
/// head that it did not write itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The host that may run the instance.
    pub holder: HostId,
    /// That host's name, for messages.
    pub holder_name: String,
    /// When it was granted, milliseconds since the Unix epoch by the holder's clock: for
    /// messages, never for a decision.
    pub granted_unix_ms: u64,
}

/// What an instance is doing, as users see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceState {
    /// Its CPUs run.
    Running,
    /// Its CPUs are stopped, its memory is on this host.
    Paused,
    /// Its memory, disks and devices are a checkpoint in the repository.
    Suspended,
    /// Powered off; its data disks are kept.
    Stopped,
    /// Its shim or QEMU ended without being asked to.
    Failed,
}

impl InstanceState {
    /// The word that `ps` prints.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Suspended => "suspended",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["t1", "web", "a.b-c_d", "0"] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".a", "A", "a/b", "a b", "../x", &"a".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
        assert!(Name::appliance("maker/web").is_ok());
        for bad in ["a/b/c", "/a", "a/", "../a"] {
            assert!(Name::appliance(bad).is_err(), "{bad}");
        }
    }
}
