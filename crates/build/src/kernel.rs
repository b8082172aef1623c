//! Kernels: from a Debian package to an ELF file that starts by PVH, without its own unpacker.
//!
//! A bzImage holds the compressed ELF kernel; its setup header says where (the fields
//! `payload_offset` and `payload_length` of the Linux x86 boot protocol, 2.08 and later). Under
//! emulation it is much faster to unpack it once here than at each start in the guest, and
//! unpacked bytes are what content addressing can share between versions.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::BuildError;
use crate::apt::{Apt, Used};
use crate::cage::Cage;
use crate::tree;
use crate::workshop::{Outcome, Workshop, make_dir};

/// The largest kernel, packed or not.
const KERNEL_BYTES_MAX: usize = 512 << 20;

fn bad(detail: impl Into<String>) -> BuildError {
    BuildError::Kernel { detail: detail.into() }
}

/// A kernel package, unpacked together with the programs that handle its modules.
pub(crate) struct KernelTree {
    root: PathBuf,
    /// For example `6.1.0-18-cloud-amd64`.
    release: String,
}

/// A kernel module, unpacked.
pub(crate) struct Module {
    /// For example `virtio_net.ko`.
    pub file: String,
    pub bytes: Vec<u8>,
}

/// A module that the kernel does not have, or that cannot be read.
pub(crate) struct NoModule {
    pub module: String,
    pub reason: BuildError,
}

impl KernelTree {
    pub fn open(
        shop: &mut Workshop,
        apt: &Apt,
        package: &str,
        used: &mut Used,
    ) -> Result<Self, BuildError> {
        // Of all that a kernel package drags along, only the kernel itself is of use here.
        let mut debs = apt.resolve(shop, &["usr-is-merged", package])?;
        debs.retain(|deb| deb.name.starts_with("linux-image-") || deb.name == package);
        used.add(&debs);
        debs.extend(apt.resolve(shop, &["usr-is-merged", "kmod", "xz-utils", "zstd"])?);
        debs.sort();
        debs.dedup();
        let root = tree::unpacked(shop, apt, &format!("kernel {package}"), &debs)?;
        let modules = root.join("usr/lib/modules");
        let release = only_entry(&modules)?.ok_or_else(|| {
            bad(format!("the package {package} does not hold exactly one kernel"))
        })?;
        if !modules.join(&release).join("modules.dep").exists() {
            let mut depmod = Cage::new(&root).command(shop, "/usr/sbin/depmod");
            depmod.arg(&release);
            shop.run("depmod", &mut depmod)?;
        }
        Ok(Self { root, release })
    }

    /// The kernel as an ELF file with a PVH entry point.
    pub fn elf(&self) -> Result<Vec<u8>, BuildError> {
        let path = self.root.join("boot").join(format!("vmlinuz-{}", self.release));
        let image = read_bounded(&path)?;
        let payload = payload_of(&image)?;
        let elf = decompress(payload)?;
        if !elf.starts_with(b"\x7fELF") {
            return Err(bad("its payload is not an ELF file"));
        }
        if !has_pvh_note(&elf) {
            return Err(bad("it has no PVH entry point (CONFIG_PVH)"));
        }
        Ok(elf)
    }

    /// The files of `modules` and of all they depend on, in an order in which they can be
    /// loaded. Built-in ones are left out.
    pub fn modules(&self, shop: &Workshop, modules: &[&str]) -> Result<Vec<Module>, NoModule> {
        let cage = Cage::new(&self.root);
        let mut paths: Vec<String> = Vec::new();
        for module in modules {
            let mut modprobe = cage.command(shop, "/usr/sbin/modprobe");
            modprobe.args(["--set-version", &self.release, "--show-depends", module]);
            let plan = shop
                .capture(&format!("finding module {module}"), &mut modprobe)
                .map_err(|reason| NoModule { module: (*module).to_owned(), reason })?;
            // Lines are "insmod PATH [options]" or "builtin NAME".
            for line in plan.lines() {
                let mut words = line.split_whitespace();
                if let (Some("insmod"), Some(path)) = (words.next(), words.next())
                    && !paths.iter().any(|known| known == path)
                {
                    paths.push(path.to_owned());
                }
            }
        }
        let mut files = Vec::new();
        for path in paths {
            let file = path.rsplit('/').next().unwrap_or(&path);
            let name = file.split(".ko").next().unwrap_or(file);
            let bytes = read_bounded(&self.root.join(path.trim_start_matches('/')))
                .and_then(|packed| self.module_bytes(shop, &path, packed))
                .map_err(|reason| NoModule { module: name.to_owned(), reason })?;
            files.push(Module { file: format!("{name}.ko"), bytes });
        }
        Ok(files)
    }

    fn module_bytes(
        &self,
        shop: &Workshop,
        path: &str,
        packed: Vec<u8>,
    ) -> Result<Vec<u8>, BuildError> {
        if path.ends_with(".zst") {
            return unpack_zstd(&packed);
        }
        if path.ends_with(".xz") {
            let out = shop.temp.join("module.ko");
            let file = File::create(&out).map_err(BuildError::io("creating", &out))?;
            let mut xz = Cage::new(&self.root).command(shop, "/usr/bin/xz");
            xz.args(["-dc", path]).stdout(file);
            shop.run_to_file(&format!("unpacking {path}"), &mut xz)?;
            return read_bounded(&out);
        }
        Ok(packed)
    }

    /// Copies all modules into a system, where its own tools find them.
    pub fn install_modules(&self, shop: &mut Workshop, system: &Path) -> Result<(), BuildError> {
        let what = format!("modules of {}", self.release);
        shop.step(&*what, Outcome::Begun);
        let folder = system.join("usr/lib/modules");
        make_dir(&folder)?;
        let mut copy = shop.command("cp");
        copy.arg("-a").arg(self.root.join("usr/lib/modules").join(&self.release)).arg(&folder);
        shop.run(&what, &mut copy)?;
        shop.step(what, Outcome::Done);
        Ok(())
    }

    pub fn release(&self) -> &str {
        &self.release
    }
}

/// Makes the kernel file of the appliance.
pub(crate) fn write(shop: &mut Workshop, tree: &KernelTree) -> Result<PathBuf, BuildError> {
    let what = format!("kernel {} unpacked for direct start", tree.release());
    shop.step(&*what, Outcome::Begun);
    let path = shop.work.join("kernel");
    fs::write(&path, tree.elf()?).map_err(BuildError::io("writing", &path))?;
    shop.step(what, Outcome::Done);
    Ok(path)
}

fn only_entry(folder: &Path) -> Result<Option<String>, BuildError> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(None) };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(BuildError::io("reading", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    Ok(if names.len() == 1 { names.pop() } else { None })
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, BuildError> {
    let file = File::open(path).map_err(BuildError::io("opening", path))?;
    let mut bytes = Vec::new();
    file.take(KERNEL_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(BuildError::io("reading", path))?;
    if bytes.len() > KERNEL_BYTES_MAX {
        return Err(bad(format!("{} is too large", path.display())));
    }
    Ok(bytes)
}

/// Unpacks for [`crate::fuzz`]: from a bzImage, and as a payload alone.
pub(crate) fn try_unpack(bytes: &[u8]) {
    for payload in [payload_of(bytes).ok(), Some(bytes)].into_iter().flatten() {
        if let Ok(elf) = decompress(payload) {
            assert!(elf.len() <= KERNEL_BYTES_MAX.max(payload.len()));
            has_pvh_note(&elf);
        }
    }
}

/// The compressed kernel inside a bzImage.
fn payload_of(image: &[u8]) -> Result<&[u8], BuildError> {
    let short = || bad("it is too short for a bzImage");
    if image.get(0x202..0x206).ok_or_else(short)? != b"HdrS" {
        return Err(bad("it is not a bzImage"));
    }
    let word = |at: usize| -> Result<u32, BuildError> {
        let bytes = image.get(at..at + 4).ok_or_else(short)?;
        Ok(u32::from_le_bytes(bytes.try_into().map_err(|_| short())?))
    };
    // 0 means 4, for historical reasons that the boot protocol keeps.
    let sectors = match image[0x1f1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + word(0x248)? as usize;
    // The last four bytes repeat the unpacked size, for the kernel's own unpacker.
    let end = (start + word(0x24c)? as usize).checked_sub(4).ok_or_else(short)?;
    image.get(start..end).ok_or_else(short)
}

fn decompress(payload: &[u8]) -> Result<Vec<u8>, BuildError> {
    match payload {
        [0x02, 0x21, 0x4c, 0x18, blocks @ ..] => unpack_lz4_legacy(blocks),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => unpack_zstd(payload),
        [0x7f, b'E', b'L', b'F', ..] => Ok(payload.to_owned()),
        _ => Err(bad("it is packed neither with LZ4 nor with Zstandard")),
    }
}

fn unpack_zstd(packed: &[u8]) -> Result<Vec<u8>, BuildError> {
    let mut unpacked = Vec::new();
    zstd::stream::read::Decoder::new(packed)
        .and_then(|decoder| {
            decoder.single_frame().take(KERNEL_BYTES_MAX as u64 + 1).read_to_end(&mut unpacked)
        })
        .map_err(|error| bad(format!("its payload cannot be unpacked: {error}")))?;
    if unpacked.len() > KERNEL_BYTES_MAX {
        return Err(bad(format!("its payload unpacks to more than {KERNEL_BYTES_MAX} bytes")));
    }
    Ok(unpacked)
}

/// LZ4's legacy frame, which the kernel uses: blocks of at most 8 MiB unpacked, each after its
/// packed length.
fn unpack_lz4_legacy(mut blocks: &[u8]) -> Result<Vec<u8>, BuildError> {
    const BLOCK_BYTES_MAX: usize = 8 << 20;
    let damaged = || bad("its LZ4 payload is damaged");
    let mut unpacked = Vec::new();
    let mut block = vec![0; BLOCK_BYTES_MAX];
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let packed = rest.get(..length).ok_or_else(damaged)?;
        let bytes = lz4_flex::block::decompress_into(packed, &mut block).map_err(|_| damaged())?;
        unpacked.extend_from_slice(&block[..bytes]);
        if unpacked.len() > KERNEL_BYTES_MAX {
            return Err(bad("it is too large"));
        }
        blocks = &rest[length..];
    }
    if blocks.is_empty() { Ok(unpacked) } else { Err(damaged()) }
}

/// Whether an ELF file has the note that names its PVH entry point (owner "Xen", type 18).
fn has_pvh_note(elf: &[u8]) -> bool {
    let note: [u8; 16] = *b"\x04\0\0\0\x08\0\0\0\x12\0\0\0Xen\0";
    let narrow: [u8; 16] = *b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0";
    elf.windows(16).step_by(4).any(|window| window == note || window == narrow)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bz_image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32 + 4).to_le_bytes());
        image.extend([0; 16]);
        image.extend(payload);
        image.extend([0; 4]);
        image
    }

    #[test]
    fn a_kernel_comes_out_as_it_went_in() {
        let kernel = b"\x7fELF and much more, and much more, and much more".to_vec();
        let mut legacy = vec![0x02, 0x21, 0x4c, 0x18];
        for part in kernel.chunks(20) {
            let packed = lz4_flex::block::compress(part);
            legacy.extend((packed.len() as u32).to_le_bytes());
            legacy.extend(packed);
        }
        let zstd = zstd::encode_all(&kernel[..], 1).expect("memory does not fail");
        for payload in [legacy, zstd] {
            let image = bz_image(&payload);
            let unpacked = decompress(payload_of(&image).expect("a bzImage")).expect("unpacks");
            assert_eq!(unpacked, kernel);
        }
    }

    #[test]
    fn a_bomb_is_refused_and_not_cut() {
        let zeros = std::io::repeat(0).take(KERNEL_BYTES_MAX as u64 + 1);
        let bomb = zstd::encode_all(zeros, 1).expect("memory does not fail");
        let error = unpack_zstd(&bomb).expect_err("more than a kernel may have");
        assert!(error.to_string().contains("more than"), "{error}");
    }

    #[test]
    fn damaged_kernels_are_refused() {
        let mut image = bz_image(b"\x02\x21\x4c\x18\xff\xff\xff\xff");
        assert!(decompress(payload_of(&image).expect("a bzImage")).is_err());
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(payload_of(&image).is_err());
        image[0x24c..0x250].copy_from_slice(&0u32.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&0u32.to_le_bytes());
        assert!(payload_of(&image[..1024]).is_err() || payload_of(&image).is_err());
        assert!(payload_of(b"short").is_err());
        assert!(payload_of(&vec![0; 4096]).is_err());
    }

    #[test]
    fn the_pvh_note_is_found() {
        let mut elf = vec![0; 64];
        assert!(!has_pvh_note(&elf));
        elf[32..48].copy_from_slice(b"\x04\0\0\0\x08\0\0\0\x12\0\0\0Xen\0");
        assert!(has_pvh_note(&elf));
    }
}
