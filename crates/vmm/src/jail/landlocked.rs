//! The landlock part of the walls: which files, ports, sockets and processes QEMU reaches.
//!
//! A rule holds an inode, not a name: a file that replaces another one under the same name is
//! not reachable. Rules on a FUSE file work like on any other, and the kernel keeps the inode
//! for as long as the rule lives; a rule on the mount's root directory covers all files in it.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::Orders;

/// The newest landlock we know all rights of; older kernels enforce what they know.
const KNOWN: ABI = ABI::V6;

/// Where a distribution keeps QEMU's libraries and firmware.
const SYSTEM_DIRS: [&str; 14] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/qemu",
    "/usr/share/seabios",
    "/usr/share/vgabios",
    "/usr/share/OVMF",
    "/usr/share/edk2",
    "/usr/share/zoneinfo",
    "/nix/store",
    "/gnu/store",
    // Where /etc/resolv.conf leads on many hosts, and is replaced whenever the network changes.
    "/run/systemd/resolve",
    "/run/NetworkManager",
];

/// The few files outside them: the loader's cache, the name server that user-mode networking
/// tells guests about, and bottomless devices.
const SYSTEM_FILES: [&str; 5] =
    ["/etc/ld.so.cache", "/etc/resolv.conf", "/dev/null", "/dev/zero", "/dev/urandom"];

pub(super) fn ruleset(orders: &Orders) -> Result<RulesetCreated, String> {
    let wrong = |error: landlock::RulesetError| format!("landlock: {error}");
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))
        .and_then(|r| r.handle_access(AccessNet::BindTcp))
        .map_err(wrong)?;
    if !orders.connect {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp).map_err(wrong)?;
    }
    let mut ruleset = ruleset
        .scope(Scope::AbstractUnixSocket | Scope::Signal)
        .and_then(Ruleset::create)
        .map_err(wrong)?;

    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let program = PathBuf::from(orders.command.first().ok_or("there is no program")?);
    ruleset = add(ruleset, &program, AccessFs::ReadFile | AccessFs::Execute)?;
    for loader in ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"] {
        ruleset = add_if_there(ruleset, Path::new(loader), AccessFs::ReadFile | AccessFs::Execute)?;
    }
    let beside = program
        .ancestors()
        .nth(2)
        .into_iter()
        .flat_map(|prefix| [prefix.join("lib"), prefix.join("share/qemu")]);
    for dir in SYSTEM_DIRS.iter().chain(&SYSTEM_FILES).map(PathBuf::from).chain(beside) {
        ruleset = add_if_there(ruleset, &dir, read)?;
    }
    for path in &orders.readable {
        ruleset = add(ruleset, path, read)?;
    }
    for path in &orders.writable {
        ruleset = add(ruleset, path, read | AccessFs::WriteFile | AccessFs::Truncate)?;
    }
    for path in &orders.devices {
        ruleset = add(ruleset, path, read | AccessFs::WriteFile | AccessFs::IoctlDev)?;
    }
    for path in &orders.own {
        let make = AccessFs::MakeReg | AccessFs::RemoveFile;
        let write = AccessFs::WriteFile | AccessFs::Truncate;
        ruleset = add(ruleset, path, read | write | make)?;
    }
    ruleset = add_if_there(ruleset, Path::new("/dev/null"), AccessFs::WriteFile.into())?;
    for port in &orders.ports {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::BindTcp)).map_err(wrong)?;
    }
    Ok(ruleset)
}

pub(super) fn restrict(ruleset: RulesetCreated) -> Result<(), String> {
    let status = ruleset.restrict_self().map_err(|error| format!("landlock: {error}"))?;
    if status.ruleset == RulesetStatus::NotEnforced {
        eprintln!("jail: this kernel has no landlock; file access is limited by user id alone");
    }
    Ok(())
}

fn add(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("landlock: {}: {error}", path.display());
    let fd = PathFd::new(path).map_err(|error| wrong(&error))?;
    // Rights that only directories have are refused for files.
    let is_dir = std::fs::metadata(path).map_err(|error| wrong(&error))?.is_dir();
    let access = if is_dir { access } else { access & AccessFs::from_file(KNOWN) };
    ruleset.add_rule(PathBeneath::new(fd, access)).map_err(|error| wrong(&error))
}

fn add_if_there(
    ruleset: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, String> {
    if path.exists() { add(ruleset, path, access) } else { Ok(ruleset) }
}
