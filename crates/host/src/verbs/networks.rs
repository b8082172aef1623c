//! `network`: bridges of this host that instances can be plugged into.

use api::NetworkPrint;
use model::Name;

use crate::Host;
use crate::failure::{Failure, Result};

/// A device's name is shorter in Linux.
const DEVICE_BYTES_MAX: usize = 15;

impl Host {
    /// The networks of this host: `user`, and the bridges that were given a name.
    pub fn networks(&self) -> Vec<NetworkPrint> {
        let user = NetworkPrint {
            name: network::USER.to_owned(),
            bridge: None,
            state: "ready".to_owned(),
        };
        let bridges = self.dir.networks().iter().map(|(name, bridge)| NetworkPrint {
            name: name.clone(),
            bridge: Some(bridge.clone()),
            state: if network::is_bridge(bridge) { "ready" } else { "absent" }.to_owned(),
        });
        std::iter::once(user).chain(bridges).collect()
    }

    /// Calls a bridge a network; one that was called so before is it no longer.
    pub fn add_network(&mut self, name: &Name, bridge: &str) -> Result<()> {
        if name.as_str() == network::USER {
            let message = "`user` is the network of published ports, which every host has";
            return Err(Failure::new("usage", message, "choose another name, for example `lan`"));
        }
        let is_device = (1..=DEVICE_BYTES_MAX).contains(&bridge.len())
            && !bridge.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
            && !bridge.starts_with(['.', '-']);
        if !is_device || !network::is_bridge(bridge) {
            return Err(Failure::new(
                "network",
                format!("this host has no bridge {bridge:?}"),
                "`ip link show type bridge` lists those there are; `ip link add br0 type bridge` makes one",
            ));
        }
        self.dir.configure_network(name, Some(bridge))
    }

    /// Forgets a network. Instances that run in it stay there until they end.
    pub fn remove_network(&mut self, name: &Name) -> Result<()> {
        if !self.dir.networks().contains_key(name.as_str()) {
            return Err(Failure::new(
                "not_found",
                format!("this host has no network {name}"),
                "`collective network` lists them",
            ));
        }
        self.dir.configure_network(name, None)
    }
}
