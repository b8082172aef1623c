//! `instances/<name>/updates.json`: what this host knows about new versions of an instance, for whoever
//! looks later. Without it nothing is lost: what has shown that it works has to show it again.

use model::VersionId;
use serde::{Deserialize, Serialize};

use crate::dir;
use crate::failure::Failure;
use crate::local::LocalDir;

const FILE: &str = "updates.json";
const FORMAT: u32 = 1;

/// What was found, and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    format: u32,
    /// When its maker was asked last, and answered.
    #[serde(default)]
    pub asked_unix_ms: u64,
    /// The version that its maker has for it, unless it has that.
    #[serde(default)]
    pub offered: Option<Offered>,
    /// Why nothing was learned or brought when that was tried last.
    #[serde(default)]
    pub failing: Option<String>,
    /// How the last new version ended that did not work.
    #[serde(default)]
    pub undone: Option<String>,
    /// The maker's version that has shown here that it works, before the head could say so.
    #[serde(default)]
    pub well: Option<String>,
}

/// A version that it does not have yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    pub version: String,
    pub id: String,
    /// Whether all of it is on this host.
    pub here: bool,
}

impl Noted {
    /// A new version was found, or none.
    pub fn asked(&mut self, offered: Option<(&str, VersionId)>) {
        self.asked_unix_ms = ambient::unix_ms();
        self.failing = None;
        self.offered = offered.map(|(version, id)| Offered {
            version: version.to_owned(),
            id: id.to_string(),
            here: false,
        });
    }
}

/// What was noted about an instance.
pub fn read(local: &LocalDir) -> Noted {
    let file = local.path().join(FILE);
    let noted = if file.exists() { dir::decode(&file).ok() } else { None };
    noted.filter(|noted: &Noted| noted.format <= FORMAT).unwrap_or_default()
}

/// Notes something. That it cannot be written changes nothing.
pub fn note(local: &LocalDir, change: impl FnOnce(&mut Noted)) {
    let mut noted = read(local);
    change(&mut noted);
    noted.format = FORMAT;
    if local.path().exists() {
        let _: Result<(), Failure> = dir::replace_json(&local.path().join(FILE), &noted);
    }
}

/// Whether a version has shown here that it works.
pub fn is_well(local: &LocalDir, release: VersionId) -> bool {
    read(local).well.is_some_and(|well| well == release.to_string())
}
