//! Every verb with real guests, on one host and on two: the contract that scripts rely on.

mod support;

use support::World;

#[track_caller]
fn has(document: &serde_json::Value, fields: &[&str]) {
    for field in fields {
        assert!(!document[field].is_null(), "no {field} in {document}");
    }
}

#[test]
fn guest_tiny_runs_here_and_goes_on_there() {
    let world = World::with_tiny("roam");
    let started = world.run("A", &["run", "tiny", "--name", "t1", "-p", "0:80"]).ok();
    has(&started, &["name", "started_ms", "ready_ms", "fetched_bytes", "reused_bytes"]);
    let row = world.row("A", "t1");
    has(&row, &["name", "id", "state", "appliance", "version", "accel", "pid"]);
    assert_eq!(row["state"], "running");

    // exec passes output and exit code.
    let done =
        world.run("A", &["exec", "t1", "--", "/bin/sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(done.code, 3, "{done:?}");
    assert_eq!(done.json()["stdout"], "out\n");
    assert_eq!(done.json()["stderr"], "err\n");

    let boot = world.exec("A", "t1", "cat /proc/sys/kernel/random/boot_id");
    world.exec("A", "t1", "echo in memory > /tmp/note; echo on disk > /data/note; sync");

    let paused = world.run("A", &["pause", "t1"]).ok();
    assert_eq!(paused["state"], "paused");
    assert_eq!(world.state("A", "t1"), "paused");
    assert_eq!(world.run("A", &["exec", "t1", "--", "true"]).error().0, "state");
    assert_eq!(world.run("A", &["unpause", "t1"]).ok()["state"], "running");

    let taken = world.run("A", &["checkpoint", "t1", "--label", "first"]).ok();
    has(&taken, &["checkpoint", "pause_ms", "dirty_bytes", "stored_bytes", "reused_bytes"]);
    let history = world.run("A", &["history", "t1"]).ok();
    has(&history[0], &["id", "label", "time", "size_bytes"]);
    assert_eq!(history[0]["id"], taken["checkpoint"]);

    // While A runs it, B may not.
    let (kind, message, hint) = world.run("B", &["resume", "t1"]).error();
    assert_eq!(kind, "lease", "{message}");
    assert!(hint.contains("--take-over"), "{hint}");

    // As if it had been suspended for long.
    world.exec("A", "t1", "date -u -s @1000000000 >/dev/null");
    let suspended = world.run("A", &["suspend", "t1"]).ok();
    has(&suspended, &["checkpoint", "pause_ms", "dirty_bytes", "stored_bytes", "reused_bytes"]);
    assert_eq!(world.state("A", "t1"), "suspended");
    assert_eq!(world.state("B", "t1"), "suspended");

    let resumed = world.run("B", &["resume", "t1", "-p", "0:80"]).ok();
    assert_eq!(resumed["how"], "continued");
    has(&resumed, &["name", "started_ms", "ready_ms", "fetched_bytes", "reused_bytes"]);
    assert!(resumed["fetched_bytes"].as_u64().unwrap() > 0, "B had nothing");
    let said: u64 = world.exec("B", "t1", "date +%s").parse().unwrap();
    let now = ambient::unix_ms() / 1000;
    assert!(said.abs_diff(now) < 3600, "its clock says {said}, here it is {now}");
    assert_eq!(world.exec("B", "t1", "cat /proc/sys/kernel/random/boot_id"), boot);
    assert_eq!(world.exec("B", "t1", "cat /tmp/note /data/note"), "in memory\non disk");
    assert_eq!(world.run("A", &["resume", "t1"]).error().0, "lease");

    // A data disk survives a stop; memory does not.
    assert_eq!(world.run("B", &["stop", "t1"]).ok()["state"], "stopped");
    let booted = world.run("A", &["resume", "t1"]).ok();
    assert_eq!(booted["how"], "booted");
    assert_ne!(world.exec("A", "t1", "cat /proc/sys/kernel/random/boot_id"), boot);
    assert_eq!(world.exec("A", "t1", "cat /data/note; ls /tmp"), "on disk");

    assert_eq!(world.run("A", &["rm", "t1"]).error().0, "state");
    world.run("A", &["rm", "t1", "--force"]).ok();
    assert_eq!(world.run("A", &["inspect", "t1"]).error().0, "not_found");
    assert!(!world.instance("A", "t1").exists());
    let check = world.run("A", &["repo", "check", "--read-data"]).ok();
    assert_eq!(check["ok"], true);
    has(
        &world.run("A", &["repo", "stats"]).ok(),
        &["logical_bytes", "stored_bytes", "chunks", "objects"],
    );
}

#[test]
fn guest_forks_share_a_past_and_nothing_else() {
    let world = World::with_tiny("fork");
    world.run("A", &["run", "tiny", "--name", "t1"]).ok();
    let boot = world.exec("A", "t1", "cat /proc/sys/kernel/random/boot_id");
    world.exec("A", "t1", "echo shared > /tmp/note");
    let forked = world.run("A", &["fork", "t1", "--count", "2", "--name", "f"]).ok();
    assert_eq!(forked["instances"], serde_json::json!(["f-1", "f-2"]));
    assert!(forked["pause_ms"].as_f64().unwrap() > 0.0);

    let mac = |name: &str| world.exec("A", name, "cat /sys/class/net/eth0/address");
    let macs = [mac("t1"), mac("f-1"), mac("f-2")];
    assert!(macs[0] != macs[1] && macs[1] != macs[2] && macs[0] != macs[2], "{macs:?}");
    assert_eq!(world.exec("A", "f-1", "cat /proc/sys/kernel/hostname"), "f-1");
    for name in ["f-1", "f-2"] {
        assert_eq!(world.exec("A", name, "cat /proc/sys/kernel/random/boot_id"), boot);
        assert_eq!(world.exec("A", name, "cat /tmp/note"), "shared");
    }
    world.exec("A", "f-1", "echo mine > /tmp/note; echo mine > /data/note; sync");
    assert_eq!(
        world.exec("A", "t1", "cat /tmp/note; ls /data"),
        world.exec("A", "f-2", "cat /tmp/note; ls /data")
    );
    assert_eq!(world.run("A", &["fork", "t1", "--name", "f-1"]).error().0, "exists");
}

#[test]
fn guest_undo_brings_back_and_keeps_what_it_undid() {
    let world = World::with_tiny("undo");
    world.run("A", &["run", "tiny", "--name", "t1"]).ok();
    world.exec("A", "t1", "echo keep > /data/note; sync");
    world.run("A", &["checkpoint", "t1", "--label", "good"]).ok();
    world.exec("A", "t1", "rm /data/note; sync; echo later > /tmp/later");
    let undone = world.run("A", &["undo", "t1", "--to", "good"]).ok();
    assert_eq!(undone["state"], "running");
    assert_eq!(world.exec("A", "t1", "cat /data/note; ls /tmp"), "keep");
    // What was undone can be had as a fork.
    let branch = undone["branch"].as_str().unwrap().to_owned();
    let history = world.run("A", &["history", "t1"]).ok();
    let line = history.as_array().unwrap().iter().find(|line| line["id"] == branch.as_str());
    assert!(!line.expect("the branch is in the history")["branch"].is_null());
    world.run("A", &["fork", "t1", "--at", &branch, "--name", "t2"]).ok();
    assert_eq!(
        world.exec("A", "t2", "cat /tmp/later; ls /data | grep -c note || true"),
        "later\n0"
    );
    // It may go: only its name is lost, and what a fork has stays.
    let removed = world.run("A", &["rm", &format!("t1@{}", &branch[..12])]).ok();
    assert_eq!((&removed["state"], &removed["checkpoint"]), (&"removed".into(), &branch.into()));
    let history = world.run("A", &["history", "t1"]).ok();
    assert!(history.as_array().unwrap().iter().all(|line| line["branch"].is_null()), "{history}");
    world.run("A", &["suspend", "t2"]).ok();
    world.run("A", &["resume", "t2"]).ok();
    assert_eq!(world.exec("A", "t2", "cat /tmp/later"), "later");
    // Undoing a suspended instance goes one checkpoint back.
    world.run("A", &["suspend", "t1"]).ok();
    let undone = world.run("A", &["undo", "t1"]).ok();
    assert_eq!(undone["state"], "suspended");
    assert_eq!(world.run("A", &["undo", "t1", "--to", "nothing"]).error().0, "not_found");
}

#[test]
fn guest_that_is_not_linux_runs_suspends_and_forks() {
    let world = World::with_nano("nano");
    world.run("A", &["run", "nano", "--name", "n1"]).ok();
    world.type_in("A", "n1", "ab\r");
    world.await_console("A", "n1", "keys=2");
    let png = world.root().join("screen.png");
    world.run("A", &["screenshot", "n1", "-o", png.to_str().unwrap()]).ok();
    assert!(std::fs::read(png).unwrap().starts_with(b"\x89PNG"));
    world.run("A", &["suspend", "n1"]).ok();
    world.run("B", &["resume", "n1"]).ok();
    world.type_in("B", "n1", "c\r");
    world.await_console("B", "n1", "keys=3");
    world.run("B", &["fork", "n1", "--name", "n2"]).ok();
    world.type_in("B", "n2", "de\r");
    world.await_console("B", "n2", "keys=5");
    assert_eq!(world.run("B", &["exec", "n1", "--", "true"]).error().0, "agent");
    // Its disk counts the boots, and there was only one until now.
    assert!(!world.console("B", "n1").contains("boots="), "{}", world.console("B", "n1"));
    world.run("B", &["stop", "n1", "--force"]).ok();
    world.run("B", &["resume", "n1"]).ok();
    world.await_console("B", "n1", "boots=2");

    // Whoever names another repository gives nothing up that is in this one.
    let other = world.root().join("other").to_string_lossy().into_owned();
    world.run("A", &["repo", "init", &other]).ok();
    for verb in [&["rm", "n1", "--force"][..], &["fork", "n1"], &["undo", "n1"]] {
        let (kind, message, hint) = world.run("B", &[verb, &["--repo", &other]].concat()).error();
        assert_eq!(kind, "not_found", "{message}");
        assert!(message.contains(&world.repository()) && hint.contains("--repo"), "{message}");
    }
    assert_eq!(world.state("B", "n1"), "running");
}

#[test]
fn guest_keeps_nothing_open_of_who_started_it() {
    let world = World::with_nano("inherited");
    let lock = world.root().join("lock");
    // As scripts do so that only one of them runs at a time: the lock is the command's.
    let run = world.command("A", &["run", "nano", "--name", "n1"]);
    let locked = |program: &std::ffi::OsStr| {
        let mut command = std::process::Command::new("flock");
        command.arg("--nonblock").arg(&lock).arg(program);
        command
    };
    let mut under_lock = locked(run.get_program());
    under_lock.args(run.get_args());
    for (name, value) in run.get_envs() {
        match value {
            Some(value) => under_lock.env(name, value),
            None => under_lock.env_remove(name),
        };
    }
    assert!(under_lock.output().unwrap().status.success());
    assert_eq!(world.state("A", "n1"), "running");
    assert!(locked("true".as_ref()).status().unwrap().success(), "its shim holds the lock");
}
