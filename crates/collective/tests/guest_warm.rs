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
    world.await_console("A", name, text);
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

    // On request it boots, for the first time.
    let cold = start("n2", &["--boot"]);
    assert_eq!(cold["how"], "booted", "{cold}");
    assert!(cold["cold"].is_null(), "{cold}");
    says(&world, "n2", "boots=1");
}

/// Who cannot start from its memory boots, and says why.
#[test]
fn guest_that_cannot_start_from_memory_boots_and_says_why() {
    let world = World::empty("warm-misfit");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    build(&world, &recipe(&world, "nano", running));
    let mut count = 0;
    let mut boots = |why: &str, more: &[&str]| {
        count += 1;
        let name = format!("n{count}");
        let words = [&["run", "nano", "--name", &name, "--accel", "tcg"], more].concat();
        let started = world.run("A", &words).ok();
        assert_eq!(started["how"], "booted", "{started}");
        let said = started["cold"].as_str().unwrap();
        assert!(said.contains(why), "{said}");
        says(&world, &name, "boots=1");
        // From here on it is one like any other.
        world.run("A", &["suspend", &name]).ok();
        let resumed = world.run("A", &["resume", &name, "--accel", "tcg"]).ok();
        assert_eq!(resumed["how"], "continued", "{resumed}");
        assert!(resumed["cold"].is_null(), "{resumed}");
        world.run("A", &["rm", &name, "--force"]).ok();
    };
    // A CD with what its user configures: the computer in the memory has no drive for it.
    let user_data = world.root().join("user-data");
    fs::write(&user_data, "#cloud-config\nhostname: mine\n").unwrap();
    let user_data = user_data.to_str().unwrap();
    boots("has no drive for the CD that configures it", &["--user-data", user_data]);
    // What cannot be loaded.
    let surgery = Surgery::on(&world.repository(), "nano");
    let noise = surgery.put_file(&support::noise()[..4096]);
    let mut fine = Value::Null;
    surgery.change_appliance("nano", |version| {
        let state = &mut version["warm"]["memory"]["device_state"];
        fine = std::mem::replace(state, noise);
    });
    boots("its appliance's memory could not be used: ", &[]);
    // What is another machine.
    for (field, other, why) in [
        ("cpu_model", Value::from("Haswell-v1"), "the CPU model Haswell-v1; here it is Nehalem-v1"),
        ("memory_bytes", Value::from(32 << 20), "a memory of 32.0 MiB; here it is 16.0 MiB"),
        ("machine_type", Value::from("pc-i440fx-1.0"), "the machine pc-i440fx-1.0; here it is"),
        ("accel", Value::from("kvm"), "the accelerator kvm; here it is tcg"),
    ] {
        let mut was = Value::Null;
        surgery.change_appliance("nano", |version| {
            let memory = &mut version["warm"]["memory"];
            memory["device_state"] = fine.clone();
            was = std::mem::replace(&mut memory[field], other);
        });
        boots(why, &[]);
        surgery.change_appliance("nano", |version| version["warm"]["memory"][field] = was);
    }
    let started = world.run("A", &["run", "nano", "--name", "last", "--accel", "tcg"]).ok();
    assert_eq!(started["how"], "continued", "{started}");
}

/// What two instances say when each is asked the same.
#[track_caller]
fn ask(world: &World, script: &str) -> [String; 2] {
    ["w1", "w2"].map(|name| world.exec("A", name, script))
}

/// Who boots is ready when its port answers; its agent comes later.
#[track_caller]
fn await_agent(world: &World, name: &str) {
    eventually(Duration::from_secs(60), "the agent answers", || {
        world.run("A", &["exec", name, "--", "/bin/true"]).code == 0
    });
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

/// A whole Debian system, with a server of its own and one for SSH: what it is for is refreshed by its
/// maker's part, what every Debian system has by the part that the build puts in.
#[test]
fn guest_instances_of_one_memory_are_each_somebody_of_their_own() {
    let world = World::empty("warm-web");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    world.share_tools("A");
    let folder = recipe(&world, "web", |text| {
        assert!(text.contains("\nstate: running\n"), "it starts from memory");
        text.replace("        - udhcpc\n", "        - udhcpc\n        - openssh-server\n")
    });
    let built = build(&world, &folder);
    assert_eq!(built["warm"]["agent"], true, "{built}");
    nothing_is_left(&world);
    let start = |name: &str, more: &[&str]| {
        let words =
            [&["run", "web", "--name", name, "-p", "0:80", "--accel", "tcg"], more].concat();
        world.run("A", &words).ok()
    };
    let state = |started: &Value| -> Value {
        let answer = support::http_get(started, "/api/state");
        serde_json::from_str(answer.rsplit("\r\n\r\n").next().unwrap()).unwrap()
    };
    let warm = ["w1", "w2"].map(|name| start(name, &[]));
    for started in &warm {
        assert_eq!(started["how"], "continued", "{started}");
    }
    let cold = start("w3", &["--boot"]);
    assert_eq!(cold["how"], "booted", "{cold}");
    await_agent(&world, "w3");
    // From the same memory: the same boot.
    let said = [&warm[0], &warm[1], &cold].map(state);
    assert_eq!(said[0]["boot_id"], said[1]["boot_id"], "both go on from one boot");

    // And nothing else: in the guest,
    let every = |script: &str| ["w1", "w2", "w3"].map(|name| world.exec("A", name, script));
    let different = |what: &str, said: &[String]| {
        let set: BTreeSet<_> = said.iter().collect();
        assert!(set.len() == said.len() && !set.contains(&String::new()), "{what}: {said:?}");
    };
    different("session", &said.map(|said| said["session"].to_string()));
    different("random numbers", &every("cat /proc/sys/kernel/random/uuid"));
    different("address", &every("cat /sys/class/net/eth0/address"));
    different("machine id", &ask(&world, "cat /etc/machine-id"));
    assert_eq!(ask(&world, "hostname"), ["w1", "w2"]);
    // The keys that its server shows, which are those in its files. Nobody has the maker's.
    let shown = every("ssh-keyscan -t ed25519 127.0.0.1 2>/dev/null | cut -d' ' -f2,3");
    different("SSH host key", &shown);
    assert_eq!(shown, every("cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub"));
    // Each has been told once that its generation is another, and has drawn new randomness.
    let reseeded = "dmesg | grep -c 'crng reseeded due to virtual machine fork'";
    assert_eq!(ask(&world, reseeded), ["1", "1"]);
    // The maker's own instance had no UUID that these could share.
    let uuid = "cat /sys/class/dmi/id/product_uuid 2>/dev/null || echo none";
    assert_eq!(ask(&world, uuid), ["none", "none"]);
    let now = ambient::unix_ms() / 1000;
    for said in every("date +%s") {
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
    world.exec("A", "w1", "echo kept > /var/lib/notes/kept; sync");
    world.kill("A", "w1", false);
    world.await_state("A", "w1", "failed");
    let resumed = world.run("A", &["resume", "w1", "--accel", "tcg"]).ok();
    assert_eq!(resumed["how"], "booted", "{resumed}");
    await_agent(&world, "w1");
    assert_eq!(world.exec("A", "w1", "cat /var/lib/notes/kept"), "kept");
}

/// Who cannot become somebody else is not let in from memory, and never makes a version.
#[test]
fn guest_whose_identity_stays_is_no_version() {
    let world = World::empty("warm-stubborn");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    world.share_tools("A");
    let folder = recipe(&world, "tiny", |text| {
        let hook = "      - {path: /etc/collective/fresh-identity, from: fresh, mode: \"0755\"}\n";
        running(text.replacen("    files:\n", &format!("    files:\n{hook}"), 1))
    });
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

/// Who upgrades the program while a build runs does not end the build.
#[test]
fn guest_of_a_build_starts_when_its_program_was_replaced() {
    let world = World::empty("warm-replaced");
    let program = world.root().join("collective");
    fs::copy(support::PROGRAM, &program).unwrap();
    let world = world.started_by(vec![program.clone().into()]);
    world.run("A", &["repo", "init", &world.repository()]).ok();
    let folder = recipe(&world, "nano", running);
    let build = world.spawn("A", &["build", folder.to_str().unwrap(), "--accel", "tcg"]);
    eventually(Duration::from_secs(60), "the build runs its first instance", || {
        let rows = world.run("A", &["ps"]).ok();
        rows.as_array().unwrap().iter().any(|row| row["state"] == "running")
    });
    let newer = world.root().join("newer");
    fs::copy(support::PROGRAM, &newer).unwrap();
    fs::remove_file(&program).unwrap();
    let built = support::said(build.wait_with_output().unwrap()).ok();
    assert_eq!(built["warm"]["accel"], "tcg", "{built}");
    fs::rename(&newer, &program).unwrap();
    nothing_is_left(&world);
}
