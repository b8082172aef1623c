//! A plane and hosts under it: real processes, one machine.
#![allow(dead_code)]

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Said, World, eventually, said};

/// A process of a test's: a plane, or a host's agent.
pub struct Running(Child);

impl Running {
    /// Lets it stand still: it takes connections, and says nothing.
    pub fn stop(&self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    }

    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A plane on host `P`, and who asks it.
pub struct Fleet<'a> {
    pub world: &'a World,
    pub url: String,
    /// What names it for certain.
    pub fingerprint: String,
    token: String,
}

impl<'a> Fleet<'a> {
    /// Starts a plane at an address of its own or at `listen`, and waits until it says where.
    pub fn start(world: &'a World, listen: &str, lease_s: u32) -> (Running, Self) {
        Self::begin(world.program("P"), world, listen, lease_s, &[])
    }

    /// Starts a plane on this host, with more words.
    pub fn start_on(
        world: &'a World,
        host: &str,
        listen: &str,
        lease_s: u32,
        words: &[&str],
    ) -> (Running, Self) {
        // Planes that share a state are known by one token.
        let token = world.host("P").join("plane.token").display().to_string();
        let words = [&["--token-file", &token][..], words].concat();
        Self::begin(world.program(host), world, listen, lease_s, &words)
    }

    /// Starts a plane at an address of its own, with more words.
    pub fn start_by(world: &'a World, words: &[&str]) -> (Running, Self) {
        Self::begin(world.program("P"), world, "127.0.0.1:0", 15, words)
    }

    /// The same, in this environment.
    #[allow(dead_code, reason = "not every test needs it")]
    pub fn start_with(world: &'a World, environment: &[(&str, &str)]) -> (Running, Self) {
        let mut program = world.program("P");
        program.envs(environment.iter().copied());
        Self::begin(program, world, "127.0.0.1:0", 15, &[])
    }

    /// The same, and what it says besides is in a file.
    pub fn start_logged(world: &'a World, log: &Path) -> (Running, Self) {
        let mut program = world.program("P");
        program.stderr(File::create(log).unwrap());
        Self::begin(program, world, "127.0.0.1:0", 15, &[])
    }

    fn begin(
        mut program: Command,
        world: &'a World,
        listen: &str,
        lease_s: u32,
        words: &[&str],
    ) -> (Running, Self) {
        let lease = lease_s.to_string();
        program.args(["plane", "--json", "--listen", listen, "--lease", &lease]);
        // All hosts are this machine, and are as busy as whatever else it does.
        program.arg("--no-rebalance").args(words);
        let mut child = Running(program.stdout(Stdio::piped()).spawn().unwrap());
        let mut document = String::new();
        let mut lines = BufReader::new(child.0.stdout.take().unwrap());
        while serde_json::from_str::<Value>(&document).is_err() {
            assert!(lines.read_line(&mut document).unwrap() > 0, "it ended: {document}");
        }
        let document: Value = serde_json::from_str(&document).unwrap();
        let url = document["url"].as_str().unwrap().to_owned();
        let fingerprint = document["fingerprint"].as_str().unwrap().to_owned();
        let token = world.host("P").join("plane.token").display().to_string();
        (child, Self { world, url, fingerprint, token })
    }

    /// Starts the agent of a host whose `site` is its name.
    pub fn join(&self, host: &str) -> Running {
        self.join_by(host, &["--token-file", &self.token])
    }

    /// The same, where it gives nothing to other hosts.
    pub fn join_giving_nothing(&self, host: &str) -> Running {
        self.join_by(host, &["--token-file", &self.token, "--peers", "off"])
    }

    /// The same with this token, or none.
    pub fn join_by(&self, host: &str, token: &[&str]) -> Running {
        let label = format!("site={host}");
        let mut program = self.world.program(host);
        program.args(["host", "join", &self.url, "--label", &label]).args(token);
        Running(program.stderr(Stdio::null()).spawn().unwrap())
    }

    /// Starts an agent that tells figures, and says where.
    pub fn join_with_figures(&self, host: &str) -> (Running, String) {
        let mut program = self.world.program(host);
        program.args(["host", "join", &self.url, "--token-file", &self.token]);
        program.args(["--label", &format!("site={host}"), "--metrics", "127.0.0.1:0"]);
        let mut child = Running(program.stderr(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
        let address = lines.find_map(|line| {
            let line = line.unwrap();
            Some(line.split_once("http://")?.1.strip_suffix("/metrics")?.to_owned())
        });
        // What else it says is read by nobody.
        std::thread::spawn(move || lines.for_each(drop));
        (child, address.expect("it ended"))
    }

    /// Starts an agent in this environment.
    #[allow(dead_code, reason = "not every test needs it")]
    pub fn join_with(&self, host: &str, environment: &[(&str, &str)]) -> Running {
        let mut program = self.world.program(host);
        program.args(["host", "join", &self.url, "--token-file", &self.token]);
        program.args(["--label", &format!("site={host}")]);
        program.envs(environment.iter().copied());
        Running(program.stderr(Stdio::null()).spawn().unwrap())
    }

    /// Starts an agent whose words are in a file.
    pub fn join_logged(&self, host: &str, log: &Path) -> Running {
        let mut program = self.world.program(host);
        program.args(["host", "join", &self.url, "--token-file", &self.token]);
        program.args(["--label", &format!("site={host}")]);
        Running(program.stderr(File::create(log).unwrap()).spawn().unwrap())
    }

    /// A verb that asks the plane by its options.
    pub fn at(&self, host: &str, words: &[&str]) -> Said {
        let rest = ["--plane", &self.url, "--token-file", &self.token];
        let words: Vec<_> = words.iter().copied().chain(rest).collect();
        self.world.run(host, &words)
    }

    pub fn command(&self, host: &str, words: &[&str]) -> Command {
        let mut command = self.world.command(host, words);
        command.env("COLLECTIVE_PLANE", &self.url).env("COLLECTIVE_PLANE_TOKEN_FILE", &self.token);
        command
    }

    /// A verb that lets the plane decide.
    pub fn run(&self, host: &str, words: &[&str]) -> Said {
        said(self.command(host, words).output().unwrap())
    }

    /// Begins a verb that lets the plane decide.
    pub fn spawn(&self, host: &str, words: &[&str]) -> Child {
        let mut command = self.command(host, words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub fn hosts(&self) -> Vec<Value> {
        self.at("P", &["host", "list"]).ok().as_array().unwrap().clone()
    }

    pub fn await_hosts(&self, count: usize) {
        eventually(Duration::from_secs(20), "all have joined", || self.hosts().len() == count);
    }

    pub fn host(&self, host: &str) -> Value {
        let found = self.hosts().into_iter().find(|found| found["labels"]["site"] == host);
        found.unwrap_or_else(|| panic!("{host} has not joined"))
    }

    pub fn id(&self, host: &str) -> String {
        self.host(host)["id"].as_str().unwrap().to_owned()
    }

    /// What the plane knows of an instance.
    pub fn placed(&self, name: &str) -> Value {
        let placed = self.run("P", &["ps"]).ok();
        let row = placed.as_array().unwrap().iter().find(|row| row["name"] == name);
        row.cloned().unwrap_or_else(|| panic!("{name} is not in {placed}"))
    }

    #[track_caller]
    pub fn await_placed(&self, name: &str, host: Option<&str>, state: &str) {
        let id = host.map(|host| self.id(host));
        let ends = ambient::now() + Duration::from_secs(60);
        loop {
            let placed = self.placed(name);
            if placed["state"] == state && placed["host"].as_str() == id.as_deref() {
                return;
            }
            assert!(ambient::now() < ends, "{name} is not {state} on {host:?}: {placed}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
