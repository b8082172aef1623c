//! Every named step of every verb, killed with a real guest: afterwards the state is the old one or
//! the new one, what was acknowledged is there, and the next command works.

mod support;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use support::{World, appliance, eventually, said};

/// Ends the process that reaches it, as the power would (`crates/collective/src/main.rs`).
const DIE_AT: &str = "COLLECTIVE_DIE_AT";

/// A guest that counts in its memory what is typed, and on its disk how often it booted.
struct Life {
    world: World,
    /// Keys typed when the last checkpoint was acknowledged, and that checkpoint.
    acknowledged: (u64, String),
    points: u32,
}

impl Life {
    fn new(name: &str) -> Self {
        let world = World::with_nano(name);
        world.run("A", &["run", "nano", "--name", "n1"]).ok();
        let mut life = Self { world, acknowledged: (0, String::new()), points: 0 };
        let keys = life.keys_after("a");
        life.acknowledge(keys, &["suspend", "n1"]);
        life
    }

    /// Types, and reads how often was typed since the guest booted.
    #[track_caller]
    fn keys_after(&self, text: &str) -> u64 {
        let console = || self.world.console("A", "n1");
        let before = console().len();
        self.world.type_in("A", "n1", &format!("{text}\r"));
        let read = || {
            let console = console();
            let new = console.get(before..)?.rsplit("keys=").next()?;
            new.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        eventually(Duration::from_secs(20), "the guest counts what was typed", || read().is_some());
        read().unwrap()
    }

    /// A verb that comes to its end, after this many keys: what it says holds from here on.
    #[track_caller]
    fn acknowledge(&mut self, keys: u64, verb: &[&str]) {
        let said = self.world.run("A", verb).ok();
        let id = said["checkpoint"].as_str().unwrap_or(&self.acknowledged.1).to_owned();
        self.acknowledged = (keys, id);
    }

    /// Does a verb whose process, or whose shim, is to die at a step.
    #[track_caller]
    fn killed_at(&mut self, step: &str, arguments: &[&str]) {
        let mut command = self.world.command("A", arguments);
        command.env(DIE_AT, step).stdout(Stdio::piped()).stderr(Stdio::piped());
        let done = said(command.spawn().unwrap().wait_with_output().unwrap());
        assert_ne!(done.code, 0, "{arguments:?} came to its end and never to {step}: {done:?}");
        self.points += 1;
    }

    /// A folder with the guest's recipe, as another version.
    fn recipe(&self, version: &str) -> String {
        let folder = self.world.root().join(format!("recipe-{version}"));
        fs::create_dir_all(&folder).unwrap();
        let of = Path::new(&appliance("nano")).to_owned();
        fs::copy(of.join("nano.img"), folder.join("nano.img")).unwrap();
        let recipe = fs::read_to_string(of.join("appliance.yaml")).unwrap();
        let recipe = recipe.replace("version: \"1\"", &format!("version: \"{version}\""));
        fs::write(folder.join("appliance.yaml"), recipe).unwrap();
        folder.to_string_lossy().into_owned()
    }

    fn history(&self) -> Vec<Value> {
        self.world.run("A", &["history", "n1"]).ok().as_array().unwrap().clone()
    }

    /// The instance goes on, from what was acknowledged or from what was new at the kill.
    #[track_caller]
    fn goes_on(&mut self, step: &str, new: u64) -> u64 {
        let (old, id) = self.acknowledged.clone();
        assert!(
            self.history().iter().any(|line| line["id"] == id.as_str()),
            "{step}: {id} was acknowledged, and history has {:?}",
            self.history()
        );
        // After a crash the disks are there; the memory is in the newest checkpoint.
        if self.world.state("A", "n1") == "failed" {
            self.world.run("A", &["undo", "n1"]).ok();
        }
        if self.world.state("A", "n1") != "running" {
            self.world.run("A", &["resume", "n1"]).ok();
        }
        let keys = self.keys_after("c");
        assert!(
            [old, new].iter().any(|known| known + 1 == keys),
            "{step}: {keys} keys, and not one more than {old} or {new}"
        );
        keys
    }
}

/// What a shim does when it seals: it is born with its death.
#[test]
fn guest_killed_while_it_is_sealed_goes_on_from_the_old_or_the_new() {
    let mut life = Life::new("killed-seal");
    let common =
        ["seal: frozen", "seal: chunks", "seal: written", "session: uploaded", "seal: durable"];
    let of = |verb: &'static str, own: &'static [&'static str]| {
        common.iter().chain(own).map(move |step| (verb, *step))
    };
    let steps = of("checkpoint", &["ref: held", "ref: visible", "checkpoint: visible"]).chain(of(
        "suspend",
        &[
            "ref: visible",
            "suspend: visible",
            "end: closed",
            "local: instance.json#2",
            "local: volumes",
            "local: volumes removed",
        ],
    ));
    for (verb, step) in steps {
        // The start moves a head too, and a session of its own may lie before.
        let at = if step.starts_with("ref: ") { format!("{step}#2") } else { step.to_owned() };
        let mut resume = life.world.command("A", &["resume", "n1"]);
        said(resume.env(DIE_AT, &at).output().unwrap()).ok();
        let new = life.keys_after("x");
        let done = life.world.run("A", &[verb, "n1"]);
        // A suspend may be acknowledged before its shim dies.
        assert!(done.code != 0 || verb == "suspend", "{verb} came to its end, not to {step}");
        if done.code == 0 {
            life.acknowledged = (new, done.ok()["checkpoint"].as_str().unwrap().to_owned());
        }
        eventually(Duration::from_secs(20), &format!("{verb} dies at {step}"), || {
            life.world.state("A", "n1") != "running"
        });
        life.points += 1;
        let keys = life.goes_on(step, new);
        life.acknowledge(keys, &["suspend", "n1"]);
    }
    println!("{} kills of checkpoint and suspend with a guest", life.points);
}

#[test]
fn guest_killed_while_it_starts_or_goes_back_or_is_forked_is_there() {
    let mut life = Life::new("killed-verbs");
    let starts = [
        "claim: read",
        "ref: held",
        "ref: visible",
        "claim: held",
        "local: instance.json",
        "local: instance.json written",
        "start: runs",
    ];
    for step in starts {
        life.killed_at(step, &["resume", "n1"]);
        let keys = life.goes_on(step, life.acknowledged.0);
        life.acknowledge(keys, &["suspend", "n1"]);
    }
    // The command that goes back; then the shim that sets aside what is undone.
    for step in ["undo: branch kept", "ref: held", "ref: visible", "undo: moved"] {
        life.world.run("A", &["resume", "n1"]).ok();
        life.acknowledge(life.acknowledged.0, &["checkpoint", "n1"]);
        let new = life.keys_after("y");
        life.killed_at(step, &["undo", "n1"]);
        let keys = life.goes_on(step, new);
        life.acknowledge(keys, &["suspend", "n1"]);
    }
    for step in ["undo: set aside", "session: listed"] {
        let mut resume = life.world.command("A", &["resume", "n1"]);
        said(resume.env(DIE_AT, step).output().unwrap()).ok();
        let new = life.keys_after("z");
        assert_ne!(life.world.run("A", &["undo", "n1"]).code, 0, "{step}");
        life.points += 1;
        let keys = life.goes_on(step, new);
        life.acknowledge(keys, &["suspend", "n1"]);
    }
    for (round, step) in ["fork: name", "ref: visible", "fork: named"].iter().enumerate() {
        let name = format!("f{round}");
        life.killed_at(step, &["fork", "n1", "--no-start", "--name", &name]);
        // It is there whole, or it is not there.
        if life.world.run("A", &["resume", &name]).code == 0 {
            life.world.run("A", &["rm", &name, "--force"]).ok();
        } else {
            assert_eq!(*step, "fork: name");
        }
    }
    let steps =
        ["session: uploaded", "publish: put", "publish: durable", "ref: held", "ref: visible"];
    for (round, step) in steps.iter().enumerate() {
        let recipe = life.recipe(&format!("2.{round}"));
        life.killed_at(step, &["build", &recipe]);
        life.world.run("A", &["run", "nano", "--name", "n2"]).ok();
        life.world.run("A", &["rm", "n2", "--force"]).ok();
    }
    let collect = [
        "gc: marked",
        "gc: old generations deleted",
        "gc: repacked",
        "gc: in the log",
        "gc: judged",
        "gc: compacted",
    ];
    for step in collect {
        life.killed_at(step, &["repo", "gc"]);
        life.world.run("A", &["repo", "gc"]).ok();
    }
    life.world.run("A", &["resume", "n1"]).ok();
    let check = life.world.run("A", &["repo", "check", "--read-data"]).ok();
    assert_eq!(check["ok"], true, "{check}");
    println!("{} kills of resume, undo, fork, build and gc with a guest", life.points);
}
