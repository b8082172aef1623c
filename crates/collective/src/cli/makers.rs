//! The words of the verbs about makers: for users, and for makers.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Start;

#[derive(Subcommand)]
pub enum Trust {
    /// Begin to trust a maker
    Add {
        /// Its repository: https://host/path, a folder or s3://bucket/prefix
        location: String,
        /// The fingerprint of its root, as the maker says it elsewhere; without it the one that is
        /// found is shown, to compare
        #[arg(long, value_name = "FINGERPRINT")]
        root_fingerprint: Option<String>,
        /// Trust the fingerprint that is found, unseen
        #[arg(short, long)]
        yes: bool,
    },
    /// List the makers that this host trusts
    List,
    /// Ask a maker for news now
    Refresh {
        /// Its name
        maker: String,
        /// This host's clock was wrong before and is right now
        #[arg(long)]
        clock_is_right: bool,
    },
    /// Name a mirror of a maker's (made by `repo mirror`): it is asked before the maker's own place
    Mirror {
        /// The maker's name
        maker: String,
        /// A folder, s3://bucket/prefix or https://host/path
        location: String,
        /// Ask it no more
        #[arg(long)]
        remove: bool,
    },
    /// No longer trust a maker; its instances stay as they are
    Remove {
        /// Its name
        maker: String,
    },
}

#[derive(Args)]
pub struct Catalog {
    /// Only this maker's; or all that was signed about one version: MAKER/NAME, MAKER/NAME:CHANNEL,
    /// MAKER/NAME@VERSION
    #[arg(value_name = "MAKER")]
    pub maker: Option<String>,
    /// Only what has these words in its name or description
    #[arg(long, value_name = "WORDS")]
    pub search: Option<String>,
    /// All versions, not only what channels offer
    #[arg(long)]
    pub versions: bool,
    /// Print the list of a version's packages instead, as its maker signed it (SPDX, JSON)
    #[arg(long, requires = "maker", conflicts_with_all = ["search", "versions"])]
    pub sbom: bool,
}

#[derive(Args)]
pub struct Update {
    /// The instance's name
    pub name: String,
    /// Only say what there is
    #[arg(long, conflicts_with_all = ["now", "fetch"])]
    pub check: bool,
    /// Only bring it here: it is applied when the instance next starts after a stop
    #[arg(long, conflicts_with = "now")]
    pub fetch: bool,
    /// Apply it now: a running instance is stopped and started again (this is the default)
    #[arg(long)]
    pub now: bool,
    /// To this version, instead of what its channel offers
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
    /// Follow this channel from now on
    #[arg(long, value_name = "CHANNEL")]
    pub channel: Option<String>,
    /// What becomes of new versions from now on: auto, ask, or pinned (it stays at its version)
    #[arg(long, value_parser = ["auto", "ask", "pinned"], hide_possible_values = true)]
    pub updates: Option<String>,
    /// Fetch at most so much a second: 500KiB
    #[arg(long, value_name = "SIZE")]
    pub rate: Option<String>,
    /// Pull the plug of a running instance instead of asking its guest to power off
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub start: Start,
}

#[derive(Args)]
pub struct Diff {
    /// From: MAKER/NAME@VERSION, MAKER/NAME:CHANNEL, NAME of an appliance or an instance, or
    /// NAME@CHECKPOINT
    #[arg(value_name = "A")]
    pub from: String,
    /// To
    #[arg(value_name = "B")]
    pub to: String,
    /// Also which files on the system disks (reads the disks)
    #[arg(long)]
    pub files: bool,
}

#[derive(Args)]
pub struct Rollback {
    /// The instance's name
    pub name: String,
    /// Pull the plug of a running instance instead of asking its guest to power off
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub start: Start,
}

/// Keys that sign.
#[derive(Args, Clone)]
pub struct Keys {
    /// A key that signs: a file, or `command:PROGRAM PUBLIC` (repeat for more)
    #[arg(long = "key", value_name = "KEY", required = true)]
    pub keys: Vec<String>,
}

#[derive(Args)]
pub struct Publish {
    /// The appliance, in this host's repository
    #[arg(required_unless_present = "again")]
    pub appliance: Option<String>,
    /// The version's number, for example 1.4.0: what it names never changes
    #[arg(long = "version", value_name = "NUMBER", required_unless_present = "again")]
    pub number: Option<String>,
    /// The channel that offers it from now on
    #[arg(long, default_value = "stable")]
    pub channel: String,
    /// Where to: a folder that a web server shows, or s3://bucket/prefix; made when it is new
    #[arg(long, value_name = "LOCATION")]
    pub to: String,
    /// Your name as a maker, when nothing was published there yet
    #[arg(long, value_name = "NAME")]
    pub maker: Option<String>,
    #[command(flatten)]
    pub keys: Keys,
    /// Only sign again what is there, so that it stays valid
    #[arg(long)]
    pub again: bool,
    /// What changed, for people
    #[arg(long, default_value = "", hide_default_value = true)]
    pub notes: String,
    /// Its licence: an SPDX expression
    #[arg(long)]
    pub licence: Option<String>,
    /// The licence's text
    #[arg(long, value_name = "FILE")]
    pub licence_file: Option<PathBuf>,
    /// First to so many of a hundred instances
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub percent: u8,
    /// Not before so long from now (30m, 12h, 7d): until then the channel offers what it did
    #[arg(long, value_name = "TIME", conflicts_with = "emergency")]
    pub after: Option<String>,
    /// To everybody at once
    #[arg(long)]
    pub emergency: bool,
    /// An update has to be ready this soon, or it is undone [default: 180]
    #[arg(long, value_name = "SECONDS")]
    pub healthy_within: Option<u64>,
    /// A program in the guest that says by its exit code whether all is well after an update
    #[arg(long, value_name = "COMMAND")]
    pub health: Option<String>,
    /// A program in the guest that brings the data of the version before to this one's form, once
    #[arg(long, value_name = "COMMAND")]
    pub migrate: Option<String>,
    /// Older versions have to be updated to this one first
    #[arg(long, value_name = "NUMBER")]
    pub least: Option<String>,
    /// Do not publish what differs from the channel's version before: quicker here, and more to fetch
    /// for users
    #[arg(long)]
    pub no_delta: bool,
}

#[derive(Args)]
pub struct Promote {
    /// The appliance
    pub appliance: String,
    /// The channel whose version it is, for example beta
    pub from: String,
    /// The channel that is to offer it too, for example stable
    pub channel: String,
    /// Your repository
    #[arg(long, value_name = "LOCATION")]
    pub to: String,
    /// First to so many of a hundred instances
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub percent: u8,
    /// Not before so long from now (30m, 12h, 7d): until then the channel offers what it did
    #[arg(long, value_name = "TIME")]
    pub after: Option<String>,
    #[command(flatten)]
    pub keys: Keys,
}

#[derive(Args)]
pub struct Yank {
    /// The appliance
    pub appliance: String,
    /// The version's number
    #[arg(value_name = "VERSION")]
    pub number: String,
    /// Why, for its users
    #[arg(long)]
    pub reason: String,
    /// Your repository
    #[arg(long, value_name = "LOCATION")]
    pub to: String,
    #[command(flatten)]
    pub keys: Keys,
}

#[derive(Subcommand)]
pub enum SigningKey {
    /// Make a key
    New {
        /// The file to write (mode 0600)
        file: PathBuf,
        /// Without a passphrase
        #[arg(long)]
        plain: bool,
    },
    /// Print the public part of a key
    Show {
        /// The key
        key: String,
    },
    /// Let somebody else sign a part of the names, with keys of their own
    Delegate {
        /// What you call this person: small letters, digits and -
        name: String,
        /// Names of appliances that are theirs: `web`, or `web*` for all that begin so
        #[arg(required = true)]
        part: Vec<String>,
        /// Your repository
        #[arg(long, value_name = "LOCATION")]
        to: String,
        /// Their public keys, and how many of them must sign (2:KEY,KEY,KEY)
        #[arg(long, value_name = "KEYS")]
        by: String,
        #[command(flatten)]
        keys: Keys,
    },
    /// Let a delegate sign nothing any more; what they signed is offered no more
    Revoke {
        /// What you call this person
        name: String,
        /// Your repository
        #[arg(long, value_name = "LOCATION")]
        to: String,
        /// Sign yourself what they signed, so that it stays
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        keys: Keys,
    },
    /// Replace the keys of a maker's repository; what is there is signed again
    Rotate {
        /// Your repository
        #[arg(long, value_name = "LOCATION")]
        to: String,
        /// Who may say who may sign: public keys, and how many of them must (2:KEY,KEY,KEY)
        #[arg(long, value_name = "KEYS")]
        root: String,
        /// Who may sign versions
        #[arg(long, value_name = "KEYS")]
        targets: String,
        /// Who may say what is current
        #[arg(long, value_name = "KEYS")]
        online: String,
        #[command(flatten)]
        keys: Keys,
    },
}
