//! User-mode networking: no privileges, no devices, no bridge.
//!
//! The guest gets 10.0.2.15 by DHCP and speaks to the world through the monitor's own sockets.
//! What it does not promise: the guest can reach services on the host's own loopback address
//! (10.0.2.2 leads there) as any process of the host's users can. Where that matters, use
//! `outbound: false`, which leaves only the published ports.

use model::{NicSpec, PortMap};

use crate::{Mac, Netdev, Network, NetworkError, UserNetdev, port};

/// What the user-mode network is called.
pub const USER: &str = "user";

/// The network called `user`: outbound connections and published ports, nothing else.
#[derive(Debug, Clone, Copy)]
pub struct UserMode {
    /// False: guests answer on their published ports but cannot open connections.
    pub outbound: bool,
}

impl Default for UserMode {
    fn default() -> Self {
        Self { outbound: true }
    }
}

impl Network for UserMode {
    fn plug(&self, nic: &NicSpec, _mac: Mac, ports: &[PortMap]) -> Result<Netdev, NetworkError> {
        if nic.network != USER {
            return Err(NetworkError::UnknownNetwork { name: nic.network.clone() });
        }
        for (index, map) in ports.iter().enumerate() {
            if map.guest_port == 0 {
                return Err(NetworkError::PortZero);
            }
            let twice =
                |other: &PortMap| other.host_port == map.host_port && other.address == map.address;
            if ports[..index].iter().any(twice) {
                return Err(NetworkError::PortTwice { address: map.address, port: map.host_port });
            }
            if !map.address.is_ipv4() {
                let detail = "user-mode networking publishes on IPv4 addresses only".to_owned();
                let (address, port) = (map.address, map.host_port);
                return Err(NetworkError::Unusable { address, port, detail });
            }
            port::require_free(map.address, map.host_port)?;
        }
        Ok(Netdev::User(UserNetdev {
            forwards: ports.to_vec(),
            outbound: self.outbound,
            closed: false,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random_mac;
    use model::NicModel;
    use std::net::{Ipv4Addr, TcpListener};

    fn plug(network: &str, ports: &[PortMap]) -> Result<Netdev, NetworkError> {
        let nic = NicSpec { network: network.to_owned(), ports: vec![80], model: NicModel::Virtio };
        UserMode::default().plug(&nic, random_mac([0; 4]), ports)
    }

    fn free_port() -> u16 {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
    }

    #[test]
    fn published_ports_become_forwards() {
        let address = Ipv4Addr::LOCALHOST.into();
        let map = PortMap { address, host_port: free_port(), guest_port: 80 };
        let Netdev::User(user) = plug("user", std::slice::from_ref(&map)).unwrap() else {
            panic!()
        };
        assert_eq!(user, UserNetdev { forwards: vec![map.clone()], outbound: true, closed: false });
        let twice = plug("user", &[map.clone(), map]);
        assert!(matches!(twice, Err(NetworkError::PortTwice { .. })), "{twice:?}");
    }

    #[test]
    fn what_user_mode_cannot_publish_is_refused() {
        let address = std::net::Ipv6Addr::LOCALHOST.into();
        let error = plug("user", &[PortMap { address, host_port: free_port(), guest_port: 80 }]);
        assert!(matches!(error, Err(NetworkError::Unusable { .. })), "{error:?}");
        let address = Ipv4Addr::LOCALHOST.into();
        let error = plug("user", &[PortMap { address, host_port: free_port(), guest_port: 0 }]);
        assert!(matches!(error, Err(NetworkError::PortZero)), "{error:?}");
    }

    #[test]
    fn other_networks_are_not_here_yet() {
        assert!(matches!(plug("office", &[]), Err(NetworkError::UnknownNetwork { .. })));
    }
}
