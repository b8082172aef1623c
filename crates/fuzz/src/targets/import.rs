//! Foreign files: what they are, what their headers say, and the packages around them.

use std::io::{Cursor, Read};

use ::import::guard::vmdk::Descriptor;
use ::import::{ImportError, guard as guarding};

use super::texts;

pub fn format(bytes: &[u8]) {
    let _ = ::import::detect(&mut Cursor::new(bytes));
    let tail = &bytes[bytes.len().saturating_sub(512)..];
    if let Ok(format) = ::import::format::judge(bytes, tail) {
        assert_ne!(format, ::import::Format::Raw, "raw is never guessed");
    }
}

pub fn guard(bytes: &[u8]) {
    use ::import::Format::{Iso, Qcow2, Raw, Vdi, Vhd, Vhdx, Vmdk};
    for format in [Raw, Iso, Qcow2, Vmdk, Vdi, Vhd, Vhdx] {
        if let Ok(guarded) = ::import::guard(format, &mut Cursor::new(bytes)) {
            assert!((1..=guarding::DISK_BYTES_MAX).contains(&guarded.virtual_bytes));
        }
    }
}

/// Heads of every format, by hand.
pub fn heads() -> Vec<Vec<u8>> {
    let with = |length: usize, fields: &[(usize, &[u8])]| {
        let mut bytes = vec![0; length];
        fields.iter().for_each(|(at, field)| bytes[*at..*at + field.len()].copy_from_slice(field));
        bytes
    };
    let qcow2 = with(
        1024,
        &[
            (0, b"QFI\xfb"),
            (4, &3_u32.to_be_bytes()),
            (20, &16_u32.to_be_bytes()),
            (24, &(1_u64 << 20).to_be_bytes()),
            (36, &1_u32.to_be_bytes()),
            (40, &(1_u64 << 17).to_be_bytes()),
            (96, &4_u32.to_be_bytes()),
            (100, &104_u32.to_be_bytes()),
        ],
    );
    let vmdk = with(
        4096,
        &[
            (0, b"KDMV"),
            (4, &1_u32.to_le_bytes()),
            (12, &2048_u64.to_le_bytes()),
            (20, &128_u64.to_le_bytes()),
            (28, &1_u64.to_le_bytes()),
            (36, &2_u64.to_le_bytes()),
            (512, b"# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicSparse\"\n"),
            (580, b"\nRW 2048 SPARSE \"x.vmdk\"\n"),
        ],
    );
    let vdi = with(
        1024,
        &[
            (0, b"<<< Oracle VM VirtualBox Disk Image >>>\n"),
            (64, &0xbeda_107f_u32.to_le_bytes()),
            (68, &0x0001_0001_u32.to_le_bytes()),
            (76, &1_u32.to_le_bytes()),
            (368, &(1_u64 << 20).to_le_bytes()),
        ],
    );
    let vhd = with(
        1536,
        &[(0, b"conectix"), (1024, b"conectix"), (1024 + 48, &(1_u64 << 20).to_be_bytes())],
    );
    let vhdx = with(
        256 << 10,
        &[(0, b"vhdxfile"), (64 << 10, b"head"), (192 << 10, b"regi"), (128 << 10, b"head")],
    );
    let iso = with(36 << 10, &[(32_769, b"CD001")]);
    vec![qcow2, vmdk, vdi, vhd, vhdx[..64 << 10].to_vec(), iso]
}

pub fn descriptor(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(descriptor) = Descriptor::parse(&text) {
        assert!(descriptor.files().iter().all(|file| ::import::names::plain(file)));
        let canonical = descriptor.canonical(|at| format!("extent-{at}"));
        let again = Descriptor::parse(&canonical);
        let sizes = (again.and_then(|again| again.virtual_bytes()), descriptor.virtual_bytes());
        assert_eq!(sizes.0.ok(), sizes.1.ok(), "what the converter is given is what was checked");
    }
}

pub fn descriptors() -> Vec<Vec<u8>> {
    texts(&[
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
         createType=\"twoGbMaxExtentFlat\"\n\nRW 2048 FLAT \"a-f001.vmdk\" 0\nRW 16 ZERO\n",
        "# Disk DescriptorFile\nversion=1\ncreateType=\"twoGbMaxExtentSparse\"\n\
         RW 4192256 SPARSE \"a-s001.vmdk\"\nddb.adapterType = \"ide\"\n",
    ])
}

pub fn archive(bytes: &[u8]) {
    let _ = ::import::archive::list(&mut Cursor::new(bytes));
    let mut read = 0;
    let mut take = |member: &::import::archive::Member, content: &mut dyn Read| {
        assert!(member.name.len() <= bytes.len() * 4);
        read += std::io::copy(&mut Read::take(content, 1 << 20), &mut std::io::sink()).unwrap_or(0);
        if read > 4 << 20 {
            return Err(ImportError::TooLarge {
                what: "x",
                found: String::new(),
                max: String::new(),
            });
        }
        Ok(())
    };
    let _ = ::import::archive::read::<ImportError>(bytes, &mut take);
    let unpacked = Read::take(::import::gunzip(bytes), 4 << 20);
    let _ = ::import::archive::read::<ImportError>(unpacked, &mut |_, content| {
        let _ = std::io::copy(&mut Read::take(content, 1 << 20), &mut std::io::sink());
        Ok(())
    });
}

pub fn archives() -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let (mut a, mut b) = (&b"<Envelope/>"[..], &[7; 700][..]);
    let members: &mut [(&str, u64, &mut dyn Read)] =
        &mut [("a.ovf", 11, &mut a), ("disk-1.vmdk", 700, &mut b)];
    let made = ::import::archive::write(&mut out, members);
    made.expect("memory does not fail");
    // The same, as stored blocks of deflate in gzip.
    let stored = |bytes: &[u8]| {
        let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1];
        gzip.extend((bytes.len() as u16).to_le_bytes());
        gzip.extend((!(bytes.len() as u16)).to_le_bytes());
        gzip.extend_from_slice(bytes);
        gzip.extend([0; 8]);
        gzip
    };
    let gzip = stored(&out);
    vec![out, gzip]
}

pub fn ovf(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(system) = ::import::ovf::parse(&text) else { return };
    assert!(system.cpus >= 1 && system.memory_bytes > 0);
    for file in system.disks.iter().filter_map(|disk| disk.file.as_ref()) {
        assert!(::import::names::plain(&file.name));
    }
    for complete in [false, true] {
        if let Ok(filled) = ::import::ovf::fill(&system.properties, &[], complete) {
            let _ = ::import::ovf::environment("x", &filled);
        }
    }
}

pub fn ovfs() -> Vec<Vec<u8>> {
    texts(&["<?xml version=\"1.0\"?>\n\
        <Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\"\n\
          xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\"\n\
          xmlns:rasd=\"http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData\">\n\
        <References><File ovf:id=\"f\" ovf:href=\"d.vmdk\" ovf:size=\"7\"/></References>\n\
        <DiskSection><Info/><Disk ovf:diskId=\"d\" ovf:fileRef=\"f\" ovf:capacity=\"1\" \
          ovf:capacityAllocationUnits=\"byte * 2^30\"/></DiskSection>\n\
        <VirtualSystem ovf:id=\"v\"><Info/><Name>n</Name>\n\
        <ProductSection><Property ovf:key=\"k\" ovf:type=\"uint8\" ovf:value=\"5\" \
          ovf:userConfigurable=\"true\" ovf:qualifiers=\"MinValue(1),MaxValue(9)\"/></ProductSection>\n\
        <VirtualHardwareSection><Info/>\n\
        <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType>\
          <rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>\n\
        <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID>\
          <rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>512</rasd:VirtualQuantity></Item>\n\
        <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceType>20</rasd:ResourceType></Item>\n\
        <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/d</rasd:HostResource>\
          <rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent>\
          <rasd:ResourceType>17</rasd:ResourceType></Item>\n\
        </VirtualHardwareSection></VirtualSystem></Envelope>\n"])
}

pub fn digests(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(digests) = ::import::digests::Digests::parse(&text)
        && let Ok(mut checked) = digests.checked("a.ovf", &b"content"[..])
    {
        let _ = std::io::copy(&mut checked, &mut std::io::sink());
        let _ = checked.finish();
    }
}

pub fn digest_files() -> Vec<Vec<u8>> {
    texts(&[
        "SHA256(a.ovf)= ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73\n",
        "SHA1 (a.ovf) = 040f06fd774092478d450774f5ba30c5da78acc8\nSHA512(b)= 00\n",
    ])
}

pub fn vagrant(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for members in [&["box.img"][..], &["box.ovf", "box-disk001.vmdk"], &[]] {
        let _ = ::import::vagrant::understand(Some(&text), members);
    }
    let _ = ::import::vagrant::understand(None, &[&text]);
    let _ = ::import::vagrant::is_wanted(&text);
}

pub fn boxes() -> Vec<Vec<u8>> {
    texts(&[
        "{\"provider\": \"libvirt\", \"format\": \"qcow2\", \"virtual_size\": 1}",
        "{\"provider\":\"libvirt\",\"disks\":[{\"path\":\"box.img\",\"format\":\"raw\"}]}",
        "{\"provider\": \"virtualbox\", \"architecture\": \"amd64\"}",
    ])
}

pub fn seed(bytes: &[u8]) {
    let _ = ::import::seed::check_user_data("user-data", bytes);
    let _ = ::import::seed::check_network_config(bytes);
    let seed = ::import::seed::Seed { user_data: Some(bytes), ..Default::default() };
    if let Ok(image) = ::import::seed::image(&seed) {
        assert_eq!(&image[32_769..32_774], b"CD001");
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    texts(&[
        "#cloud-config\nhostname: x\nusers:\n  - name: a\n",
        "#!/bin/sh\necho\n",
        "version: 2\nethernets:\n  eth0: {dhcp4: true}\n",
        "#cloud-config-archive\n- type: text/x\n",
    ])
}

/// Names and contents of a CD, cut at zeros.
pub fn cd(bytes: &[u8]) {
    let pieces: Vec<&[u8]> = bytes.split(|byte| *byte == 0).collect();
    let text = |at: usize| String::from_utf8_lossy(pieces.get(at).copied().unwrap_or_default());
    let names: Vec<_> = (1..pieces.len().min(12)).map(text).collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (&**name, bytes)).collect();
    if let Ok(image) = ::import::iso::image(&text(0), &files) {
        assert!(image.len().is_multiple_of(2048));
        assert_eq!(::import::detect(&mut Cursor::new(&image)).ok(), Some(::import::Format::Iso));
    }
}

pub fn cds() -> Vec<Vec<u8>> {
    texts(&["cidata\0user-data\0meta-data", "OVF_ENV\0ovf-env.xml", "\0a\0a.b\0c.d.e\0f_g-h"])
}

pub fn info(bytes: &[u8]) {
    for format in [::import::Format::Qcow2, ::import::Format::Vmdk] {
        if let Ok(size) = ::import::qemu_img::read_info(bytes, format, &["disk"]) {
            assert!((1..=guarding::DISK_BYTES_MAX).contains(&size));
        }
    }
}

pub fn infos() -> Vec<Vec<u8>> {
    texts(&[
        "{\"virtual-size\": 1048576, \"filename\": \"disk\", \"format\": \"qcow2\", \
         \"format-specific\": {\"type\": \"qcow2\", \"data\": {\"compat\": \"1.1\"}}}",
        "{\"virtual-size\": 1, \"format\": \"vmdk\", \"format-specific\": {\"data\": \
         {\"extents\": [{\"filename\": \"disk\"}]}}, \"backing-filename\": \"/etc/passwd\"}",
    ])
}
