//! Makers that this host trusts, and what they have signed.
//!
//! ```text
//! makers/<name>/maker.json     where its repository is, and by which root it was trusted
//! makers/<name>/trusted/       what was believed (crate `trust`)
//! makers/<name>/bad.json       versions that did not work here
//! makers/<name>/reports/       why not, for the maker
//! ```
//!
//! *Invariants.* A name that begins with a trusted maker's is looked up in what that maker signed, and
//! nowhere else. A maker that is away hinders nobody: what was believed last is used, and its age is
//! said.

pub mod document;
mod offer;
mod rollout;

use std::fs;
use std::path::PathBuf;

use model::{Name, VersionId};
use serde::{Deserialize, Serialize};
use trust::{TrustError, Trusted};

pub use document::{Appliance, Channel, Listed, Release, SBOM_BYTES_MAX};
pub use offer::{Offer, Wanted, offer};
pub use rollout::{Refused, Rollout};

use crate::dir::{self, HostDir};
use crate::failure::{Failure, Result};

/// A maker that this host trusts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Maker {
    format: u32,
    /// As it calls itself, in what it signed.
    pub name: String,
    /// Its repository.
    pub location: String,
    /// Copies of it, which are asked before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// The root that a person trusted.
    pub fingerprint: String,
    pub added_unix_ms: u64,
}

const FORMAT: u32 = 1;
/// The document in which a maker says its name.
pub const MAKER: &str = "maker.json";

#[derive(Serialize, Deserialize)]
struct Bad {
    versions: Vec<String>,
}

/// Versions that are remembered as bad, of one maker.
const BAD_MAX: usize = 256;

/// All makers that are trusted, by name.
pub fn all(host: &HostDir) -> Result<Vec<Maker>> {
    let mut makers = Vec::new();
    let entries = match fs::read_dir(host.root().join("makers")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(makers),
        Err(error) => return Err(error.into()),
    };
    for entry in entries {
        let file = entry?.path().join("maker.json");
        // Without it: one that was just begun, or removed.
        if file.exists() {
            makers.push(read(&file)?);
        }
    }
    makers.sort_by(|a: &Maker, b| a.name.cmp(&b.name));
    Ok(makers)
}

/// Where the makers are that are trusted, and their mirrors. What cannot be read is left out: it is in
/// nobody's way.
pub fn locations(host: &HostDir) -> Vec<(String, Vec<String>)> {
    let entries = fs::read_dir(host.root().join("makers")).into_iter().flatten().flatten();
    let files = entries.map(|entry| entry.path().join("maker.json"));
    files.filter_map(|file| read(&file).ok()).map(|maker| (maker.location, maker.mirrors)).collect()
}

/// The maker of an appliance with this name, if it has one that is trusted.
pub fn of(host: &HostDir, appliance: &Name) -> Result<Option<Maker>> {
    match appliance.as_str().split_once('/') {
        Some((maker, _)) => find(host, maker),
        None => Ok(None),
    }
}

/// A maker by its name.
pub fn find(host: &HostDir, name: &str) -> Result<Option<Maker>> {
    if Name::new(name).is_err() {
        return Ok(None);
    }
    let file = host.root().join("makers").join(name).join("maker.json");
    if file.exists() { read(&file).map(Some) } else { Ok(None) }
}

fn read(file: &std::path::Path) -> Result<Maker> {
    let text = fs::read_to_string(file)?;
    let maker: Maker = serde_json::from_str(&text).map_err(|error| {
        Failure::new(
            "damaged",
            format!("{}: {error}", file.display()),
            "remove that folder, and trust the maker again: `collective trust add`",
        )
    })?;
    if maker.format > FORMAT {
        let hint = "it was written by a newer Collective: use that version";
        return Err(Failure::new("format", format!("{} is newer", file.display()), hint));
    }
    Ok(maker)
}

/// Begins to trust whoever signed at `location` with the root of this fingerprint.
pub fn add(host: &HostDir, location: &str, fingerprint: &str) -> Result<(Maker, Trusted)> {
    let objects = host.doors().objects(location)?;
    let folder = host.folder("makers")?;
    let begun = folder.join(format!(".{:016x}", u64::from_le_bytes(ambient::random())));
    let trusted = Trusted::begin(&objects, fingerprint, &begun.join("trusted"));
    let done = trusted.map_err(Failure::from).and_then(|trusted| {
        let name = document::maker(&trusted)?;
        let maker = Maker {
            format: FORMAT,
            name: name.to_string(),
            location: location.to_owned(),
            mirrors: Vec::new(),
            fingerprint: fingerprint.to_ascii_lowercase(),
            added_unix_ms: ambient::unix_ms(),
        };
        if let Some(known) = find(host, &maker.name)? {
            return Err(Failure::new(
                "exists",
                format!("{name} is trusted already, at {}", known.location),
                format!("`collective trust remove {name}` first, if it has moved"),
            ));
        }
        let text = serde_json::to_vec_pretty(&maker)
            .map_err(|e| Failure::new("internal", e.to_string(), ""))?;
        dir::write_durably(&begun.join("maker.json"), &text)?;
        fs::rename(&begun, folder.join(&maker.name))?;
        fs::File::open(&folder)?.sync_all()?;
        Ok(maker)
    });
    let maker = done.inspect_err(|_| {
        let _ = fs::remove_dir_all(&begun);
    })?;
    let trusted = maker.kept(host, None)?;
    Ok((maker, trusted))
}

impl Maker {
    fn folder(&self, host: &HostDir) -> PathBuf {
        host.root().join("makers").join(&self.name)
    }

    /// Where what was believed lies.
    pub fn believed(&self, host: &HostDir) -> PathBuf {
        self.folder(host).join("trusted")
    }

    /// Asks it for news. Anything but "it does not answer" is an error: then what was believed
    /// stays, and nobody acts on what is there now.
    pub fn ask(&self, host: &HostDir) -> Result<Trusted> {
        self.ask_at(host, &self.location)
    }

    fn ask_at(&self, host: &HostDir, location: &str) -> Result<Trusted> {
        let objects = host.doors().objects(location)?;
        let asked = Trusted::refresh(&objects, &self.believed(host));
        asked.map_err(|error| self.failure(error))
    }

    /// Asks it; when it does not answer, its mirrors, which can say nothing that it has not signed;
    /// and takes what was believed last when none of them has as much.
    pub fn ask_or_kept(&self, host: &HostDir) -> Result<Trusted> {
        match self.ask(host) {
            Err(failure) if failure.kind == "unavailable" || failure.kind == "repository" => {
                let mut mirrors = self.mirrors.iter();
                match mirrors.find_map(|mirror| self.ask_at(host, mirror).ok()) {
                    Some(trusted) => Ok(trusted),
                    None => self.kept(host, Some(failure.message)),
                }
            }
            other => other,
        }
    }

    /// Adds or removes a mirror.
    pub fn set_mirror(mut self, host: &HostDir, location: &str, present: bool) -> Result<Self> {
        if !present && !self.mirrors.iter().any(|mirror| mirror == location) {
            return Err(Failure::new(
                "not_found",
                format!("{location} is no mirror of {} here", self.name),
                "`collective trust list --json` names them",
            ));
        }
        self.mirrors.retain(|mirror| mirror != location);
        if present {
            self.mirrors.push(location.to_owned());
        }
        dir::replace_json(&self.folder(host).join("maker.json"), &self)?;
        Ok(self)
    }

    /// What was believed last.
    pub fn kept(&self, host: &HostDir, why: Option<String>) -> Result<Trusted> {
        let kept = Trusted::kept(&self.believed(host), why);
        kept.map_err(|error| self.failure(error))
    }

    fn failure(&self, error: TrustError) -> Failure {
        let failure = Failure::from(error).during(format!("maker {}", self.name));
        Failure { hint: failure.hint.replace("MAKER", &self.name), ..failure }
    }

    /// No longer trusts it. What its instances run stays.
    pub fn remove(&self, host: &HostDir) -> Result<()> {
        let folder = self.folder(host);
        // First what makes it one.
        fs::remove_file(folder.join("maker.json"))?;
        fs::remove_dir_all(folder)?;
        Ok(())
    }

    /// Lets the clock be earlier than it once was.
    pub fn accept_clock(&self, host: &HostDir) -> Result<()> {
        Ok(Trusted::accept_clock(&self.believed(host))?)
    }

    /// Whether a version did not work on this host.
    pub fn is_bad(&self, host: &HostDir, version: VersionId) -> bool {
        self.bad(host).contains(&version.to_string())
    }

    fn bad(&self, host: &HostDir) -> Vec<String> {
        // What cannot be read marks nothing: then it is tried once more.
        let text = fs::read(self.folder(host).join("bad.json")).unwrap_or_default();
        serde_json::from_slice(&text).map_or_else(|_| Vec::new(), |bad: Bad| bad.versions)
    }

    /// Notes that a version did not work on this host; it is not offered here again.
    pub fn mark_bad(&self, host: &HostDir, version: VersionId) -> Result<()> {
        let mut versions = self.bad(host);
        versions.retain(|known| *known != version.to_string());
        versions.push(version.to_string());
        let excess = versions.len().saturating_sub(BAD_MAX);
        versions.drain(..excess);
        let text = serde_json::to_vec(&Bad { versions })
            .map_err(|e| Failure::new("internal", e.to_string(), ""))?;
        dir::replace_file(&self.folder(host).join("bad.json"), &text)
    }

    /// Somebody wants to try it again.
    pub fn forgive(&self, host: &HostDir, version: VersionId) -> Result<()> {
        let mut versions = self.bad(host);
        versions.retain(|known| *known != version.to_string());
        let text = serde_json::to_vec(&Bad { versions })
            .map_err(|e| Failure::new("internal", e.to_string(), ""))?;
        dir::replace_file(&self.folder(host).join("bad.json"), &text)
    }

    /// Writes why a version did not work: a file that a user may send to the maker. Gives its path.
    pub fn report(
        &self,
        host: &HostDir,
        name: &str,
        report: &serde_json::Value,
    ) -> Result<PathBuf> {
        let folder = self.folder(host).join("reports");
        dir::make_private_dir(&folder)?;
        let path = folder.join(format!("{name}-{}.json", ambient::unix_ms()));
        let text = serde_json::to_vec_pretty(report)
            .map_err(|e| Failure::new("internal", e.to_string(), ""))?;
        dir::replace_file(&path, &text)?;
        Ok(path)
    }
}

impl From<TrustError> for Failure {
    fn from(error: TrustError) -> Self {
        use TrustError as E;
        let message = error.to_string();
        match error {
            E::Away { .. } => Self::new(
                "unavailable",
                message,
                "nothing is lost: try again when the maker can be reached",
            ),
            E::NotSigned { .. } => Self::new(
                "trust",
                message,
                "a repository that nobody signs is used with `collective repo source`; `collective \
                 publish` signs one",
            ),
            E::OtherRoot { .. } => Self::new(
                "trust",
                message,
                "compare it with what the maker says elsewhere; if it is right, name it with \
                 --root-fingerprint",
            ),
            E::Forged { .. } | E::Mixed { .. } | E::Format { .. } | E::NoDocument { .. } => {
                Self::new(
                    "trust",
                    message,
                    "nothing of it was used; tell the maker: its repository, or the way to it, is not in \
                 its hands or half copied",
                )
            }
            E::Rollback { .. } => Self::new(
                "trust",
                message,
                "nothing of it was used: an old copy is being served; tell the maker",
            ),
            E::Expired { .. } => Self::new(
                "trust",
                message,
                "is this host's clock right? If so, the maker has to sign again (`collective publish \
                 --again`), or somebody keeps its news from you; instances run on",
            ),
            E::Clock { .. } => Self::new(
                "trust",
                message,
                "set the clock; if it is right now and was wrong then: `collective trust refresh \
                 MAKER --clock-is-right`",
            ),
            E::Damaged { .. } => Self::new(
                "damaged",
                message,
                "nothing was changed. Put that file back from a copy of this host's folder; or compare the \
                 fingerprint once more, `collective trust remove MAKER`, and trust it again",
            ),
            E::Key { .. } => Self::new("key", message, "name each key with --key"),
            E::Passphrase { .. } => Self::new(
                "key",
                message,
                "give it when asked, in COLLECTIVE_PASSPHRASE, or in a file that \
                 COLLECTIVE_PASSPHRASE_FILE names",
            ),
            E::Conflict { .. } => Self::new(
                "unavailable",
                message,
                "nothing was changed: do it again in a moment (after 15 minutes, if somebody's publish \
                 was interrupted)",
            ),
            E::Objects(error) => error.into(),
            E::Io { error, what } => Self::from(error).during(what),
        }
    }
}
