//! The initial RAM disk: busybox, kernel modules, programs with their libraries, files.
//!
//! It is stored unpacked: the kernel copies it faster than it could decompress it, and equal
//! files in two versions are equal bytes. With a root disk its `init` loads the modules, mounts
//! that disk and hands over to the system on it. Without, it *is* the system.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::BuildError;
use crate::apt::{Apt, Used};
use crate::cage::Cage;
use crate::cpio::Archive;
use crate::kernel::{KernelTree, Module};
use crate::place::Placed;
use crate::recipe::{FileContent, FileEntry, InitrdPlan};
use crate::tree::{self, MERGED};
use crate::workshop::{Outcome, Workshop};

/// The largest file that goes into an initrd: it all ends up in the guest's memory.
const FILE_BYTES_MAX: u64 = tree::FILE_BYTES_MAX;
const BUSYBOX: &str = "usr/bin/busybox";
const LOADER: &str = include_str!("initrd/load-modules.sh");
const SWITCH: &str = include_str!("initrd/switch-root.sh");

/// What an initrd is made from, besides its plan.
pub(crate) struct Sources<'a> {
    pub apt: &'a Apt,
    /// Where modules come from; a recipe with modules always has a kernel package.
    pub kernel: Option<&'a KernelTree>,
    pub recipe_dir: &'a Path,
    pub origin: &'a str,
}

/// Makes the initrd file of the appliance.
pub(crate) fn write(
    shop: &mut Workshop,
    plan: &InitrdPlan,
    sources: &Sources,
    used: &mut Used,
) -> Result<PathBuf, BuildError> {
    let mut names = vec!["usr-is-merged", "busybox-static"];
    names.extend(plan.packages.iter().map(String::as_str));
    let debs = sources.apt.resolve(shop, &names)?;
    let root = tree::unpacked(shop, sources.apt, "programs of the initrd", &debs)?;
    used.add(&debs);

    shop.step("initrd", Outcome::Begun);
    let mut archive = Archive::default();
    skeleton(&mut archive);
    add_busybox(shop, &root, &mut archive)?;
    for program in &plan.programs {
        add_program(shop, &root, program, sources.origin, &mut archive)?;
    }
    add_modules(shop, plan, sources, &mut archive)?;
    if let Some(disk) = plan.root_disk {
        let letter = char::from(b'a' + disk as u8);
        let script = SWITCH.replace("@ROOT@", &format!("/dev/vd{letter}"));
        archive.file("init", 0o755, script.into_bytes());
    }
    for entry in &plan.files {
        let (bytes, mode) = read_entry(entry, sources)?;
        archive.file(&merged(entry.path.as_str()), mode, bytes);
    }
    if !archive.contains("init") {
        archive.link("init", "/usr/bin/busybox");
    }
    let path = shop.work.join("initrd");
    fs::write(&path, archive.finish()).map_err(BuildError::io("writing", &path))?;
    shop.step("initrd", Outcome::Done);
    Ok(path)
}

fn skeleton(archive: &mut Archive) {
    for folder in MERGED {
        archive.folder(&format!("usr/{folder}"));
        archive.link(folder, &format!("usr/{folder}"));
    }
    for folder in ["dev", "proc", "sys", "run", "tmp", "etc", "root", "var"] {
        archive.folder(folder);
    }
    // The kernel opens the console before anything can mount /dev.
    archive.character_device("dev/console", 5, 1, 0o600);
    archive.character_device("dev/null", 1, 3, 0o666);
}

fn add_busybox(shop: &Workshop, root: &Path, archive: &mut Archive) -> Result<(), BuildError> {
    let mut list = Cage::new(root).command(shop, "/bin/busybox");
    let applets = shop.capture("listing busybox's tools", list.arg("--list-full"))?;
    for applet in applets.lines().filter(|line| !line.is_empty()) {
        let path = merged(&format!("/{applet}"));
        archive.link(&path, "/usr/bin/busybox");
    }
    let source = root.join(BUSYBOX);
    let bytes = fs::read(&source).map_err(BuildError::io("reading", source))?;
    archive.file(BUSYBOX, 0o755, bytes);
    Ok(())
}

fn add_program(
    shop: &Workshop,
    root: &Path,
    program: &Placed<crate::place::GuestPath>,
    origin: &str,
    archive: &mut Archive,
) -> Result<(), BuildError> {
    let path = program.value.as_str();
    let missing = || {
        let message = format!("none of the packages has the program {path}");
        BuildError::from(program.error(origin, message, "check the path, and the `packages` list"))
    };
    let bytes = tree::read_in(root, path)?.ok_or_else(missing)?;
    let dynamic = bytes.starts_with(b"\x7fELF") && contains(&bytes, b"/ld-linux-x86-64.so.2\0");
    archive.file(&merged(path), 0o755, bytes);
    if !dynamic {
        return Ok(());
    }
    let mut loader = Cage::new(root).command(shop, "/lib64/ld-linux-x86-64.so.2");
    let listing = shop.capture("listing libraries", loader.args(["--list", path]))?;
    for library in libraries(&listing) {
        let bytes = tree::read_in(root, library)?.ok_or_else(missing)?;
        archive.file(&merged(library), 0o755, bytes);
    }
    Ok(())
}

/// The paths in the dynamic loader's list: "name => PATH (address)" or "PATH (address)".
pub(crate) fn libraries(listing: &str) -> impl Iterator<Item = &str> {
    listing.lines().filter_map(|line| {
        let path = line.split_once("=>").map_or(line, |(_, path)| path).trim();
        path.starts_with('/').then(|| path.split(' ').next().unwrap_or(path))
    })
}

fn add_modules(
    shop: &Workshop,
    plan: &InitrdPlan,
    sources: &Sources,
    archive: &mut Archive,
) -> Result<(), BuildError> {
    // The root disk cannot be found without these, so they need not be asked for.
    let for_root: &[&str] =
        if plan.root_disk.is_some() { &["virtio_pci", "virtio_blk", "ext4"] } else { &[] };
    let mut names = for_root.to_vec();
    names.extend(plan.modules.iter().map(|module| module.value.as_str()));
    let Some(kernel) = sources.kernel else {
        archive.file("usr/sbin/load-modules", 0o755, LOADER.into());
        return Ok(());
    };
    let modules = kernel.modules(shop, &names).map_err(|missing| {
        match plan.modules.iter().find(|module| module.value == missing.module) {
            Some(module) => {
                let release = kernel.release();
                let message = format!("the kernel {release} has no module {}", missing.module);
                let hint = "check the spelling; remove it if that kernel has it built in";
                BuildError::from(module.error(sources.origin, message, hint))
            }
            None => missing.reason,
        }
    })?;
    let mut order = String::new();
    for Module { file, bytes } in modules {
        order += &format!("{file}\n");
        archive.file(&format!("usr/lib/initrd-modules/{file}"), 0o644, bytes);
    }
    archive.file("usr/lib/initrd-modules/order", 0o644, order.into_bytes());
    archive.file("usr/sbin/load-modules", 0o755, LOADER.into());
    Ok(())
}

fn read_entry(entry: &FileEntry, sources: &Sources) -> Result<(Vec<u8>, u32), BuildError> {
    match &entry.content {
        FileContent::Text(text) => Ok((text.clone().into_bytes(), entry.mode.unwrap_or(0o644))),
        FileContent::From(from) => {
            let file = from.open(sources.origin, sources.recipe_dir)?;
            let io = |doing| BuildError::io(doing, sources.recipe_dir.join(from.as_str()));
            let executable =
                file.metadata().map_err(io("reading"))?.permissions().mode() & 0o100 != 0;
            let mut bytes = Vec::new();
            file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io("reading"))?;
            if bytes.len() as u64 > FILE_BYTES_MAX {
                let message = format!("{:?} is larger than 256MiB", from.as_str());
                let hint = "put it on a disk instead";
                return Err(from.error(sources.origin, message, hint).into());
            }
            let mode = entry.mode.unwrap_or(if executable { 0o755 } else { 0o644 });
            Ok((bytes, mode))
        }
    }
}

/// An absolute path as a relative one, through the links of a merged `/usr`.
fn merged(path: &str) -> String {
    let relative = path.trim_start_matches('/');
    let first = relative.split('/').next().unwrap_or_default();
    if MERGED.contains(&first) && relative != first {
        format!("usr/{relative}")
    } else {
        relative.to_owned()
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_list_is_read() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffc)\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<&str> = libraries(listing).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn paths_go_through_the_merged_usr() {
        assert_eq!(merged("/bin/sh"), "usr/bin/sh");
        assert_eq!(merged("/lib64/ld.so"), "usr/lib64/ld.so");
        assert_eq!(merged("/etc/motd"), "etc/motd");
        assert_eq!(merged("/usr/bin/x"), "usr/bin/x");
        assert_eq!(merged("/library/x"), "library/x");
    }
}
