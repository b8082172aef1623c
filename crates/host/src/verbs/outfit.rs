//! What an instance is given on its way: the answers to its appliance's form, and configuration for
//! cloud-init, each on a small CD.
//!
//! An instance that gets a CD runs a version of its own: the appliance's, with one more disk. Its
//! head names it, no appliance does; so every host that goes on with the instance finds the same
//! hardware and the same CD, and a checkpoint's device state fits.

use std::io::Read;
use std::path::Path;

use import::{ovf, seed};
use model::{DiskBus, DiskRole, DiskSpec, Media, Name, Profile, ResetPolicy, VersionId};

use super::RunOptions;
use crate::auto::Auto;
use crate::failure::{Failure, Result};
use crate::foreign::open;
use crate::ingest;
use crate::record::{Blob, Version};
use crate::store::{Session, Store};

/// The CD with the answers to a form.
pub const FORM: &str = "ovf-env";
/// The CD for cloud-init.
pub const CONFIGURATION: &str = "cidata";

/// A CD for an instance.
struct Cd {
    name: &'static str,
    content: Vec<u8>,
    bus: DiskBus,
}

/// The version that the instance is to run.
pub struct Outfit {
    pub version: VersionId,
    /// What its maker says about automatic checkpoints.
    pub auto: Option<Auto>,
    /// Why it boots although its appliance has a memory to start from.
    pub cold: Option<String>,
}

/// Gives an instance its CDs, where it gets any. Then it boots: the computer in the appliance's
/// memory has no such drives.
pub fn outfit(store: &Store, id: VersionId, name: &Name, options: &RunOptions) -> Result<Outfit> {
    let mut version = store.version(id)?;
    let mut cds = Vec::new();
    if !version.properties.is_empty() || !options.properties.is_empty() {
        let answers = super::answers::read(&options.properties)?;
        version.properties = ovf::fill(&version.properties, &answers, true)?;
        cds.push(environment(name, &version)?);
    }
    let vendor_data = match &version.vendor_data {
        Some(blob) => Some(repository::read_blob(&store.source(), &blob.id)?),
        None => None,
    };
    if options.user_data.is_some() || options.network_config.is_some() || vendor_data.is_some() {
        cds.push(configuration(name, &version, vendor_data.as_deref(), options)?);
    }
    if cds.is_empty() {
        return Ok(Outfit { version: id, auto: version.auto, cold: None });
    }
    let cold = version
        .warm
        .take()
        .map(|_| "its appliance's memory has no drive for the CD that configures it".to_owned());
    let mut session = store.session()?;
    for cd in cds {
        let size_bytes = (cd.content.len() as u64).next_multiple_of(model::PAGE_BYTES as u64);
        version.disks.push(ingest::bytes(&mut session, &cd.content)?);
        version.hardware.disks.push(DiskSpec {
            name: cd.name.to_owned(),
            role: DiskRole::System,
            reset: ResetPolicy::Reset,
            size_bytes,
            bus: cd.bus,
            media: Media::Cd,
        });
    }
    let disks = &version.hardware.disks;
    let sata = disks.iter().filter(|disk| disk.bus == DiskBus::Sata).count();
    let seen = disks.iter().filter(|disk| disk.is_disk()).count();
    if seen > vmm::DISKS_MAX || sata > vmm::SATA_DISKS_MAX {
        return Err(Failure::new(
            "hypervisor",
            format!("with its configuration {name} would have {seen} disks"),
            format!("at most {} are possible", vmm::DISKS_MAX),
        ));
    }
    let id = session.put_version(&version)?;
    session.finish()?;
    Ok(Outfit { version: id, auto: version.auto, cold })
}

/// The answers to the form, where OVF's transport `iso` has them: in a CD drive.
fn environment(name: &Name, version: &Version) -> Result<Cd> {
    let document = ovf::environment(name.as_str(), &version.properties);
    let content = import::iso::image("OVF_ENV", &[(ovf::ENVIRONMENT_FILE, document.as_bytes())])?;
    let bus = match version.hardware.profile {
        Profile::Q35 => DiskBus::Sata,
        Profile::Light => DiskBus::Virtio,
    };
    Ok(Cd { name: FORM, content, bus })
}

/// For cloud-init. It looks at every disk, so this one is where the guest's other disks are: for
/// that it has a driver.
fn configuration(
    name: &Name,
    version: &Version,
    vendor_data: Option<&[u8]>,
    options: &RunOptions,
) -> Result<Cd> {
    let read = |path: &Option<std::path::PathBuf>| path.as_deref().map(document).transpose();
    let (user_data, network_config) = (read(&options.user_data)?, read(&options.network_config)?);
    let seed = seed::Seed {
        instance_id: format!("i-{:016x}", u64::from_le_bytes(ambient::random())),
        hostname: name.to_string(),
        user_data: user_data.as_deref(),
        network_config: network_config.as_deref(),
        vendor_data,
    };
    let bus = version.hardware.disks.first().map_or(DiskBus::Virtio, |disk| disk.bus);
    Ok(Cd { name: CONFIGURATION, content: seed::image(&seed)?, bus })
}

/// Stores the maker's part, when cloud-init could read it.
pub fn vendor_data(session: &mut Session, path: &Path) -> Result<Blob> {
    let content = document(path)?;
    seed::check_user_data("vendor-data", &content)?;
    session.put_blob(&content)
}

/// A document that a person wrote.
fn document(path: &Path) -> Result<Vec<u8>> {
    let file = open::named(path)?;
    let mut content = Vec::new();
    file.take(seed::DOCUMENT_BYTES_MAX as u64 + 1).read_to_end(&mut content)?;
    Ok(content)
}
