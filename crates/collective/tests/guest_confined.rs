//! QEMU's walls, tried from inside on a real host: a prisoner takes QEMU's place in one instance, and
//! tries everything that the host has. It is not the fixed list of `crates/vmm/tests/jail.rs` but
//! whatever lies in the host's folder and in the repository.

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{PROGRAM, World, appliance, said};

/// What the prisoner runs as: a program of crate `vmm`, built with the workspace.
fn prisoner() -> PathBuf {
    let program = Path::new(PROGRAM).with_file_name("vmm-jail");
    assert!(program.exists(), "no {}: `cargo build -p vmm --bins`", program.display());
    program
}

/// What QEMU itself needs, from the folder that it starts in.
const OWN: [&str; 4] =
    ["read memory/ram", "write memory/ram", "read disks/data", "write disks/data"];

/// Ways out of that folder.
const OUT: [&str; 6] = [
    "list .",
    "list ..",
    "list ../..",
    "read ../instance.json",
    "read ../../n2/instance.json",
    "write ../../n2/run/memory/ram",
];

/// Everything below a folder as acts to try.
fn acts_on(folder: &Path, acts: &mut Vec<String>) {
    acts.push(format!("list {}", folder.display()));
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            acts_on(&path, acts);
        } else if kind.is_socket() {
            acts.push(format!("connect {}", path.display()));
        } else if kind.is_file() {
            acts.push(format!("read {}", path.display()));
            acts.push(format!("write {}", path.display()));
        }
    }
}

#[test]
fn guest_that_breaks_out_reaches_nothing_of_its_host() {
    if !is_root() {
        return;
    }
    let world = World::with_nano("prison");
    let key = world.root().join("second").to_string_lossy().into_owned();
    world.run("A", &["repo", "init", &key, "--key", "host"]).ok();
    world.run("A", &["run", "nano", "--name", "n2", "--accel", "tcg"]).ok();
    world.type_in("A", "n2", "abc\r");

    // Everything of this host; and the same of the prisoner's own instance, which looks like n2's.
    let mut acts = Vec::new();
    acts_on(world.root(), &mut acts);
    let own: Vec<String> = acts
        .iter()
        .filter(|act| act.contains("/instances/n2"))
        .map(|act| act.replace("/instances/n2", "/instances/n1"))
        .collect();
    acts.extend(own);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    acts.push(format!("port {}", tcp.local_addr().unwrap().port()));
    let name = format!("collective-prison-{}", std::process::id());
    let _abstract =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    acts.push(format!("abstract {name}"));
    acts.push(format!("signal {}", world.row("A", "n2")["pid"]));
    acts.push(format!("signal {}", std::process::id()));
    for file in ["/etc/shadow", "/etc/passwd", "/proc/1/environ", "/proc/self/maps", "/dev/fuse"] {
        acts.push(format!("read {file}"));
    }
    for folder in ["/", "/proc", "/root", "/tmp", "/home"] {
        acts.push(format!("list {folder}"));
    }
    acts.extend(OWN.iter().chain(&OUT).map(|act| act.to_string()));
    assert!(acts.len() > 100, "{}", acts.len());

    // Its disk says what to try.
    let recipe = world.root().join("prisoner");
    fs::create_dir(&recipe).unwrap();
    fs::write(recipe.join("nano.img"), acts.join("\n") + "\0").unwrap();
    let text = fs::read_to_string(Path::new(&appliance("nano")).join("appliance.yaml")).unwrap();
    let text = text.replace("name: nano", "name: prisoner");
    fs::write(recipe.join("appliance.yaml"), text).unwrap();
    world.run("A", &["build", recipe.to_str().unwrap()]).ok();

    // Outside, the same program can nearly all of it: so that what follows means something.
    let disk = format!("filename={}", recipe.join("nano.img").display());
    let free = Command::new(prisoner()).args(["-name", "free", &disk]).output().unwrap();
    let free = String::from_utf8_lossy(&free.stderr).into_owned();
    let possible = free.lines().filter(|line| line.ends_with(": ok")).count();
    let own = acts.iter().filter(|act| act.contains("/instances/n1")).count();
    assert!(
        possible + own + OWN.len() + OUT.len() + 10 > acts.len(),
        "{possible} of {}: {free}",
        acts.len()
    );

    // In a mount namespace of its own, QEMU is the prisoner.
    let qemu = fs::canonicalize("/usr/bin/qemu-system-x86_64").unwrap();
    let run = world.command("A", &["run", "prisoner", "--name", "n1", "--accel", "tcg"]);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount --bind \"$0\" \"$1\" && shift && exec \"$@\"")
        .args([prisoner(), qemu])
        .arg(run.get_program())
        .args(run.get_args());
    for (name, value) in run.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let ended = said(command.output().unwrap());
    let (kind, message, _) = ended.error();
    assert_eq!(kind, "hypervisor", "{message}");
    let log = fs::read_to_string(world.instance("A", "n1").join("run/qemu.log")).unwrap();
    let mut denied = 0;
    for act in &acts {
        let line = log.lines().find_map(|line| line.strip_prefix(act.as_str())?.strip_prefix(": "));
        let result = line.unwrap_or_else(|| panic!("{act} was not tried: {log}"));
        if OWN.contains(&act.as_str()) {
            assert_eq!(result, "ok", "{act}");
            continue;
        }
        let is_denied = ["Permission denied", "Operation not permitted"];
        // What n2 has and n1 has not.
        let is_absent = act.contains("/instances/n1") && result.contains("No such file");
        assert!(is_absent || is_denied.iter().any(|word| result.contains(word)), "{act}: {result}");
        denied += u32::from(!is_absent);
    }
    println!("{} acts, {possible} possible outside, {denied} denied inside", acts.len());
    assert_eq!(world.state("A", "n2"), "running");
    world.type_in("A", "n2", "d\r");
    world.await_console("A", "n2", "keys=4");
}

fn is_root() -> bool {
    fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0).unwrap()
}
