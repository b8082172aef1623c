//! What an instance's network cards are plugged into.
//!
//! *Invariant.* A device that is made for a cable is written down before: whatever becomes of the shim,
//! the next one of the instance, `rm` and `doctor --fix` remove it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use model::{Hardware, PortMap};
use network::{Bridge, Mac, Netdev, Network, TapNetdev, USER, UserMode};
use vmm::NicLaunch;

use crate::dir::{HostDir, replace_passing};
use crate::failure::{Failure, Result};
use crate::local::LocalDir;
use crate::record::Head;

/// What the first card is plugged into.
pub fn first_network<'a>(head: &'a Head, hardware: &'a Hardware) -> &'a str {
    match (&head.network, hardware.nics.first()) {
        (Some(network), _) => network.as_str(),
        (None, Some(nic)) => &nic.network,
        (None, None) => USER,
    }
}

/// Plugs all cards in; `closed` ones publish nothing yet, and lead to no bridge until [`open`]. Devices of the host are made for `uid`.
pub fn plug(
    host: &HostDir,
    local: &LocalDir,
    head: &Head,
    hardware: &Hardware,
    published: &[PortMap],
    closed: bool,
    uid: Option<u32>,
) -> Result<Vec<NicLaunch>> {
    let mut nics = Vec::new();
    for (index, spec) in hardware.nics.iter().enumerate() {
        let mac = Mac(head.macs.get(index).copied().unwrap_or_default());
        // Published ports are the first card's, and so is the network that its user has chosen.
        let (name, ports) = match index {
            0 => (first_network(head, hardware), published),
            _ => (spec.network.as_str(), &[][..]),
        };
        let mut netdev = match bridge(host, name) {
            Some(bridge) => bridge.plug(spec, mac, ports)?,
            None if name == USER => UserMode::default().plug(spec, mac, ports)?,
            None => return Err(unknown(name)),
        };
        if let Netdev::User(user) = &mut netdev {
            // Nobody reaches it yet: the ports are only looked at, and published later.
            user.closed = closed;
        }
        nics.push(NicLaunch { mac, netdev });
    }
    let taps: Vec<_> = taps(&nics).collect();
    if !taps.is_empty() {
        if uid.is_some() {
            may_open(Path::new(TUN))?;
        }
        let written: Vec<_> = taps.iter().map(|tap| (&tap.device, &tap.bridge)).collect();
        replace_passing(&list(local), &written)?;
        for tap in taps {
            let made = tap.make(uid).and_then(|()| if closed { Ok(()) } else { tap.join() });
            if let Err(error) = made {
                let _ = unplug(local);
                return Err(error.into());
            }
        }
    }
    Ok(nics)
}

/// QEMU opens it as a user of its own; which devices it gets by it is decided by whose they are.
const TUN: &str = "/dev/net/tun";

/// Whether everybody may open it, as udev leaves it; not every container does.
fn may_open(tun: &Path) -> Result<()> {
    let mode = std::fs::metadata(tun).map(|found| found.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o006 == 0o006) {
        return Ok(());
    }
    let what = format!("QEMU's users may not open {}", tun.display());
    Err(Failure::new("network", what, format!("`chmod 666 {}`, as udev leaves it", tun.display())))
}

/// Joins devices that were closed to their bridges.
pub fn open(local: &LocalDir) -> Result<()> {
    written(local).iter().try_for_each(|tap| Ok(tap.join()?))
}

/// Whether an instance has devices here, of which it may know nothing any more.
pub fn are_left(local: &LocalDir) -> bool {
    list(local).exists()
}

/// Removes the devices that were made for an instance, also by a shim that was killed.
pub fn unplug(local: &LocalDir) -> Result<()> {
    let list = list(local);
    if !list.exists() {
        return Ok(());
    }
    for tap in written(local) {
        tap.remove().map_err(|detail| {
            Failure::new("network", format!("a device is left: {detail}"), "`ip link` shows it")
        })?;
    }
    std::fs::remove_file(&list)?;
    Ok(())
}

fn written(local: &LocalDir) -> Vec<TapNetdev> {
    let list = list(local);
    // Cut by a power cut: with the machine its devices have gone too.
    let written: Vec<(String, String)> = crate::dir::decode(&list).unwrap_or_default();
    written.into_iter().map(|(device, bridge)| TapNetdev { device, bridge }).collect()
}

fn list(local: &LocalDir) -> PathBuf {
    local.path().join("cables.json")
}

fn taps(nics: &[NicLaunch]) -> impl Iterator<Item = &TapNetdev> {
    nics.iter().filter_map(|nic| match &nic.netdev {
        Netdev::Tap(tap) => Some(tap),
        Netdev::User(_) | Netdev::Unplugged => None,
    })
}

/// Another name than `user` is one that this host's administrator gave.
fn bridge(host: &HostDir, name: &str) -> Option<Bridge> {
    let [x, y, z, ..] = *host.id().as_bytes();
    let found = host.networks().iter().find(|(network, _)| network.as_str() == name);
    found.map(|(network, bridge)| Bridge {
        network: network.clone(),
        bridge: bridge.clone(),
        tag: [x, y, z],
    })
}

fn unknown(name: &str) -> Failure {
    network::NetworkError::UnknownNetwork { name: name.to_owned() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_could_not_open_is_said_before() {
        let folder = tempfile::tempdir().unwrap();
        let tun = folder.path().join("tun");
        let (kind, hint) = may_open(&tun).map_err(|f| (f.kind, f.hint)).unwrap_err();
        assert!(kind == "network" && hint.contains("chmod"), "{kind} {hint}");
        std::fs::write(&tun, "").unwrap();
        for (mode, may) in [(0o600, false), (0o644, false), (0o666, true)] {
            std::fs::set_permissions(&tun, PermissionsExt::from_mode(mode)).unwrap();
            assert_eq!(may_open(&tun).is_ok(), may);
        }
    }

    #[test]
    fn a_list_that_a_power_cut_has_cut_keeps_nobody_from_starting() {
        let folder = tempfile::tempdir().unwrap();
        let host = HostDir::open(folder.path()).unwrap();
        let local = LocalDir::new(&host, &model::Name::new("t1").unwrap());
        std::fs::create_dir_all(local.path()).unwrap();
        unplug(&local).unwrap();
        std::fs::write(list(&local), "[[\"c0").unwrap();
        assert!(are_left(&local));
        unplug(&local).unwrap();
        assert!(!are_left(&local));
    }
}
