//! A recipe: an `appliance.yaml` that makes sense.
//!
//! Parsing does no I/O and accepts text from anywhere: the text is bounded, YAML's aliases are
//! bounded by the parser's budget, and every list has a limit. A [`Recipe`] exists only when all
//! that can be known without looking at files is right; whether the files exist is found at
//! build time, and reported with the same line and column.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_saphyr::Location;

use crate::check;
use crate::document::Document;
use crate::place::{GuestPath, Placed, RelativePath};
use crate::{BuildError, RecipeError};

/// The longest recipe that is read.
pub const RECIPE_BYTES_MAX: usize = 256 << 10;

/// A checked `appliance.yaml`.
#[derive(Debug, Clone)]
pub struct Recipe {
    pub(crate) origin: String,
    pub(crate) name: model::Name,
    pub(crate) version: String,
    pub(crate) description: String,
    /// Disk sizes that depend on an image file are 0 here, and known once it is built.
    pub(crate) hardware: model::Hardware,
    pub(crate) ready: model::Ready,
    pub(crate) kernel: Option<KernelSource>,
    pub(crate) initrd: Option<InitrdSource>,
    /// One for each of `hardware.disks`.
    pub(crate) contents: Vec<DiskContent>,
    pub(crate) vendor_data: Option<Placed<RelativePath>>,
    pub(crate) variables: Option<Placed<RelativePath>>,
    pub(crate) auto: Option<model::Auto>,
    pub(crate) running: bool,
}

/// Where the kernel comes from.
#[derive(Debug, Clone)]
pub(crate) enum KernelSource {
    Package {
        package: String,
        suite: String,
    },
    /// A file of a package, taken as it is.
    Inside {
        package: String,
        suite: String,
        path: Placed<GuestPath>,
    },
    File(Placed<RelativePath>),
}

/// Where the initrd comes from.
#[derive(Debug, Clone)]
pub(crate) enum InitrdSource {
    File(Placed<RelativePath>),
    Made(InitrdPlan),
}

/// An initrd made from busybox and what the recipe lists.
#[derive(Debug, Clone)]
pub(crate) struct InitrdPlan {
    pub suite: String,
    /// The index of the disk that becomes the root file system.
    pub root_disk: Option<usize>,
    pub modules: Vec<Placed<String>>,
    pub packages: Vec<String>,
    pub programs: Vec<Placed<GuestPath>>,
    pub files: Vec<FileEntry>,
}

/// What a disk holds at first.
#[derive(Debug, Clone)]
pub(crate) enum DiskContent {
    Empty,
    Ext4 { label: String },
    Image(Placed<RelativePath>),
    Debian(DebianPlan),
}

/// A Debian system made from packages.
#[derive(Debug, Clone)]
pub(crate) struct DebianPlan {
    pub suite: String,
    pub packages: Vec<String>,
    pub files: Vec<FileEntry>,
    pub commands: Vec<Placed<String>>,
    pub kernel_modules: bool,
    pub label: String,
}

/// A file to put into a guest.
#[derive(Debug, Clone)]
pub(crate) struct FileEntry {
    pub path: GuestPath,
    pub content: FileContent,
    /// `None`: as executable as the file it is copied from.
    pub mode: Option<u32>,
}

/// Where a file's bytes come from.
#[derive(Debug, Clone)]
pub(crate) enum FileContent {
    From(Placed<RelativePath>),
    Text(String),
}

impl Recipe {
    /// Reads an `appliance.yaml`. `origin` is what errors call it, usually its path.
    pub fn parse(text: &str, origin: &str) -> Result<Self, RecipeError> {
        if text.len() > RECIPE_BYTES_MAX {
            return Err(RecipeError {
                origin: origin.to_owned(),
                line: 1,
                column: 1,
                message: format!("larger than {}", model::format_bytes(RECIPE_BYTES_MAX as u64)),
                hint: "put large contents into files of their own and name them with `from`".into(),
            });
        }
        let document: Document =
            serde_saphyr::from_str(text).map_err(|error| parse_error(&error, origin))?;
        check::recipe(document, origin)
    }

    /// Reads the `appliance.yaml` of a folder.
    pub fn load(recipe_dir: &Path) -> Result<Self, BuildError> {
        let path = recipe_dir.join("appliance.yaml");
        let file = File::open(&path).map_err(BuildError::io("opening", &path))?;
        let mut text = String::new();
        // One byte more than is accepted shows that there is more.
        file.take(RECIPE_BYTES_MAX as u64 + 1)
            .read_to_string(&mut text)
            .map_err(BuildError::io("reading", &path))?;
        Ok(Self::parse(&text, &path.display().to_string())?)
    }

    /// The appliance's name.
    pub fn name(&self) -> &model::Name {
        &self.name
    }

    /// The maker's name for this version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// One or a few sentences for people; may be empty.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Whether its instances are to start from memory: `state: running`.
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// What it says about checkpoints that are taken by themselves.
    pub fn auto(&self) -> Option<model::Auto> {
        self.auto
    }

    /// What the computer is made of; sizes that depend on a file are not known yet.
    pub fn hardware(&self) -> &model::Hardware {
        &self.hardware
    }

    /// How to tell that it is ready.
    pub fn ready(&self) -> &model::Ready {
        &self.ready
    }
}

fn parse_error(error: &serde_saphyr::Error, origin: &str) -> RecipeError {
    let location = error.location().unwrap_or(Location::UNKNOWN);
    let full = error.without_snippet().to_string();
    // The location is a field of its own; the text need not repeat it.
    let mut message = match full.rsplit_once(" at line ") {
        Some((message, _)) => message.to_owned(),
        None => full,
    };
    // Advice to programmers about the parser's options helps nobody here.
    if let Some(end) = message.find(", set ") {
        message.truncate(end);
    }
    // What a programmer calls `u16`.
    if let Some(bits @ 1..=64) =
        message.strip_prefix("invalid u").and_then(|n| n.parse::<u32>().ok())
    {
        message = format!("expected a whole number from 0 to {}", u64::MAX >> (64 - bits));
    }
    let mut hint = "docs/format/appliance.md explains every field with an example".to_owned();
    if let Some((subject, known)) = message.split_once(", expected one of ")
        && let Some(near) = nearest(subject, known)
    {
        hint = format!("did you mean `{near}`?");
        message.truncate(subject.len());
    }
    RecipeError {
        origin: origin.to_owned(),
        line: location.line().max(1),
        column: location.column().max(1),
        message,
        hint,
    }
}

/// The known word that is at most two edits away from the one in "unknown field `word`".
fn nearest(subject: &str, known: &str) -> Option<String> {
    let word = subject.rsplit(' ').next()?.trim_matches('`');
    if word.len() > 64 {
        return None;
    }
    known
        .split(',')
        .map(|candidate| candidate.trim().trim_matches('`'))
        .map(|candidate| (edits(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.len())
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}

/// Levenshtein's distance.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(l != *r);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
