//! The words of the verbs about many hosts.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Args)]
pub struct Plane {
    /// Keep its state here: embedded:FOLDER, or etcd://HOST:PORT,... for several planes side by side
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// Listen here; only this machine can reach it
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7070")]
    pub listen: SocketAddr,
    /// The token that callers need is in this file, and is made when it is not there
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Which plane is asked.
#[derive(Args)]
pub struct At {
    /// The plane [env: COLLECTIVE_PLANE] [default: http://127.0.0.1:7070]
    #[arg(long, value_name = "URL")]
    pub plane: Option<String>,
    #[command(flatten)]
    pub token: Token,
}

/// What is shown to a plane.
#[derive(Args)]
pub struct Token {
    /// The plane's token; others on this machine can read arguments: better in a file
    #[arg(long, conflicts_with = "token_file")]
    pub token: Option<String>,
    /// The file with the plane's token [env: COLLECTIVE_PLANE_TOKEN_FILE] [default: the one of a plane
    /// that was started with this state directory]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum Hosts {
    /// Let this host take part: say to the plane that it is there, until this ends
    Join {
        /// The plane: http://127.0.0.1:PORT
        url: String,
        #[command(flatten)]
        token: Token,
        /// A label of this host; `site` says where it stands (repeat for more)
        #[arg(long, value_name = "KEY=VALUE")]
        label: Vec<String>,
    },
    /// List the hosts that have joined
    List(At),
    /// Let a host keep what it has, and take nothing new
    Cordon(OneHost),
    /// Let a host take instances again
    Uncordon(OneHost),
    /// Plan for all to leave a host; nothing carries that out yet
    Drain(OneHost),
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
    /// Only say it; nothing is carried out yet
    #[arg(long, required = true)]
    pub dry_run: bool,
    #[command(flatten)]
    pub at: At,
}
