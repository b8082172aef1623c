//! The command line: every verb's words. The doc comment of each is its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Virtual appliances: whole computers as data. Run them anywhere, suspend here and go on there,
/// undo mistakes, and never administer anything.
#[derive(Parser)]
#[command(name = "collective", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb understands.
#[derive(Args, Clone)]
pub struct Global {
    /// Print one JSON document on standard output; text for people goes to standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Use this repository: a folder, s3://bucket/prefix or https://host/path
    #[arg(long, global = true, value_name = "LOCATION", env = "COLLECTIVE_REPO")]
    pub repo: Option<String>,
    /// Keep this host's state here [default: /var/lib/collective for root, else the XDG one]
    #[arg(long, global = true, value_name = "DIR", env = "COLLECTIVE_DIR")]
    pub dir: Option<PathBuf>,
    /// Print only what was asked for
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more about what is done (repeat for more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Say what this host can do, and what is missing
    Doctor,
    /// Build an appliance from a folder with an appliance.yaml, into the repository
    Build(Build),
    /// List the appliances of the repository
    Appliances,
    /// Start a new instance of an appliance, and wait until it is ready
    Run(Run),
    /// List instances
    Ps(Ps),
    /// Show everything known about an instance
    Inspect(One),
    /// Stop an instance's CPUs; its memory stays on this host
    Pause(One),
    /// Let a paused instance go on
    Unpause(One),
    /// Put an instance to sleep in the repository, from where any host can go on with it
    Suspend(Suspend),
    /// Go on with a suspended instance, or start a stopped one
    Resume(Resume),
    /// Power an instance off; its data disks are kept
    Stop(Stop),
    /// Remove an instance and its history
    Rm(Rm),
    /// Take a point to come back to, while the instance runs on
    Checkpoint(Checkpoint),
    /// List an instance's checkpoints, newest first
    History(One),
    /// Go back to a checkpoint; what is undone is kept as a branch
    Undo(Undo),
    /// Start new instances from the same point, each with an identity of its own
    Fork(Fork),
    /// Run a command in the guest; its exit code is passed on
    Exec(Exec),
    /// Attach to the serial console (Ctrl-] leaves)
    Console(One),
    /// Save a picture of the screen as PNG
    Screenshot(Screenshot),
    /// Print what the serial console has shown
    Logs(Logs),
    /// Show what this host is told for all its instances, or change it
    Config(Config),
    /// Repositories: where everything is kept
    #[command(subcommand)]
    Repo(Repo),
    /// Print the JSON Schema of appliance.yaml
    Schema,
    /// Print a completion script for a shell
    Completion {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
}

/// A verb about one instance.
#[derive(Args)]
pub struct One {
    /// The instance's name
    pub name: String,
}

#[derive(Args)]
pub struct Build {
    /// A folder with an appliance.yaml, or the file itself
    pub path: PathBuf,
    /// Only check the recipe
    #[arg(long)]
    pub validate: bool,
}

#[derive(Args)]
pub struct Run {
    /// The appliance: NAME or MAKER/NAME
    pub appliance: String,
    /// Name the instance [default: the appliance's name and a number]
    #[arg(long)]
    pub name: Option<String>,
    #[command(flatten)]
    pub start: Start,
}

/// How an instance is started.
#[derive(Args, Clone)]
pub struct Start {
    /// Publish a port: HOST:GUEST or ADDRESS:HOST:GUEST; host port 0 takes a free one
    #[arg(short = 'p', long = "publish", value_name = "PORTS")]
    pub publish: Vec<String>,
    /// What runs the CPUs: auto, kvm or tcg
    #[arg(long, default_value = "auto", value_parser = ["auto", "kvm", "tcg"])]
    pub accel: String,
    /// Do not wait until it is ready
    #[arg(long)]
    pub no_wait: bool,
    /// Wait at most this many seconds until it is ready
    #[arg(long, default_value_t = 180, value_name = "SECONDS")]
    pub timeout: u64,
}

#[derive(Args)]
pub struct Ps {
    /// Only instances that have files on this host
    #[arg(long)]
    pub local: bool,
}

#[derive(Args)]
pub struct Suspend {
    /// The instance's name
    pub name: String,
    /// A few words to find it by in the history
    #[arg(long)]
    pub label: Option<String>,
}

#[derive(Args)]
pub struct Resume {
    /// The instance's name
    pub name: String,
    #[command(flatten)]
    pub start: Start,
    /// Take the instance over from the host that holds it; that host's unsaved work becomes a
    /// branch when it comes back
    #[arg(long)]
    pub take_over: bool,
}

#[derive(Args)]
pub struct Stop {
    /// The instance's name
    pub name: String,
    /// Pull the plug instead of asking the guest
    #[arg(long)]
    pub force: bool,
    /// Pull the plug after this many seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub timeout: u64,
}

#[derive(Args)]
pub struct Rm {
    /// The instance's name
    pub name: String,
    /// Also when it runs
    #[arg(long)]
    pub force: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

#[derive(Args)]
pub struct Checkpoint {
    /// The instance's name
    pub name: String,
    /// A few words to find it by in the history
    #[arg(long)]
    pub label: Option<String>,
}

#[derive(Args)]
pub struct Undo {
    /// The instance's name
    pub name: String,
    /// The checkpoint to go back to: its id, the first digits of it, or its label [default: the last]
    #[arg(long, value_name = "CHECKPOINT")]
    pub to: Option<String>,
    #[command(flatten)]
    pub start: Start,
}

#[derive(Args)]
pub struct Fork {
    /// The instance's name
    pub name: String,
    /// How many
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub count: u32,
    /// Name the new instance; with --count, a number is added [default: NAME-fork-N]
    #[arg(long = "name", value_name = "NEW")]
    pub new_name: Option<String>,
    /// Fork from this checkpoint or branch instead of from now
    #[arg(long, value_name = "CHECKPOINT")]
    pub at: Option<String>,
    /// Leave the new instances suspended
    #[arg(long)]
    pub no_start: bool,
    #[command(flatten)]
    pub start: Start,
}

#[derive(Args)]
pub struct Exec {
    /// The instance's name
    pub name: String,
    /// Give the command this program's standard input
    #[arg(short, long)]
    pub interactive: bool,
    /// Give up after this many seconds (exit code 124)
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    pub timeout: u64,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

#[derive(Args)]
pub struct Screenshot {
    /// The instance's name
    pub name: String,
    /// Where to write the PNG [default: NAME.png]
    #[arg(short, long)]
    pub output: Option<PathBuf>,
}

#[derive(Args)]
pub struct Logs {
    /// The instance's name
    pub name: String,
    /// What its shim has said instead
    #[arg(long)]
    pub shim: bool,
}

#[derive(Args)]
pub struct Config {
    /// `scrub`: whether what a running instance lacks is fetched in the background, so that it can
    /// go on without the repository (on, off); `cache-size`: what this host may keep of
    /// repositories
    #[arg(requires = "value")]
    pub key: Option<String>,
    /// Its new value; instances that run now go on as they were started
    pub value: Option<String>,
}

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
        #[arg(long, value_parser = ["repository", "host"])]
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
    },
    /// Delete what nothing has named for the repository's grace age
    Gc,
    /// Show what it holds and what that takes
    Stats,
    /// Add a further place to fetch from (a mirror, a maker's repository), or remove one
    Source {
        /// A folder, s3://bucket/prefix or https://host/path
        location: String,
        /// Remove it
        #[arg(long)]
        remove: bool,
    },
    /// The key of a private repository
    #[command(subcommand)]
    Key(Key),
}

#[derive(Subcommand)]
pub enum Key {
    /// Print the key: whoever has it can read everything
    Export {
        /// Write it to a file (mode 0600) instead
        #[arg(short, long)]
        output: Option<PathBuf>,
    },
    /// Take a key, so that this host can open the repository
    Import {
        /// A file with the key; `-` reads standard input
        file: PathBuf,
    },
}
