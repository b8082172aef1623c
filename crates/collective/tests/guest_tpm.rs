//! Computers with a virtual TPM: what it knows goes where its computer goes.

mod support;

use std::fs;
use std::path::Path;
use std::time::Duration;

use support::{World, appliance, children_of, eventually};

/// What the guest finds in its TPM: how register 16 begins, and the count in the TPM's own memory.
#[track_caller]
fn ask(world: &World, host: &str, name: &str) -> (String, u32) {
    let before = world.console(host, name).len();
    world.type_in(host, name, "\r");
    let mut answer = None;
    eventually(Duration::from_secs(60), "the guest answers", || {
        let console = world.console(host, name);
        let said = console.get(before..).unwrap_or_default();
        let line = said.lines().find(|line| line.contains("keys=") && line.contains("place="));
        // Only a whole line has all of the number.
        answer = line.filter(|_| said.ends_with('\n')).map(str::to_owned);
        answer.is_some()
    });
    let answer = answer.unwrap();
    let word = |key: &str| {
        let word = answer.split_whitespace().find_map(|word| word.strip_prefix(key));
        word.unwrap_or_else(|| panic!("no {key} in {answer}")).to_owned()
    };
    (word("pcr="), word("place=").parse().unwrap())
}

/// Lets the guest extend the register (`x`) or count in the TPM's memory (`p`), and asks.
#[track_caller]
fn tell(world: &World, host: &str, name: &str, keys: &str) -> (String, u32) {
    world.type_in(host, name, keys);
    ask(world, host, name)
}

/// The recipe of `nano-uefi` with a TPM.
fn recipe(world: &World) -> String {
    recipe_of(world, "nano-uefi", "vault")
}

/// Somebody's recipe with a TPM, under another name.
fn recipe_of(world: &World, original: &str, name: &str) -> String {
    let folder = world.root().join(name);
    fs::create_dir(&folder).unwrap();
    let source = appliance(original);
    let source = Path::new(&source);
    fs::copy(source.join("nano.img"), folder.join("nano.img")).unwrap();
    let recipe = fs::read_to_string(source.join("appliance.yaml")).unwrap();
    let recipe = recipe.replacen(&format!("name: {original}"), &format!("name: {name}"), 1);
    let recipe = recipe.replacen("hardware:\n", "hardware:\n  tpm: true\n", 1);
    fs::write(folder.join("appliance.yaml"), recipe).unwrap();
    folder.to_string_lossy().into_owned()
}

#[test]
fn guest_tpm_goes_where_its_computer_goes() {
    let world = World::empty("tpm");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    world.run("A", &["build", &recipe(&world)]).ok();
    world.run("A", &["run", "vault", "--name", "v1"]).ok();
    let zeros = "00000000".to_owned();
    assert_eq!(ask(&world, "A", "v1"), (zeros.clone(), 0));
    let (once, place) = tell(&world, "A", "v1", "xp");
    assert_ne!(once, zeros);
    assert_eq!(place, 1);

    // After a checkpoint it goes on, and what it learns after that is not in it.
    world.run("A", &["checkpoint", "v1", "--label", "early"]).ok();
    let (twice, place) = tell(&world, "A", "v1", "xp");
    assert_ne!(twice, once);
    assert_eq!(place, 2);

    // Another host goes on with registers and memory.
    world.run("A", &["suspend", "v1"]).ok();
    world.run("B", &["resume", "v1"]).ok();
    assert_eq!(ask(&world, "B", "v1"), (twice.clone(), 2));

    // A fork has its own from there on.
    world.run("B", &["fork", "v1", "--name", "f1"]).ok();
    let (thrice, place) = tell(&world, "B", "f1", "xp");
    assert_ne!(thrice, twice);
    assert_eq!(place, 3);
    assert_eq!(ask(&world, "B", "v1"), (twice, 2));
    world.run("B", &["stop", "f1", "--force"]).ok();

    // Back is back for it too.
    world.run("B", &["undo", "v1", "--to", "early"]).ok();
    assert_eq!(ask(&world, "B", "v1"), (once, 1));

    // A crash takes nothing that the guest was told is written; without power the registers go.
    assert_eq!(tell(&world, "B", "v1", "ppp").1, 4);
    world.kill("B", "v1", false);
    world.run("B", &["resume", "v1"]).ok();
    assert_eq!(ask(&world, "B", "v1"), (zeros.clone(), 4));

    // What stays without power is in the repository once it is stopped.
    assert_eq!(tell(&world, "B", "v1", "p").1, 5);
    world.run("B", &["stop", "v1", "--force"]).ok();
    world.run("A", &["resume", "v1"]).ok();
    assert_eq!(ask(&world, "A", "v1"), (zeros, 5));
    confined(&world);
}

/// What a computer without its TPM is: its user hears of it, keeps what the guest does, and has a whole
/// computer again after a stop.
#[test]
fn guest_whose_tpm_dies_goes_on_and_says_so() {
    let world = World::empty("tpm-dies");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    let recipe = recipe_of(&world, "nano", "vault");
    world.run("A", &["build", &recipe]).ok();
    world.run("A", &["run", "vault", "--name", "v1"]).ok();
    world.type_in("A", "v1", "ab");
    let before = world.run("A", &["checkpoint", "v1"]).ok();
    assert!(world.row("A", "v1")["note"].is_null());

    let shim = world.row("A", "v1")["pid"].as_u64().unwrap();
    let is_tpm = |pid: &u64| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim() == "swtpm")
    };
    support::kill_9(children_of(shim).into_iter().find(is_tpm).expect("a TPM"));
    let note = || world.row("A", "v1")["note"].as_str().unwrap_or_default().to_owned();
    eventually(Duration::from_secs(20), "it is said", || note().contains("virtual TPM"));
    let said = note();
    assert!(said.contains("signal 9") && said.contains("`collective stop v1`"), "{said}");
    assert_eq!(world.state("A", "v1"), "running");

    // Half a computer is not stored; the guest goes on.
    for verb in ["checkpoint", "suspend"] {
        let (kind, message, hint) = world.run("A", &[verb, "v1"]).error();
        assert_eq!(kind, "hypervisor", "{message}");
        assert!(message.contains("virtual TPM"), "{message}");
        assert!(hint.contains("`collective stop v1`") && !hint.contains("NAME"), "{hint}");
    }
    let lines = world.run("A", &["history", "v1"]).ok();
    assert_eq!(lines[0]["id"], before["checkpoint"], "{lines}");
    world.type_in("A", "v1", "c\r");
    world.await_console("A", "v1", "keys=3");

    // Its disks stay, and it has a TPM again.
    world.run("A", &["stop", "v1", "--force"]).ok();
    world.run("A", &["resume", "v1"]).ok();
    world.await_console("A", "v1", "nano: boots=2");
    assert!(world.row("A", "v1")["note"].is_null());
    world.run("A", &["suspend", "v1"]).ok();
    world.run("B", &["resume", "v1"]).ok();
    assert_eq!(world.state("B", "v1"), "running");
}

/// The TPM of `v1` on A: another user than QEMU, without any right of root, gone with its guest.
fn confined(world: &World) {
    let shim = world.row("A", "v1")["pid"].as_u64().unwrap();
    let status = |program: &str| {
        let of = |pid: &u64| fs::read_to_string(format!("/proc/{pid}/status")).ok();
        let all = children_of(shim);
        let found = all.iter().find_map(|pid| of(pid).filter(|text| text.contains(program)));
        found.unwrap_or_else(|| panic!("no {program}"))
    };
    let field = |status: &str, name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
    };
    let (tpm, qemu) = (status("swtpm"), status("qemu"));
    assert_eq!(field(&tpm, "CapEff:"), "0000000000000000");
    assert_eq!(field(&tpm, "CapBnd:"), field(&qemu, "CapBnd:"));
    assert_eq!(field(&tpm, "NoNewPrivs:"), "1");
    assert_eq!(field(&tpm, "Seccomp:"), "2");
    if rustix::process::geteuid().is_root() {
        assert_ne!(field(&tpm, "Uid:"), field(&qemu, "Uid:"));
        assert_eq!(field(&tpm, "Groups:"), "");
    }
    world.run("A", &["stop", "v1", "--force"]).ok();
    assert!(!Path::new(&format!("/proc/{}", field(&tpm, "Pid:"))).exists());
}
