//! A host's directory (`COLLECTIVE_DIR`): all that Collective keeps on this machine.
//!
//! ```text
//! host.json               who this host is, and its configured repository
//! keys/<repository>.key   keys of private repositories, mode 0600
//! cache/                  pages that the repository has; safe to delete
//! index/<repository>/     local copies of the repository's index; safe to delete
//! makers/, mirroring/, publishing/  what makers signed, as far as this host has believed it
//! builds/, imports/, exports/       work under way; what a killed command left is swept by the next
//! plane/                  this host's lease of a plane, and who it is to that; `host leave` removes it
//! parcels/                checkpoints that went to another host and that the repository does not have yet
//! meter/                  what instances have used that the plane has not counted yet
//! plane-state/            the state of a plane that was started with this directory
//! tools/                  what `build` keeps to be faster; safe to delete
//! instances/<name>/       instance.json, volumes/, run/, shim.log
//! repository/             the default repository, when none was named
//! ```
//!
//! *Invariant.* Nothing here is the only copy of anything but what an instance wrote since its
//! last checkpoint (in its folder, or in `parcels/`).

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::{HostId, Name, Updates};
use serde::{Deserialize, Serialize};

use crate::auto::{Auto, Keep};
use crate::doors::{Doors, Real};
use crate::failure::{Failure, Result};

/// An opened host directory.
#[derive(Debug, Clone)]
pub struct HostDir {
    root: PathBuf,
    identity: HostFile,
    doors: Arc<dyn Doors>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HostFile {
    format: u32,
    id: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sources: Vec<String>,
    #[serde(default = "cache_bytes_default")]
    cache_bytes_max: u64,
    #[serde(default = "scrub_default")]
    scrub: bool,
    /// As [`Auto`] is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auto: Option<String>,
    /// As [`Keep`] is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keep: Option<String>,
    /// As [`Updates`] are written, or `off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    updates: Option<String>,
    /// Networks of this host: what they are called, and the bridge that each is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    networks: BTreeMap<String, String>,
}

/// Unless somebody chose otherwise, a host fetches ahead what it would need to go offline.
fn scrub_default() -> bool {
    true
}

/// The host cache's bound where nobody chose one: 8 GiB.
fn cache_bytes_default() -> u64 {
    8 << 30
}

const FORMAT: u32 = 1;

impl HostDir {
    /// Where the directory is when nobody says: `/var/lib/collective` for root, the XDG data
    /// directory for a user.
    pub fn default_path() -> PathBuf {
        if let Some(path) = std::env::var_os("COLLECTIVE_DIR").filter(|p| !p.is_empty()) {
            return PathBuf::from(path);
        }
        if rustix::process::geteuid().is_root() {
            return PathBuf::from("/var/lib/collective");
        }
        std::env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")))
            .unwrap_or_else(|| PathBuf::from("."))
            .join("collective")
    }

    /// Opens the directory, and makes it when it is not there.
    pub fn open(root: &Path) -> Result<Self> {
        make_private_dir(root)
            .map_err(|e| Failure::from(e).during(format!("cannot make {}", root.display())))?;
        Self::open_made(root).map_err(|failure| match failure.kind {
            "format" | "damaged" => failure,
            _ => failure.during(format!("cannot use {}", root.display())),
        })
    }

    fn open_made(root: &Path) -> Result<Self> {
        let root = fs::canonicalize(root)?;
        let file = root.join("host.json");
        if !file.exists() {
            let id = HostId::from_bytes(ambient::random());
            let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
            let identity = HostFile {
                format: FORMAT,
                id: id.to_string(),
                name,
                repository: None,
                sources: Vec::new(),
                cache_bytes_max: cache_bytes_default(),
                scrub: scrub_default(),
                auto: None,
                keep: None,
                updates: None,
                networks: BTreeMap::new(),
            };
            // Two first commands at once: the one that links first decides.
            let mine = root.join(format!("host.json.{}", id.short()));
            write_durably(&mine, &encode(&identity)?)?;
            let linked = fs::hard_link(&mine, &file);
            fs::remove_file(&mine)?;
            if let Err(error) = linked
                && error.kind() != std::io::ErrorKind::AlreadyExists
            {
                return Err(error.into());
            }
        }
        let identity: HostFile = decode(&file)?;
        if identity.format > FORMAT {
            return Err(Failure::new(
                "format",
                format!("{} was written by a newer Collective", file.display()),
                "use that version, or another COLLECTIVE_DIR",
            ));
        }
        Ok(Self { root, identity, doors: Arc::new(Real) })
    }

    /// The same directory behind other doors.
    pub fn behind(self, doors: Arc<dyn Doors>) -> Self {
        Self { doors, ..self }
    }

    /// What this host reaches outside of itself.
    pub fn doors(&self) -> &Arc<dyn Doors> {
        &self.doors
    }

    /// Who this host is.
    pub fn id(&self) -> HostId {
        self.identity.id.parse().unwrap_or(HostId::from_bytes([0; 16]))
    }

    /// This host's name, for messages.
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The repository that was configured, if one was.
    pub fn repository(&self) -> Option<&str> {
        self.identity.repository.as_deref()
    }

    /// Further, read-only repositories that may hold chunks and appliances.
    pub fn sources(&self) -> &[String] {
        &self.identity.sources
    }

    /// Bound of the page cache, bytes.
    pub fn cache_bytes_max(&self) -> u64 {
        self.identity.cache_bytes_max
    }

    /// Whether what a running instance lacks is fetched in the background.
    pub fn scrubs(&self) -> bool {
        self.identity.scrub
    }

    /// What instances do that say nothing about automatic checkpoints. What cannot be read was written
    /// by a newer program, and means none.
    pub fn auto(&self) -> Option<Auto> {
        self.identity.auto.as_deref().and_then(|text| Auto::parse(text).ok())
    }

    /// What is done about makers' new versions by itself; none: nothing. What cannot be read was written
    /// by a newer program, and means the default.
    pub fn updates(&self) -> Option<Updates> {
        let said = self.identity.updates.as_deref();
        said.map_or(Ok(Some(Updates::default())), Updates::parse)
            .unwrap_or(Some(Updates::default()))
    }

    /// What `repo gc` keeps of instances' histories; none: all of it.
    pub fn keep(&self) -> Option<Keep> {
        self.identity.keep.as_deref().and_then(|text| Keep::parse(text).ok())
    }

    /// Sets what `repo gc` keeps of instances' histories.
    pub fn configure_keep(&mut self, keep: Option<Keep>) -> Result<()> {
        self.identity.keep = keep.map(|keep| keep.to_string());
        replace_file(&self.root.join("host.json"), &encode(&self.identity)?)
    }

    /// The bridges that networks of this host are, by the networks' names.
    pub fn networks(&self) -> &BTreeMap<String, String> {
        &self.identity.networks
    }

    /// Says which bridge a network is; none: that it is no network of this host any more.
    pub fn configure_network(&mut self, network: &Name, bridge: Option<&str>) -> Result<()> {
        match bridge {
            Some(bridge) => self.identity.networks.insert(network.to_string(), bridge.to_owned()),
            None => self.identity.networks.remove(network.as_str()),
        };
        replace_file(&self.root.join("host.json"), &encode(&self.identity)?)
    }

    /// Whether a repository lies inside this directory.
    pub fn holds(&self, location: &str) -> bool {
        Path::new(location).starts_with(&self.root)
    }

    /// Makes `location` the repository of every later command on this host.
    pub fn configure_repository(&mut self, location: &str) -> Result<()> {
        self.identity.repository = Some(location.to_owned());
        replace_file(&self.root.join("host.json"), &encode(&self.identity)?)
    }

    /// Adds or removes a source of chunks.
    pub fn configure_source(&mut self, location: &str, present: bool) -> Result<()> {
        self.identity.sources.retain(|source| source != location);
        if present {
            self.identity.sources.push(location.to_owned());
        }
        replace_file(&self.root.join("host.json"), &encode(&self.identity)?)
    }

    /// Sets the bound of the page cache, bytes.
    pub fn configure_cache(&mut self, bytes_max: u64) -> Result<()> {
        self.identity.cache_bytes_max = bytes_max;
        replace_file(&self.root.join("host.json"), &encode(&self.identity)?)
    }

    /// Sets whether what a running instance lacks is fetched in the background.
    pub fn configure_scrub(&mut self, on: bool) -> Result<()> {
        self.identity.scrub = on;
        replace_file(&self.root.join("host.json"), &encode(&self.identity)?)
    }

    /// Sets what instances do that say nothing about automatic checkpoints.
    pub fn configure_auto(&mut self, auto: Auto) -> Result<()> {
        self.identity.auto = Some(auto.to_string());
        replace_file(&self.root.join("host.json"), &encode(&self.identity)?)
    }

    /// Sets what is done about makers' new versions by itself.
    pub fn configure_updates(&mut self, updates: Option<Updates>) -> Result<()> {
        self.identity.updates = Some(updates.map_or_else(|| "off".to_owned(), |u| u.to_string()));
        replace_file(&self.root.join("host.json"), &encode(&self.identity)?)
    }

    /// A folder below the root, made when it is not there.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        make_private_dir(&path)?;
        Ok(path)
    }

    /// Where an instance's files are.
    pub fn instance(&self, name: &Name) -> PathBuf {
        self.root.join("instances").join(name.as_str())
    }

    /// Names of the instances that have files here.
    pub fn instances(&self) -> Result<Vec<Name>> {
        let folder = self.root.join("instances");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut names = Vec::new();
        for entry in entries {
            if let Some(name) = entry?.file_name().to_str().and_then(|text| Name::new(text).ok()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }
}

/// What may still be written to a folder's disk, bytes.
pub fn free_bytes(folder: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(folder).map_err(std::io::Error::from)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|e| Failure::new("internal", e.to_string(), ""))
}

/// Reads a JSON file of ours, at most 1 MiB.
pub(crate) fn decode<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    let damaged = |detail: String| {
        Failure::new(
            "damaged",
            format!("{} cannot be read: {detail}", path.display()),
            "it may be restored from the repository: `collective ps` shows what is there",
        )
    };
    let bytes = fs::metadata(path)?.len();
    if bytes > 1 << 20 {
        return Err(damaged(format!("{bytes} bytes are too many")));
    }
    serde_json::from_slice(&fs::read(path)?).map_err(|e| damaged(e.to_string()))
}

/// Replaces a JSON file of ours in one step.
pub(crate) fn replace_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    replace_file(path, &encode(value)?)
}

/// Replaces a file in one step, durably: the old or the new content, never a mix.
pub(crate) fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().expect("a file of ours has a folder");
    let name = path.file_name().expect("a file of ours has a name").to_string_lossy();
    let tag = u64::from_le_bytes(ambient::random());
    let temporary = folder.join(format!(".{name}.{tag:016x}"));
    let written = write_durably(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary);
        return Err(error.into());
    }
    fs::File::open(folder)?.sync_all()?;
    Ok(())
}

/// As [`replace_json`], for what a restart of the machine makes void: it need not survive one.
pub(crate) fn replace_passing<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, encode(value)?)?;
    fs::rename(&temporary, path)?;
    Ok(())
}

pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes a folder (and its parents) that only its owner can enter.
pub(crate) fn make_private_dir(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_keeps_its_identity_and_configuration() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().join("a/b");
        let mut first = HostDir::open(&root).unwrap();
        first.configure_repository("/somewhere").unwrap();
        let second = HostDir::open(&root).unwrap();
        assert_eq!(first.id(), second.id());
        assert_eq!(second.repository(), Some("/somewhere"));
        assert_eq!(fs::read_dir(second.root()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_damaged_or_newer_host_file_is_refused() {
        let temporary = tempfile::tempdir().unwrap();
        let check = |content: &str, kind: &str| {
            fs::write(temporary.path().join("host.json"), content).unwrap();
            assert_eq!(HostDir::open(temporary.path()).unwrap_err().kind, kind);
        };
        check("{", "damaged");
        check(r#"{"format":2,"id":"00","name":"x"}"#, "format");
    }
}
