//! What a virtual network card plugs into.
//!
//! A [`Network`] turns "this card, this MAC, these published ports" into a [`Netdev`]: the
//! host's end of the cable, in terms that do not name any hypervisor. The first network is
//! [`UserMode`]: the guest's packets become ordinary sockets of an unprivileged process, and
//! ports are published by listening on the host. A [`Bridge`] of the host makes it one computer among
//! others.
//!
//! Invariants: plugging in changes nothing on the host (it looks and refuses, it does not
//! reserve), so there is nothing to undo after a crash; two plugs never share a MAC unless the
//! caller asked twice for the same one.

mod bridge;
mod mac;
mod port;
mod user_mode;

use std::net::IpAddr;

pub use bridge::{Bridge, TapNetdev, is_bridge};
pub use mac::{Mac, random_mac};
pub use port::require_free;
pub use user_mode::{USER, UserMode};

use model::{NicSpec, PortMap};

/// Something that a network card can be plugged into.
pub trait Network: Send + Sync {
    /// The host's end for one card, or why it cannot be had (nothing is left behind then).
    fn plug(&self, nic: &NicSpec, mac: Mac, ports: &[PortMap]) -> Result<Netdev, NetworkError>;
}

/// The host's end of a network card's cable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Netdev {
    /// No cable: the card is there, its link is down.
    Unplugged,
    /// User-mode networking inside the virtual machine monitor.
    User(UserNetdev),
    /// A TAP device of the host, which has to be made before and removed after.
    Tap(TapNetdev),
}

/// User-mode networking: the guest is 10.0.2.15 behind its own address translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserNetdev {
    /// Host ports that lead to guest TCP ports.
    pub forwards: Vec<PortMap>,
    /// False: the guest can be reached through `forwards`, but reaches nobody itself.
    pub outbound: bool,
    /// True: the ports are not published yet, only allowed to be.
    pub closed: bool,
}

/// Why a card cannot be plugged in.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No network of that name is known to this implementation.
    #[error("there is no network {name:?} here")]
    UnknownNetwork {
        /// The name in the hardware description.
        name: String,
    },
    /// The host's port is taken.
    #[error("port {port} of {address} is already in use{}", .owner.as_ref().map(|o| format!(" by {o}")).unwrap_or_default())]
    PortTaken {
        /// The address asked for.
        address: IpAddr,
        /// The port asked for.
        port: u16,
        /// Who has it, as far as this user may know: `nginx (pid 812)`.
        owner: Option<String>,
    },
    /// The same host port was asked for twice in one request.
    #[error("port {port} of {address} is published twice")]
    PortTwice {
        /// The address asked for.
        address: IpAddr,
        /// The port asked for.
        port: u16,
    },
    /// A low port, which only a privileged process may listen on.
    #[error("port {port} needs privileges: this host keeps ports below {first_free} for root")]
    PortPrivileged {
        /// The port asked for.
        port: u16,
        /// The first port anybody may use.
        first_free: u16,
    },
    /// The host has no such address, or refuses to listen on it.
    #[error("cannot listen on {address} port {port}: {detail}")]
    Unusable {
        /// The address asked for.
        address: IpAddr,
        /// The port asked for.
        port: u16,
        /// What the operating system said.
        detail: String,
    },
    /// On a network of its own a guest's ports are there for all, and none is published.
    #[error(
        "port {port} is not published on the network {network}: the guest has an address of its own there"
    )]
    NotPublished {
        /// The network.
        network: String,
        /// The guest's port.
        port: u16,
    },
    /// The device that a network of this host should be is not there, or is no bridge.
    #[error("the network {network} is the bridge {bridge}, which this host does not have")]
    NoBridge {
        /// The network.
        network: String,
        /// The device.
        bridge: String,
    },
    /// The card's device could not be made, or not be joined to the bridge.
    #[error("no cable to the bridge {bridge}: {detail}")]
    NotJoined {
        /// The bridge.
        bridge: String,
        /// What was said.
        detail: String,
    },
    /// A port number of 0, which would publish at a random place.
    #[error("port 0 cannot be published")]
    PortZero,
}

impl NetworkError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            Self::UnknownNetwork { .. } => {
                "`collective network` lists those of this host; `collective network add NAME --bridge \
                 DEVICE` adds one; `--network user` is there everywhere"
                    .to_owned()
            }
            Self::PortTaken { port, .. } => {
                format!("publish on another port, for example -p {}:...", next_port(*port))
            }
            Self::PortTwice { .. } => "give each published port a host port of its own".to_owned(),
            Self::PortPrivileged { port, .. } => {
                format!("publish on a higher port, for example -p {}:{port}", 8000 + port % 1000)
            }
            Self::Unusable { .. } => {
                "use an address of this host, for example 127.0.0.1 or 0.0.0.0".to_owned()
            }
            Self::NotPublished { .. } => {
                "leave -p out: its ports can be reached at its own address".to_owned()
            }
            Self::NoBridge { bridge, .. } => format!(
                "`ip link add {bridge} type bridge` makes one; `--network user` needs none"
            ),
            Self::NotJoined { .. } => {
                "only the host's administrator (root) makes devices; iproute2 has to be installed; \
                 `--network user` needs neither"
                    .to_owned()
            }
            Self::PortZero => "write -p HOST_PORT:GUEST_PORT with ports from 1 to 65535".to_owned(),
        }
    }
}

fn next_port(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(8080)
}
