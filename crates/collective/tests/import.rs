//! Files that other programs wrote become appliances, and what is dangerous does not.

mod support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use support::World;

const DISK_BYTES: usize = 3 << 20;

/// A world with a repository and a raw disk that has content, zeros and a hole.
fn world(name: &str) -> World {
    let world = World::empty(name);
    world.run("A", &["repo", "init", &world.repository()]).ok();
    let mut content = vec![0; DISK_BYTES];
    for (index, byte) in content.iter_mut().enumerate().take(700_000).skip(100_000) {
        *byte = (index % 241) as u8;
    }
    content[DISK_BYTES - 1] = 1;
    fs::write(world.root().join("disk.raw"), content).unwrap();
    world
}

fn path(world: &World, name: &str) -> String {
    world.root().join(name).to_string_lossy().into_owned()
}

/// Runs `qemu-img` in the world's folder.
#[track_caller]
fn qemu_img(world: &World, words: &str) {
    let words: Vec<&str> = words.split_whitespace().collect();
    let done = Command::new("qemu-img").args(&words).current_dir(world.root()).output().unwrap();
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Imports a file; gives its first volume's manifest.
#[track_caller]
fn manifest(world: &World, file: &str, more: &[&str]) -> String {
    let file = path(world, file);
    let mut words = vec!["import", &file, "--name", "it"];
    words.extend(more);
    let print = world.run("A", &words).ok();
    for field in ["version_id", "format", "stored_bytes", "total_ms"] {
        assert!(!print[field].is_null(), "no {field} in {print}");
    }
    print["volumes"][0]["manifest"].as_str().unwrap().to_owned()
}

#[track_caller]
fn refused(world: &World, file: &str, more: &[&str], why: &str) -> String {
    let file = path(world, file);
    let mut words = vec!["import", &file, "--name", "it"];
    words.extend(more);
    let (kind, message, hint) = world.run("A", &words).error();
    assert_eq!(kind, "import", "{message}");
    assert!(message.contains(why), "{message}");
    let left = fs::read_dir(world.host("A").join("imports"))
        .map_or(0, |list| list.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count());
    assert_eq!(left, 0, "its work was not removed");
    hint
}

#[test]
fn every_format_brings_the_same_disk() {
    let world = world("formats");
    let raw = manifest(&world, "disk.raw", &["--format", "raw"]);
    for (words, name, format) in [
        ("-O qcow2 -o compat=0.10", "v2", "qcow2"),
        ("-O qcow2 -o compat=1.1", "v3", "qcow2"),
        ("-c -O qcow2", "compressed", "qcow2"),
        ("-c -O qcow2 -o compression_type=zstd,extended_l2=on", "newest", "qcow2"),
        ("-O vmdk -o subformat=monolithicSparse", "sparse.vmdk", "vmdk"),
        ("-O vmdk -o subformat=streamOptimized", "stream.vmdk", "vmdk"),
        ("-O vmdk -o subformat=monolithicFlat", "flat.vmdk", "vmdk"),
        ("-O vmdk -o subformat=twoGbMaxExtentSparse", "split.vmdk", "vmdk"),
        ("-O vmdk -o subformat=twoGbMaxExtentFlat", "pieces.vmdk", "vmdk"),
        ("-O vdi", "dynamic.vdi", "vdi"),
        ("-O vdi -o static=on", "static.vdi", "vdi"),
        ("-O vpc -o force_size=on", "dynamic.vhd", "vhd"),
        ("-O vpc -o subformat=fixed,force_size=on", "fixed.vhd", "vhd"),
        ("-O vhdx", "dynamic.vhdx", "vhdx"),
        ("-O vhdx -o subformat=fixed", "fixed.vhdx", "vhdx"),
    ] {
        qemu_img(&world, &format!("convert -f raw {words} disk.raw {name}"));
        assert_eq!(manifest(&world, name, &[]), raw, "{name}");
        assert_eq!(manifest(&world, name, &["--format", format]), raw, "{name} as {format}");
    }
    let list = world.run("A", &["appliances"]).ok();
    assert_eq!(list.as_array().unwrap().len(), 1, "each is the next version of one appliance");
    assert_eq!(world.run("A", &["repo", "check", "--read-data"]).ok()["ok"], true);
}

#[test]
fn what_is_exported_is_imported_as_the_same_disk() {
    let world = world("round");
    let original = manifest(&world, "disk.raw", &["--format", "raw"]);
    let check = |format: &str| {
        let file = path(&world, format);
        let words = ["export", "it", &file, "--format", format];
        let print = world.run("A", &words).ok();
        assert_eq!(print["what"], "appliance");
        assert_eq!(print["disks"][0]["manifest"], original.as_str());
        if format != "raw" {
            qemu_img(&world, &format!("check {file}"));
        }
        assert_eq!(world.run("A", &words).error().0, "exists");
        assert_eq!(manifest(&world, format, &["--format", format]), original, "{format}");
        file
    };
    check("qcow2");
    let raw = check("raw");
    assert_eq!(fs::read(&raw).unwrap(), fs::read(path(&world, "disk.raw")).unwrap());
    // What was a hole is one, and what is large and empty is small.
    use std::os::unix::fs::MetadataExt;
    let blocks = fs::metadata(&raw).unwrap().blocks() * 512;
    assert!(blocks < DISK_BYTES as u64 / 2, "{blocks} bytes are in use");
    fs::File::create(path(&world, "large")).unwrap().set_len(1 << 40).unwrap();
    manifest(&world, "large", &["--format", "raw"]);
    for format in ["raw", "qcow2"] {
        let file = path(&world, format);
        world.run("A", &["export", "it", &file, "--format", format, "--force"]).ok();
        assert!(fs::metadata(&file).unwrap().blocks() * 512 < 64 << 20);
    }

    let file = path(&world, "new");
    let nothing = world.run("A", &["export", "nobody", &file, "--format", "raw"]).error();
    assert_eq!(nothing.0, "not_found");
    let wrong = world.run("A", &["export", "it", &file, "--format", "raw", "--disk", "x"]).error();
    assert!(wrong.2.contains("disk1"), "{wrong:?}");
    assert!(
        fs::read_dir(world.root())
            .unwrap()
            .all(|entry| { !entry.unwrap().file_name().to_string_lossy().starts_with('.') })
    );
}

#[test]
fn raw_is_never_guessed() {
    let world = world("raw");
    assert!(refused(&world, "disk.raw", &[], "not recognised").contains("--format raw"));
    // A disk whose first bytes its guest has chosen: taken as stated, or as what it says it is.
    qemu_img(&world, "create -f qcow2 -b /etc/passwd -F raw evil 1M");
    refused(&world, "evil", &[], "backing file");
    manifest(&world, "evil", &["--format", "raw"]);
    refused(&world, "disk.raw", &["--format", "qcow2"], "magic");
}

#[test]
fn what_leads_to_other_files_is_refused() {
    let world = world("elsewhere");
    qemu_img(&world, "convert -f raw -O qcow2 disk.raw base");
    qemu_img(&world, "create -f qcow2 -b base -F qcow2 backed");
    refused(&world, "backed", &[], "backing file");
    qemu_img(&world, "create -f qcow2 -o data_file=data,data_file_raw=on external 1M");
    refused(&world, "external", &[], "data file");
    qemu_img(&world, "convert -f raw -O vmdk -o subformat=monolithicFlat disk.raw flat.vmdk");
    let text = fs::read_to_string(path(&world, "flat.vmdk")).unwrap();
    for (file, why) in [
        ("/etc/passwd", "plain name"),
        ("../flat-flat.vmdk", "plain name"),
        ("link", "is a link"),
        ("folder", "no regular file"),
        ("short", "shorter"),
    ] {
        fs::write(path(&world, "other.vmdk"), text.replace("flat-flat.vmdk", file)).unwrap();
        if file == "link" {
            std::os::unix::fs::symlink("disk.raw", path(&world, "link")).unwrap();
            fs::create_dir(path(&world, "folder")).unwrap();
            fs::write(path(&world, "short"), "x").unwrap();
        }
        refused(&world, "other.vmdk", &[], why);
    }
    let missing = path(&world, "nowhere");
    assert_eq!(world.run("A", &["import", &missing, "--name", "it"]).error().0, "not_found");
    refused(&world, ".", &[], "no regular file");
}

/// Files that pass a look at their header, and are broken behind it.
#[test]
fn what_is_damaged_or_cut_off_says_so_and_leaves_nothing() {
    let world = world("broken");
    for format in ["qcow2", "vmdk", "vdi", "vpc", "vhdx"] {
        qemu_img(&world, &format!("convert -f raw -O {format} disk.raw whole"));
        let bytes = fs::read(path(&world, "whole")).unwrap();
        // As by a download that broke off: where a reader meets zeros.
        fs::write(path(&world, "cut"), &bytes[..bytes.len() - bytes.len() / 3]).unwrap();
        refused(&world, "cut", &[], "");
        if format == "qcow2" {
            let mut damaged = bytes;
            // Its table of clusters lies beyond the end.
            damaged[40..48].copy_from_slice(&(1_u64 << 40).to_be_bytes());
            fs::write(path(&world, "damaged"), &damaged).unwrap();
            refused(&world, "damaged", &[], "damaged");
        }
    }
    assert!(world.run("A", &["appliances"]).ok().as_array().unwrap().is_empty());
}

#[test]
fn a_cd_comes_with_an_empty_disk() {
    let world = world("cd");
    let mut cd = vec![0; 40 << 10];
    cd[0x8001..0x8006].copy_from_slice(b"CD001");
    fs::write(path(&world, "live.iso"), cd).unwrap();
    let file = path(&world, "live.iso");
    let print = world.run("A", &["import", &file, "--name", "live", "--disk-size", "1GiB"]).ok();
    assert_eq!(print["format"], "iso");
    assert_eq!(print["volumes"][0]["size_bytes"], 1 << 30);
    assert_eq!(print["volumes"][1]["name"], "cd");
    let wrong = world.run("A", &["import", &file, "--name", "live", "--memory", "1000"]);
    assert_eq!(wrong.json()["error"]["kind"], "usage", "{wrong:?}");
}

/// A command that is killed leaves work behind; the next one removes it.
#[test]
fn a_killed_import_leaves_nothing_for_long() {
    let world = world("killed");
    qemu_img(&world, "convert -f raw -O qcow2 disk.raw it");
    manifest(&world, "it", &[]);
    let shelf = world.host("A").join("imports");
    let dead: PathBuf = shelf.join("0123456789abcdef");
    fs::create_dir_all(&dead).unwrap();
    fs::write(dead.join("disk1-input"), "x").unwrap();
    manifest(&world, "it", &[]);
    assert!(!dead.exists());
}

/// A description of a computer with two disks and a form.
const FORM_OVF: &str = r#"<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="r">
 <References><File ovf:id="f1" ovf:href="one.vmdk"/><File ovf:id="f2" ovf:href="two.vmdk"/></References>
 <DiskSection><Info/><Disk ovf:diskId="d1" ovf:capacity="3145728" ovf:fileRef="f1"/>
  <Disk ovf:diskId="d2" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^20" ovf:fileRef="f2"/></DiskSection>
 <VirtualSystem ovf:id="it"><Info/>
  <ProductSection ovf:class="net"><Info/><Product>It</Product>
   <Property ovf:key="host" ovf:type="string" ovf:userConfigurable="true"><Label>Its name</Label></Property>
   <Property ovf:key="mtu" ovf:type="uint16" ovf:userConfigurable="true" ovf:value="1500"/></ProductSection>
  <VirtualHardwareSection ovf:transport="iso"><Info/>
   <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
   <Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>64</rasd:VirtualQuantity></Item>
   <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceType>6</rasd:ResourceType></Item>
   <Item><rasd:AddressOnParent>1</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/d2</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
   <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/d1</rasd:HostResource><rasd:InstanceID>5</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
  </VirtualHardwareSection></VirtualSystem></Envelope>"#;

fn shell(world: &World, script: &str) -> String {
    let done = Command::new("sh").args(["-ec", script]).current_dir(world.root()).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[test]
fn a_package_brings_its_disks_in_order_and_asks_for_its_form() {
    let world = world("package");
    let original = manifest(&world, "disk.raw", &["--format", "raw"]);
    fs::write(path(&world, "it.ovf"), FORM_OVF).unwrap();
    qemu_img(&world, "convert -f raw -O vmdk -o subformat=streamOptimized disk.raw one.vmdk");
    qemu_img(&world, "create -f raw small 1M");
    shell(&world, "printf second | dd of=small conv=notrunc");
    qemu_img(&world, "convert -f raw -O vmdk -o subformat=streamOptimized small two.vmdk");
    shell(
        &world,
        "for f in it.ovf one.vmdk; do echo \"SHA1($f)= $(sha1sum $f | cut -c1-40)\"; done > it.mf
         echo \"SHA512(two.vmdk)= $(sha512sum two.vmdk | cut -c1-128)\" >> it.mf
         tar cf it.ova it.ovf it.mf one.vmdk two.vmdk",
    );
    let file = path(&world, "it.ova");
    let form = |more: &[&str]| {
        let said = world.run("A", &[&["import", &file, "--name", "it"], more].concat());
        assert_eq!(said.code, 2, "{said:?}");
        said.json()["error"]["message"].as_str().unwrap().to_owned()
    };
    let missing = form(&[]);
    assert!(missing.contains("not given: net.host") && missing.contains("Its name"), "{missing}");
    assert!(missing.contains("net.mtu (uint16) [default: 1500]"), "{missing}");
    assert!(form(&["--property", "x=1"]).contains("no property"));
    assert!(form(&["--property", "net.mtu=70000"]).contains("no uint16"));
    assert_eq!(manifest(&world, "it.ova", &["--property", "net.host=a=b"]), original);
    assert!(form(&["--property-file", "net.host=none"]).contains("none: No such file"));
    std::fs::write(world.root().join("mtu"), "70000\n").unwrap();
    assert!(form(&["--property-file", "net.mtu=mtu"]).contains("\"70000\" is no uint16"));

    let print = world.run("A", &["import", &file, "--name", "it", "--properties-at-run"]).ok();
    assert_eq!((&print["cpus"], &print["memory_bytes"]), (&2.into(), &(64 << 20).into()));
    assert_eq!(print["notes"], serde_json::json!([]));
    assert_eq!(print["volumes"][0]["manifest"], original.as_str());
    assert_eq!(print["volumes"][1]["size_bytes"], 1 << 20);
    assert_eq!(print["properties"][0]["key"], "net.host");
    assert_eq!(print["properties"][0]["required"], true);
    assert_eq!(print["properties"][1]["value"], "1500");
    let unasked = world.run("A", &["run", "it", "--name", "i1"]);
    assert_eq!(unasked.code, 2, "{unasked:?}");
    assert!(world.run("A", &["ps"]).ok().as_array().unwrap().is_empty());

    // The same as a description with its files beside it, and what was changed is noticed.
    assert_eq!(manifest(&world, "it.ovf", &["--properties-at-run"]), original);
    let pack = "tar cf it.ova it.ovf it.mf one.vmdk two.vmdk";
    for (change, pack, source, why) in [
        ("cp two.vmdk one.vmdk", pack, "it.ova", "one.vmdk does not have the sha1 digest"),
        ("cp one.vmdk two.vmdk", pack, "it.ova", "two.vmdk does not have the sha512 digest"),
        ("sed -i s/Its/My/ it.ovf", pack, "it.ova", "it.ovf does not have the sha1 digest"),
        ("sed -i /two/d it.mf", pack, "it.ova", "no digest of two.vmdk"),
        ("rm one.vmdk", "true", "it.ovf", "no file one.vmdk"),
        ("ln -sf disk.raw one.vmdk", "true", "it.ovf", "is a link"),
        ("rm it.mf; sed -i s,one.vmdk,../one.vmdk, it.ovf", "true", "it.ovf", "plain name"),
        ("true", "tar cf it.ova two.vmdk it.ovf it.mf one.vmdk", "it.ova", "first member"),
        ("ln -s it.ovf l", "tar cf it.ova it.ovf l", "it.ova", "is a link"),
        ("true", "tar cPf it.ova it.ovf ../disk.raw", "it.ova", "plain name"),
        ("true", "tar cf it.ova it.ovf; tar rf it.ova it.ovf", "it.ova", "twice"),
        ("true", "tar cf - it.ovf it.mf one.vmdk | head -c 9000 > it.ova", "it.ova", "cut off"),
    ] {
        let files = "it.ovf it.mf one.vmdk two.vmdk";
        shell(&world, &format!("rm -rf x; mkdir x; cp {files} x; cd x; {change}; {pack}"));
        let file = path(&world, &format!("x/{source}"));
        let format = &source[3..];
        let words = ["import", &file, "--name", "it", "--format", format];
        let said = world.run("A", &words).error();
        assert!(said.1.contains(why), "{change}; {pack}: {said:?}");
    }
}

/// Secure boot and a TPM are part of a computer: they leave with it and come back, and what does not is said.
#[test]
fn what_protects_a_computer_leaves_with_it_and_comes_back() {
    let world = world("protected");
    let raw = path(&world, "disk.raw");
    let protected = ["--firmware", "uefi", "--secure-boot", "--tpm"];
    world
        .run("A", &[&["import", &raw, "--format", "raw", "--name", "it"], &protected[..]].concat())
        .ok();
    // The hardware of an OVA of `it`.
    let hardware = || {
        let file = path(&world, "it.ova");
        let said = world.run("A", &["export", "it", &file, "--format", "ova", "--force"]).ok();
        let text = shell(&world, "tar xOf it.ova it.ovf");
        let section = text.split("VirtualHardwareSection").nth(1).unwrap().to_owned();
        (section, said["notes"].clone())
    };
    let (before, notes) = hardware();
    assert!(before.contains("efiSecureBootEnabled\" vmw:value=\"true\""), "{before}");
    assert!(before.contains("vmware.vtpm"), "{before}");
    for lost in ["variables", "virtual TPM"] {
        assert!(notes.to_string().contains(lost), "{notes}");
    }

    let file = path(&world, "it.ova");
    let back = world.run("A", &["import", &file, "--name", "it"]).ok();
    assert_eq!(back["volumes"][1]["name"], "tpm", "{back}");
    assert!(back["notes"].to_string().contains("virtual TPM is a new one"), "{back}");
    assert_eq!(hardware().0, before);

    // What its user says goes before that.
    assert!(back["notes"].to_string().contains("Microsoft's keys; --firmware uefi"), "{back}");
    world.run("A", &["import", &file, "--name", "it", "--firmware", "uefi"]).ok();
    assert_eq!(hardware().0, before.replace("\"true\"", "\"false\""));
    world.run("A", &["import", &file, "--name", "it", "--firmware", "bios"]).ok();
    let (bios, _) = hardware();
    assert!(bios.contains("vmware.vtpm") && !bios.contains("efi"), "{bios}");

    // What is in a package cannot be stated from outside.
    shell(
        &world,
        "tar xf it.ova; cp disk.raw it-disk1.vmdk; rm it.mf
         sed -i 's/ ovf:size=\"[0-9]*\"//' it.ovf; tar cf raw.ova it.ovf it-disk1.vmdk",
    );
    let hint = refused(&world, "raw.ova", &[], "it-disk1.vmdk: its format is not recognised");
    assert!(hint.contains("qemu-img") && !hint.contains("--format raw"), "{hint}");
}

#[test]
fn a_box_is_unpacked_within_bounds() {
    let world = world("box");
    let original = manifest(&world, "disk.raw", &["--format", "raw"]);
    qemu_img(&world, "convert -f raw -O qcow2 disk.raw box.img");
    let metadata = |text: &str| fs::write(path(&world, "metadata.json"), text).unwrap();
    metadata(r#"{"provider":"libvirt","format":"qcow2","virtual_size":1}"#);
    shell(&world, "tar czf it.box metadata.json box.img");
    assert_eq!(manifest(&world, "it.box", &[]), original);
    // Its format is stated there, raw too; what is stated must be so.
    metadata(r#"{"provider":"libvirt","format":"raw"}"#);
    shell(&world, "cp disk.raw box.img; tar czf raw.box metadata.json box.img");
    assert_eq!(manifest(&world, "raw.box", &[]), original);
    metadata(r#"{"provider":"libvirt","format":"qcow2"}"#);
    shell(&world, "tar czf it.box metadata.json box.img");
    refused(&world, "it.box", &[], "magic");
    metadata(r#"{"provider":"docker"}"#);
    shell(&world, "tar czf it.box metadata.json box.img");
    refused(&world, "it.box", &[], "docker");
    shell(&world, "head -c 3000 raw.box > cut.box");
    refused(&world, "cut.box", &[], "");
    // It claims more than there is room for: refused before it is unpacked.
    metadata(r#"{"provider":"libvirt","format":"raw"}"#);
    shell(&world, "truncate -s 7T box.img; tar cSf sparse.tar metadata.json box.img");
    refused(&world, "sparse.tar", &["--format", "box"], "sparse");
    shell(
        &world,
        "truncate -s 4T box.img; (tar cf - metadata.json box.img || true) | head -c 1M | gzip > huge.box",
    );
    let huge = world.run("A", &["import", &path(&world, "huge.box"), "--name", "it"]).error();
    assert_eq!(huge.0, "no_space", "{huge:?}");
}
