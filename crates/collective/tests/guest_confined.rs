//! The walls of QEMU and of the virtual TPM beside it, tried from inside on a real host: a prisoner takes
//! the place of one of them in one instance, and tries everything that the host has. It is not the fixed list of `crates/vmm/tests/jail.rs` but
//! whatever lies in the host's folder and in the repository.

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
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

/// What the virtual TPM needs: its folder.
const OWN_TPM: [&str; 1] = ["list ."];

/// Ways out of QEMU's folder.
const OUT: [&str; 6] = [
    "list .",
    "list ..",
    "list ../..",
    "read ../instance.json",
    "read ../../n2/instance.json",
    "write ../../n2/run/memory/ram",
];

/// Ways out of the TPM's.
const OUT_TPM: [&str; 5] = [
    "list ..",
    "list ../..",
    "read ../../instance.json",
    "write ../../run/memory/ram",
    "read ../../../n2/volumes/tpm-files/tpm2-00.permall",
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
    build(&world, "neighbour", None);
    world.run("A", &["run", "neighbour", "--name", "n2", "--accel", "tcg"]).ok();
    world.type_in("A", "n2", "abc\r");
    let memory = world.instance("A", "n2").join("volumes/tpm-files/tpm2-00.permall");
    assert!(fs::metadata(memory).unwrap().len() > 0);

    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("collective-prison-{}", std::process::id());
    let _abstract =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let mut acts = vec![
        format!("port {}", tcp.local_addr().unwrap().port()),
        format!("abstract {name}"),
        format!("signal {}", world.row("A", "n2")["pid"]),
        format!("signal {}", std::process::id()),
    ];
    for file in ["/etc/shadow", "/etc/passwd", "/proc/1/environ", "/proc/self/maps", "/dev/fuse"] {
        acts.push(format!("read {file}"));
    }
    for folder in ["/", "/proc", "/root", "/tmp", "/home"] {
        acts.push(format!("list {folder}"));
    }
    acts_on(world.root(), &mut acts);

    // QEMU's disk says what to try.
    let list = acts_of(&acts, "n1", &[&OWN[..], &OUT].concat());
    let disk = build(&world, "prisoner", Some(list.join("\n") + "\0"));
    possible_outside(&list, &["-name", "free", &format!("filename={disk}")], &prisoner());
    let qemu = fs::canonicalize("/usr/bin/qemu-system-x86_64").unwrap();
    imprison(&world, &prisoner(), &qemu, ["prisoner", "n1"]);
    denied(&world, "n1", "qemu.log", &list, &OWN);

    // The TPM has it at the end of its program.
    let list = acts_of(&acts, "n3", &[&OWN_TPM[..], &OUT_TPM].concat());
    let mut program = fs::read(prisoner()).unwrap();
    program.extend(format!("\n--- acts to try ---\n{}\0", list.join("\n")).bytes());
    let path = world.root().join("swtpm");
    fs::write(&path, program).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    possible_outside(&list, &["socket"], &path);
    let swtpm = fs::canonicalize("/usr/bin/swtpm").unwrap();
    imprison(&world, &path, &swtpm, ["neighbour", "n3"]);
    denied(&world, "n3", "tpm.log", &list, &OWN_TPM);

    assert_eq!(world.state("A", "n2"), "running");
    world.type_in("A", "n2", "d\r");
    world.await_console("A", "n2", "keys=4");
}

/// Builds `nano` with a TPM under this name, with this on its disk; gives the disk.
fn build(world: &World, name: &str, disk: Option<String>) -> String {
    let folder = world.root().join(name);
    let nano = PathBuf::from(appliance("nano"));
    fs::create_dir(&folder).unwrap();
    match disk {
        Some(disk) => fs::write(folder.join("nano.img"), disk).unwrap(),
        None => drop(fs::copy(nano.join("nano.img"), folder.join("nano.img")).unwrap()),
    }
    let text = fs::read_to_string(nano.join("appliance.yaml")).unwrap();
    let text = text.replacen("name: nano", &format!("name: {name}"), 1);
    let text = text.replacen("hardware:\n", "hardware:\n  tpm: true\n", 1);
    fs::write(folder.join("appliance.yaml"), text).unwrap();
    world.run("A", &["build", folder.to_str().unwrap()]).ok();
    folder.join("nano.img").to_string_lossy().into_owned()
}

/// What the prisoner in this instance tries: everything of the host; the same of its own instance,
/// which looks like n2's; and these.
fn acts_of(acts: &[String], instance: &str, more: &[&str]) -> Vec<String> {
    let here = format!("/instances/{instance}");
    let own = acts.iter().filter(|act| act.contains("/instances/n2"));
    let own = own.map(|act| act.replace("/instances/n2", &here));
    let all = acts.iter().cloned().chain(own).chain(more.iter().map(|act| act.to_string()));
    let all: Vec<String> = all.collect();
    assert!(all.len() > 100, "{}", all.len());
    all
}

/// Outside, the same program can nearly all of it: so that what follows means something.
fn possible_outside(acts: &[String], words: &[&str], program: &Path) {
    let free = Command::new(program).args(words).current_dir("/").output().unwrap();
    let free = String::from_utf8_lossy(&free.stderr).into_owned();
    let possible = free.lines().filter(|line| line.ends_with(": ok")).count();
    let elsewhere = |act: &&String| {
        !act.contains("/instances/n2") && (act.contains("/instances/n") || !act.contains(" /"))
    };
    let own = acts.iter().filter(elsewhere).count();
    assert!(possible + own + 10 > acts.len(), "{possible} of {}: {free}", acts.len());
}

/// In a mount namespace of its own, the program is the prisoner.
fn imprison(world: &World, prisoner: &Path, program: &Path, [appliance, name]: [&str; 2]) {
    let run = world.command("A", &["run", appliance, "--name", name, "--accel", "tcg"]);
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg("mount --bind \"$0\" \"$1\" && shift && exec \"$@\"")
        .args([prisoner, program])
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
}

/// All was tried, and nothing was had but what is its own.
fn denied(world: &World, name: &str, log: &str, acts: &[String], own: &[&str]) {
    let log = fs::read_to_string(world.instance("A", name).join("run").join(log)).unwrap();
    let mut denied = 0;
    for act in acts {
        let line = log.lines().find_map(|line| line.strip_prefix(act.as_str())?.strip_prefix(": "));
        let result = line.unwrap_or_else(|| panic!("{act} was not tried: {log}"));
        if own.contains(&act.as_str()) {
            assert_eq!(result, "ok", "{act}");
            continue;
        }
        let is_denied = ["Permission denied", "Operation not permitted"];
        // What n2 has and this one has not.
        let is_absent =
            act.contains(&format!("/instances/{name}")) && result.contains("No such file");
        assert!(is_absent || is_denied.iter().any(|word| result.contains(word)), "{act}: {result}");
        denied += u32::from(!is_absent);
    }
    println!("{name}: {} acts, {denied} denied", acts.len());
}

fn is_root() -> bool {
    fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0).unwrap()
}
