//! The words of the verbs about many hosts.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Where a plane's state is.
#[derive(Args)]
pub struct State {
    /// The state: embedded:FOLDER, or for several planes side by side etcd://HOST:PORT,..., or by TLS
    /// etcds://HOST:PORT,... [default: a folder of the state directory]
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// Who signs the certificates of etcd's members (PEM) [default: whom the system trusts]
    #[arg(long, value_name = "FILE", requires = "state")]
    pub etcd_cacert: Option<PathBuf>,
    /// The certificate that is shown to them (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_key")]
    pub etcd_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "etcd_cert")]
    pub etcd_key: Option<PathBuf>,
}

#[derive(Args)]
pub struct Plane {
    #[command(flatten)]
    pub state: State,
    /// Listen here; 0.0.0.0:7070 lets other machines reach it (all of it is by TLS)
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    pub listen: SocketAddr,
    /// Tell hosts that they find this plane there, for when another one of the same state is gone: https://HOST:PORT
    /// [default: where it listens, when that is one address]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Count on a host for so many seconds after it was heard of; then it holds what it runs, and others
    /// may go on with it
    #[arg(long, default_value_t = 15, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..=86_400))]
    pub lease: u64,
    /// The token that callers need is in this file, and is made when it is not there
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Do not move instances away from hosts that are overloaded
    #[arg(long)]
    pub no_rebalance: bool,
    #[command(flatten)]
    pub provider: Provider,
}

/// Who says who people are.
#[derive(Args)]
pub struct Provider {
    /// Let people log in by this OpenID Connect provider: https://HOST/..., as it calls itself
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    pub oidc_issuer: Option<String>,
    /// The client that this plane is to the provider
    #[arg(long, value_name = "ID", requires = "oidc_issuer")]
    pub oidc_client_id: Option<String>,
    /// The client's secret is in this file, when it has one
    #[arg(long, value_name = "FILE", requires = "oidc_issuer")]
    pub oidc_client_secret_file: Option<PathBuf>,
    /// The claim in which the provider lists groups
    #[arg(long, value_name = "CLAIM", default_value = "groups")]
    pub oidc_groups_claim: String,
}

/// A plane, or what is done with the state of one.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Planes {
    #[command(flatten)]
    pub serve: Plane,
    #[command(subcommand)]
    pub verb: Option<PlaneVerb>,
}

#[derive(Subcommand)]
pub enum PlaneVerb {
    /// Write a copy of a running plane's state to a file: users, projects, tokens' hashes, wishes, the
    /// audit log. The plane's own token is not in it
    Backup {
        /// The file (mode 0600); it must not be there
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        at: At,
    },
    /// Make an empty state the one of such a copy; then start the plane on it
    Restore {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        state: State,
    },
}

#[derive(Args)]
pub struct Up {
    #[command(flatten)]
    pub plane: Plane,
    #[command(flatten)]
    pub known: Known,
}

/// What a host says of itself.
#[derive(Args)]
pub struct Known {
    /// What this host is called [default: the machine's name]
    #[arg(long)]
    pub name: Option<String>,
    /// A label of this host; `site` says where it stands (repeat for more)
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Where other hosts of the plane get from this one what it has in its cache, or `off` [default: the
    /// address by which it reaches the plane, any free port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub peers: Option<String>,
    /// Tell figures of this host there, as OpenMetrics at /metrics: without TLS, without a token, and
    /// without names [default: nowhere]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub metrics: Option<SocketAddr>,
}

/// Which plane is asked.
#[derive(Args)]
pub struct At {
    /// The plane, or several of one state: URL,URL [env: COLLECTIVE_PLANE] [default: https://127.0.0.1:7070]
    #[arg(long, value_name = "URL")]
    pub plane: Option<String>,
    #[command(flatten)]
    pub token: Token,
}

/// What is shown to a plane.
#[derive(Args)]
pub struct Token {
    /// A token: yours, or the plane's own; others on this machine can read arguments: better in a file
    #[arg(long, conflicts_with = "token_file")]
    pub token: Option<String>,
    /// The file with the token [env: COLLECTIVE_PLANE_TOKEN_FILE] [default: the one of a plane
    /// that was started with this state directory]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Where a plane is to run an instance. These need `COLLECTIVE_PLANE`.
#[derive(Args)]
#[command(next_help_heading = "Where a plane decides (COLLECTIVE_PLANE)")]
pub struct Placement {
    /// The project that it belongs to [default: default, or the only one in which you may make any]
    #[arg(long, value_name = "PROJECT")]
    pub project: Option<String>,
    /// Run it on this host, as long as that is there
    #[arg(long, value_name = "HOST")]
    pub on: Option<String>,
    /// Start it again by itself: never, on-failure (of it or its host), or always
    #[arg(long, value_name = "WHEN", value_parser = ["never", "on-failure", "always"], hide_possible_values = true)]
    pub restart: Option<String>,
    /// The site where its user is
    #[arg(long, value_name = "SITE")]
    pub near: Option<String>,
    /// On no host that has another one of this group
    #[arg(long, value_name = "GROUP")]
    pub apart: Option<String>,
    /// What its host must have: kvm, or LABEL=VALUE (repeat for more)
    #[arg(long = "need", value_name = "NEED")]
    pub needs: Vec<String>,
}

impl Placement {
    /// Whether any of it was said.
    pub fn is_wished(&self) -> bool {
        let said = [&self.project, &self.on, &self.restart, &self.near, &self.apart];
        said.into_iter().any(Option::is_some) || !self.needs.is_empty()
    }
}

#[derive(Args)]
pub struct Move {
    /// The instance's name
    pub name: String,
    /// The host that is to have it: its name or id
    #[arg(long, value_name = "HOST")]
    pub to: String,
    /// Wait at most this many seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub timeout: u64,
}

#[derive(Args)]
pub struct Pin {
    /// The instance's name
    pub name: String,
    /// It may be moved again
    #[arg(long)]
    pub off: bool,
}

#[derive(Subcommand)]
pub enum Hosts {
    /// Print a token that lets new hosts join, and nothing else
    Token(Token),
    /// Let this host take part: say to the plane that it is there and do what it orders, until this
    /// ends. It needs a token the first time
    Join {
        /// The plane: https://HOST:PORT
        url: String,
        #[command(flatten)]
        token: Token,
        #[command(flatten)]
        known: Known,
    },
    /// Let no plane have a say on this host any more; end its `host join` first
    Leave,
    /// On this host, suspend all that runs: for before the machine is shut down. No plane is asked
    Suspend {
        /// Wait for so many seconds at most
        #[arg(long, default_value_t = 300, value_name = "SECONDS")]
        within: u64,
    },
    /// List the hosts that have joined
    List(At),
    /// Let a host keep what it has, and take nothing new
    Cordon(OneHost),
    /// Let a host take instances again
    Uncordon(OneHost),
    /// Let all leave a host; what finds no other within the time is suspended
    Drain {
        #[command(flatten)]
        one: OneHost,
        /// After so many seconds
        #[arg(long, default_value_t = 600, value_name = "SECONDS")]
        within: u64,
    },
    /// Forget a host that is gone
    Remove(OneHost),
}

#[derive(Args)]
pub struct OneHost {
    /// Its name or id, as `collective host list` shows them
    pub host: String,
    #[command(flatten)]
    pub at: At,
}

#[derive(Args)]
pub struct Plan {
    /// Only say it: what is wished is carried out by itself
    #[arg(long, required = true)]
    pub dry_run: bool,
    #[command(flatten)]
    pub at: At,
}
