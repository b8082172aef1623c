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
    let folder = world.root().join("vault");
    fs::create_dir(&folder).unwrap();
    let source = appliance("nano-uefi");
    let source = Path::new(&source);
    fs::copy(source.join("nano.img"), folder.join("nano.img")).unwrap();
    let recipe = fs::read_to_string(source.join("appliance.yaml")).unwrap();
    let recipe = recipe.replacen("name: nano-uefi", "name: vault", 1);
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
