//! Why the store did not do what it was asked.

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// Nobody answered in time; what was asked did not happen.
    #[error("{location} does not answer: {detail}")]
    Unavailable {
        /// The store.
        location: String,
        /// What was tried last.
        detail: String,
    },
    /// It was sent, and nobody knows whether it happened. Look before you do it again.
    #[error("{location} did not say whether it was done: {detail}")]
    Unknown {
        /// The store.
        location: String,
        /// What was tried last.
        detail: String,
    },
    /// The lease is over, or never was.
    #[error("the lease is over")]
    LeaseGone,
    /// The watch cannot go on without leaving something out.
    #[error("the watch has ended ({detail}): list again, and watch from there")]
    WatchEnded {
        /// Why.
        detail: String,
    },
    /// No store would do this.
    #[error("the store cannot take {detail}")]
    Invalid {
        /// What.
        detail: String,
    },
    /// Another process has the file.
    #[error("{location} is in use by another process")]
    InUse {
        /// The file.
        location: String,
    },
    /// The store is full.
    #[error("no space left in {location}: {detail}")]
    NoSpace {
        /// The store.
        location: String,
        /// What it said.
        detail: String,
    },
    /// The store refused us.
    #[error("{location} refuses: {detail}")]
    Denied {
        /// The store.
        location: String,
        /// What it said.
        detail: String,
    },
    /// A file of PEM that cannot be used.
    #[error("cannot use {file}: {detail}")]
    Unusable {
        /// The file.
        file: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Who answers has not shown that it is the store.
    #[error("{location} is not believed: {detail}")]
    Untrusted {
        /// The store.
        location: String,
        /// What is wrong with what it showed.
        detail: String,
    },
    /// The store does not believe us.
    #[error("{location} does not accept this plane's certificate, or wants one: {detail}")]
    Stranger {
        /// The store.
        location: String,
        /// What it said.
        detail: String,
    },
    /// It was written by a newer program.
    #[error("{location} has format {found}; this program knows {known}")]
    Newer {
        /// The file.
        location: String,
        /// Its format.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// The store is damaged, or its disk.
    #[error("{location} is broken: {detail}")]
    Broken {
        /// The store.
        location: String,
        /// What was seen.
        detail: String,
    },
}

impl KvError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } | Self::Unknown { .. } => {
                "nothing is lost: see that the store runs and can be reached (by TLS: etcds://, without: etcd://), and try again"
            }
            Self::LeaseGone | Self::WatchEnded { .. } | Self::Invalid { .. } => "",
            Self::InUse { .. } => {
                "another plane uses it; several planes side by side need etcd: --state etcd://..."
            }
            Self::NoSpace { .. } => "free some space; nothing that was stored is lost",
            Self::Denied { .. } => "check who may read and write it",
            Self::Unusable { .. } => {
                "--etcd-cacert, --etcd-cert and --etcd-key name files of PEM, as for etcdctl"
            }
            Self::Untrusted { .. } => {
                "--etcd-cacert names who signs the members' certificates; --state names members as these do"
            }
            Self::Stranger { .. } => {
                "--etcd-cert and --etcd-key name one that is signed by etcd's --trusted-ca-file"
            }
            Self::Newer { .. } => "use the newer program",
            Self::Broken { .. } => {
                "begin with an empty state: hosts join again, and no computer is lost"
            }
        }
    }
}
