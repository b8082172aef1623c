//! The words of `repo`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub enum Repo {
    /// Make a repository, and use it from now on when none is configured
    Init {
        /// A folder or s3://bucket/prefix
        location: String,
        /// Do not encrypt: for repositories that everyone may read
        #[arg(long)]
        public: bool,
        /// Where the key is kept: `repository` (a folder's default: a file in it) or `host`
        #[arg(long, value_name = "PLACE", value_parser = ["repository", "host"])]
        #[arg(hide_possible_values = true)]
        key: Option<String>,
        /// How long something must be unused before gc deletes it [default: 3600]
        #[arg(long, value_name = "SECONDS")]
        grace: Option<u64>,
    },
    /// Use this repository from now on
    Use {
        /// A folder, s3://bucket/prefix or https://host/path
        location: String,
    },
    /// Check that everything that is named is there and whole
    Check {
        /// Read and verify every byte
        #[arg(long)]
        read_data: bool,
        /// Read and verify every byte, and mend what is damaged or missing: from --from, what this host
        /// has cached, its sources, makers and their mirrors
        #[arg(long)]
        repair: bool,
        /// Somebody who may have it: a mirror, a copy, another repository (repeat for more)
        #[arg(long, value_name = "LOCATION", requires = "repair")]
        from: Vec<String>,
    },
    /// Put back what is damaged or lost, from a copy of this repository
    Repair {
        /// The copy: a folder, s3://bucket/prefix or https://host/path
        #[arg(long, value_name = "LOCATION")]
        from: String,
    },
    /// Make a full copy of a maker's repository, signatures and all, or bring it up to date: for a
    /// branch office (any web server on it serves it)
    Mirror {
        /// The maker's repository, or the name of a maker that this host trusts
        from: String,
        /// A folder or s3://bucket/prefix; made when it is not there
        to: String,
        /// The fingerprint of the maker's root, as the maker says it elsewhere; for a maker that this
        /// host does not trust, the first time
        #[arg(long, value_name = "FINGERPRINT")]
        root_fingerprint: Option<String>,
    },
    /// Delete what nothing has named for the repository's grace age
    Gc(Gc),
    /// Show what it holds and what that takes
    Stats,
    /// Add a place that may have more (a maker's repository, a mirror), or remove one
    Source {
        /// A folder, s3://bucket/prefix or https://host/path
        location: String,
        /// Remove it
        #[arg(long)]
        remove: bool,
    },
    /// The key of a private repository
    #[command(subcommand, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
    Key(Key),
}

#[derive(Args)]
pub struct Gc {
    /// First thin out automatic checkpoints and undone branches of all instances that rest: the last
    /// so many, and the last of so many hours, days and weeks [default: as `config keep` says]
    #[arg(long, value_name = "WHAT")]
    pub keep: Option<String>,
    /// First thin out what somebody took on the lines of instances that rest, too: checkpoints, and what
    /// suspends and stops left. Labelled ones stay, and what a fork, a branch or an update needs
    #[arg(long, value_name = "WHAT")]
    pub keep_taken: Option<String>,
    /// For makers: first take versions off the list, signed, but for so many of each channel
    #[arg(long, value_name = "NUMBER", requires = "keys")]
    pub keep_versions: Option<u32>,
    /// A key that signs: a file, or `command:PROGRAM PUBLIC` (repeat for more)
    #[arg(long = "key", value_name = "KEY", requires = "keep_versions")]
    pub keys: Vec<String>,
    /// Only say what would go, and how many bytes
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Subcommand)]
pub enum Key {
    /// Print the key: whoever has it can read everything
    Export {
        /// Write it to a file (mode 0600) instead
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Take a key, so that this host can open the repository
    Import {
        /// A file with the key; `-` reads standard input
        file: PathBuf,
    },
}
