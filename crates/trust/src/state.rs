//! What a host believed last, in files:
//!
//! ```text
//! first.json                      the root that a person trusted
//! state/                          root.json, timestamp.json, snapshot.json, targets.json: believed last
//! state/by-<person>.json          what delegates signed, as it was believed last
//! state/asked                     when, milliseconds since the Unix epoch
//! state/latest_known_time.json    the latest that the clock ever said
//! documents/                      by their SHA-256
//! lock                            held while somebody asks the maker
//! ```
//!
//! *Invariants.* The state is replaced as a whole, after every file of the new one is durable; nothing
//! writes into it, but for a person who says that the clock was wrong. So who reads it needs no lock,
//! and waits for nobody. What cannot be read, or is not signed as its root says, is an error and never
//! taken for absent.
//!
//! *Crash.* The old state or the new one. `state.new` and `asking` are begun anew.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tough::schema::{Role, Root, Signed, Snapshot, Targets, Timestamp as Current};

use crate::{Result, TrustError, delegates};

const FIRST: &str = "first.json";
const STATE: &str = "state";
const NEW: &str = "state.new";
const ASKED: &str = "asked";
const LATEST: &str = "latest_known_time.json";
/// How often a state is opened that is replaced just then.
const ATTEMPTS: u32 = 16;

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) root: Signed<Root>,
    pub(crate) timestamp: Signed<Current>,
    pub(crate) snapshot: Signed<Snapshot>,
    pub(crate) targets: Signed<Targets>,
    /// When the maker was asked.
    pub(crate) asked_unix_ms: u64,
    /// The latest that the clock ever said; none: a person said that it was wrong.
    pub(crate) latest: Option<Timestamp>,
}

/// The file of a delegate's list.
fn list_of(name: &str) -> String {
    format!("by-{name}.json")
}

/// The root that a person trusted.
pub(crate) fn first(dir: &Path) -> Result<Signed<Root>> {
    let file = dir.join(FIRST);
    let bytes = fs::read(&file).map_err(TrustError::io(file.display()))?;
    let root: Signed<Root> = parse(dir, FIRST, &bytes)?;
    root.signed.verify_role(&root).map_err(damaged(dir, FIRST))?;
    Ok(root)
}

/// Keeps the root that a person trusted.
pub(crate) fn write_first(dir: &Path, root: &[u8]) -> Result<()> {
    folder(dir)?;
    write_durably(&dir.join(FIRST), root)
}

impl State {
    /// What was believed last; none: nothing yet.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        let mut missing = None;
        for _ in 0..ATTEMPTS {
            let open = match File::open(dir.join(STATE)) {
                Ok(open) => open,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(TrustError::io(dir.display())(error)),
            };
            // From one folder, whatever takes its place meanwhile. What is gone was replaced.
            match Self::read_in(dir, &open)? {
                Ok(state) => return Ok(Some(state)),
                Err(name) => missing = Some(name),
            }
        }
        match missing {
            // Written last: a state without it was never one.
            Some(ASKED) | None => Ok(None),
            Some(name) => Err(damaged(dir, name)("it is not there")),
        }
    }

    /// Gives the name of the file that is missing, if one is.
    fn read_in(dir: &Path, open: &File) -> Result<std::result::Result<Self, &'static str>> {
        macro_rules! file {
            ($name:expr) => {
                match read_at(dir, open, $name)? {
                    Some(bytes) => bytes,
                    None => return Ok(Err($name)),
                }
            };
        }
        let asked = file!(ASKED);
        let root: Signed<Root> = parse(dir, "root.json", &file!("root.json"))?;
        root.signed.verify_role(&root).map_err(damaged(dir, "root.json"))?;
        let latest = match read_at(dir, open, LATEST)? {
            Some(bytes) => Some(text(dir, LATEST, &bytes)?),
            None => None,
        };
        let snapshot: Signed<Snapshot> =
            signed(dir, &root, "snapshot.json", &file!("snapshot.json"))?;
        let mut targets: Signed<Targets> =
            signed(dir, &root, "targets.json", &file!("targets.json"))?;
        let mut lists = BTreeMap::new();
        for role in delegates::roles(&targets) {
            if !snapshot.signed.meta.contains_key(&delegates::file_of(&role.name)) {
                continue;
            }
            match read_at(dir, open, &list_of(&role.name))? {
                Some(bytes) => drop(lists.insert(role.name.clone(), bytes)),
                None => return Ok(Err("what a delegate signed")),
            }
        }
        delegates::attach(&mut targets, &snapshot, |name, _| {
            Ok(lists.remove(name).unwrap_or_default())
        })
        .map_err(damaged(dir, "what a delegate signed"))?;
        Ok(Ok(Self {
            timestamp: signed(dir, &root, "timestamp.json", &file!("timestamp.json"))?,
            snapshot,
            targets,
            root,
            asked_unix_ms: text(dir, ASKED, &asked)?,
            latest,
        }))
    }

    /// Takes the place of what was believed before.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let new = dir.join(NEW);
        let _ = fs::remove_dir_all(&new);
        folder(&new)?;
        write_json(&new.join("root.json"), &self.root)?;
        write_json(&new.join("timestamp.json"), &self.timestamp)?;
        write_json(&new.join("snapshot.json"), &self.snapshot)?;
        write_json(&new.join("targets.json"), &self.targets)?;
        for role in delegates::roles(&self.targets) {
            if let Some(list) = &role.targets {
                write_json(&new.join(list_of(&role.name)), list)?;
            }
        }
        if let Some(latest) = self.latest {
            write(&new.join(LATEST), format!("\"{latest}\"").as_bytes())?;
        }
        write(&new.join(ASKED), self.asked_unix_ms.to_string().as_bytes())?;
        sync(&new)?;
        ambient::step("trust: written");
        let state = dir.join(STATE);
        let replaced = if state.exists() {
            rustix::fs::renameat_with(CWD, &new, CWD, &state, RenameFlags::EXCHANGE)
                .map_err(std::io::Error::from)
        } else {
            fs::rename(&new, &state)
        };
        replaced.map_err(TrustError::io(new.display()))?;
        sync(dir)?;
        ambient::step("trust: believed");
        let _ = fs::remove_dir_all(&new);
        Ok(())
    }

    /// What `tough` has to know so that it finds out what is older.
    pub(crate) fn show(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join("timestamp.json"), &self.timestamp)?;
        write_json(&folder.join("snapshot.json"), &self.snapshot)
    }
}

/// Forgets that the clock was later once.
pub(crate) fn forget_clock(dir: &Path) -> Result<()> {
    let state = dir.join(STATE);
    match fs::remove_file(state.join(LATEST)) {
        Ok(()) => sync(&state),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(TrustError::io(state.display())(error)),
    }
}

fn damaged<E: std::fmt::Display>(dir: &Path, name: &str) -> impl FnOnce(E) -> TrustError + use<E> {
    let file = if name == FIRST { dir.join(name) } else { dir.join(STATE).join(name) };
    move |error| TrustError::Damaged { file: file.display().to_string(), detail: error.to_string() }
}

fn read_at(dir: &Path, open: &File, name: &str) -> Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let found = match rustix::fs::openat(open, name, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        other => other.map_err(std::io::Error::from).map_err(damaged(dir, name))?,
    };
    let mut bytes = Vec::new();
    File::from(found).read_to_end(&mut bytes).map_err(damaged(dir, name))?;
    Ok(Some(bytes))
}

fn parse<T: DeserializeOwned>(dir: &Path, name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(damaged(dir, name))
}

/// A role that was believed: signed as the root says, as it was then.
fn signed<T>(dir: &Path, root: &Signed<Root>, name: &str, bytes: &[u8]) -> Result<Signed<T>>
where
    T: Role + DeserializeOwned,
{
    let role: Signed<T> = parse(dir, name, bytes)?;
    root.signed.verify_role(&role).map_err(damaged(dir, name))?;
    Ok(role)
}

fn text<T: std::str::FromStr<Err: std::fmt::Display>>(
    dir: &Path,
    name: &str,
    bytes: &[u8],
) -> Result<T> {
    let text = std::str::from_utf8(bytes).map_err(damaged(dir, name))?;
    text.trim().trim_matches('"').parse().map_err(damaged(dir, name))
}

/// Makes a folder of a host's that only its owner enters.
pub(crate) fn folder(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(TrustError::io(path.display()))
}

fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|open| open.sync_all()).map_err(TrustError::io(folder.display()))
}

/// Writes a file that is durable, but not whole before it is.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(TrustError::io(path.display()))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| TrustError::Format { detail: error.to_string() })?;
    write(path, &bytes)
}

/// Writes a file: durable, and whole or not at all.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let chance: String = ambient::random::<8>().iter().map(|byte| format!("{byte:02x}")).collect();
    let new = path.with_extension(format!("new-{chance}"));
    let done = write(&new, bytes)
        .and_then(|()| fs::rename(&new, path).map_err(TrustError::io(path.display())))
        .and_then(|()| path.parent().map_or(Ok(()), sync));
    if done.is_err() {
        let _ = fs::remove_file(&new);
    }
    done
}
