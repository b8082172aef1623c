//! Whole packages: tars, descriptions, CDs; as others write them, and hostile.

use std::io::{Cursor, Read, Write};
use std::process::{Command, Stdio};

use import::archive::{self, Member};
use import::{ImportError, iso, ovf};
use model::{DiskBus, Media, NicModel};
use proptest::prelude::*;

const TINY: &str = r#"<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:id="f1" ovf:href="a-disk1.vmdk" ovf:size="1000"/>
    <File ovf:id="f2" ovf:href="a-disk2.vmdk"/>
    <File ovf:id="f3" ovf:href="tools.iso"/>
  </References>
  <DiskSection><Info/>
    <Disk ovf:diskId="d1" ovf:capacity="8" ovf:capacityAllocationUnits="byte * 2^30" ovf:fileRef="f1"/>
    <Disk ovf:diskId="d2" ovf:capacity="1048576" ovf:fileRef="f2"/>
    <Disk ovf:diskId="d3" ovf:capacity="2" ovf:capacityAllocationUnits="GigaBytes"/>
  </DiskSection>
  <VirtualSystem ovf:id="a"><Info/><Name>A box</Name>
    <ProductSection ovf:class="net" ovf:instance="1"><Info/><Product>Thing</Product><Version>2.1</Version>
      <Property ovf:key="ip" ovf:type="string" ovf:userConfigurable="true" ovf:qualifiers="MinLen(1)"><Label>Address</Label></Property>
      <Property ovf:key="mtu" ovf:type="uint16" ovf:userConfigurable="true" ovf:value="1500"/>
      <Property ovf:key="build" ovf:type="string" ovf:value="7"/>
    </ProductSection>
    <VirtualHardwareSection ovf:transport="iso"><Info/>
      <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
      <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>768</rasd:VirtualQuantity></Item>
      <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>lsilogic</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:InstanceID>4</rasd:InstanceID><rasd:ResourceSubType>virtio</rasd:ResourceSubType><rasd:ResourceType>20</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/d3</rasd:HostResource><rasd:InstanceID>5</rasd:InstanceID><rasd:Parent>4</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>1</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/d2</rasd:HostResource><rasd:InstanceID>6</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>ovf://disk/d1</rasd:HostResource><rasd:InstanceID>7</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:HostResource>ovf:/file/f3</rasd:HostResource><rasd:InstanceID>8</rasd:InstanceID><rasd:ResourceType>15</rasd:ResourceType></Item>
      <Item><rasd:InstanceID>9</rasd:InstanceID><rasd:ResourceType>15</rasd:ResourceType></Item>
      <Item><rasd:Connection>n</rasd:Connection><rasd:InstanceID>10</rasd:InstanceID><rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
      <Item><rasd:Connection>n</rasd:Connection><rasd:InstanceID>11</rasd:InstanceID><rasd:ResourceSubType>virtio</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>"#;

#[test]
fn a_computer_is_understood() {
    let system = ovf::parse(TINY).unwrap();
    assert_eq!((system.name.as_str(), system.cpus), ("Thing 2.1", 2));
    assert_eq!(system.memory_bytes, 768 << 20);
    let disks: Vec<_> = system
        .disks
        .iter()
        .map(|disk| {
            let name = disk.file.as_ref().map_or("", |file| file.name.as_str());
            (name, disk.capacity_bytes, disk.bus, disk.media)
        })
        .collect();
    assert_eq!(
        disks,
        [
            ("a-disk1.vmdk", 8 << 30, DiskBus::Sata, Media::Disk),
            ("a-disk2.vmdk", 1 << 20, DiskBus::Sata, Media::Disk),
            ("", 2 << 30, DiskBus::Virtio, Media::Disk),
            ("tools.iso", 0, DiskBus::Sata, Media::Cd),
        ]
    );
    assert_eq!(system.disks[0].file.as_ref().unwrap().bytes, Some(1000));
    assert_eq!(system.nics, [NicModel::E1000, NicModel::Virtio]);
    assert!(system.notes.iter().any(|note| note.contains("VmxNet3")), "{:?}", system.notes);
    let form: Vec<_> =
        system.properties.iter().map(|p| (p.key.as_str(), p.value.as_deref())).collect();
    assert_eq!(form, [("net.ip.1", None), ("net.mtu.1", Some("1500")), ("net.build.1", Some("7"))]);
    assert!(!system.properties[2].configurable);
}

#[track_caller]
fn refused(text: &str, why: &str) {
    let error = ovf::parse(text).unwrap_err();
    assert!(error.to_string().contains(why), "{error}");
}

#[test]
fn what_cannot_be_run_or_trusted_is_refused() {
    let change = |was: &str, is: &str| {
        assert!(TINY.contains(was), "{was}");
        TINY.replacen(was, is, 1)
    };
    refused(&change("a-disk1.vmdk", "/etc/passwd"), "plain name");
    refused(&change("a-disk1.vmdk", "../a-disk1.vmdk"), "plain name");
    refused(&change("a-disk1.vmdk", "http://host/a.vmdk"), "plain name");
    refused(&change("ovf:fileRef=\"f1\"", "ovf:fileRef=\"f9\""), "f9");
    refused(&change("ovf:fileRef=\"f1\"", "ovf:fileRef=\"f1\" ovf:parentRef=\"d2\""), "parent");
    refused(
        &change("ovf:href=\"a-disk2.vmdk\"", "ovf:href=\"a\" ovf:compression=\"gzip\""),
        "compressed",
    );
    refused(&change("ovf:/disk/d3", "ovf:/disk/d9"), "d9");
    refused(&change("byte * 2^30", "byte * 2^63"), "bytes");
    refused(&change("byte * 2^30", "byte * 2^50"), "more than");
    refused(&change(">768<", ">99999999999<"), "memory");
    refused(&change("<rasd:VirtualQuantity>2<", "<rasd:VirtualQuantity>65<"), "processors");
    refused(&TINY.replace("VirtualSystem", "VirtualSystemCollection"), "several computers");
    refused(&change("ovf:key=\"mtu\"", "ovf:key=\"ip\""), "twice");
    refused(&change("<?xml version=\"1.0\"?>", "<!DOCTYPE a [<!ENTITY b \"c\">]>"), "DTD");
    refused("<a/>", "Envelope");
    refused("", "OVF");
    // Deep and wide ones end within bounds.
    refused(&"<a>".repeat(1 << 20), "limit");
    refused(&"x".repeat(5 << 20), "4 MiB");
}

#[test]
fn makers_say_uefi_each_in_their_own_way() {
    let with = |word: &str, before: &str| {
        ovf::parse(&TINY.replacen(before, &format!("{word}{before}"), 1)).unwrap()
    };
    let plain = ovf::parse(TINY).unwrap();
    assert!(!plain.efi && !plain.secure_boot && !plain.tpm);
    for (word, signed_alone) in [
        ("<vmw:Config vmw:key=\"bootOptions.efiSecureBootEnabled\" vmw:value=\"true\"/>", true),
        ("<vmw:Config vmw:key=\"bootOptions.efiSecureBootEnabled\" vmw:value=\"false\"/>", false),
        ("<vmw:ExtraConfig vmw:key=\"uefi.secureBoot.enabled\" vmw:value=\"TRUE\"/>", true),
        ("<vmw:Config vmw:key=\"cpuHotAddEnabled\" vmw:value=\"true\"/>", false),
    ] {
        assert_eq!(with(word, "</VirtualHardwareSection>").secure_boot, signed_alone, "{word}");
    }
    let item = |subtype| {
        format!(
            "<Item ovf:required=\"false\"><rasd:InstanceID>14</rasd:InstanceID><rasd:ResourceSubType>\
             {subtype}</rasd:ResourceSubType><rasd:ResourceType>1</rasd:ResourceType></Item>"
        )
    };
    let vmware = |subtype| with(&item(subtype), "</VirtualHardwareSection>").tpm;
    assert!(vmware("vmware.vtpm") && !vmware("vmware.vmci"));
    let virtual_box = |kind| {
        let word = format!("<Machine><TrustedPlatformModule type=\"{kind}\"/></Machine>");
        with(&word, "<Name>").tpm
    };
    assert!(virtual_box("v2_0") && !virtual_box("None"));
    for word in [
        "<vmw:Config vmw:key=\"firmware\" vmw:value=\"efi\"/>",
        "<Machine><Hardware><Firmware type=\"EFI64\"/></Hardware></Machine>",
    ] {
        let read = ovf::parse(&TINY.replacen("<Name>", &format!("{word}<Name>"), 1)).unwrap();
        assert!(read.efi, "{word}");
    }
}

#[test]
fn what_we_write_we_read() {
    let read = ovf::parse(TINY).unwrap();
    let mut hardware = model::Hardware {
        profile: model::Profile::Q35,
        cpus: read.cpus,
        memory_bytes: read.memory_bytes,
        boot: model::Boot {
            kind: model::BootKind::Bios,
            cmdline: String::new(),
            secure_boot: false,
        },
        disks: vec![],
        nics: read
            .nics
            .iter()
            .map(|model| model::NicSpec { network: "user".into(), ports: vec![], model: *model })
            .collect(),
        display: None,
    };
    let disk = |file: Option<(&str, u64)>, bus| ovf::ExportedDisk {
        file: file.map(|(name, bytes)| (name.to_owned(), bytes)),
        capacity_bytes: 1 << 30,
        populated_bytes: 5,
        bus,
    };
    let disks = [
        disk(Some(("a-disk1.vmdk", 7)), DiskBus::Sata),
        disk(None, DiskBus::Virtio),
        disk(Some(("a-disk3.vmdk", 8)), DiskBus::Sata),
    ];
    let written = |hardware: &model::Hardware| {
        let (name, description) = ("a", "<&\"> of mine");
        ovf::write(&ovf::Exported { name, description, hardware, disks: &disks })
    };
    let text = written(&hardware);
    assert!(!ovf::parse(&text).unwrap().efi);
    hardware.boot.kind = model::BootKind::Uefi;
    let uefi = ovf::parse(&written(&hardware)).unwrap();
    assert!(uefi.efi && !uefi.secure_boot && !uefi.tpm);
    hardware.boot.secure_boot = true;
    hardware.disks.push(model::DiskSpec::tpm());
    let whole = ovf::parse(&written(&hardware)).unwrap();
    assert!(whole.efi && whole.secure_boot && whole.tpm);
    assert_eq!(whole.notes, Vec::<String>::new());
    let again = ovf::parse(&text).unwrap();
    assert_eq!((again.cpus, again.memory_bytes), (read.cpus, read.memory_bytes));
    assert_eq!(again.nics, read.nics);
    assert_eq!(again.notes, Vec::<String>::new());
    // Ordered by controller.
    let files: Vec<_> = again
        .disks
        .iter()
        .map(|disk| (disk.file.as_ref().map(|file| file.name.clone()), disk.bus))
        .collect();
    assert_eq!(
        files,
        [
            (Some("a-disk1.vmdk".to_owned()), DiskBus::Sata),
            (Some("a-disk3.vmdk".to_owned()), DiskBus::Sata),
            (None, DiskBus::Virtio),
        ]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_description_makes_the_reader_fail_otherwise(
        cuts in proptest::collection::vec((0..TINY.len(), 0..60_usize, "[<>/\"=a-z0-9:&;]{0,12}"), 1..6)
    ) {
        let mut text = TINY.to_owned();
        for (at, length, put) in cuts {
            let start = at.min(text.len());
            let end = (start + length).min(text.len());
            text.replace_range(start..end, &put);
        }
        if let Ok(system) = ovf::parse(&text) {
            for disk in system.disks {
                prop_assert!(disk.file.is_none_or(|file| import::names::plain(&file.name)));
            }
        }
    }
}

/// Builds a tar: name, type, content.
fn tar_of(members: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn both(bytes: &[u8]) -> Result<Vec<Member>, ImportError> {
    let listed = archive::list(&mut Cursor::new(bytes));
    let mut streamed = Vec::new();
    let read = archive::read(bytes, &mut |member, content: &mut dyn Read| {
        let mut text = Vec::new();
        content
            .read_to_end(&mut text)
            .map_err(|source| ImportError::Io { doing: String::new(), source })?;
        assert_eq!(&bytes[member.offset as usize..][..text.len()], &text[..]);
        streamed.push(member.clone());
        Ok::<(), ImportError>(())
    });
    match (&listed, &read) {
        (Ok(listed), Ok(())) => assert_eq!(*listed, streamed),
        (Err(_), Err(_)) => {}
        other => panic!("{other:?}"),
    }
    listed
}

#[test]
fn tars_hold_plain_files_or_are_refused() {
    use tar::EntryType::*;
    let good = tar_of(&[
        ("./", Directory, b""),
        ("./a.ovf", Regular, b"<x/>"),
        ("._a.ovf", Regular, b"junk"),
        ("b.vmdk", Regular, b"data"),
    ]);
    let names: Vec<_> = both(&good).unwrap().into_iter().map(|m| (m.name, m.bytes)).collect();
    assert_eq!(names, [("a.ovf".to_owned(), 4), ("b.vmdk".to_owned(), 4)]);
    for (members, why) in [
        (&[("../a", Regular, &b"x"[..])][..], "plain name"),
        (&[("/etc/a", Regular, b"x")], "plain name"),
        (&[("a/b", Regular, b"x")], "plain name"),
        (&[("a", Regular, b"x"), ("a", Regular, b"y")], "twice"),
        (&[("a", Regular, b"x"), ("./a", Regular, b"y")], "twice"),
        (&[("a", Symlink, b"")], "link"),
        (&[("a", Link, b"")], "link"),
        (&[("a", Fifo, b"")], "no file"),
        (&[("a", Block, b"")], "no file"),
        (&[("x", XHeader, b"20 path=../escape\n\n\n"), ("a", Regular, b"x")], ""),
        (&[("x", XHeader, b"19 path=../escaped\n"), ("a", Regular, b"x")], "plain name"),
        (&[("x", XHeader, b"11 size=10\n"), ("a", Regular, b"x")], "size"),
        (&[("x", XHeader, b"999999 path=a\n"), ("a", Regular, b"x")], "extended header"),
        (&[("x", GNULongName, b"../long\0"), ("a", Regular, b"x")], "plain name"),
        (&[("x", GNULongName, &[b'a'; 8192]), ("a", Regular, b"x")], "longer"),
    ] {
        let error = both(&tar_of(members)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}, not {why}");
    }
    let many: Vec<(String, tar::EntryType, &[u8])> =
        (0..300).map(|i| (format!("f{i}"), Regular, &b""[..])).collect();
    let many: Vec<_> = many.iter().map(|(name, kind, c)| (name.as_str(), *kind, *c)).collect();
    assert!(both(&tar_of(&many)).unwrap_err().to_string().contains("members"));
    let last = both(&good).unwrap().pop().unwrap();
    let cut = &good[..last.offset as usize + 2];
    assert!(archive::list(&mut Cursor::new(cut)).unwrap_err().to_string().contains("cut off"));
    // Damage anywhere in the headers.
    for at in (0..2048).step_by(3) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        let _ = archive::list(&mut Cursor::new(&bytes));
        let _ = archive::read(&bytes[..], &mut |_, _| Ok::<(), ImportError>(()));
    }
}

#[test]
fn a_cd_is_read_by_others() {
    let long = vec![b'y'; 5000];
    let files: [(&str, &[u8]); 4] = [
        ("user-data", b"#cloud-config\n"),
        ("network-config", &long),
        ("ovf-env.xml", b"<a/>"),
        ("empty", b""),
    ];
    let cd = iso::image("cidata", &files).unwrap();
    let read = |more: &[&str]| {
        let mut child = Command::new("bsdtar")
            .arg("-xOf")
            .arg("-")
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&cd).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{more:?}");
        output.stdout
    };
    for (name, content) in files {
        assert_eq!(read(&[name]), content, "{name}");
        assert_eq!(
            read(&["--options", "!joliet", &iso_name(name)]),
            content,
            "{name} without Joliet"
        );
    }
}

/// The plain name of the test's files, by their place.
fn iso_name(name: &str) -> String {
    match name {
        "user-data" => "USER_DA0",
        "network-config" => "NETWORK1",
        "ovf-env.xml" => "OVF_ENV2.XML",
        _ => "EMPTY3",
    }
    .to_owned()
}
