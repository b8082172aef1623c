//! The command line: every verb's words. The doc comment of each is its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

mod access;
mod login;
mod makers;
mod operations;
mod planes;
mod repo;

pub use access::{Audit, By, Events, NewToken, Projects, Role, Tokens, Usage, Users};
pub use login::{Login, LoginRules, NewRule};
pub use makers::{
    Catalog, Diff, Keys, Promote, Publish, Rollback, SigningKey, Trust, Update, Yank,
};
pub use operations::{OneOperation, Operations};
pub use planes::{
    At, Hosts, Known, Move, OneHost, Pin, Placement, Plan, Plane, PlaneVerb, Planes, Provider,
    State, Token, Up,
};
pub use repo::{Gc, Key, Repo};

/// Virtual appliances: whole computers as data. Run them anywhere, suspend here and go on there,
/// undo mistakes, and never administer anything.
#[derive(Parser)]
#[command(name = "collective", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb understands.
// The variables are read where the host is opened: an argument that clap takes from one shows up in
// the usage line of every mistake.
#[derive(Args, Clone)]
#[command(next_help_heading = EVERY_VERB)]
pub struct Global {
    /// Print one JSON document on standard output; text for people goes to standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Use this repository: a folder, s3://bucket/prefix or https://host/path [env: COLLECTIVE_REPO]
    #[arg(long, global = true, value_name = "LOCATION")]
    pub repo: Option<String>,
    /// Keep this host's state here [env: COLLECTIVE_DIR] [default: /var/lib/collective for root, else
    /// the XDG one]
    #[arg(long, global = true, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Print only what was asked for
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more about what is done (repeat for more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Say the id by which this can be followed, through plane, host and shim [env: TRACEPARENT goes on
    /// with one]
    #[arg(long, global = true)]
    pub traced: bool,
}

/// Over the options that are the same everywhere.
const EVERY_VERB: &str = "Options of every verb";

#[derive(Subcommand)]
pub enum Verb {
    /// Say what this host can do, and what is missing
    Doctor(Doctor),
    /// Build an appliance from a folder with an appliance.yaml, into the repository
    Build(Build),
    /// Make an appliance of another program's file: a disk, a CD, an OVA, a Vagrant box
    Import(Import),
    /// Write the disks of an appliance, or of an instance at rest, into a file for other programs
    Export(Export),
    /// List the appliances of the repository
    Appliances,
    /// Makers whose appliances this host runs: by their signatures
    #[command(subcommand, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
    Trust(Trust),
    /// List what trusted makers offer
    Catalog(Catalog),
    /// Show what differs between two versions, appliances, instances or checkpoints
    Diff(Diff),
    /// Bring an instance to its maker's new version; its data stays, and what does not work is undone
    Update(Update),
    /// Go back to the version before the last update; its data stays as it is now
    Rollback(Rollback),
    /// For makers: publish an appliance, signed, where anybody can read it
    Publish(Publish),
    /// For makers: let a channel offer what another one offers
    Promote(Promote),
    /// For makers: take a version back
    Yank(Yank),
    /// For makers: the keys that sign
    #[command(subcommand, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
    Key(SigningKey),
    /// Start a new instance of an appliance, and wait until it is ready
    Run(Run),
    /// List instances
    Ps(Ps),
    /// Show everything known about an instance
    Inspect(Inspect),
    /// Stop an instance's CPUs; its memory stays on this host
    Pause(One),
    /// Let a paused instance go on
    Unpause(One),
    /// Put an instance to sleep in the repository, from where any host can go on with it
    Suspend(Suspend),
    /// Go on with a suspended instance, or start a stopped one
    Resume(Resume),
    /// Let an instance go on on another host; a plane does it (COLLECTIVE_PLANE)
    Move(Move),
    /// Keep an instance where it is when its host is overloaded: a plane moves others instead
    Pin(Pin),
    /// Power an instance off; its data disks are kept
    Stop(Stop),
    /// Remove an instance and its history, or a branch or a checkpoint of it
    Rm(Rm),
    /// Take a point to come back to, while the instance runs on; or say how they are taken by
    /// themselves
    Checkpoint(Checkpoint),
    /// List an instance's checkpoints, newest first
    History(One),
    /// Go back to a checkpoint; what is undone is kept as a branch
    Undo(Undo),
    /// Copy a file or a directory out of a checkpoint
    Cp(Cp),
    /// Show a checkpoint's disks and files in a directory, read-only, without running it
    Mount(Mount),
    /// Start new instances from the same point, each with an identity of its own
    Fork(Fork),
    /// Run a command in the guest; its exit code is passed on
    Exec(Exec),
    /// Attach to the serial console (Ctrl-] leaves)
    Console(One),
    /// Show the screen to a VNC viewer: opens a port for it, until Ctrl-C
    View(View),
    /// Save a picture of the screen as PNG
    Screenshot(Screenshot),
    /// Print what the serial console has shown
    Logs(Logs),
    /// Show what this host is told for all its instances, or change it
    Config(Config),
    /// Networks of this host that instances can be plugged into: add, remove; without a word, list
    Network {
        #[command(subcommand)]
        verb: Option<Networks>,
    },
    /// Repositories: where everything is kept
    #[command(subcommand, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
    Repo(Repo),
    /// For many hosts: serve what is known of them, and say where instances would run
    #[command(subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
    Plane(Planes),
    /// The same and this host under it, in one process
    Up(Up),
    /// For many hosts: the hosts that take part
    #[command(subcommand, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
    Host(Hosts),
    /// For many hosts: say where instances would run, and why
    Plan(Plan),
    /// Where a plane decides: what was asked of instances, how far it is, and calling it off
    #[command(subcommand, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
    Operation(Operations),
    /// Where a plane decides: the users, and what they may do
    #[command(subcommand, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
    User(Users),
    /// Where a plane decides: the projects that instances belong to, and who may do what there
    #[command(subcommand, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
    Project(Projects),
    /// Where a plane decides: the tokens that let users in
    #[command(subcommand, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
    Token(Tokens),
    /// Where a plane decides: log in by a browser, and keep a token
    Login(Login),
    /// Where a plane decides: who may log in, and what for
    #[command(subcommand, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
    LoginRule(LoginRules),
    /// Where a plane decides: say what changes, as it happens
    Events(Events),
    /// Where a plane decides: who has changed what
    #[command(subcommand, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
    Audit(Audit),
    /// Where a plane decides: what instances have used
    Usage(Usage),
    /// Where a plane decides: say who asks, and what that one may do
    Whoami(At),
    /// Print the JSON Schema of appliance.yaml
    Schema,
    /// Print a completion script for a shell
    Completion {
        /// bash, zsh, fish, elvish or powershell
        #[arg(hide_possible_values = true)]
        shell: clap_complete::Shell,
    },
}

impl Verb {
    /// The name of the instance that it is about.
    pub fn instance(&self) -> Option<&str> {
        let text = match self {
            Self::Inspect(verb) => &verb.name,
            Self::Pause(verb) | Self::Unpause(verb) | Self::History(verb) | Self::Console(verb) => {
                &verb.name
            }
            Self::Suspend(verb) => &verb.name,
            Self::Resume(verb) => &verb.name,
            Self::Stop(verb) => &verb.name,
            Self::Rm(verb) => &verb.name,
            Self::Checkpoint(verb) => &verb.name,
            Self::Undo(verb) => &verb.name,
            Self::Cp(verb) => &verb.source,
            Self::Mount(verb) => &verb.subject,
            Self::Fork(verb) => &verb.name,
            Self::Exec(verb) => &verb.name,
            Self::View(verb) => &verb.name,
            Self::Screenshot(verb) => &verb.name,
            Self::Logs(verb) => &verb.name,
            Self::Update(verb) => &verb.name,
            Self::Rollback(verb) => &verb.name,
            Self::Export(verb) => &verb.name,
            _ => return None,
        };
        // NAME, NAME@CHECKPOINT or NAME:/PATH.
        text.split(['@', ':']).next()
    }
}

#[derive(Args)]
pub struct Inspect {
    /// The instance's name
    pub name: String,
    /// Also what on its system disks is not as its maker shipped it, at its last checkpoint (reads
    /// the disks)
    #[arg(long)]
    pub drift: bool,
}

/// A verb about one instance.
#[derive(Args)]
pub struct One {
    /// The instance's name
    pub name: String,
}

#[derive(Args)]
pub struct Doctor {
    /// Remove what crashes left and is nobody's; what only this host has stays, and is named
    #[arg(long)]
    pub fix: bool,
}

#[derive(Args)]
pub struct Build {
    /// A folder with an appliance.yaml, or the file itself
    pub path: PathBuf,
    /// Only check the recipe
    #[arg(long)]
    pub validate: bool,
    /// With `state: running`, what runs its CPUs; who starts it from memory needs the same:
    /// kvm, tcg (software, slower), or auto: kvm where it proves to work
    #[arg(long, default_value = "auto", value_parser = ["auto", "kvm", "tcg"], hide_possible_values = true)]
    pub accel: String,
    /// With `state: running`, wait at most this many seconds until it is ready
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub timeout: u64,
}

#[derive(Args)]
pub struct Import {
    /// The file
    pub file: PathBuf,
    /// Name the appliance: NAME or MAKER/NAME
    #[arg(long)]
    pub name: String,
    /// What the file is [default: what its first bytes say; never raw]
    #[arg(long, value_parser = ["raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "iso", "ova", "ovf", "box"])]
    pub format: Option<String>,
    /// Give the version this number
    #[arg(long, default_value = "1", value_name = "NUMBER")]
    pub as_version: String,
    /// How many CPUs [default: as the file says, else 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: Option<u32>,
    /// How much memory [default: as the file says, else 1GiB]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// What its disks are plugged into: virtio is quicker, sata needs no special driver
    /// [default: as the file says, else virtio]
    #[arg(long, value_parser = ["virtio", "sata"])]
    pub disk_bus: Option<String>,
    /// What starts it [default: as the file says, else bios]
    #[arg(long, value_name = "KIND", value_parser = ["bios", "uefi"])]
    pub firmware: Option<String>,
    /// With UEFI: start only what is signed (with Microsoft's keys, as distributions are)
    #[arg(long)]
    pub secure_boot: bool,
    /// With a virtual TPM 2.0, new in each instance
    #[arg(long)]
    pub tpm: bool,
    /// What its network cards are [default: as the file says, else virtio]
    #[arg(long, value_parser = ["virtio", "e1000"])]
    pub nic: Option<String>,
    /// With a CD: the size of the empty disk beside it [default: 16GiB]
    #[arg(long, value_name = "SIZE")]
    pub disk_size: Option<String>,
    /// This disk is yours, as its maker: updates replace it, and what users write on it goes then
    /// (repeat for more) [default: all disks are the user's, and no update touches them]
    #[arg(long, value_name = "DISK")]
    pub system: Vec<String>,
    /// With an OVA: answer a field of its form (repeat for more); `run` can give others
    #[arg(long = "property", value_name = "KEY=VALUE")]
    pub properties: Vec<String>,
    /// The same with the value in a file: other users of this computer see what is in a command
    #[arg(long = "property-file", value_name = "KEY=FILE")]
    pub property_files: Vec<String>,
    /// With an OVA: what its form requires may come with each `run`
    #[arg(long)]
    pub properties_at_run: bool,
    /// The maker's part of what cloud-init configures; `run --user-data` goes before it
    #[arg(long, value_name = "FILE")]
    pub vendor_data: Option<PathBuf>,
}

#[derive(Args)]
pub struct Export {
    /// An instance (with @CHECKPOINT: as it was then), or an appliance
    #[arg(value_name = "NAME[@CHECKPOINT]")]
    pub name: String,
    /// The file to write
    pub file: PathBuf,
    /// What to write
    #[arg(long, value_parser = ["raw", "qcow2", "ova"])]
    pub format: String,
    /// Which disk [default: the only one]
    #[arg(long, value_name = "DISK")]
    pub disk: Option<String>,
    /// The appliance, also when an instance has the same name
    #[arg(long)]
    pub appliance: bool,
    /// Replace the file when it is there
    #[arg(long)]
    pub force: bool,
}

#[derive(Args)]
pub struct Run {
    /// The appliance: NAME, or of a trusted maker MAKER/NAME, MAKER/NAME:CHANNEL (follows it) or
    /// MAKER/NAME@VERSION (stays at it)
    pub appliance: String,
    /// What becomes of its maker's new versions: auto (applied when it next starts after a stop) or
    /// ask (`update --now` applies them)
    #[arg(long, default_value = "auto", value_parser = ["auto", "ask"], hide_possible_values = true)]
    pub updates: String,
    /// Name the instance [default: the appliance's name and a number]
    #[arg(long)]
    pub name: Option<String>,
    /// Answer a field of the appliance's form (repeat for more)
    #[arg(long = "property", value_name = "KEY=VALUE")]
    pub properties: Vec<String>,
    /// The same with the value in a file: other users of this computer see what is in a command
    #[arg(long = "property-file", value_name = "KEY=FILE")]
    pub property_files: Vec<String>,
    /// Configure the guest by cloud-init: a file that begins with #cloud-config or #!
    #[arg(long, value_name = "FILE")]
    pub user_data: Option<PathBuf>,
    /// Configure the guest's network by cloud-init
    #[arg(long, value_name = "FILE")]
    pub network_config: Option<PathBuf>,
    /// Boot it from its disks, also when its appliance has a memory to start from
    #[arg(long)]
    pub boot: bool,
    #[command(flatten)]
    pub auto: Auto,
    #[command(flatten)]
    pub start: Start,
    #[command(flatten)]
    pub placement: Placement,
}

/// How an instance is started.
#[derive(Args, Clone)]
pub struct Start {
    /// Publish a port: HOST:GUEST or ADDRESS:HOST:GUEST; host port 0 takes a free one
    #[arg(short = 'p', long = "publish", value_name = "PORTS")]
    pub publish: Vec<String>,
    /// Plug its first network card into this network of the host from now on (`collective network`
    /// lists them), or into `user`
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<String>,
    /// What runs the CPUs: kvm, tcg (software, slower), or auto: kvm where it proves to work
    #[arg(long, default_value = "auto", value_parser = ["auto", "kvm", "tcg"], hide_possible_values = true)]
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
    /// Where a plane decides (COLLECTIVE_PLANE): on this host instead of where the command is given
    #[arg(long, value_name = "HOST")]
    pub on: Option<String>,
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
    /// The instance's name; with @ and a checkpoint, only that one; with @ and the last checkpoint of a branch, only
    /// that branch
    #[arg(value_name = "NAME[@CHECKPOINT]")]
    pub name: String,
    /// Also when it runs; also a branch that something needs, and a checkpoint that has a label
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
    #[arg(long, conflicts_with_all = ["every", "keep", "keep_taken"])]
    pub label: Option<String>,
    #[command(flatten)]
    pub auto: Auto,
    /// Which of those that were not taken by themselves `repo gc` keeps from now on: last=20,daily=14; all, until
    /// it is told otherwise
    #[arg(long, value_name = "WHAT")]
    pub keep_taken: Option<String>,
}

/// Checkpoints that are taken by themselves.
#[derive(Args, Clone)]
pub struct Auto {
    /// From now on, take a checkpoint this often while it runs: 30s, 5m, 2h, 1d; off; or default, as
    /// its maker says, else `config auto`
    #[arg(long, value_name = "TIME")]
    pub every: Option<String>,
    /// And sooner, when it has written this much since the last: 256MiB; or off
    #[arg(long, value_name = "SIZE")]
    pub dirtied: Option<String>,
    /// Which of these to keep: the last so many, and the last of so many hours, days and weeks; what
    /// was not taken by itself stays [default: last=6,hourly=24,daily=7,weekly=4]
    #[arg(long, value_name = "WHAT")]
    pub keep: Option<String>,
}

#[derive(Args)]
pub struct Undo {
    /// The instance's name
    pub name: String,
    /// The checkpoint to go back to: its id, the first digits of it, its label, or a time like "10
    /// minutes ago" [default: the last that was not taken by itself; after a crash the last of all]
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
pub struct Cp {
    /// What to copy: NAME:/PATH or NAME@CHECKPOINT:/PATH; with NAME:DISK:/PATH on that disk
    #[arg(value_name = "SOURCE")]
    pub source: String,
    /// Where to: a directory, or the name of the copy
    #[arg(value_name = "DESTINATION")]
    pub destination: PathBuf,
    /// Replace files that exist
    #[arg(long)]
    pub force: bool,
}

#[derive(Args)]
pub struct Mount {
    /// NAME (its last checkpoint) or NAME@CHECKPOINT
    #[arg(value_name = "CHECKPOINT")]
    pub subject: String,
    /// Where: an empty directory; made if it is not there
    #[arg(value_name = "DIR")]
    pub onto: PathBuf,
    /// Serve it from this process, until it is unmounted
    #[arg(long)]
    pub foreground: bool,
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
pub struct View {
    /// The instance's name
    pub name: String,
    /// Take this port [default: a free one]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub port: u16,
}

#[derive(Args)]
pub struct Screenshot {
    /// The instance's name
    pub name: String,
    /// Where to write the PNG [default: NAME.png]
    #[arg(short, long, value_name = "FILE")]
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
    /// `auto`: how often checkpoints are taken by themselves, and which are kept, of instances that
    /// say nothing of their own, nor their makers (off, 5m, 5m,dirtied=256MiB,last=6,hourly=24,daily=7); `keep`: what
    /// `repo gc` keeps of instances' automatic checkpoints and undone branches (all,
    /// last=20,daily=14,weekly=8); `scrub`: whether what a running instance lacks is fetched in the background, so that it can
    /// go on without the repository (on, off); `cache-size`: what this host may keep of
    /// repositories
    #[arg(requires = "value")]
    pub key: Option<String>,
    /// Its new value; instances that run now go on as they were started
    pub value: Option<String>,
}

#[derive(Subcommand)]
pub enum Networks {
    /// Call a Linux bridge of this host a network: instances that are plugged into it are computers
    /// of their own there, and keep their addresses when they go on at another host that has it
    Add {
        /// What it is called on all hosts that have it, for example `lan`
        name: String,
        /// The bridge's device, for example br0
        #[arg(long, value_name = "DEVICE")]
        bridge: String,
    },
    /// Forget a network; its bridge stays
    Remove {
        /// What it is called
        name: String,
    },
}
