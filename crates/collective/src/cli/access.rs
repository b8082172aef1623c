//! The words of the verbs about who may do what where a plane decides.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::At;

/// What somebody may do.
#[derive(Clone, Copy, ValueEnum)]
pub enum Role {
    Admin,
    Operator,
    User,
    Auditor,
}

const ROLES: &str = "admin (says who may do what), operator (changes everybody's instances), user (makes \
                     instances and changes those), auditor (sees, and reads the audit log)";

#[derive(Subcommand)]
pub enum Users {
    /// Add a user; with --role, one who may do that in all projects and with the plane itself
    Add {
        /// The user's name
        name: String,
        #[arg(long, value_name = "ROLE", help = ROLES, hide_possible_values = true)]
        role: Option<Role>,
        #[command(flatten)]
        at: At,
    },
    /// List users, and what they may do
    List(At),
    /// Remove a user, with the tokens; instances stay
    Remove {
        /// The user's name
        name: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Subcommand)]
pub enum Projects {
    /// Add a project; one called `default` is always there
    Add(OneProject),
    /// List the projects that you may see
    List(At),
    /// Remove a project that has no instances
    Remove(OneProject),
    /// Say what a project's instances may take, or show it; what is not said has no bound
    Quota {
        /// The project's name
        name: String,
        /// So many instances
        #[arg(long, value_name = "NUMBER")]
        instances: Option<u64>,
        /// So many CPUs, of those that are to run
        #[arg(long, value_name = "NUMBER")]
        cpus: Option<u64>,
        /// So much memory, of those that are to run
        #[arg(long, value_name = "SIZE")]
        memory: Option<String>,
        /// Make and start nothing any more once so much was put into the repository, all in all
        #[arg(long, value_name = "SIZE")]
        stored: Option<String>,
        /// No bound at all
        #[arg(long, conflicts_with_all = ["instances", "cpus", "memory", "stored"])]
        unlimited: bool,
        #[command(flatten)]
        at: At,
    },
    /// Give a user a role in a project
    Grant {
        /// The project's name
        project: String,
        /// The user's name
        user: String,
        #[arg(value_name = "ROLE", help = ROLES, hide_possible_values = true)]
        role: Role,
        #[command(flatten)]
        at: At,
    },
    /// Take a user's role in a project away
    Withdraw {
        /// The project's name
        project: String,
        /// The user's name
        user: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Args)]
pub struct OneProject {
    /// The project's name
    pub name: String,
    #[command(flatten)]
    pub at: At,
}

#[derive(Subcommand)]
pub enum Tokens {
    /// Make a token, and say it, once: the plane keeps no copy
    Create(NewToken),
    /// List your tokens; those of all, for who may read that
    List(At),
    /// Take a token back
    Revoke {
        /// Its id, as `collective token list` shows it
        id: String,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Args)]
pub struct NewToken {
    /// Whose it is [default: your own]
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// It counts in this project only
    #[arg(long, value_name = "PROJECT")]
    pub project: Option<String>,
    /// It allows no more than this role does
    #[arg(long, value_name = "ROLE", hide_possible_values = true)]
    pub role: Option<Role>,
    /// It changes nothing
    #[arg(long)]
    pub read_only: bool,
    /// How long it counts: 12h, 30d
    #[arg(long, default_value = "90d", value_name = "TIME")]
    pub expires: String,
    /// Write it to a file (mode 0600) instead
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub at: At,
}

#[derive(Subcommand)]
pub enum Audit {
    /// List who has changed what, or was refused; oldest first
    List {
        /// The last so many
        #[arg(long, default_value_t = 50, value_name = "NUMBER", conflicts_with = "all")]
        last: u64,
        /// From the beginning
        #[arg(long)]
        all: bool,
        /// Only what was about this project
        #[arg(long, value_name = "PROJECT")]
        project: Option<String>,
        #[command(flatten)]
        at: At,
    },
    /// Read all of it, and say whether anything was changed, dropped, put elsewhere or cut off; and the
    /// head, to be written down where the plane's administrators do not reach
    Verify {
        /// A head that was written down before: without it, entries that are missing at the end are
        /// found only when the plane itself still says how many there are
        #[arg(long, value_name = "NUMBER:HASH")]
        expect: Option<String>,
        #[command(flatten)]
        at: At,
    },
}

#[derive(Args)]
pub struct Events {
    /// What came after this event too: its id, as a line begins with
    #[arg(long, value_name = "ID")]
    pub after: Option<u64>,
    #[command(flatten)]
    pub at: At,
}

/// What usage is added up by.
#[derive(Clone, Copy, ValueEnum)]
pub enum By {
    User,
    Project,
    Appliance,
    Maker,
    Day,
}

#[derive(Args)]
pub struct Usage {
    /// Add it up by this
    #[arg(long, default_value = "project", value_name = "WHAT")]
    pub by: By,
    /// From this day on (UTC), for example 2026-11-01
    #[arg(long, value_name = "DAY")]
    pub since: Option<String>,
    /// Until this day, which counts too
    #[arg(long, value_name = "DAY")]
    pub until: Option<String>,
    /// Print comma-separated values
    #[arg(long, conflicts_with = "json")]
    pub csv: bool,
    #[command(flatten)]
    pub at: At,
}
