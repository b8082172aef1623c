//! A network of the host's own: a Linux bridge, into which the card is plugged by a TAP device.
//!
//! The guest is a computer like any other there: it has its own address, of that network's DHCP server
//! or by hand, and keeps it when it goes on at another host whose bridge is joined to the same cable.
//! The bridge is the administrator's; we make TAP devices only, one for each card, and remove them.
//!
//! What is not promised: nothing keeps a guest from using an address that is not its own there.
//!
//! Devices are made with `ip` (iproute2): it is on every Linux host, and the calls of the kernel that
//! it makes would need `unsafe` here. QEMU opens the device by its name: only the user that it was
//! made for can.

use std::path::Path;
use std::process::Command;

use model::{NicSpec, PortMap};

use crate::{Mac, Netdev, Network, NetworkError};

/// A network of the host that is a Linux bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bridge {
    /// What the network is called here.
    pub network: String,
    /// The bridge's device.
    pub bridge: String,
    /// Makes the names of this host's devices differ from another one's on the same machine.
    pub tag: [u8; 3],
}

/// A TAP device that is to be a port of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapNetdev {
    /// The device: 15 characters.
    pub device: String,
    /// The bridge that it becomes a port of.
    pub bridge: String,
}

/// Whether this host has a bridge of that name.
pub fn is_bridge(device: &str) -> bool {
    Path::new("/sys/class/net").join(device).join("bridge").is_dir()
}

impl Network for Bridge {
    fn plug(&self, _: &NicSpec, mac: Mac, ports: &[PortMap]) -> Result<Netdev, NetworkError> {
        if let Some(port) = ports.first() {
            return Err(NetworkError::NotPublished {
                network: self.network.clone(),
                port: port.guest_port,
            });
        }
        if !is_bridge(&self.bridge) {
            return Err(NetworkError::NoBridge {
                network: self.network.clone(),
                bridge: self.bridge.clone(),
            });
        }
        // At most 15 characters are a device's name.
        let [_, _, a, b, c, d] = mac.0;
        let [x, y, z] = self.tag;
        let device = format!("c{a:02x}{b:02x}{c:02x}{d:02x}{x:02x}{y:02x}{z:02x}");
        Ok(Netdev::Tap(TapNetdev { device, bridge: self.bridge.clone() }))
    }
}

impl TapNetdev {
    /// Makes the device, for the user that QEMU runs as (none: the caller); it leads nowhere yet. One
    /// of this name that a crash left is replaced.
    pub fn make(&self, uid: Option<u32>) -> Result<(), NetworkError> {
        let _ = self.remove();
        let device = self.device.as_str();
        let uid = uid.map(|uid| uid.to_string());
        let mut add = vec!["tuntap", "add", "dev", device, "mode", "tap"];
        if let Some(uid) = &uid {
            add.extend(["user", uid]);
        }
        let made = ip(&add)
            // The host itself says nothing on a guest's cable.
            .and_then(|()| ip(&["link", "set", "dev", device, "addrgenmode", "none"]));
        made.map_err(|detail| {
            let _ = self.remove();
            NetworkError::NotJoined { bridge: self.bridge.clone(), detail }
        })
    }

    /// Joins the device to its bridge: what its guest says is heard from now on.
    pub fn join(&self) -> Result<(), NetworkError> {
        ip(&["link", "set", "dev", &self.device, "master", &self.bridge, "up"])
            .map_err(|detail| NetworkError::NotJoined { bridge: self.bridge.clone(), detail })
    }

    /// Removes the device, whoever uses it.
    pub fn remove(&self) -> Result<(), String> {
        if !Path::new("/sys/class/net").join(&self.device).exists() {
            return Ok(());
        }
        ip(&["link", "delete", "dev", &self.device])
    }
}

fn ip(words: &[&str]) -> Result<(), String> {
    let out = Command::new("ip").args(words).env_clear().env("PATH", PATH).output();
    match out {
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => {
            let said = String::from_utf8_lossy(&out.stderr);
            Err(format!("ip {}: {}", words.join(" "), said.lines().next().unwrap_or_default()))
        }
        Err(error) => Err(format!("ip cannot be started: {error}")),
    }
}

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

#[cfg(test)]
mod tests {
    use super::*;
    use model::NicModel;

    fn office(bridge: &str) -> Bridge {
        Bridge { network: "office".to_owned(), bridge: bridge.to_owned(), tag: [1, 2, 3] }
    }

    #[test]
    fn what_a_bridge_cannot_do_is_refused() {
        let nic =
            NicSpec { network: "user".to_owned(), ports: vec![80], model: NicModel::default() };
        let mac = Mac([0x0a, 0xc0, 1, 2, 3, 4]);
        let none = office("cl-no-bridge").plug(&nic, mac, &[]);
        assert!(matches!(none, Err(NetworkError::NoBridge { .. })), "{none:?}");
        // A device that is there and no bridge.
        let other = office("lo").plug(&nic, mac, &[]);
        assert!(matches!(other, Err(NetworkError::NoBridge { .. })), "{other:?}");
        let port = PortMap {
            address: std::net::Ipv4Addr::LOCALHOST.into(),
            host_port: 8080,
            guest_port: 80,
        };
        let published = office("cl-no-bridge").plug(&nic, mac, &[port]);
        assert!(matches!(published, Err(NetworkError::NotPublished { .. })), "{published:?}");
    }
}
