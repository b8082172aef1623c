//! From a recipe to an appliance: the order of the steps.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use model::{DiskSpec, Hardware, PAGE_BYTES, Ready};

use crate::apt::{Apts, Used};
use crate::ext4::{Maker, Plan};
use crate::initrd;
use crate::kernel::{self, KernelTree};
use crate::place::{Placed, RelativePath};
use crate::programs::{self, require};
use crate::recipe::{DiskContent, InitrdSource, KernelSource, Recipe};
use crate::workshop::{Outcome, Step, Workshop};
use crate::{BuildError, debian, tree};

/// The largest kernel or initrd file of a recipe.
const BOOT_FILE_BYTES_MAX: u64 = 1 << 30;

/// A built appliance: its description, and files in the work folder.
#[derive(Debug)]
pub struct Built {
    /// The appliance's name.
    pub name: model::Name,
    /// The maker's name for this version.
    pub version: String,
    /// What the computer is made of.
    pub hardware: Hardware,
    /// How to tell that it is ready.
    pub ready: Ready,
    /// The kernel, when it is started directly.
    pub kernel: Option<PathBuf>,
    /// Its initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// The disks, in the order of `hardware.disks`.
    pub disks: Vec<BuiltDisk>,
    /// The Debian packages in it, as (name, version), sorted.
    pub packages: Vec<(String, String)>,
    /// The maker's part of what cloud-init configures.
    pub vendor_data: Option<PathBuf>,
    /// What UEFI's variables begin with, where the maker says so.
    pub variables: Option<PathBuf>,
}

/// A disk of a built appliance.
#[derive(Debug)]
pub struct BuiltDisk {
    /// Its description, with the final size.
    pub spec: DiskSpec,
    /// Its content, a sparse file of exactly `spec.size_bytes`; `None` is all zeros.
    pub image: Option<PathBuf>,
}

/// Builds an appliance into `work_dir`.
///
/// Files that the recipe names are read from `recipe_dir`. `tools_dir` caches packages and tools
/// between builds and may be deleted at any time. The same recipe, files and packages give the
/// same bytes. One build at a time uses a tools folder: others wait.
pub fn build(
    recipe: &Recipe,
    recipe_dir: &Path,
    work_dir: &Path,
    tools_dir: &Path,
    progress: &mut dyn FnMut(Step),
) -> Result<Built, BuildError> {
    if needs_tools(recipe) {
        if !rustix::process::geteuid().is_root() {
            return Err(BuildError::NotRoot);
        }
        require(programs::ANY)?;
        if recipe.contents.iter().any(|content| matches!(content, DiskContent::Debian(_))) {
            require(programs::DEBIAN)?;
        }
    }
    let mut shop = Workshop::open(work_dir, tools_dir, progress)?;
    let mut apts = Apts::default();
    let mut used = Used::default();
    let mut hardware = recipe.hardware.clone();

    let mut kernel_tree = None;
    let kernel = match &recipe.kernel {
        None => None,
        Some(KernelSource::File(file)) => {
            Some(copy_file(&shop, recipe, recipe_dir, file, "kernel")?)
        }
        Some(KernelSource::Inside { package, suite, path }) => {
            let apt = apts.of(&mut shop, suite)?;
            let bytes = tree::file_of(&mut shop, &apt, package, path, &recipe.origin, &mut used)?;
            let target = shop.work.join("kernel");
            fs::write(&target, bytes).map_err(BuildError::io("writing", &target))?;
            Some(target)
        }
        Some(KernelSource::Package { package, suite }) => {
            let apt = apts.of(&mut shop, suite)?;
            let tree = KernelTree::open(&mut shop, &apt, package, &mut used)?;
            let path = kernel::write(&mut shop, &tree)?;
            kernel_tree = Some(tree);
            Some(path)
        }
    };
    let initrd = match &recipe.initrd {
        None => None,
        Some(InitrdSource::File(file)) => {
            Some(copy_file(&shop, recipe, recipe_dir, file, "initrd")?)
        }
        Some(InitrdSource::Made(plan)) => {
            let apt = apts.of(&mut shop, &plan.suite)?;
            let sources = initrd::Sources {
                apt: &apt,
                kernel: kernel_tree.as_ref(),
                recipe_dir,
                origin: &recipe.origin,
            };
            Some(initrd::write(&mut shop, plan, &sources, &mut used)?)
        }
    };

    let mut disks = Vec::new();
    for (spec, content) in hardware.disks.iter_mut().zip(&recipe.contents) {
        let mut disk_shop = DiskShop {
            shop: &mut shop,
            apts: &mut apts,
            used: &mut used,
            kernel: kernel_tree.as_ref(),
        };
        let image = disk(&mut disk_shop, recipe, recipe_dir, spec, content)?;
        disks.push(BuiltDisk { spec: spec.clone(), image });
    }
    let vendor_data = match &recipe.vendor_data {
        None => None,
        Some(file) => Some(copy_file(&shop, recipe, recipe_dir, file, "vendor-data")?),
    };
    let variables = match &recipe.variables {
        None => None,
        Some(file) => Some(copy_file(&shop, recipe, recipe_dir, file, "uefi-variables")?),
    };
    Ok(Built {
        name: recipe.name.clone(),
        version: recipe.version.clone(),
        hardware,
        ready: recipe.ready.clone(),
        kernel,
        initrd,
        disks,
        packages: used.into_list(),
        vendor_data,
        variables,
    })
}

fn needs_tools(recipe: &Recipe) -> bool {
    matches!(recipe.kernel, Some(KernelSource::Package { .. } | KernelSource::Inside { .. }))
        || matches!(recipe.initrd, Some(InitrdSource::Made(_)))
        || recipe
            .contents
            .iter()
            .any(|content| matches!(content, DiskContent::Ext4 { .. } | DiskContent::Debian(_)))
}

/// What making a disk uses and adds to.
struct DiskShop<'a, 'p> {
    shop: &'a mut Workshop<'p>,
    apts: &'a mut Apts,
    used: &'a mut Used,
    kernel: Option<&'a KernelTree>,
}

fn disk(
    parts: &mut DiskShop,
    recipe: &Recipe,
    recipe_dir: &Path,
    spec: &mut DiskSpec,
    content: &DiskContent,
) -> Result<Option<PathBuf>, BuildError> {
    let DiskShop { shop, apts, used, kernel } = parts;
    let what = format!("disk {}", spec.name);
    let image = shop.work.join(format!("disk-{}.raw", spec.name));
    let seed = format!("{}/{}", recipe.name, spec.name);
    match content {
        DiskContent::Empty => return Ok(None),
        DiskContent::Ext4 { label } => {
            let maker = Maker::open(shop, apts)?;
            shop.step(&*what, Outcome::Begun);
            let size_bytes = spec.size_bytes;
            let plan = Plan { seed: &seed, disk: &spec.name, label, size_bytes, content: None };
            maker.write(shop, &plan, &image)?;
        }
        DiskContent::Image(file) => {
            shop.step(&*what, Outcome::Begun);
            spec.size_bytes = copy_image(recipe, recipe_dir, file, spec.size_bytes, &image)?;
        }
        DiskContent::Debian(plan) => {
            let maker = Maker::open(shop, apts)?;
            let apt = apts.of(shop, &plan.suite)?;
            let sources =
                debian::Sources { apt: &apt, kernel: *kernel, recipe_dir, origin: &recipe.origin };
            let tree = debian::make(shop, plan, &sources, used)?;
            shop.step(&*what, Outcome::Begun);
            let size_bytes = spec.size_bytes;
            let content = Some(tree.as_path());
            let plan =
                Plan { seed: &seed, disk: &spec.name, label: &plan.label, size_bytes, content };
            maker.write(shop, &plan, &image)?;
            fs::remove_dir_all(&tree).map_err(BuildError::io("removing", tree))?;
        }
    }
    shop.step(what, Outcome::Done);
    Ok(Some(image))
}

fn copy_file(
    shop: &Workshop,
    recipe: &Recipe,
    recipe_dir: &Path,
    file: &Placed<RelativePath>,
    name: &str,
) -> Result<PathBuf, BuildError> {
    let mut source = file.open(&recipe.origin, recipe_dir)?;
    let path = shop.work.join(name);
    let bytes = source.metadata().map_err(BuildError::io("reading", recipe_dir))?.len();
    if bytes == 0 || bytes > BOOT_FILE_BYTES_MAX {
        let message = format!("{:?} is not a {name}: {bytes} bytes", file.as_str());
        return Err(file.error(&recipe.origin, message, "use a file of up to 1GiB").into());
    }
    let mut target = File::create(&path).map_err(BuildError::io("creating", &path))?;
    io::copy(&mut source, &mut target).map_err(BuildError::io("writing", &path))?;
    Ok(path)
}

/// Copies a raw image, keeping its holes, and gives the disk's size.
fn copy_image(
    recipe: &Recipe,
    recipe_dir: &Path,
    file: &Placed<RelativePath>,
    size_bytes: u64,
    image: &Path,
) -> Result<u64, BuildError> {
    use std::io::{Read, Seek, SeekFrom, Write};
    let mut source = file.open(&recipe.origin, recipe_dir)?;
    let content_bytes = source.metadata().map_err(BuildError::io("reading", recipe_dir))?.len();
    let wrong = |message: String, hint: &str| -> BuildError {
        file.error(&recipe.origin, message, hint).into()
    };
    let mut magic = [0; 4];
    let packed = source.read_exact(&mut magic).is_ok()
        && (magic == *b"QFI\xfb" || magic == *b"KDMV" || magic == *b"COWD");
    if packed {
        let hint = "convert it first: qemu-img convert -O raw";
        return Err(wrong(format!("{:?} is not a raw image", file.as_str()), hint));
    }
    if content_bytes == 0 {
        return Err(wrong(format!("{:?} is empty", file.as_str()), "leave out `image`"));
    }
    let size_bytes = match size_bytes {
        0 => content_bytes.next_multiple_of(PAGE_BYTES as u64),
        given if given < content_bytes => {
            let message = format!("the image has {content_bytes} bytes, the disk {given}");
            return Err(wrong(message, "raise `size`, or remove it"));
        }
        given => given,
    };
    let mut target = File::create(image).map_err(BuildError::io("creating", image))?;
    target.set_len(size_bytes).map_err(BuildError::io("sizing", image))?;
    source.seek(SeekFrom::Start(0)).map_err(BuildError::io("reading", recipe_dir))?;
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        let read = source.read(&mut buffer).map_err(BuildError::io("reading", recipe_dir))?;
        if read == 0 {
            return Ok(size_bytes);
        }
        if buffer[..read].iter().any(|byte| *byte != 0) {
            target.seek(SeekFrom::Start(offset)).map_err(BuildError::io("writing", image))?;
            target.write_all(&buffer[..read]).map_err(BuildError::io("writing", image))?;
        }
        offset += read as u64;
    }
}
