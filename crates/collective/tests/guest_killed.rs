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
    /// Keys typed at what the instance certainly goes on from, if nothing newer came to be.
    old: u64,
    /// Checkpoints that somebody was told of.
    acknowledged: Vec<String>,
    points: u32,
}

impl Life {
    /// `n1`, suspended after one key.
    fn new(name: &str) -> Self {
        let world = World::with_nano(name);
        world.run("A", &["run", "nano", "--name", "n1"]).ok();
        let mut life = Self { world, old: 0, acknowledged: Vec::new(), points: 0 };
        let keys = life.keys_after("a");
        life.acknowledge(keys, &["suspend", "n1"]);
        life
    }

    /// Types, and reads how often was typed since the guest booted.
    #[track_caller]
    fn keys_after(&self, text: &str) -> u64 {
        self.world.lines_after("A", "n1", text)
    }

    /// A verb that comes to its end, after this many keys: what it says holds from here on.
    #[track_caller]
    fn acknowledge(&mut self, keys: u64, verb: &[&str]) {
        let said = self.world.run("A", verb).ok();
        self.told(keys, &said);
    }

    fn told(&mut self, keys: u64, said: &Value) {
        self.acknowledged.extend(said["checkpoint"].as_str().map(str::to_owned));
        self.old = keys;
    }

    /// Starts it; the shim dies when it reaches that step.
    #[track_caller]
    fn resume(&self, dies_at: Option<&str>) {
        let mut resume = self.world.command("A", &["resume", "n1"]);
        resume.envs(dies_at.map(|step| (DIE_AT, step)));
        said(resume.output().unwrap()).ok();
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

    /// The instance goes on, from what was there or from what was new at the kill; perhaps with a
    /// shim that dies when it reaches another step. Gives how often was typed, once more.
    #[track_caller]
    fn goes_on(&mut self, step: &str, new: u64, dies_at: Option<&str>) -> u64 {
        let history = self.history();
        for id in &self.acknowledged {
            assert!(
                history.iter().any(|line| line["id"] == id.as_str()),
                "{step}: {id} was acknowledged, and history has {history:?}"
            );
        }
        // After a crash the disks are there; the memory is in the newest checkpoint.
        if self.world.state("A", "n1") == "failed" {
            self.world.run("A", &["undo", "n1"]).ok();
        }
        if self.world.state("A", "n1") != "running" {
            self.resume(dies_at);
        } else {
            assert_eq!(dies_at, None, "{step}: it runs already");
        }
        let keys = self.keys_after("c");
        let old = self.old;
        assert!(
            [old, new].iter().any(|known| known + 1 == keys),
            "{step}: {keys} keys, and not one more than {old} or {new}"
        );
        // It was in a checkpoint, or it could not have gone on from it.
        self.old = keys - 1;
        keys
    }
}

/// What a shim does when it seals. Both verbs seal: what they share is killed in one of them, by
/// turns. Each shim is born with its death, and most go on from what the one before left.
#[test]
fn guest_killed_while_it_is_sealed_goes_on_from_the_old_or_the_new() {
    let mut life = Life::new("killed-seal");
    // The start moves a head too.
    let steps = [
        ("checkpoint", "seal: frozen"),
        ("suspend", "seal: chunks"),
        ("checkpoint", "seal: written"),
        ("suspend", "session: uploaded"),
        ("checkpoint", "seal: durable"),
        ("suspend", "ref: held#2"),
        ("checkpoint", "ref: visible#2"),
        ("checkpoint", "checkpoint: visible"),
        ("suspend", "suspend: visible"),
        ("suspend", "end: closed"),
        ("suspend", "local: instance.json#2"),
        ("suspend", "local: volumes"),
        ("suspend", "local: volumes removed"),
    ];
    life.resume(Some(steps[0].1));
    let mut new = life.keys_after("x");
    for (round, (verb, step)) in steps.iter().enumerate() {
        let done = life.world.run("A", &[verb, "n1"]);
        // A suspend may be acknowledged before its shim dies.
        assert!(done.code != 0 || *verb == "suspend", "{verb} came to its end, not to {step}");
        if done.code == 0 {
            life.told(new, &done.ok());
        }
        eventually(Duration::from_secs(20), &format!("{verb} dies at {step}"), || {
            life.world.state("A", "n1") != "running"
        });
        life.points += 1;
        let next = steps.get(round + 1).map(|(_, step)| *step);
        // A start after a crash changes what lies here too.
        let cleanly = next.filter(|next| next.starts_with("local:"));
        new = life.goes_on(step, new, next.xor(cleanly));
        if cleanly.is_some() {
            life.acknowledge(new, &["suspend", "n1"]);
            life.resume(cleanly);
            new = life.keys_after("x");
        }
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
        let keys = life.goes_on(step, life.old, None);
        life.acknowledge(keys, &["suspend", "n1"]);
    }
    // The command that goes back; then the shim that sets aside what is undone.
    life.resume(None);
    let mut keys = life.old;
    let shims = ["undo: set aside", "session: listed"];
    let commands = ["undo: branch kept", "ref: held", "ref: visible", "undo: moved"];
    for (round, step) in commands.iter().enumerate() {
        life.acknowledge(keys, &["checkpoint", "n1"]);
        let new = life.keys_after("y");
        life.killed_at(step, &["undo", "n1"]);
        let next = (round + 1 == commands.len()).then_some(shims[0]);
        keys = life.goes_on(step, new, next);
    }
    for (round, step) in shims.iter().enumerate() {
        assert_ne!(life.world.run("A", &["undo", "n1"]).code, 0, "{step}");
        life.points += 1;
        keys = life.goes_on(step, keys, shims.get(round + 1).copied());
    }
    life.acknowledge(keys, &["suspend", "n1"]);
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
