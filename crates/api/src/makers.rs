//! What is printed of makers, their versions and updates, with `--json`.

use serde::{Deserialize, Serialize};

/// `update` and `rollback`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatePrint {
    pub name: String,
    /// The version that it had, and the one that it was to get (or could).
    pub from: String,
    pub to: String,
    /// Bytes that came from the maker, as stored (compressed), and what was signed of them.
    pub fetched_bytes: u64,
    /// What was used of differences to the version that it had, as they are published; a part of that may have been here already.
    #[serde(default)]
    pub delta_bytes: u64,
    /// Bytes of the new version's disks that were on this host already.
    pub reused_bytes: u64,
    /// It has the new version.
    pub applied: bool,
    /// It had it, and has gone back.
    pub rolled_back: bool,
    /// Why not, or what is still to come.
    pub reason: Option<String>,
    /// The point to go back to.
    pub checkpoint: Option<String>,
    /// Why it did not work, for its maker: a file on this host.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub report: Option<String>,
    /// What went otherwise than it should, and hinders nothing.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
}

/// `publish`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishPrint {
    /// What its new pages take for who has the version before, as differences.
    #[serde(default)]
    pub delta_bytes: u64,
    pub appliance: String,
    pub version: String,
    pub version_id: String,
    pub channel: String,
    pub location: String,
    /// Bytes that the maker's repository lacked, as stored (compressed).
    pub uploaded_bytes: u64,
    /// Bytes of the version that it had, before compression.
    pub reused_bytes: u64,
    /// What users compare when they begin to trust this maker.
    pub root_fingerprint: String,
    /// Nothing was published there before.
    pub new_maker: bool,
    pub total_ms: u64,
}

/// `promote` and `yank`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelPrint {
    pub appliance: String,
    pub version: String,
    pub channel: Option<String>,
    /// Every channel and the version that it offers now.
    pub channels: std::collections::BTreeMap<String, String>,
    /// Channels that are no more: they offered what was taken back, and nothing before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<String>,
}

/// A maker that is trusted: `trust add`, `trust list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakerPrint {
    pub name: String,
    pub location: String,
    /// Where copies of its repository are, which are asked first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub mirrors: Vec<String>,
    pub root_fingerprint: String,
    pub root_version: u64,
    /// When this host last asked, RFC 3339, UTC; and whether just now.
    pub asked: String,
    pub fresh: bool,
    /// Why what is shown is what was believed before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    /// When the first of its signatures ends, RFC 3339, UTC.
    pub expires: String,
    pub appliances: u64,
    /// Who signs a part of its names with keys of their own.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub delegates: Vec<DelegatePrint>,
}

/// Somebody who signs a part of a maker's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegatePrint {
    pub name: String,
    /// Names of appliances; with a `*` at the end all that begin so.
    pub part: Vec<String>,
    /// Public keys, and how many of them must sign.
    pub keys: Vec<String>,
    pub threshold: u64,
}

/// One row of `catalog`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogPrint {
    pub appliance: String,
    pub description: String,
    pub licence: String,
    /// Every channel and the version that it offers.
    pub channels: std::collections::BTreeMap<String, String>,
    /// Channels whose version is for so many of a hundred instances only.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub rollouts: std::collections::BTreeMap<String, u8>,
    /// Channels whose version is put off, and until when: till then they offer what they did.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub put_off: std::collections::BTreeMap<String, String>,
    /// Of what `stable` offers, or the first channel: bytes that are not holes, before compression.
    #[serde(default)]
    pub size_bytes: Option<u64>,
    /// What instances that have another version would fetch to have that one; none: there are no such.
    #[serde(default)]
    pub update_bytes: Option<u64>,
    pub versions: Vec<CatalogVersion>,
}

/// A version in `catalog`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogVersion {
    pub version: String,
    pub id: String,
    pub published: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub yanked: Option<String>,
    /// As above; of versions that channels offer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_bytes: Option<u64>,
}

/// `catalog MAKER/NAME`: what a maker signed about a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleasePrint {
    pub appliance: String,
    pub version: String,
    pub id: String,
    pub published: String,
    /// Why it was taken back.
    pub yanked: Option<String>,
    /// The delegate who signed it; none: the maker itself.
    pub signed_by: Option<String>,
    pub root_fingerprint: String,
    pub description: String,
    pub licence: String,
    pub licence_text: String,
    pub notes: String,
    /// Bytes of its volumes that are not holes.
    pub size_bytes: u64,
    /// So many are in the list of its packages.
    pub packages: u64,
    pub healthy_within_s: u64,
    pub health: Vec<String>,
    pub migrate: Vec<String>,
    pub least: Option<String>,
    /// The program that published it, and the one that built it.
    pub published_by: String,
    pub built_by: Option<String>,
    /// What it was built from: hashes of the recipe's folder and of the packages.
    pub recipe: Option<String>,
    pub recipe_packages: Option<String>,
}

/// `diff`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffPrint {
    pub from: String,
    pub to: String,
    /// Packages that are not in both with the same version.
    pub packages: Vec<PackagePrint>,
    /// Files on system disks that are not the same in both; none: nobody asked.
    pub files: Option<Vec<FilePrint>>,
    /// Bytes of the system disks' pages that are not the same in both.
    pub changed_bytes: u64,
    /// What this host would have to fetch to have the second, as stored.
    pub fetch_bytes: u64,
}

/// A package in a `diff`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagePrint {
    pub name: String,
    /// Its version there; none: it is not there.
    pub from: Option<String>,
    pub to: Option<String>,
}

/// A path in a `diff`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePrint {
    pub disk: String,
    pub path: String,
    /// `added`, `removed`, `changed` or `rights`.
    pub change: String,
}

/// Who signed an instance's version, by what this host believed last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedPrint {
    pub maker: String,
    pub location: String,
    /// The maker's version, which may lack a CD that the instance was given.
    pub version_id: String,
    /// Whether the signatures down to this version were checked and hold.
    pub signed: bool,
    /// Why they do not, or could not be.
    pub why: Option<String>,
    pub root_fingerprint: Option<String>,
    /// When this host asked the maker last, RFC 3339, UTC.
    pub asked: Option<String>,
    /// When the first of its signatures ends, RFC 3339, UTC.
    pub expires: Option<String>,
    pub published: Option<String>,
    /// Why its maker took it back, if it did.
    pub taken_back: Option<String>,
    /// Who signed it for its maker, where it was not the maker.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signed_by: Option<String>,
    pub built_by: Option<String>,
    /// BLAKE3 of the folder of the recipe that it was built from.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub recipe: Option<String>,
    pub packages: Option<u64>,
}

/// Where the updates of an instance stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatesPrint {
    pub channel: Option<String>,
    /// `auto`, `ask` or `pinned`.
    pub policy: String,
    /// What this host does by itself (`config updates`).
    pub by_itself: String,
    /// When its maker was asked for it last, RFC 3339, UTC.
    pub asked: Option<String>,
    /// A version that it does not have yet.
    pub offered: Option<String>,
    /// All of that is on this host.
    pub here: bool,
    /// When it will have it, in words.
    pub when: Option<String>,
    /// It has a new version and goes back by itself if that does not work.
    pub on_trial: bool,
    /// How the last one ended that did not work.
    pub undone: Option<String>,
    /// Why nothing was learned when that was tried last.
    pub failing: Option<String>,
}
