//! `build`: a recipe becomes a version in the repository.

use std::path::{Path, PathBuf};

use api::BuildPrint;
use build::{BuildError, Recipe, RecipeError};
use model::ChunkId;

use super::{BuildOptions, volume_print};
use crate::failure::{Failure, Result};
use crate::record::{Blob, Version};
use crate::work::Work;
use crate::{Host, firmware, ingest, origin};

/// The recipe's name in its folder.
const RECIPE: &str = "appliance.yaml";
/// Longest recipe that is read, bytes.
const RECIPE_BYTES_MAX: u64 = 1 << 20;

impl Host {
    /// Builds the appliance in `path` and makes it the newest version of its name.
    pub fn build(
        &self,
        options: &BuildOptions,
        progress: &mut dyn FnMut(&str),
    ) -> Result<BuildPrint> {
        let began = ambient::now();
        let (recipe, folder) = read_recipe(&options.path)?;
        if recipe.hardware().boot.kind == model::BootKind::Uefi {
            firmware::find(recipe.hardware().boot.secure_boot)?;
        }
        // Opened first: a repository that is not there is said before the long work.
        let store = self.writable_store()?;
        let tools = self.dir.folder("tools")?;
        let work = Work::after(&self.dir.folder("builds")?, &mut |dead| self.bury_build(dead))?;
        let built =
            build::build(&recipe, &folder, work.path(), &tools, &mut |step| match step.outcome {
                build::Outcome::Begun => progress(&step.what),
                build::Outcome::Done => {}
                build::Outcome::Reused => progress(&format!("{}: reused", step.what)),
            })
            .map_err(build_failure)?;

        progress("storing it in the repository");
        let mut session = store.thorough_session()?;
        let mut volumes = Vec::new();
        let mut blob = |session: &mut crate::store::Session, name: &str, file: &Option<PathBuf>| {
            let Some(file) = file else { return Ok(None) };
            let blob = ingest::file(session, file)?;
            volumes.push(volume_print(name, None, blob.bytes));
            Ok::<Option<Blob>, Failure>(Some(blob))
        };
        let kernel = blob(&mut session, "kernel", &built.kernel)?;
        let initrd = blob(&mut session, "initrd", &built.initrd)?;
        let vendor_data = match &built.vendor_data {
            None => None,
            Some(file) => Some(super::outfit::vendor_data(&mut session, file)?),
        };
        let mut disks = Vec::new();
        for disk in &built.disks {
            let manifest = ingest::disk(&mut session, disk.image.as_deref(), disk.spec.size_bytes)?;
            volumes.push(volume_print(&disk.spec.name, Some(manifest), disk.spec.size_bytes));
            disks.push(manifest);
        }
        let appliance = built.name.clone();
        let mut version = Version {
            appliance: appliance.clone(),
            version: built.version.clone(),
            description: recipe.description().to_owned(),
            hardware: built.hardware.clone(),
            ready: built.ready.clone(),
            kernel,
            initrd,
            firmware: None,
            disks,
            packages: built.packages.clone(),
            packages_of: None,
            properties: Vec::new(),
            vendor_data,
            auto: recipe.auto(),
            warm: None,
        };
        firmware::equip(&mut session, &mut version, built.variables.as_deref())?;
        let id = session.put_version(&version)?;
        ambient::step("publish: put");
        let stored = session.finish()?;
        ambient::step("publish: durable");
        let (id, warm) = if recipe.is_running() {
            let (id, warm) = self.warm_up(&store, id, &version, options, &work, progress)?;
            (id, Some(warm))
        } else {
            store.set_appliance(&appliance, id)?;
            (id, None)
        };
        let origin = origin::Origin {
            version: id.to_string(),
            by: format!("collective {}", env!("CARGO_PKG_VERSION")),
            recipe: origin::of_folder(&folder),
            packages: Some(origin::of_packages(&built.packages)),
        };
        store.set_origin(&appliance, id, &origin)?;
        Ok(BuildPrint {
            appliance: appliance.to_string(),
            version: version.version,
            version_id: ChunkId::from(id).to_string(),
            logical_bytes: stored.logical_bytes,
            stored_bytes: stored.stored_bytes,
            reused_bytes: stored.reused_bytes,
            total_ms: began.elapsed().as_millis() as u64,
            volumes,
            warm,
        })
    }
}

/// Checks a recipe without building it; gives the appliance's name.
pub fn validate_recipe(path: &Path) -> Result<String> {
    read_recipe(path).map(|(recipe, _)| recipe.name().to_string())
}

fn read_recipe(path: &Path) -> Result<(Recipe, PathBuf)> {
    let file = if path.is_dir() { path.join(RECIPE) } else { path.to_owned() };
    let hint = "name a folder with an appliance.yaml; `collective schema` says what it may hold";
    let unreadable = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::new("not_found", format!("there is no {}", file.display()), hint)
        }
        _ => Failure { hint: hint.to_owned(), ..error.into() }
            .during(format!("cannot read {}", file.display())),
    };
    if std::fs::metadata(&file).map_err(unreadable)?.len() > RECIPE_BYTES_MAX {
        let message = format!("{} is longer than 1 MiB: it is no recipe", file.display());
        return Err(Failure::new("recipe", message, hint));
    }
    let text = std::fs::read_to_string(&file).map_err(unreadable)?;
    let recipe = Recipe::parse(&text, &file.display().to_string()).map_err(recipe_failure)?;
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((recipe, folder.canonicalize()?))
}

fn recipe_failure(error: RecipeError) -> Failure {
    Failure::new("recipe", error.to_string(), error.hint)
}

fn build_failure(error: BuildError) -> Failure {
    let hint = error.hint().to_owned();
    Failure::new(error.kind(), error.to_string(), hint)
}
