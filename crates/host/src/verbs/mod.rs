//! The verbs, as methods of [`Host`](crate::Host): one file for each, or for each few that are
//! alike. A verb reads the repository and this host's files, asks the instance's shim if there is
//! one, or starts one.

mod answers;
mod ask;
mod auto;
mod branch;
mod build;
mod busy;
mod catalog;
mod config;
mod describe;
mod diff;
mod doctor;
mod export;
mod files;
mod fork;
mod history;
mod import;
mod look;
mod mirror;
mod networks;
mod outfit;
mod parcels;
mod provenance;
mod publish;
mod repo;
mod retain;
mod sbom;
mod start;
mod trust;
mod undo;
mod update;
mod view;
mod warm;

use std::path::PathBuf;
use std::time::Duration;

use api::VolumePrint;

use model::{ManifestId, Name, PortMap};

use crate::failure::{Failure, Result};
use crate::record::UpdatePolicy;

pub use answers::Answer;
pub use auto::AutoChange;
pub(crate) use auto::print as auto_print;
pub use build::validate_recipe;
pub use describe::Size;
pub use export::{ExportFormat, ExportOptions};
pub use files::mount_main;
pub use import::ImportOptions;
pub(crate) use parcels::{arrived, is_kept, see_to_parcel};
pub use publish::PublishOptions;
pub use retain::GcOptions;
pub(crate) use start::bear;
pub use update::{Following, UpdateMode, UpdateOptions, updates_main};
pub(crate) use update::{go_back_by_itself, look_for_updates};
pub use view::View;

/// What runs the CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accelerator {
    /// KVM where it is proven to work, else TCG.
    #[default]
    Auto,
    /// KVM, or fail.
    Kvm,
    /// Software emulation.
    Tcg,
}

impl Accelerator {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// An appliance as a person names it: `name`, `maker/name`, `maker/name:channel`, or
/// `maker/name@version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub name: Name,
    pub channel: Option<String>,
    pub version: Option<String>,
}

impl Reference {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Self> {
        let (rest, version) = match text.split_once('@') {
            Some((rest, version)) => (rest, Some(version.to_owned())),
            None => (text, None),
        };
        let (name, channel) = match rest.split_once(':') {
            Some((name, channel)) => (name, Some(channel.to_owned())),
            None => (rest, None),
        };
        let usage = |message: String| {
            let hint = "for example web, acme/web:stable or acme/web@1.4.0; `collective appliances` \
                        and `collective catalog` list them";
            Failure::new("usage", message, hint)
        };
        let name = Name::appliance(name).map_err(|e| usage(e.to_string()))?;
        if let Some(channel) = &channel {
            Name::new(channel).map_err(|e| usage(format!("channel {e}")))?;
        }
        if channel.is_some() && version.is_some() {
            return Err(usage(
                "a channel moves and a version does not: name one of them".to_owned(),
            ));
        }
        if version.as_deref() == Some("") {
            return Err(usage("which version? Nothing stands after the @".to_owned()));
        }
        Ok(Self { name, channel, version })
    }

    /// The newest of this name.
    pub fn newest(name: Name) -> Self {
        Self { name, channel: None, version: None }
    }
}

/// How to start a guest.
#[derive(Debug, Clone)]
pub struct StartOptions {
    pub ports: Vec<PortMap>,
    /// What its first network card is plugged into from now on; None: as before.
    pub network: Option<Name>,
    pub accel: Accelerator,
    /// Wait until it is ready.
    pub wait: bool,
    /// How long it may take to become ready.
    pub timeout: Duration,
}

/// What `run` is asked.
#[derive(Debug, Clone)]
pub struct RunOptions {
    pub appliance: Reference,
    /// What becomes of new versions.
    pub updates: UpdatePolicy,
    /// None: the appliance's name and the first free number.
    pub name: Option<Name>,
    /// Answers to the form of its appliance.
    pub properties: Vec<(String, Answer)>,
    /// Configuration for cloud-init: files.
    pub user_data: Option<PathBuf>,
    pub network_config: Option<PathBuf>,
    /// From its disks, also when its appliance has a memory to start from.
    pub boot: bool,
    /// Checkpoints that are taken by themselves; None: as its maker says, else this host.
    pub auto: Option<AutoChange>,
    pub start: StartOptions,
}

/// What `build` is asked.
#[derive(Debug, Clone)]
pub struct BuildOptions {
    /// A folder with an appliance.yaml, or the file itself.
    pub path: PathBuf,
    /// What runs an appliance that is to start from memory.
    pub accel: Accelerator,
    /// How long that one may take to become ready.
    pub timeout: Duration,
}

/// What `resume` is asked.
#[derive(Debug, Clone)]
pub struct ResumeOptions {
    pub name: Name,
    /// Also when another host holds it.
    pub take_over: bool,
    /// Only while its head has this generation.
    pub at: Option<model::Generation>,
    pub start: StartOptions,
}

/// What `fork` is asked.
#[derive(Debug, Clone)]
pub struct ForkOptions {
    pub name: Name,
    pub count: u32,
    /// None: the name, `-fork-` and a number.
    pub new_name: Option<Name>,
    /// A checkpoint or branch; none: now.
    pub at: Option<String>,
    pub start_them: bool,
    pub start: StartOptions,
}

/// A volume at rest, as verbs print it.
fn volume_print(name: &str, manifest: Option<ManifestId>, size_bytes: u64) -> VolumePrint {
    VolumePrint {
        name: name.to_owned(),
        manifest: manifest.map(|id| id.to_string()),
        size_bytes,
        dirty_bytes: None,
        freed_bytes: None,
        fetched_bytes: None,
        cached_bytes: None,
    }
}
