//! Warm versions: what starts from a memory that its maker's build left, and who it then is.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use support::surgery::Surgery;
use support::{World, appliance, copy_tree, eventually, kill_9};

/// A copy of one of our recipes, changed.
fn recipe(world: &World, name: &str, change: impl FnOnce(String) -> String) -> PathBuf {
    let folder = world.root().join(format!("recipe-{name}"));
    copy_tree(Path::new(&appliance(name)), &folder);
    let file = folder.join("appliance.yaml");
    let text = change(fs::read_to_string(&file).unwrap());
    fs::write(file, text).unwrap();
    folder
}

fn running(text: String) -> String {
    format!("{text}\nstate: running\n")
}

#[track_caller]
fn build(world: &World, folder: &Path) -> Value {
    world.run("A", &["build", folder.to_str().unwrap(), "--accel", "tcg"]).ok()
}

/// What is on a host and in the repository but should not be when a build has ended.
#[track_caller]
fn nothing_is_left(world: &World) {
    assert_eq!(world.run("A", &["ps"]).ok(), Value::Array(Vec::new()));
    let instances = world.host("A").join("instances");
    let left: Vec<_> = fs::read_dir(instances).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    let builds: Vec<_> = fs::read_dir(world.host("A").join("builds"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().is_dir())
        .collect();
    assert!(builds.is_empty(), "{builds:?}");
}

/// How often the guest has booted, and how many characters it has seen, as it says on a line.
fn says(world: &World, name: &str, text: &str) {
    eventually(Duration::from_secs(30), text, || world.console("A", name).contains(text));
}

/// The smallest guest: no agent, one disk of its user's, which counts its boots.
#[test]
fn guest_nano_starts_from_memory_and_its_life_goes_on_from_there() {
    let world = World::empty("warm-nano");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    let folder = recipe(&world, "nano", running);
    let built = build(&world, &folder);
    let warm = &built["warm"];
    assert_eq!(warm["memory_bytes"], 16 << 20, "{built}");
    assert_eq!(warm["agent"], false, "{built}");
    assert_eq!(warm["accel"], "tcg", "{built}");
    assert!(warm["traced_pages"].as_u64().unwrap() > 0, "{built}");
    nothing_is_left(&world);
    assert_eq!(world.run("A", &["repo", "check", "--read-data"]).ok()["ok"], true);
    // What a version holds is kept, and more than once.
    for _ in 0..2 {
        world.run("A", &["repo", "gc"]).ok();
    }

    let start = |name: &str, more: &[&str]| {
        let words = [&["run", "nano", "--name", name, "--accel", "tcg"], more].concat();
        world.run("A", &words).ok()
    };
    // It goes on where the build left it: it has booted once, before it had this name.
    let first = start("n1", &[]);
    assert_eq!(first["how"], "continued", "{first}");
    assert!(first["cold"].is_null(), "{first}");
    assert!(first["ready_ms"].as_u64().unwrap() < 5000, "{first}");
    world.type_in("A", "n1", "ab\r");
    says(&world, "n1", "ab");
    assert!(!world.console("A", "n1").contains("boots="), "{}", world.console("A", "n1"));
    // What the build saw to be touched came ahead of it.
    let inspected = world.run("A", &["inspect", "n1"]).ok();
    assert!(inspected["head"].is_null(), "{inspected}");
    let trace = &inspected["trace"];
    let ahead = trace["placed"].as_u64().unwrap() + trace["prefetched"].as_u64().unwrap();
    assert!(ahead > 0, "{inspected}");

    // Its first checkpoint has no parent, its first undo goes there, a fork of it is another.
    let error = world.run("A", &["undo", "n1"]).error();
    assert_eq!(error.0, "not_found", "{error:?}");
    world.run("A", &["checkpoint", "n1", "--label", "here"]).ok();
    let history = world.run("A", &["history", "n1"]).ok();
    assert_eq!(history.as_array().unwrap().len(), 1, "{history}");
    assert_eq!(world.run("A", &["undo", "n1"]).ok()["state"], "running");
    world.run("A", &["fork", "n1", "--name", "f1"]).ok();
    world.run("A", &["suspend", "n1"]).ok();
    assert_eq!(world.run("A", &["resume", "n1", "--accel", "tcg"]).ok()["how"], "continued");
    // Stopped, it is what was on its disk at that instant, and boots: a second time.
    world.run("A", &["stop", "n1", "--force"]).ok();
    let again = world.run("A", &["resume", "n1", "--accel", "tcg"]).ok();
    assert_eq!(again["how"], "booted", "{again}");
    assert!(again["cold"].is_null(), "{again}");
    says(&world, "n1", "boots=2");

    // On request it boots, for the first time; so does one whose memory does not fit here.
    let cold = start("n2", &["--boot"]);
    assert_eq!(cold["how"], "booted", "{cold}");
    assert!(cold["cold"].is_null(), "{cold}");
    says(&world, "n2", "boots=1");
    Surgery::on(&world.repository(), "n1").change_appliance("nano", |version| {
        version["warm"]["memory"]["cpu_model"] = "Haswell-v1".into();
    });
    let misfit = start("n3", &[]);
    assert_eq!(misfit["how"], "booted", "{misfit}");
    let why = misfit["cold"].as_str().unwrap();
    assert!(why.contains("the CPU model Haswell-v1; here it is Nehalem-v1"), "{why}");
    says(&world, "n3", "boots=1");
}

/// What two instances say when each is asked the same.
fn ask(world: &World, script: &str) -> [String; 2] {
    ["w1", "w2"].map(|name| world.exec("A", name, script))
}

/// The command of docs/identity.md that shows what two instances share.
fn shared(world: &World) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/identity.md");
    let page = fs::read_to_string(page).unwrap();
    let block = page.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    let command = block.expect("there is a command").replace("one two", "w1 w2");
    let bin = Path::new(support::PROGRAM).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let done = world.program("A");
    let mut shell = std::process::Command::new("sh");
    for (name, value) in done.get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    let said = support::said(shell.env("PATH", path).args(["-c", &command]).output().unwrap());
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout
}

/// `tiny` with a machine id, SSH host keys and the program that Debian systems get; and what it does
/// is written down.
fn tiny(hook: bool) -> impl FnOnce(String) -> String {
    move |text| {
        let text = running(text).replace(
            "    packages: [qemu-guest-agent]\n    programs: [/usr/sbin/qemu-ga]\n    files:\n",
            "    packages: [qemu-guest-agent, openssh-client]\n    \
             programs: [/usr/sbin/qemu-ga, /usr/bin/ssh-keygen]\n    files:\n      \
             - {path: /etc/machine-id, content: \"00112233445566778899aabbccddeeff\\n\"}\n      \
             - {path: /etc/ssh/ssh_host_ed25519_key.pub, content: \"ssh-ed25519 MAKERS\\n\"}\n      \
             - {path: /etc/ssh/moduli, content: \"\"}\n",
        );
        assert!(text.contains("ssh-keygen"), "the recipe is another one now");
        if hook {
            let hook =
                "      - {path: /etc/collective/fresh-identity, from: fresh, mode: \"0755\"}\n";
            text.replace(
                "      - {path: /etc/ssh/moduli",
                &format!("{hook}      - {{path: /etc/ssh/moduli"),
            )
        } else {
            text
        }
    }
}

#[test]
fn guest_instances_of_one_memory_are_each_somebody_of_their_own() {
    let world = World::empty("warm-tiny");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    world.share_tools("A");
    let folder = recipe(&world, "tiny", tiny(true));
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../build/src/check/fresh-identity.sh");
    fs::copy(program, folder.join("fresh")).unwrap();
    let built = build(&world, &folder);
    assert_eq!(built["warm"]["agent"], true, "{built}");
    nothing_is_left(&world);

    for name in ["w1", "w2"] {
        let started =
            world.run("A", &["run", "tiny", "--name", name, "-p", "0:80", "--accel", "tcg"]).ok();
        assert_eq!(started["how"], "continued", "{started}");
    }
    // From the same memory: the same boot.
    let [one, two] = ask(&world, "cat /proc/sys/kernel/random/boot_id");
    assert_eq!(one, two, "both go on from one boot");
    // And nothing else: in the guest,
    let random = "cat /proc/sys/kernel/random/uuid";
    let [one, two] = ask(&world, random);
    assert_ne!(one, two, "the kernels draw other random numbers");
    for (what, script) in [
        ("host name", "hostname"),
        ("address", "cat /sys/class/net/eth0/address"),
        ("machine id", "cat /etc/machine-id"),
        ("SSH host key", "cat /etc/ssh/ssh_host_ed25519_key.pub"),
    ] {
        let [one, two] = ask(&world, script);
        assert_ne!(one, two, "{what}");
        for (name, said) in [("w1", &one), ("w2", &two)] {
            assert!(!said.contains("MAKERS") && !said.contains("0011223344"), "{name}: {said}");
        }
    }
    assert_eq!(ask(&world, "hostname"), ["w1", "w2"]);
    // Each has been told once that its generation is another, and has drawn new randomness.
    let reseeded = "dmesg | grep -c 'crng reseeded due to virtual machine fork'";
    assert_eq!(ask(&world, reseeded), ["1", "1"]);
    // The maker's own instance had no UUID that these could share.
    let uuid = "cat /sys/class/dmi/id/product_uuid 2>/dev/null || echo none";
    assert_eq!(ask(&world, uuid), ["none", "none"]);
    let now = ambient::unix_ms() / 1000;
    for said in ask(&world, "date +%s") {
        let said: u64 = said.parse().unwrap();
        assert!(said.abs_diff(now) < 60, "its clock says {said}, here it is {now}");
    }
    // and outside.
    let heads = ["w1", "w2"].map(|name| Surgery::on(&world.repository(), name).head_body());
    for field in ["instance", "macs", "vmgenid"] {
        let different: BTreeSet<_> = heads.iter().map(|head| head[field].to_string()).collect();
        assert_eq!(different.len(), 2, "{field}");
    }
    // What the guide tells a maker to run finds nothing.
    assert_eq!(shared(&world), "");
    // It would have: one that keeps what the maker had.
    for name in ["w1", "w2"] {
        world.exec("A", name, "echo 00112233445566778899aabbccddeeff > /etc/machine-id");
    }
    assert!(shared(&world).contains("00112233445566778899aabbccddeeff"));

    // Killed before its first checkpoint, it goes on from its disks and boots.
    world.exec("A", "w1", "echo kept > /data/kept; sync");
    world.kill("A", "w1", false);
    world.await_state("A", "w1", "failed");
    let resumed = world.run("A", &["resume", "w1", "--accel", "tcg"]).ok();
    assert_eq!(resumed["how"], "booted", "{resumed}");
    assert_eq!(world.exec("A", "w1", "cat /data/kept"), "kept");
}

/// Who cannot become somebody else is not let in from memory, and never makes a version.
#[test]
fn guest_whose_identity_stays_is_no_version() {
    let world = World::empty("warm-stubborn");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    world.share_tools("A");
    let folder = recipe(&world, "tiny", |text| tiny(true)(text));
    fs::write(folder.join("fresh"), "#!/bin/sh\necho the keys are gone >&2\nexit 3\n").unwrap();
    let words = ["build", folder.to_str().unwrap(), "--accel", "tcg"];
    let (kind, message, hint) = world.run("A", &words).error();
    assert_eq!(kind, "agent", "{message}");
    assert!(message.contains("failed with code 3: the keys are gone"), "{message}");
    assert!(hint.contains("docs/identity.md"), "{hint}");
    nothing_is_left(&world);
    assert_eq!(world.run("A", &["appliances"]).ok(), Value::Array(Vec::new()));
}

/// A build that is killed leaves its instance; the next one, or `doctor`, removes it.
#[test]
fn guest_of_a_build_that_was_killed_is_swept() {
    let world = World::empty("warm-killed");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    let folder = recipe(&world, "nano", running);
    let kill_while_it_runs = || {
        let mut child = world.spawn("A", &["build", folder.to_str().unwrap(), "--accel", "tcg"]);
        eventually(Duration::from_secs(60), "the build runs an instance", || {
            let rows = world.run("A", &["ps"]).ok();
            rows.as_array().unwrap().iter().any(|row| row["state"] == "running")
        });
        kill_9(child.id().into());
        child.wait().unwrap();
        let rows = world.run("A", &["ps"]).ok();
        assert_eq!(rows.as_array().unwrap().len(), 1, "its instance runs on: {rows}");
        assert_eq!(world.run("A", &["appliances"]).ok(), Value::Array(Vec::new()));
    };
    kill_while_it_runs();
    world.run("A", &["doctor", "--fix"]).ok();
    nothing_is_left(&world);
    kill_while_it_runs();
    build(&world, &folder);
    nothing_is_left(&world);
}
