//! Disks that `qemu-img` wrote, whole and changed: what is taken, what is refused, and that no bytes
//! whatever make the readers fail otherwise.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use import::{DISK_BYTES_MAX, Format, ImportError, detect, guard};

const DISK_BYTES: u64 = 2 << 20;

/// A folder with a raw disk of some content, gone when the test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("import-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let mut content = vec![0; DISK_BYTES as usize];
        for (index, byte) in content.iter_mut().enumerate().take(300_000) {
            *byte = (index * 7 % 251) as u8;
        }
        fs::write(path.join("disk.raw"), content).unwrap();
        Self(path)
    }

    /// What `qemu-img convert` makes of the disk.
    fn convert(&self, words: &str, name: &str) -> Vec<u8> {
        let words = words.split_whitespace();
        self.run(["convert", "-f", "raw"].into_iter().chain(words).chain(["disk.raw", name]));
        fs::read(self.0.join(name)).unwrap()
    }

    #[track_caller]
    fn run<'a>(&self, words: impl Iterator<Item = &'a str>) {
        let words: Vec<&str> = words.collect();
        let done = Command::new("qemu-img").args(&words).current_dir(&self.0).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "qemu-img {words:?}: {said}");
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.0).join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Every form in one file that is taken, as words for `qemu-img convert`.
const FORMS: [(&str, Format); 9] = [
    ("-O qcow2 -o compat=0.10", Format::Qcow2),
    ("-O qcow2 -o compat=1.1", Format::Qcow2),
    ("-c -O qcow2 -o compression_type=zstd", Format::Qcow2),
    ("-O vmdk -o subformat=monolithicSparse", Format::Vmdk),
    ("-O vmdk -o subformat=streamOptimized", Format::Vmdk),
    ("-O vdi", Format::Vdi),
    ("-O vpc", Format::Vhd),
    ("-O vpc -o subformat=fixed,force_size=on", Format::Vhd),
    ("-O vhdx", Format::Vhdx),
];

#[test]
fn what_qemu_img_wrote_is_known_and_sound() {
    let folder = Folder::new("forms");
    for (words, format) in FORMS {
        let bytes = folder.convert(words, "file");
        let mut file = Cursor::new(bytes);
        assert_eq!(detect(&mut file).unwrap(), format, "{words}");
        let guarded = guard(format, &mut file).unwrap_or_else(|e| panic!("{words}: {e}"));
        // VHD may round up to whole cylinders of disks that nobody has any more.
        let size = guarded.virtual_bytes;
        assert!((DISK_BYTES..DISK_BYTES + (1 << 20)).contains(&size), "{words}: {size}");
        // Taken for anything else, it is refused.
        for other in [Format::Qcow2, Format::Vmdk, Format::Vdi, Format::Vhd, Format::Vhdx] {
            if other != format {
                let error = guard(other, &mut file).unwrap_err();
                assert!(matches!(error, ImportError::Malformed { .. }), "{words} {other}: {error}");
            }
        }
    }
}

#[track_caller]
fn refused(format: Format, bytes: &[u8], why: &str) {
    let error = guard(format, &mut Cursor::new(bytes)).unwrap_err();
    assert!(error.to_string().contains(why), "{error}");
}

#[test]
fn what_leads_to_other_files_is_refused() {
    let folder = Folder::new("elsewhere");
    folder.convert("-O qcow2", "base.qcow2");
    for (words, name, format, why) in [
        ("create -f qcow2 -b base.qcow2 -F qcow2 a", "a", Format::Qcow2, "backing file"),
        (
            "create -f qcow2 -o data_file=data.raw,data_file_raw=on b 1M",
            "b",
            Format::Qcow2,
            "data file",
        ),
        ("create -f vmdk -b base.vmdk -F vmdk c.vmdk", "c.vmdk", Format::Vmdk, "parent disk"),
    ] {
        folder.convert("-O vmdk", "base.vmdk");
        folder.run(words.split_whitespace());
        refused(format, &fs::read(folder.path(name)).unwrap(), why);
    }

    // Where qemu-img makes none, by the specifications.
    let qcow2 = folder.convert("-O qcow2", "file");
    let mut names_data = qcow2.clone();
    let extensions = u32::from_be_bytes(qcow2[100..104].try_into().unwrap()) as usize;
    names_data[extensions..extensions + 8].copy_from_slice(&[0x44, 0x41, 0x54, 0x41, 0, 0, 0, 4]);
    refused(Format::Qcow2, &names_data, "data file");
    let mut encrypted = qcow2.clone();
    encrypted[35] = 2;
    refused(Format::Qcow2, &encrypted, "encrypted");
    let mut first = qcow2.clone();
    first[7] = 1;
    refused(Format::Qcow2, &first, "version 1");

    let vmdk = folder.convert("-O vmdk", "file");
    let mut descriptor_elsewhere = vmdk.clone();
    descriptor_elsewhere[12..20].fill(0);
    refused(Format::Vmdk, &descriptor_elsewhere, "descriptor");
    let mut absolute = vmdk.clone();
    let at = vmdk.windows(6).position(|w| w == b"\"file\"").unwrap();
    absolute[at..at + 6].copy_from_slice(b"\"/etc\"");
    refused(Format::Vmdk, &absolute, "plain name");

    let vdi = folder.convert("-O vdi", "file");
    let mut differencing = vdi.clone();
    differencing[76] = 4;
    refused(Format::Vdi, &differencing, "parent");
    let mut linked = vdi;
    linked[430] = 1;
    refused(Format::Vdi, &linked, "parent");

    let whole = folder.convert("-O vpc", "file");
    refused(Format::Vhd, &whole[..whole.len() - 512], "end is missing");
    let whole = folder.convert("-O vdi", "file");
    refused(Format::Vdi, &whole[..whole.len() - 1], "ends at");

    let mut vhd = folder.convert("-O vpc", "file");
    vhd[63] = 4;
    refused(Format::Vhd, &vhd, "checksum");
    fix_vhd_checksum(&mut vhd);
    refused(Format::Vhd, &vhd, "parent");

    let vhdx = folder.convert("-O vhdx", "file");
    let parameters: Vec<u8> = [0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d].to_vec();
    let at = vhdx.windows(8).position(|w| w == parameters).unwrap();
    let metadata = at / (64 << 10) * (64 << 10);
    let item = u32::from_le_bytes(vhdx[at + 16..at + 20].try_into().unwrap()) as usize;
    let mut parent = vhdx.clone();
    parent[metadata + item + 4] |= 2;
    refused(Format::Vhdx, &parent, "parent");
}

fn fix_vhd_checksum(bytes: &mut [u8]) {
    bytes[64..68].fill(0);
    let sum: u32 = bytes[..512].iter().map(|b| u32::from(*b)).sum();
    bytes[64..68].copy_from_slice(&(!sum).to_be_bytes());
}

#[test]
fn sizes_are_bounded() {
    let folder = Folder::new("large");
    for format in ["qcow2", "vdi", "vhdx"] {
        let size = (DISK_BYTES_MAX + (1 << 30)).to_string();
        // VDI's map of blocks is written out, VHDX' largest disk is 64 TiB: all make this one.
        folder.run(["create", "-f", format, "large", &size].into_iter());
        let mut file = fs::File::open(folder.path("large")).unwrap();
        let format = Format::parse(format).unwrap();
        let error = guard(format, &mut file).unwrap_err();
        assert!(matches!(error, ImportError::TooLarge { .. }), "{error}");
    }
    refused(Format::Raw, b"", "empty");
}

/// Changes of headers, millions of them in a long run; some thousands here. The seed is fixed: what
/// fails once fails again.
#[test]
fn no_bytes_make_a_reader_fail_otherwise() {
    let folder = Folder::new("hostile");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for (words, format) in FORMS {
        let whole = folder.convert(words, "file");
        for _ in 0..600 {
            let mut bytes = whole.clone();
            let head = bytes.len().min(if next() % 2 == 0 { 1024 } else { 512 << 10 }) as u64;
            for _ in 0..1 + next() % 8 {
                let at = (next() % head) as usize;
                bytes[at] = [0, 0xff, next() as u8, bytes[at] ^ 1][(next() % 4) as usize];
            }
            if next() % 4 == 0 {
                bytes.truncate((next() % bytes.len() as u64) as usize);
            }
            let mut file = Cursor::new(bytes);
            let _ = detect(&mut file);
            if let Ok(guarded) = guard(format, &mut file) {
                assert!(guarded.virtual_bytes <= DISK_BYTES_MAX);
            }
        }
    }
}
