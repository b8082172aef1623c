//! The entry point: builds the walls, then becomes QEMU.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{
    Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::{Limits, ORDERS_BYTES_MAX, Orders, WAIT, inherited, landlocked, seccomp};
use crate::descriptors;

/// Exit code when the walls could not be built; the reason is on standard error.
const EXIT_NO_WALLS: i32 = 125;

/// The hidden entry point: `arguments` are those after the word that selects it. Call it first
/// in `main`, before any thread or file is opened. It returns never: it becomes the program or
/// exits. With the one word `--wait` the orders come over standard input, too.
pub fn jail_main(arguments: impl Iterator<Item = OsString>) -> ! {
    let Err(error) = enter(arguments.collect());
    eprintln!("jail: {error}");
    std::process::exit(EXIT_NO_WALLS)
}

fn enter(words: Vec<OsString>) -> Result<std::convert::Infallible, String> {
    let step = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    inherited::close_inherited().map_err(step("closing inherited files"))?;
    let (words, received) = match words.first() {
        Some(word) if word == WAIT => {
            let (text, received) = await_orders().map_err(step("waiting for orders"))?;
            (Orders::words(&text), Some(received))
        }
        _ => (words, None),
    };
    let orders = &Orders::parse(words.into_iter())?;
    let received = match received {
        Some(received) => received,
        None if orders.fds > 0 => {
            descriptors::receive(io::stdin().as_fd(), &mut [0])
                .map_err(step("taking file descriptors"))?
                .1
        }
        None => Vec::new(),
    };
    // Kept until exec: dropping would close what QEMU is to inherit.
    let _inherited = place(orders, received).map_err(step("taking file descriptors"))?;

    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|e| step("forbidding core dumps")(e.into()))?;
    set_no_new_privs(true).map_err(|e| step("forbidding new privileges")(e.into()))?;
    // The rules' paths are opened while we may still reach them all.
    let ruleset = landlocked::ruleset(orders)?;
    let cwd = orders.cwd.as_deref().unwrap_or(std::path::Path::new("/"));
    std::env::set_current_dir(cwd).map_err(step("entering its directory"))?;
    drop_privileges(orders.identity).map_err(step("dropping privileges"))?;
    landlocked::restrict(ruleset)?;

    // After the change of user, which clears it.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| step("dying with the parent")(e.into()))?;
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get() as u32);
    if orders.parent != 0 && parent != Some(orders.parent) {
        return Err("the process that asked for this has gone".to_owned());
    }
    limit(&orders.limits).map_err(step("limiting what it uses"))?;
    seccomp::apply(orders.network)?;

    let (program, arguments) = orders.command.split_first().ok_or("there is no program")?;
    let error = Command::new(program).args(arguments).env_clear().exec();
    Err(format!("cannot run {}: {error}", program.display()))
}

/// The orders' text, as [`Orders::text`] makes it, behind its length; and what came with it.
fn await_orders() -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let (count, received) = descriptors::receive(io::stdin().as_fd(), &mut length)?;
    if count == 0 {
        return Err(io::Error::other("there will be none"));
    }
    let mut stdin = io::stdin().lock();
    stdin.read_exact(&mut length[count..])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > ORDERS_BYTES_MAX {
        return Err(io::Error::other(format!("{length} bytes of orders")));
    }
    let mut text = vec![0; length];
    stdin.read_exact(&mut text)?;
    Ok((text, received))
}

/// Puts the descriptors where the command line says they are.
fn place(orders: &Orders, received: Vec<OwnedFd>) -> io::Result<Vec<OwnedFd>> {
    let mut placed = Vec::new();
    if received.len() != orders.fds {
        return Err(io::Error::other(format!("{} came of {}", received.len(), orders.fds)));
    }
    for (index, fd) in received.into_iter().enumerate() {
        let number = orders.first_fd + index as i32;
        let copy = rustix::io::fcntl_dupfd_cloexec(&fd, number)?;
        if std::os::fd::AsRawFd::as_raw_fd(&copy) != number {
            return Err(io::Error::other(format!("descriptor {number} is taken")));
        }
        rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty())?;
        placed.push(copy);
    }
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(placed)
}

fn limit(limits: &Limits) -> io::Result<()> {
    for (resource, limit) in [
        (Resource::As, limits.memory_bytes),
        (Resource::Fsize, limits.file_bytes),
        (Resource::Cpu, limits.cpu_s),
        (Resource::Nproc, limits.tasks),
    ] {
        if let Some(limit) = limit {
            setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
        }
    }
    Ok(())
}

fn drop_privileges(identity: Option<(u32, u32)>) -> io::Result<()> {
    let root = rustix::process::geteuid().is_root();
    if root {
        for capability in CapabilitySet::all().iter() {
            match remove_capability_from_bounding_set(capability) {
                // Newer than this kernel.
                Err(rustix::io::Errno::INVAL) => {}
                other => other?,
            }
        }
    }
    if let Some((uid, gid)) = identity {
        set_thread_groups(&[])?;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}
