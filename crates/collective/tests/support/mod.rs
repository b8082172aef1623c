//! Hosts and a repository of a test's own, real guests in them, and nothing left afterwards.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use s3_server::S3Server;
use serde_json::Value;

pub mod surgery;
pub mod transcript;
pub mod vnc;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_collective");

/// How long an answer on a console may take; it has ended when nothing came for so long; and who has not
/// begun by then is given the two seconds that the program itself waits.
const ANSWER: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_millis(200);
const NO_ANSWER: Duration = Duration::from_millis(700);

/// A folder with a repository and as many hosts as are named.
pub struct World {
    root: PathBuf,
    /// The repository's location, when it is not the folder in here.
    repository: Option<String>,
    /// What every command finds in its environment.
    environment: Vec<(String, String)>,
    /// What starts the program: itself, or somebody else who becomes it.
    starter: Vec<OsString>,
    /// By host: words that begin its commands.
    entered: BTreeMap<String, Vec<OsString>>,
}

/// A file system of a few MiB for a folder, unmounted when dropped.
pub struct Small(PathBuf);

impl Small {
    pub fn mount(folder: &Path, bytes: u64) -> Self {
        let options = format!("size={bytes},mode=0700");
        mount(&["-t", "tmpfs", "-o", &options, "small", folder.to_str().unwrap()]);
        Self(folder.to_owned())
    }

    pub fn resize(&self, bytes: u64) {
        mount(&["-o", &format!("remount,size={bytes}"), self.0.to_str().unwrap()]);
    }

    /// Leaves so many bytes of it.
    pub fn fill(&self, left: usize) {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        let free = (stat.f_bavail * stat.f_frsize) as usize;
        fs::write(self.filler(), vec![1; free.saturating_sub(left)]).unwrap();
    }

    /// Makes room again.
    pub fn empty(&self) {
        fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[track_caller]
fn mount(arguments: &[&str]) {
    let done = Command::new("mount").args(arguments).output().unwrap();
    assert!(done.status.success(), "mount {arguments:?}: {done:?}");
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// Its JSON document; the command must have succeeded.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        self.json()
    }

    /// The error in its JSON document; the command must have failed with code 1.
    #[track_caller]
    pub fn error(&self) -> (String, String, String) {
        assert_eq!(self.code, 1, "{self:?}");
        let error = &self.json()["error"];
        let field = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        (field("kind"), field("message"), field("hint"))
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl World {
    /// An empty world.
    pub fn empty(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("collective-{name}-{}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        let starter = vec![PROGRAM.into()];
        let entered = BTreeMap::new();
        Self { root, repository: None, environment: Vec::new(), starter, entered }
    }

    /// This world with the program started by these words.
    pub fn started_by(mut self, starter: Vec<OsString>) -> Self {
        self.starter = starter;
        self
    }

    /// This world with the commands of hosts begun by words of their own.
    pub fn entered_by(mut self, entered: BTreeMap<String, Vec<OsString>>) -> Self {
        self.entered = entered;
        self
    }

    /// This world with its repository elsewhere.
    pub fn at(mut self, location: &str, environment: &[(&str, &str)]) -> Self {
        self.repository = Some(location.to_owned());
        let owned = environment.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        self.environment = owned.collect();
        self
    }

    /// A world whose repository has `nano`, built in an instant.
    pub fn with_nano(name: &str) -> Self {
        let world = Self::empty(name);
        world.run("A", &["repo", "init", &world.repository()]).ok();
        world.run("A", &["build", &appliance("nano")]).ok();
        world
    }

    /// A world whose repository has `tiny`, built once for all tests from Debian's packages.
    pub fn with_tiny(name: &str) -> Self {
        let world = Self::empty(name);
        copy_tree(&tiny_fixture(), Path::new(&world.repository()));
        world
    }

    /// Lets a host build with what other tests have fetched and unpacked.
    pub fn share_tools(&self, host: &str) {
        share_tools(&self.host(host));
    }

    /// A world with a `tiny` called `t1` that sleeps in the repository; its memory holds [`noise`],
    /// and [`READ_NOISE`] has it read that.
    pub fn with_noisy_sleeper(name: &str) -> Self {
        let world = Self::with_tiny(name);
        world.run("A", &["run", "tiny", "--name", "t1"]).ok();
        let mut put = world
            .command("A", &["exec", "-i", "t1", "--", "/bin/sh", "-c", "cat > /tmp/noise"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        put.stdin.take().unwrap().write_all(&noise()).unwrap();
        said(put.wait_with_output().unwrap()).ok();
        world.exec("A", "t1", "md5sum /tmp/noise > /tmp/sum");
        world.run("A", &["suspend", "t1"]).ok();
        world
    }

    /// An empty world with an S3 server; its repository there is yet to be made.
    pub fn on_s3(name: &str) -> (Self, S3Server) {
        let world = Self::empty(name);
        let server = S3Server::start(&world.root.join("s3"), &["bucket"], "127.0.0.1:0").unwrap();
        (world.behind(&server), server)
    }

    fn behind(self, server: &S3Server) -> Self {
        let environment = [
            ("AWS_ENDPOINT_URL", server.endpoint()),
            ("AWS_ACCESS_KEY_ID", s3_server::ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", s3_server::SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ];
        let environment: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        self.at("s3://bucket/repository", &environment)
    }

    /// [`World::with_tiny`] behind an S3 server, and these hosts with its key.
    pub fn with_tiny_on_s3(name: &str, hosts: &[&str]) -> (Self, S3Server) {
        Self::with_tiny_behind(name, hosts, |world, folder| {
            (world, S3Server::start(folder, &["bucket"], "127.0.0.1:0").unwrap())
        })
    }

    /// The same behind a server on a folder that `serve` starts, in a world that it may change.
    pub fn with_tiny_behind(
        name: &str,
        hosts: &[&str],
        serve: impl FnOnce(Self, &Path) -> (Self, S3Server),
    ) -> (Self, S3Server) {
        let mut world = Self::empty(name);
        let folder = world.root.join("s3");
        fs::create_dir_all(folder.join("bucket")).unwrap();
        let folder_itself = folder.join("bucket/repository");
        copy_tree(&tiny_fixture(), &folder_itself);
        let key = world.root.join("key");
        world.repository = Some(folder_itself.to_string_lossy().into_owned());
        world.run(hosts[0], &["repo", "key", "export", "-o", key.to_str().unwrap()]).ok();
        fs::remove_file(folder_itself.join("key")).unwrap();
        let (world, server) = serve(world, &folder);
        let world = world.behind(&server);
        for host in hosts {
            world.run(host, &["repo", "key", "import", key.to_str().unwrap()]).ok();
        }
        (world, server)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn repository(&self) -> String {
        match &self.repository {
            Some(location) => location.clone(),
            None => self.root.join("repository").to_string_lossy().into_owned(),
        }
    }

    pub fn host(&self, host: &str) -> PathBuf {
        self.root.join(format!("host-{host}"))
    }

    pub fn instance(&self, host: &str, name: &str) -> PathBuf {
        self.host(host).join("instances").join(name)
    }

    pub fn command(&self, host: &str, arguments: &[&str]) -> Command {
        let mut command = self.program(host);
        command
            .env_remove("COLLECTIVE_REPO")
            .args(["--json", "--repo", &self.repository()])
            .args(arguments);
        command
    }

    /// The program as on a host where nobody types: the repository comes from the environment.
    pub fn program(&self, host: &str) -> Command {
        let entered = self.entered.get(host).into_iter().flatten();
        let mut words = entered.chain(&self.starter);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("COLLECTIVE_DIR", self.host(host))
            .env("COLLECTIVE_REPO", self.repository())
            .current_dir(&self.root)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, host: &str, arguments: &[&str]) -> Said {
        said(self.command(host, arguments).output().unwrap())
    }

    /// Starts a command without waiting for it.
    pub fn spawn(&self, host: &str, arguments: &[&str]) -> Child {
        let mut command = self.command(host, arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The row of `ps` about an instance.
    #[track_caller]
    pub fn row(&self, host: &str, name: &str) -> Value {
        let rows = self.run(host, &["ps"]).ok();
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == name);
        row.cloned().unwrap_or_else(|| panic!("{name} is not in {rows}"))
    }

    #[track_caller]
    pub fn state(&self, host: &str, name: &str) -> String {
        self.row(host, name)["state"].as_str().unwrap().to_owned()
    }

    /// The same, when the repository may be away or damaged.
    #[track_caller]
    pub fn row_without_repository(&self, host: &str, name: &str) -> Value {
        let rows = self.run(host, &["ps", "--local"]).ok();
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == name);
        row.cloned().unwrap_or_else(|| panic!("{name} is not in {rows}"))
    }

    /// What a command in the guest prints.
    #[track_caller]
    pub fn exec(&self, host: &str, name: &str, script: &str) -> String {
        let done = self.run(host, &["exec", name, "--", "/bin/sh", "-c", script]).ok();
        assert_eq!(done["exit_code"], 0, "{script}: {done}");
        done["stdout"].as_str().unwrap().trim().to_owned()
    }

    pub fn console(&self, host: &str, name: &str) -> String {
        let path = self.instance(host, name).join("run/console.log");
        String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Waits until a guest wrote this on its console: what it writes comes a byte at a time.
    #[track_caller]
    pub fn await_console(&self, host: &str, name: &str, text: &str) {
        let deadline = ambient::now() + Duration::from_secs(120);
        while !self.console(host, name).contains(text) {
            let console = || self.console(host, name);
            assert!(ambient::now() < deadline, "no {text:?} of {name}: {}", console());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Types a line into a `nano`, and reads how many were typed since it booted.
    #[track_caller]
    pub fn lines_after(&self, host: &str, name: &str, text: &str) -> u64 {
        let console = || self.console(host, name);
        let before = console().len();
        self.type_in(host, name, &format!("{text}\r"));
        let read = || {
            let console = console();
            let new = console.get(before..)?.rsplit("keys=").next()?;
            new.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        eventually(Duration::from_secs(20), "the guest counts what was typed", || read().is_some());
        read().unwrap()
    }

    /// Types into the serial console, and waits a moment for the answer.
    #[track_caller]
    pub fn type_in(&self, host: &str, name: &str, text: &str) {
        assert!(self.try_type_in(host, name, text));
    }

    /// The same, when the instance may end meanwhile.
    pub fn try_type_in(&self, host: &str, name: &str, text: &str) -> bool {
        let console = || self.console(host, name).len();
        let before = console();
        let mut child = self
            .command(host, &["console", name])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut keyboard = child.stdin.take().unwrap();
        let _ = keyboard.write_all(text.as_bytes());
        let began = ambient::now();
        let (mut length, mut said_at) = (before, began);
        while began.elapsed() < ANSWER && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(20));
            let now = console();
            if now != length {
                (length, said_at) = (now, ambient::now());
            }
            if length == before && began.elapsed() > NO_ANSWER {
                break;
            }
            if length > before && said_at.elapsed() > SILENCE {
                // Ctrl-] leaves; who only closes the input is shown the answer for two seconds.
                let _ = keyboard.write_all(b"\x1d");
                break;
            }
        }
        drop(keyboard);
        child.wait().unwrap().success()
    }

    /// Kills the shim, or with `qemu` its QEMU, as by `kill -9`.
    pub fn kill(&self, host: &str, name: &str, qemu: bool) {
        let row = self.row(host, name);
        let shim = row["pid"].as_u64().unwrap();
        let pid = if qemu { child_of(shim).expect("the shim has a QEMU") } else { shim };
        kill_9(pid);
    }

    /// Waits until `ps` says this state.
    #[track_caller]
    pub fn await_state(&self, host: &str, name: &str, state: &str) {
        eventually(Duration::from_secs(60), &format!("{name} is {state}"), || {
            self.state(host, name) == state
        });
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What runs may hang in the middle of whatever the test did to it: ended by force, by the
        // ids that its own files tell.
        for host in fs::read_dir(&self.root).into_iter().flatten().flatten() {
            let instances = host.path().join("instances");
            for instance in fs::read_dir(instances).into_iter().flatten().flatten() {
                if std::thread::panicking() {
                    let log = fs::read_to_string(instance.path().join("shim.log"));
                    eprintln!("--- shim of {:?}:\n{}", instance.path(), log.unwrap_or_default());
                }
                for pid in shims_of(&instance.path()) {
                    kill_9(pid);
                }
                for mount in ["memory", "disks"] {
                    let mount = instance.path().join("run").join(mount);
                    let _ = Command::new("umount").arg("-l").arg(mount).output();
                }
            }
        }
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// What a guest's web server answers on the first port that was published when it started.
#[track_caller]
pub fn http_get(started: &Value, path: &str) -> String {
    let port = &started["ports"][0];
    let address = (port["address"].as_str().unwrap(), port["host_port"].as_u64().unwrap() as u16);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Prints OK when the noise is what was put there.
pub const READ_NOISE: &[&str] = &["exec", "t1", "--", "md5sum", "-c", "/tmp/sum"];

/// 2 MiB that no compression makes smaller, the same every time.
pub fn noise() -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.take((2 << 20) / 8).flatten().collect()
}

pub fn said(output: Output) -> Said {
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until something holds.
#[track_caller]
pub fn eventually(within: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = ambient::now() + within;
    while !holds() {
        assert!(ambient::now() < deadline, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn kill_9(pid: u64) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
}

/// A folder of a recipe.
pub fn appliance(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../appliances")
        .join(name)
        .canonicalize()
        .unwrap()
        .to_string_lossy()
        .into_owned()
}

/// The first child of a process.
fn child_of(parent: u64) -> Option<u64> {
    children_of(parent).into_iter().next()
}

/// The children of a process.
pub fn children_of(parent: u64) -> Vec<u64> {
    let parent_of = |pid: &u64| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| parent_of(pid) == Some(parent))
        .collect()
}

/// Processes that run as the shim of the instance in this folder.
fn shims_of(instance: &Path) -> Vec<u64> {
    let (Some(name), Some(host)) = (instance.file_name(), instance.ancestors().nth(2)) else {
        return Vec::new();
    };
    let name = format!("\"name\":\"{}\"", name.to_string_lossy());
    let is_it = |pid: &u64| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<String> =
            command.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        words.len() > 3
            && words[1] == "__shim"
            && Path::new(&words[2]) == host
            && words[3].contains(&name)
    };
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(is_it)
        .collect()
}

/// Lets a host's builds use the folder of tools that the tests of `build` use too.
fn share_tools(host: &Path) {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).join("build-tools");
    fs::create_dir_all(&tools).unwrap();
    fs::create_dir_all(host).unwrap();
    std::os::unix::fs::symlink(tools, host.join("tools")).unwrap();
}

/// The repository with `tiny`, for copying. Built by the first test that needs it; the others
/// wait. Made anew for another program or another recipe.
fn tiny_fixture() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fixture");
    fs::create_dir_all(&folder).unwrap();
    let lock = fs::File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let program = fs::metadata(PROGRAM).unwrap();
    let mut situation = format!("{} {:?}", program.len(), program.modified().unwrap());
    let mut files: Vec<_> =
        fs::read_dir(appliance("tiny")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    for file in files {
        situation.push_str(&fs::read_to_string(file).unwrap());
    }
    let repository = folder.join("repository");
    if fs::read_to_string(folder.join("situation")).is_ok_and(|known| known == situation) {
        return repository;
    }
    let _ = fs::remove_file(folder.join("situation"));
    let _ = fs::remove_dir_all(&repository);
    let _ = fs::remove_dir_all(folder.join("host"));
    share_tools(&folder.join("host"));
    let command = |arguments: &[&str]| {
        let done = Command::new(PROGRAM)
            .env_remove("COLLECTIVE_REPO")
            .env("COLLECTIVE_DIR", folder.join("host"))
            .args(["--json", "--repo", &repository.to_string_lossy()])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        said(done).ok();
    };
    command(&["repo", "init", &repository.to_string_lossy()]);
    command(&["build", &appliance("tiny")]);
    fs::write(folder.join("situation"), situation).unwrap();
    repository
}

pub fn copy_tree(source: &Path, target: &Path) {
    let done = Command::new("cp").arg("-a").arg(source).arg(target).status().unwrap();
    assert!(done.success());
}
