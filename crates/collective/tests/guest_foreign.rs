//! Computers that go out and come back: exported, imported, run; and run by QEMU alone.

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{World, appliance, eventually};

/// A QEMU of nobody's but this test's.
struct Plain(Child, std::path::PathBuf);

impl Plain {
    /// Starts a PC from this disk, its serial port into a file.
    fn boot(world: &World, drive: &str) -> Self {
        let log = world.root().join("plain.log");
        let mut command = Command::new("qemu-system-x86_64");
        command.args("-nodefaults -display none -m 32 -accel tcg -drive".split(' ')).arg(drive);
        command.arg("-serial").arg(format!("file:{}", log.display()));
        Self(command.stdin(Stdio::null()).spawn().unwrap(), log)
    }

    #[track_caller]
    fn await_line(&self, line: &str) {
        eventually(Duration::from_secs(60), line, || {
            std::fs::read_to_string(&self.1).is_ok_and(|said| said.contains(line))
        });
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
/// The system counts its boots on its disk: what it says tells whose disk it is.
#[test]
fn guest_goes_out_and_comes_back() {
    let world = World::with_nano("out");
    world.run("A", &["run", "nano", "--name", "n1"]).ok();
    let file = |name: &str| world.root().join(name).to_string_lossy().into_owned();
    let (raw, qcow2) = (file("n1.raw"), file("n1.qcow2"));
    let running = world.run("A", &["export", "n1", &raw, "--format", "raw"]).error();
    assert_eq!(running.0, "state", "{running:?}");
    world.run("A", &["checkpoint", "n1", "--label", "first"]).ok();
    let there = world.run("A", &["export", "n1@first", &raw, "--format", "raw"]).ok();
    assert!(there["notes"][0].as_str().unwrap().contains("memory"), "{there}");
    world.run("A", &["stop", "n1", "--force"]).ok();
    let exported = world.run("A", &["export", "n1", &qcow2, "--format", "qcow2"]).ok();
    assert_eq!(exported["what"], "instance");

    // Under plain QEMU it boots the second time.
    let check = Command::new("qemu-img").args(["check", &qcow2]).output().unwrap();
    assert!(check.status.success(), "{check:?}");
    Plain::boot(&world, &format!("file={raw},format=raw,if=ide")).await_line("nano: boots=2");
    let copy = file("copy.qcow2");
    std::fs::copy(&qcow2, &copy).unwrap();
    Plain::boot(&world, &format!("file={copy},format=qcow2,if=virtio")).await_line("nano: boots=2");

    // And here as an appliance of its own, whatever its disk is plugged into.
    for bus in ["virtio", "sata"] {
        let name = format!("back-{bus}");
        let imported = world
            .run("A", &["import", &qcow2, "--name", &name, "--memory", "32MiB", "--disk-bus", bus])
            .ok();
        assert_eq!(imported["volumes"][0]["manifest"], exported["disks"][0]["manifest"]);
        world.run("A", &["run", &name, "--name", &name]).ok();
        world.await_console("A", &name, "nano: boots=2");
    }
    // Foreign hardware suspends and goes on as any.
    world.type_in("A", "back-sata", "ab\r");
    world.await_console("A", "back-sata", "keys=2");
    world.run("A", &["suspend", "back-sata"]).ok();
    world.run("B", &["resume", "back-sata"]).ok();
    world.type_in("B", "back-sata", "c\r");
    world.await_console("B", "back-sata", "keys=3");
}

/// A tar by the program of that name.
fn tar(world: &World, words: &str) {
    let done = Command::new("tar").args(words.split(' ')).current_dir(world.root()).status();
    assert!(done.unwrap().success(), "{words}");
}

fn qemu_img(world: &World, words: &str) {
    let done = Command::new("qemu-img").args(words.split(' ')).current_dir(world.root()).status();
    assert!(done.unwrap().success(), "{words}");
}

/// What VirtualBox writes, in its words.
const BOX_OVF: &str = r#"<?xml version="1.0"?>
<Envelope ovf:version="1.0" xml:lang="en-US" xmlns="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
 xmlns:vbox="http://www.virtualbox.org/ovf/machine">
 <References><File ovf:id="file1" ovf:href="box-disk001.vmdk"/></References>
 <DiskSection><Info>disks</Info>
  <Disk ovf:capacity="1048576" ovf:diskId="vmdisk1" ovf:fileRef="file1"
   ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
 </DiskSection>
 <NetworkSection><Info/><Network ovf:name="NAT"><Description/></Network></NetworkSection>
 <VirtualSystem ovf:id="nano"><Info>A virtual machine</Info>
  <VirtualHardwareSection><Info/>
   <System><vssd:VirtualSystemType xmlns:vssd="x">virtualbox-2.2</vssd:VirtualSystemType></System>
   <Item><rasd:Caption>1 virtual CPU</rasd:Caption><rasd:InstanceID>1</rasd:InstanceID>
    <rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>
   <Item><rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits><rasd:InstanceID>2</rasd:InstanceID>
    <rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>32</rasd:VirtualQuantity></Item>
   <Item><rasd:Address>0</rasd:Address><rasd:InstanceID>3</rasd:InstanceID>
    <rasd:ResourceSubType>PIIX4</rasd:ResourceSubType><rasd:ResourceType>5</rasd:ResourceType></Item>
   <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>/disk/vmdisk1</rasd:HostResource>
    <rasd:InstanceID>4</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
   <Item><rasd:Connection>NAT</rasd:Connection><rasd:InstanceID>5</rasd:InstanceID>
    <rasd:ResourceSubType>E1000</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
  </VirtualHardwareSection>
  <vbox:Machine><vbox:Hardware><vbox:CPU count="1"/></vbox:Hardware></vbox:Machine>
 </VirtualSystem>
</Envelope>"#;

/// Boxes and OVAs that were put together by hand run, and leave as OVAs that come back.
#[test]
fn guest_in_a_box_runs() {
    let world = World::with_nano("box");
    let file = |name: &str| world.root().join(name).to_string_lossy().into_owned();
    let raw = file("nano.raw");
    world.run("A", &["export", "nano", &raw, "--format", "raw"]).ok();
    let write = |name: &str, text: &str| std::fs::write(file(name), text).unwrap();

    qemu_img(&world, "convert -f raw -O qcow2 nano.raw box.img");
    write("metadata.json", r#"{"provider":"libvirt","format":"qcow2","virtual_size":1}"#);
    write("Vagrantfile", "Vagrant.configure(\"2\") do |config|\nend\n");
    tar(&world, "czf libvirt.box ./metadata.json ./Vagrantfile ./box.img");
    qemu_img(
        &world,
        "convert -f raw -O vmdk -o subformat=streamOptimized nano.raw box-disk001.vmdk",
    );
    write("metadata.json", r#"{"provider":"virtualbox"}"#);
    write("box.ovf", BOX_OVF);
    tar(&world, "czf virtualbox.box metadata.json Vagrantfile box.ovf box-disk001.vmdk");
    tar(&world, "cf plain.ova box.ovf box-disk001.vmdk");

    for name in ["libvirt.box", "virtualbox.box", "plain.ova", "box.ovf"] {
        let appliance = name.replace('.', "-");
        let path = file(name);
        let mut words = vec!["import", &path, "--name", &appliance];
        if name == "libvirt.box" {
            words.extend(["--memory", "32MiB"]);
        }
        let imported = world.run("A", &words).ok();
        assert_eq!(imported["memory_bytes"], 32 << 20, "{imported}");
        world.run("A", &["run", &appliance, "--name", &appliance]).ok();
        world.await_console("A", &appliance, "nano: boots=1");
        world.run("A", &["stop", &appliance, "--force"]).ok();
    }

    // Out as a whole computer, booted elsewhere from its disk, and back: the same one.
    let ova = file("out.ova");
    let exported = world.run("A", &["export", "plain-ova", &ova, "--format", "ova"]).ok();
    tar(&world, "xf out.ova");
    qemu_img(&world, "check plain-ova-disk1.vmdk");
    qemu_img(&world, "convert -O qcow2 plain-ova-disk1.vmdk elsewhere.qcow2");
    let drive = format!("file={},format=qcow2,if=ide", file("elsewhere.qcow2"));
    Plain::boot(&world, &drive).await_line("nano: boots=2");
    let back = world.run("A", &["import", &ova, "--name", "back"]).ok();
    assert_eq!(back["notes"], serde_json::json!([]));
    assert_eq!(back["memory_bytes"], 32 << 20);
    assert_eq!(back["volumes"][0]["manifest"], exported["disks"][0]["manifest"]);
    world.run("A", &["run", "back", "--name", "back"]).ok();
    world.await_console("A", "back", "nano: boots=2");
}

/// What starts by UEFI comes in as anything else: a disk of which its user says so, with a TPM where its
/// user wants one; an OVA and a box that say it themselves, in VMware's words and in VirtualBox's.
#[test]
fn guest_of_uefi_comes_in_from_elsewhere() {
    let world = World::empty("uefi-in");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    let file = |name: &str| world.root().join(name).to_string_lossy().into_owned();
    let disk = Path::new(&appliance("nano-uefi")).join("nano.img");
    std::fs::copy(disk, file("nano.raw")).unwrap();
    qemu_img(&world, "convert -f raw -O qcow2 nano.raw disk.qcow2");
    qemu_img(
        &world,
        "convert -f raw -O vmdk -o subformat=streamOptimized nano.raw box-disk001.vmdk",
    );
    let write = |name: &str, text: &str| std::fs::write(file(name), text).unwrap();
    let ovf = BOX_OVF.replace(">32<", ">128<").replace("1048576", "65536");
    let config = r#"<vmw:Config xmlns:vmw="http://www.vmware.com/schema/ovf" ovf:required="false"
        vmw:key="firmware" vmw:value="efi"/></VirtualHardwareSection>"#;
    write("box.ovf", &ovf.replace("</VirtualHardwareSection>", config));
    tar(&world, "cf vmware.ova box.ovf box-disk001.vmdk");
    let firmware = r#"<vbox:Hardware><vbox:Firmware type="EFI"/>"#;
    write("box.ovf", &ovf.replace("<vbox:Hardware>", firmware));
    write("metadata.json", r#"{"provider":"virtualbox"}"#);
    tar(&world, "czf virtualbox.box metadata.json box.ovf box-disk001.vmdk");

    let said: [(&str, &[&str]); 3] = [
        ("disk.qcow2", &["--firmware", "uefi", "--tpm", "--memory", "128MiB"]),
        ("vmware.ova", &[]),
        ("virtualbox.box", &[]),
    ];
    for (name, words) in said {
        let (path, appliance) = (file(name), name.replace('.', "-"));
        let words = [&["import", &path, "--name", &appliance], words].concat();
        assert_eq!(world.run("A", &words).ok()["memory_bytes"], 128 << 20);
        // All at once: each needs a processor for seconds.
        world.run("A", &["run", &appliance, "--name", &appliance, "--no-wait"]).ok();
    }
    for (name, words) in said {
        let name = name.replace('.', "-");
        world.await_console("A", &name, "nano-uefi: boots=1 writes=0 secure=0");
        world.type_in("A", &name, "\r");
        world.await_console("A", &name, "keys=0");
        assert_eq!(world.console("A", &name).contains("pcr="), !words.is_empty(), "{name}");
    }
    // Its TPM is its own, and goes where it goes.
    world.type_in("A", "disk-qcow2", "p");
    world.run("A", &["suspend", "disk-qcow2"]).ok();
    world.run("B", &["resume", "disk-qcow2"]).ok();
    world.type_in("B", "disk-qcow2", "\r");
    world.await_console("B", "disk-qcow2", "place=1");
}

/// The answers to a form are on a CD (OVF's transport `iso`), the same wherever the guest goes on.
#[test]
fn guest_gets_its_form_on_a_cd() {
    let world = World::with_nano("form");
    let file = |name: &str| world.root().join(name).to_string_lossy().into_owned();
    world.run("A", &["export", "nano", &file("nano.raw"), "--format", "raw"]).ok();
    qemu_img(
        &world,
        "convert -f raw -O vmdk -o subformat=streamOptimized nano.raw box-disk001.vmdk",
    );
    let section = r#"<ProductSection ovf:class="net"><Info/><Product>N</Product>
        <Property ovf:key="host" ovf:type="string" ovf:userConfigurable="true"/>
        <Property ovf:key="mtu" ovf:type="uint16" ovf:userConfigurable="true" ovf:value="1500"/>
        </ProductSection><VirtualHardwareSection ovf:transport="iso">"#;
    let form = BOX_OVF.replace("<VirtualHardwareSection>", section);
    std::fs::write(file("box.ovf"), form).unwrap();
    let path = file("box.ovf");
    world.run("A", &["import", &path, "--name", "n", "--properties-at-run"]).ok();
    std::fs::write(file("secret"), "a <b> & c\n").unwrap();
    world.run("A", &["run", "n", "--name", "n1", "--property-file", "net.host=secret"]).ok();
    world.await_console("A", "n1", "nano: boots=1");
    world.run("A", &["suspend", "n1"]).ok();
    world.run("B", &["resume", "n1"]).ok();
    world.type_in("B", "n1", "a\r");
    world.run("B", &["stop", "n1", "--force"]).ok();
    let cd = file("cd.iso");
    world.run("B", &["export", "n1", &cd, "--format", "raw", "--disk", "ovf-env"]).ok();
    let read = Command::new("bsdtar").args(["-xOf", &cd, "ovf-env.xml"]).output().unwrap();
    let text = String::from_utf8_lossy(&read.stdout).into_owned();
    for property in [
        "oe:key=\"net.host\" oe:value=\"a &lt;b&gt; &amp; c\"",
        "oe:key=\"net.mtu\" oe:value=\"1500\"",
    ] {
        assert!(text.contains(property), "{text}");
    }
    // An appliance with a maker's part always brings it, whether or not there is a user's.
    std::fs::write(file("maker"), "#!/bin/sh\necho made\n").unwrap();
    let words = ["import", &file("nano.raw"), "--name", "m", "--format", "raw"];
    world.run("A", &[&words[..], &["--vendor-data", &file("maker")]].concat()).ok();
    world.run("A", &["run", "m", "--name", "m1"]).ok();
    world.await_console("A", "m1", "nano: boots=1");
    world.run("A", &["stop", "m1", "--force"]).ok();
    let cd = file("cidata.iso");
    world.run("A", &["export", "m1", &cd, "--format", "raw", "--disk", "cidata"]).ok();
    let read = Command::new("bsdtar").args(["-xOf", &cd, "vendor-data"]).output().unwrap();
    assert_eq!(read.stdout, b"#!/bin/sh\necho made\n");
    // Its disk alone, without naming it: a CD is not what is meant.
    world.run("B", &["export", "n1", &file("disk.raw"), "--format", "raw"]).ok();
}

/// A CD that starts: our own system, which then finds that it cannot write there.
#[test]
fn guest_starts_from_a_cd() {
    let world = World::with_nano("cd");
    const SECTOR: usize = 2048;
    let mut cd = vec![0; 40 * SECTOR];
    let mut put = |at: usize, bytes: &[u8]| cd[at..at + bytes.len()].copy_from_slice(bytes);
    put(16 * SECTOR, b"\x01CD001\x01");
    put(17 * SECTOR, b"\0CD001\x01EL TORITO SPECIFICATION");
    put(17 * SECTOR + 0x47, &19_u32.to_le_bytes());
    put(18 * SECTOR, b"\xffCD001\x01");
    // The catalogue: one entry, four sectors of 512 bytes, without emulation.
    let mut check = [0; 32];
    (check[0], check[30], check[31]) = (1, 0x55, 0xaa);
    let sum: u16 =
        check.chunks(2).map(|w| u16::from_le_bytes([w[0], w[1]])).fold(0, u16::wrapping_add);
    check[28..30].copy_from_slice(&sum.wrapping_neg().to_le_bytes());
    put(19 * SECTOR, &check);
    put(19 * SECTOR + 32, &[0x88, 0, 0, 0, 0, 0, 4, 0, 20, 0, 0, 0]);
    put(20 * SECTOR, include_bytes!("../../../appliances/nano/nano.img"));
    let file = world.root().join("live.iso").to_string_lossy().into_owned();
    std::fs::write(&file, cd).unwrap();
    let words = ["import", &file, "--name", "live", "--memory", "32MiB", "--disk-size", "1MiB"];
    assert_eq!(world.run("A", &words).ok()["format"], "iso");
    world.run("A", &["run", "live", "--name", "l1"]).ok();
    world.await_console("A", "l1", "nano: the disk failed");
}

/// What a user configures is on a CD that the guest reads; it stays when the guest moves.
#[test]
fn guest_is_configured_by_a_cd() {
    let world = World::with_tiny("seed");
    let file = |name: &str| world.root().join(name).to_string_lossy().into_owned();
    let (user, network) = (file("user"), file("network"));
    std::fs::write(&user, "#cloud-config\nusers: [\n").unwrap();
    let words = ["run", "tiny", "--name", "t1", "--user-data", &user];
    let wrong = world.run("A", &words);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    let message = wrong.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("user-data:2:8"), "{message}");
    assert!(world.run("A", &["ps"]).ok().as_array().unwrap().is_empty());

    std::fs::write(&user, "#cloud-config\nusers: []\n").unwrap();
    std::fs::write(&network, "version: 2\nethernets: {}\n").unwrap();
    let mut words = words.to_vec();
    words.extend(["--network-config", &network]);
    world.run("A", &words).ok();
    let mount = "mkdir -p /cd && mount -t iso9660 -o ro /dev/vdb /cd && cat /cd/user-data /cd/meta-data && ls /cd";
    let said = world.exec("A", "t1", mount);
    assert!(said.contains("users: []") && said.contains("local-hostname: \"t1\""), "{said}");
    assert!(said.contains("network-config"), "{said}");
    assert_eq!(
        world.exec("A", "t1", "echo x 2>/dev/null > /dev/vdb && echo written || echo no"),
        "no"
    );
    world.run("A", &["suspend", "t1"]).ok();
    world.run("B", &["resume", "t1"]).ok();
    assert_eq!(
        world.exec("B", "t1", "umount /cd; mount /dev/vdb /cd; head -n 1 /cd/user-data"),
        "#cloud-config"
    );
}
