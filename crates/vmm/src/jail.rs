//! The walls around QEMU and its tools: it runs a guest that may be hostile, so it is treated as hostile.
//!
//! Launching re-executes a binary of ours at a hidden entry point ([`jail_main`]), which builds
//! the walls around *itself*, in this order, and then becomes QEMU (it may be started before it is
//! known what for, see [`crate::Readied`]: then it waits, and does all of this when it is told):
//!
//! 1. every inherited file descriptor is closed; those that QEMU is to have come over its
//!    standard input, which then is `/dev/null`;
//! 2. no core dumps; no new privileges, ever;
//! 3. when root: an empty capability bounding set, no groups, another user and group;
//! 4. landlock: it reads its own program, libraries and firmware and what it was given, writes
//!    its volumes alone, listens on its published ports alone, and neither reaches abstract
//!    sockets nor signals processes outside;
//! 5. it dies with the thread that started it;
//! 6. what it may use of memory, time and disk is limited, where its orders say so (QEMU's tools);
//! 7. seccomp: no unix or exotic sockets (it has all its channels already, so no socket of
//!    the host can be reached), no tracing, mounting, namespaces, keys, BPF, modules and so on.
//!
//! The environment is empty and nothing secret is in the arguments. QEMU adds `-sandbox` itself.
//!
//! What is not promised: where the kernel has no landlock (or an old one), the walls of that kind
//! are missing and the log says so; with user-mode networking that may open connections, QEMU
//! can connect to TCP services of the host.

mod enter;
mod inherited;
mod landlocked;
mod seccomp;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

pub use enter::jail_main;
pub use inherited::close_inherited;

/// The user and group that QEMU runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// User id; not 0.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// How to reach [`jail_main`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    /// A binary whose `main` calls it, first of all.
    pub program: PathBuf,
    /// What makes that binary do so.
    pub arguments: Vec<OsString>,
}

impl Launcher {
    /// The running binary, called as `<binary> __jail ...`; also after an upgrade replaced its
    /// file.
    pub fn this_binary() -> Self {
        Self { program: "/proc/self/exe".into(), arguments: vec!["__jail".into()] }
    }
}

/// The walls of one QEMU, beyond what its launch implies.
#[derive(Debug, Clone)]
pub struct Jail {
    /// How to reach the entry point.
    pub launcher: Launcher,
    /// Whom QEMU runs as; needs root. None: as the caller.
    pub identity: Option<Identity>,
    /// Files and directories that it may read besides its own.
    pub readable: Vec<PathBuf>,
    /// Files and directories that it may write besides its volumes. Where volumes lie on a
    /// file system of ours, its mount directory says it best.
    pub writable: Vec<PathBuf>,
}

impl Jail {
    /// Walls with nothing extra.
    pub fn new(launcher: Launcher, identity: Option<Identity>) -> Self {
        Self { launcher, identity, readable: Vec::new(), writable: Vec::new() }
    }
}

/// What a prisoner may use of the host; none: as much as its parent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Address space, bytes.
    pub memory_bytes: Option<u64>,
    /// The largest file that it may write, bytes: what goes beyond kills it.
    pub file_bytes: Option<u64>,
    /// CPU time, seconds.
    pub cpu_s: Option<u64>,
    /// Processes and threads of its user: only with a user of its own, or others count too.
    pub tasks: Option<u64>,
}

impl Limits {
    fn words(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("--limit-memory", self.memory_bytes),
            ("--limit-file", self.file_bytes),
            ("--limit-cpu", self.cpu_s),
            ("--limit-tasks", self.tasks),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
    }
}

/// The word that lets the entry point wait for its orders.
pub(crate) const WAIT: &str = "--wait";
/// Text of orders that it reads: as long as all arguments of a program may be.
pub(crate) const ORDERS_BYTES_MAX: usize = 2 << 20;

/// What the entry point is told. Its text form is its arguments, up to `--` and the program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// The process that must still be the parent, or there is nobody to serve.
    pub parent: u32,
    pub identity: Option<(u32, u32)>,
    pub readable: Vec<PathBuf>,
    pub writable: Vec<PathBuf>,
    /// Devices that it may open, and tell what to do.
    pub devices: Vec<PathBuf>,
    /// Directories in which it may also make and remove files.
    pub own: Vec<PathBuf>,
    /// Where it works: entered while we may still reach it, so that QEMU's user needs no rights
    /// on the directories above.
    pub cwd: Option<PathBuf>,
    /// May have internet sockets.
    pub network: bool,
    /// May open TCP connections.
    pub connect: bool,
    /// TCP ports that it may listen on.
    pub ports: Vec<u16>,
    /// What it may use of the host.
    pub limits: Limits,
    /// Descriptors that come over standard input, placed from `first_fd` on.
    pub fds: usize,
    pub first_fd: i32,
    /// The program and its arguments.
    pub command: Vec<OsString>,
}

impl Orders {
    /// The arguments, each with a zero after it.
    pub(crate) fn text(&self) -> Vec<u8> {
        self.arguments()
            .iter()
            .flat_map(|word| word.as_bytes().iter().chain(&[0]))
            .copied()
            .collect()
    }

    /// The arguments of such a text.
    pub(crate) fn words(text: &[u8]) -> Vec<OsString> {
        let words = text.strip_suffix(&[0]).unwrap_or(text).split(|byte| *byte == 0);
        words.map(|word| OsString::from_vec(word.to_vec())).collect()
    }

    pub(crate) fn arguments(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = Vec::new();
        let mut put = |key: &str, value: OsString| {
            words.push(key.into());
            words.push(value);
        };
        put("--parent", self.parent.to_string().into());
        if let Some((uid, gid)) = self.identity {
            put("--uid", uid.to_string().into());
            put("--gid", gid.to_string().into());
        }
        if let Some(cwd) = &self.cwd {
            put("--cwd", cwd.into());
        }
        for path in &self.readable {
            put("--read", path.into());
        }
        for path in &self.writable {
            put("--write", path.into());
        }
        for path in &self.devices {
            put("--device", path.into());
        }
        for path in &self.own {
            put("--own", path.into());
        }
        for port in &self.ports {
            put("--port", port.to_string().into());
        }
        put("--network", u8::from(self.network).to_string().into());
        put("--connect", u8::from(self.connect).to_string().into());
        for (key, value) in self.limits.words() {
            put(key, value.to_string().into());
        }
        put("--fds", self.fds.to_string().into());
        put("--first-fd", self.first_fd.to_string().into());
        words.push("--".into());
        words.extend(self.command.iter().cloned());
        words
    }

    pub(crate) fn parse(words: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut orders = Self::default();
        let mut words = words;
        let (mut uid, mut gid) = (None, None);
        while let Some(key) = words.next() {
            let key = key.to_string_lossy().into_owned();
            if key == "--" {
                orders.command = words.collect();
                break;
            }
            let value = words.next().ok_or(format!("{key} has no value"))?;
            let number = || -> Result<u32, String> {
                value.to_str().and_then(|v| v.parse().ok()).ok_or(format!("{key} is no number"))
            };
            let large = || -> Result<u64, String> {
                value.to_str().and_then(|v| v.parse().ok()).ok_or(format!("{key} is no number"))
            };
            match key.as_str() {
                "--parent" => orders.parent = number()?,
                "--uid" => uid = Some(number()?),
                "--gid" => gid = Some(number()?),
                "--cwd" => orders.cwd = Some(value.into()),
                "--read" => orders.readable.push(value.into()),
                "--write" => orders.writable.push(value.into()),
                "--device" => orders.devices.push(value.into()),
                "--own" => orders.own.push(value.into()),
                "--port" => {
                    orders.ports.push(number()?.try_into().map_err(|_| "--port".to_owned())?);
                }
                "--network" => orders.network = number()? == 1,
                "--connect" => orders.connect = number()? == 1,
                "--limit-memory" => orders.limits.memory_bytes = Some(large()?),
                "--limit-file" => orders.limits.file_bytes = Some(large()?),
                "--limit-cpu" => orders.limits.cpu_s = Some(large()?),
                "--limit-tasks" => orders.limits.tasks = Some(large()?),
                "--fds" => orders.fds = number()? as usize,
                "--first-fd" => orders.first_fd = number()? as i32,
                _ => return Err(format!("{key} is unknown")),
            }
        }
        orders.identity = match (uid, gid) {
            (Some(0), _) => return Err("root is no identity for QEMU".to_owned()),
            (Some(uid), Some(gid)) => Some((uid, gid)),
            (None, None) => None,
            _ => return Err("--uid and --gid go together".to_owned()),
        };
        if orders.command.is_empty() {
            return Err("there is no program to run".to_owned());
        }
        Ok(orders)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_their_text_form() {
        let orders = Orders {
            parent: 7,
            identity: Some((1000, 1001)),
            readable: vec!["/a b".into()],
            writable: vec!["--".into(), "/c".into()],
            devices: vec!["/dev/f".into()],
            own: vec!["/e".into()],
            cwd: Some("/d".into()),
            network: true,
            connect: false,
            ports: vec![8080],
            limits: Limits {
                memory_bytes: Some(1 << 40),
                file_bytes: Some(2),
                cpu_s: Some(3),
                tasks: Some(4),
            },
            fds: 3,
            first_fd: 100,
            command: vec!["qemu".into(), "--uid".into()],
        };
        let words = Orders::words(&orders.text());
        assert_eq!(words, orders.arguments());
        assert_eq!(Orders::parse(words.into_iter()), Ok(orders));
    }

    #[test]
    fn wrong_orders_are_refused() {
        for words in [
            &["--uid", "1", "--", "x"][..],
            &["--uid", "0", "--gid", "0", "--", "x"],
            &["--what", "1"],
            &["--fds"],
            &[],
        ] {
            let words = words.iter().map(OsString::from);
            assert!(Orders::parse(words).is_err());
        }
    }
}
