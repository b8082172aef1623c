//! What makers and package archives write: recipes, kernels, lists.

use super::texts;
use crate::golden;

pub fn recipe(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Err(error) = ::build::Recipe::parse(text, "appliance.yaml")
    {
        assert!(error.line >= 1, "an error has a place: {error}");
    }
}

pub fn recipes() -> Vec<Vec<u8>> {
    ["tiny", "web", "debian"]
        .iter()
        .map(|name| format!("../appliances/{name}/appliance.yaml"))
        .filter(|path| {
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path).exists()
        })
        .map(|path| golden(&path))
        .chain(texts(&["name: x\nversion: '1'\n", "a: &a [*a, *a]\n", "? - {\n"]))
        .collect()
}

/// A bzImage around an LZ4 and a Zstandard payload.
pub fn kernels() -> Vec<Vec<u8>> {
    // One LZ4 block of four literals: the legacy frame that kernels use.
    let lz4 = [&[0x02, 0x21, 0x4c, 0x18][..], &5_u32.to_le_bytes(), &[0x40], b"\x7fELF"].concat();
    // A Zstandard frame with one raw block of four bytes.
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, 4, 0x21, 0, 0][..], b"\x7fELF"].concat();
    let mut seeds = vec![lz4.clone(), zstd.clone()];
    for payload in [lz4, zstd] {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32 + 4).to_le_bytes());
        image.extend([0; 16]);
        image.extend(payload);
        image.extend([0; 4]);
        seeds.push(image);
    }
    seeds
}

pub fn listings() -> Vec<Vec<u8>> {
    texts(&[
        "Package: b\nStatus: install ok installed\nVersion: 1:2\n\nPackage: a\nVersion: 3\n",
        "zlib1g_1%3a1.2.13.dfsg-1_amd64.deb",
        "\tlibc.so.6 => /lib/libc.so.6 (0x1)\n\t/lib64/ld-linux-x86-64.so.2 (0x2)\n",
    ])
}
