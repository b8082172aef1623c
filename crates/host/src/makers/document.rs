//! What a maker signs, apart from what makes it signed: JSON documents, each with a kind and a format
//! number in front. `docs/format/signed.md` has the fields.

use model::{ChunkId, Name, VersionId};
use repository::Target;
use serde::{Deserialize, Serialize};
use trust::Trusted;

use super::MAKER;
use crate::failure::{Failure, Result};

/// Parts of one delta, at most.
const DELTA_PARTS_MAX: u32 = 10_000;
/// The longest list of packages that is read, bytes: those of a desktop are 2 MiB.
pub const SBOM_BYTES_MAX: u64 = 32 << 20;
/// The longest other document that is read, bytes.
pub const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
const FORMAT: u32 = 1;
/// Versions of one appliance that a document lists, at most.
const VERSIONS_MAX: usize = 10_000;

/// Who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakerSays {
    pub kind: String,
    pub format: u32,
    pub name: String,
}

/// An appliance: its channels and its versions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appliance {
    kind: String,
    format: u32,
    /// Without the maker's name.
    pub name: String,
    pub description: String,
    /// An SPDX expression, or a few words.
    #[serde(default)]
    pub licence: String,
    pub channels: std::collections::BTreeMap<String, Channel>,
    /// In the order in which they were published.
    pub versions: Vec<Listed>,
}

/// What a channel offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    pub version: String,
    /// To so many of a hundred instances, chosen by a hash.
    pub percent: u8,
    /// What the others have meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// To everybody, whatever `percent` says, and soon.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emergency: bool,
    /// Not before this instant, milliseconds since the Unix epoch.
    #[serde(default)]
    pub from_unix_ms: u64,
    /// What it has offered, oldest first, the last being what it offers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Offered>,
}

/// That a channel offered a version from some instant on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offered {
    pub version: String,
    pub percent: u8,
    pub at_unix_ms: u64,
}

/// A version in the list of its appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub version: String,
    pub id: String,
    pub published_unix_ms: u64,
    /// Why nobody should have it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yanked: Option<String>,
}

/// A version: what its record does not say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    kind: String,
    format: u32,
    pub appliance: String,
    pub version: String,
    /// The version's record, and so its hardware, disks, memory and ready check.
    pub id: String,
    pub published_unix_ms: u64,
    /// What changed, for people.
    #[serde(default)]
    pub notes: String,
    /// The licence's text.
    #[serde(default)]
    pub licence_text: String,
    /// The document with the packages of its system disk (SPDX), and how many they are.
    pub sbom: Option<String>,
    pub packages: u64,
    /// Bytes of all its volumes that are not holes.
    #[serde(default)]
    pub content_bytes: u64,
    /// What starts touch: chunks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_booted: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_continued: Option<String>,
    pub update: UpdateSays,
    pub built: Built,
    /// What is new in it, for who has another version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deltas: Vec<DeltaSays>,
}

/// A delta (`docs/format/delta.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeltaSays {
    /// The version that one has to have.
    pub from: String,
    /// Of all its parts, and how many they are: each is a document.
    pub bytes: u64,
    pub parts: u32,
    /// Where all of it lies: a document, too, so that nothing else needs to be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<LayoutSays>,
}

impl DeltaSays {
    /// Of its parts and its layout.
    pub fn all_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.layout.as_ref().map_or(0, |layout| layout.bytes))
    }
}

/// The layout of a delta.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutSays {
    pub bytes: u64,
    /// Of the pages that the delta gives.
    pub new_bytes: u64,
}

/// How it is to be updated to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateSays {
    /// It has to be ready this soon, seconds; else the update is undone.
    pub healthy_within_s: u64,
    /// A program in the guest that says by its exit code whether all is well, once it is ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub health: Vec<String>,
    /// A program in the guest that brings the user's data to this version's form, once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub migrate: Vec<String>,
    /// Only from this version on; older ones have to go over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least: Option<String>,
}

/// Where it comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// The program that published it.
    pub by: String,
    /// The version in the maker's own repository that was published.
    pub from: String,
    /// As its maker numbered it there.
    pub from_version: String,
    /// What it was built from, where it was built: hashes of the recipe's folder and of the packages, and
    /// the program that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe_by: Option<String>,
}

/// How long a new version may take until it is ready, where its maker says nothing, seconds.
pub const HEALTHY_WITHIN_S: u64 = 180;

impl Appliance {
    /// One without versions.
    pub fn new(name: &str) -> Self {
        Self {
            kind: "appliance".to_owned(),
            format: FORMAT,
            name: name.to_owned(),
            description: String::new(),
            licence: String::new(),
            channels: Default::default(),
            versions: Vec::new(),
        }
    }

    /// Its document's name.
    pub fn document(name: &str) -> String {
        format!("{name}.appliance.json")
    }

    /// Reads what a maker says of an appliance (without the maker's name); none: it has no such.
    pub fn read(trusted: &Trusted, name: &str) -> Result<Option<Self>> {
        let document = Self::document(name);
        if !trusted.has(&document) {
            return Ok(None);
        }
        Self::parse(&trusted.read(&document, DOCUMENT_BYTES_MAX)?, name).map(Some)
    }

    /// Reads the bytes of such a document.
    pub fn parse(bytes: &[u8], name: &str) -> Result<Self> {
        let document = Self::document(name);
        let appliance: Self = parse(bytes, &document, "appliance")?;
        let known = |version: &str| appliance.find(version).is_some();
        let fits = appliance.name == name
            && Name::new(name).is_ok()
            && appliance.versions.len() <= VERSIONS_MAX
            && appliance.versions.iter().all(|v| v.id.parse::<VersionId>().is_ok())
            && appliance.channels.iter().all(|(name, channel)| {
                Name::new(name).is_ok()
                    && channel.percent <= 100
                    && known(&channel.version)
                    && channel.before.as_deref().is_none_or(known)
            });
        if fits { Ok(appliance) } else { Err(wrong(&document, "it contradicts itself")) }
    }

    /// A version by its number.
    pub fn find(&self, version: &str) -> Option<&Listed> {
        self.versions.iter().find(|listed| listed.version == version)
    }

    /// A version by its id.
    pub fn with_id(&self, id: VersionId) -> Option<&Listed> {
        let id = id.to_string();
        self.versions.iter().find(|listed| listed.id == id)
    }

    /// Which of two versions was published later; an unknown one was before all.
    pub fn place(&self, id: VersionId) -> Option<usize> {
        let id = id.to_string();
        self.versions.iter().position(|listed| listed.id == id)
    }
}

impl Release {
    /// The release of a version.
    pub fn new(appliance: &str, version: &str, id: VersionId, built: Built) -> Self {
        Self {
            kind: "release".to_owned(),
            format: FORMAT,
            appliance: appliance.to_owned(),
            version: version.to_owned(),
            id: id.to_string(),
            published_unix_ms: ambient::unix_ms(),
            notes: String::new(),
            licence_text: String::new(),
            sbom: None,
            packages: 0,
            content_bytes: 0,
            trace_booted: None,
            trace_continued: None,
            update: UpdateSays {
                healthy_within_s: HEALTHY_WITHIN_S,
                health: Vec::new(),
                migrate: Vec::new(),
                least: None,
            },
            built,
            deltas: Vec::new(),
        }
    }

    /// Its document's name.
    pub fn document(id: &str) -> String {
        format!("{id}.release.json")
    }

    /// The document with the packages of a version.
    pub fn sbom_document(id: &str) -> String {
        format!("{id}.spdx.json")
    }

    /// The document with a part of a delta.
    pub fn delta_document(from: &str, to: &str, part: u32) -> String {
        format!("{to}.{from}.{part}.delta")
    }

    /// The document with the layout of a delta.
    pub fn layout_document(from: &str, to: &str) -> String {
        format!("{to}.{from}.layout.delta")
    }

    /// A document of a version, by the name that it has: of an appliance that a delegate of its maker
    /// signs, the appliance's name is in front, as that is what a part is told by. What the maker itself
    /// signed comes first.
    pub fn place(trusted: &Trusted, appliance: &str, document: String) -> String {
        if trusted.has(&document) { document } else { Self::delegated(appliance, &document) }
    }

    /// The name that a delegate gives a document of a version.
    pub fn delegated(appliance: &str, document: &str) -> String {
        format!("{appliance}.{document}")
    }

    /// Reads what a maker says of a version.
    pub fn read(trusted: &Trusted, appliance: &str, listed: &Listed) -> Result<Self> {
        let document = Self::place(trusted, appliance, Self::document(&listed.id));
        let release: Self = decode(trusted, &document, "release")?;
        let fits = release.appliance == appliance
            && release.version == listed.version
            && release.id == listed.id
            && release.update.healthy_within_s <= 24 * 3600
            && release.traces().all(|trace| trace.is_some())
            && release.deltas.iter().all(|delta| delta.parts <= DELTA_PARTS_MAX);
        if fits { Ok(release) } else { Err(wrong(&document, "it is of another version")) }
    }

    /// Its id.
    pub fn version_id(&self) -> Result<VersionId> {
        self.id.parse().map_err(|_| wrong(&self.id, "it names no version"))
    }

    /// Everything in the repository that it names.
    pub fn roots(&self) -> Result<Vec<Target>> {
        let mut roots = vec![Target::Record(self.version_id()?.into())];
        roots.extend(self.traces().flatten().map(Target::Chunk));
        Ok(roots)
    }

    fn traces(&self) -> impl Iterator<Item = Option<ChunkId>> + '_ {
        let texts = [&self.trace_booted, &self.trace_continued].into_iter().flatten();
        texts.map(|text| text.parse().ok())
    }
}

/// The name of who signed this.
pub fn maker(trusted: &Trusted) -> Result<Name> {
    let says: MakerSays = decode(trusted, MAKER, "maker")?;
    Name::new(&says.name).map_err(|error| wrong(MAKER, &error.to_string()))
}

/// The document in which a maker says its name.
pub fn maker_says(name: &Name) -> MakerSays {
    MakerSays { kind: "maker".to_owned(), format: FORMAT, name: name.to_string() }
}

/// A document's bytes.
pub fn encode<T: Serialize>(document: &T) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(document)
        .map_err(|error| Failure::new("internal", error.to_string(), ""))?;
    bytes.push(b'\n');
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        let message = "what would be signed has more than 4 MiB";
        return Err(Failure::new("usage", message, "shorten its licence or notes"));
    }
    Ok(bytes)
}

#[derive(Deserialize)]
struct Preface {
    kind: String,
    format: u32,
}

fn decode<T: for<'de> Deserialize<'de>>(
    trusted: &Trusted,
    document: &str,
    kind: &str,
) -> Result<T> {
    parse(&trusted.read(document, DOCUMENT_BYTES_MAX)?, document, kind)
}

/// Reads a document's bytes.
pub fn parse<T: for<'de> Deserialize<'de>>(bytes: &[u8], document: &str, kind: &str) -> Result<T> {
    let preface: Preface =
        serde_json::from_slice(bytes).map_err(|error| wrong(document, &error.to_string()))?;
    if preface.kind != kind {
        return Err(wrong(document, &format!("it is a {}", preface.kind)));
    }
    if preface.format > FORMAT {
        return Err(Failure::new(
            "format",
            format!("{document} has format {}; up to {FORMAT} is known here", preface.format),
            "its maker uses a newer Collective: use that version",
        ));
    }
    serde_json::from_slice(bytes).map_err(|error| wrong(document, &error.to_string()))
}

fn wrong(document: &str, detail: &str) -> Failure {
    let message = format!("{document}: {detail}");
    Failure::new("trust", message, "nothing of it was used; tell the maker")
}
