//! A launch in QEMU's words. Pure: the same launch gives the same words.
//!
//! What must hold for a checkpoint to go on elsewhere: the machine type and the CPU model are
//! pinned to a version, every device has a fixed id and a fixed PCI address, and nothing
//! depends on the host. Host ends (sockets, logs) are file descriptors that the jail puts at the
//! numbers below, so that QEMU itself opens and creates nothing but its volumes.

use std::ffi::OsString;
use std::path::Path;

use model::{BootKind, DiskBus, DisplayCard, Media, NicModel, PortMap, Profile};
use network::Netdev;

use crate::launch::{Accel, Launch};

/// File descriptors that QEMU inherits; anything else is closed.
pub(crate) const FD_FIRST: i32 = 100;
/// The monitor: our end of a socket pair is the only other one.
pub(crate) const FD_QMP: i32 = FD_FIRST;
/// Listening socket of the serial console.
pub(crate) const FD_CONSOLE: i32 = FD_FIRST + 1;
/// Pipe that takes a copy of what the console says.
pub(crate) const FD_CONSOLE_LOG: i32 = FD_FIRST + 2;
/// Our end of the guest agent's channel.
pub(crate) const FD_AGENT: i32 = FD_FIRST + 3;
/// `/dev/kvm`, opened by us because QEMU's user may not; only with KVM.
pub(crate) const FD_KVM: i32 = FD_FIRST + 4;

/// The virtual TPM's socket, if there is one: after the others.
fn fd_tpm(accel: Accel) -> i32 {
    match accel {
        Accel::Tcg => FD_FIRST + 4,
        Accel::Kvm => FD_KVM + 1,
    }
}

/// fdsets 1 and 2 are on the command line; those of single commands are numbered from here.
pub(crate) const FDSET_FIRST: u32 = 100;
const FDSET_CONSOLE_LOG: u32 = 1;
const FDSET_KVM: u32 = 2;

/// Pinned, so that the devices look the same under every later QEMU.
pub fn machine_type(profile: Profile) -> &'static str {
    match profile {
        Profile::Q35 => "pc-q35-10.0",
        Profile::Light => "pc-i440fx-10.0",
    }
}

/// The arguments after QEMU's name.
pub(crate) fn arguments(launch: &Launch) -> Vec<OsString> {
    let mut line = Line(Vec::new());
    board(launch, &mut line);
    boot(launch, &mut line);
    channels(&mut line);
    devices(launch, &mut line);
    line.0
}

struct Line(Vec<OsString>);

impl Line {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.into());
    }

    fn option(&mut self, flag: &str, value: impl Into<OsString>) {
        self.0.push(flag.into());
        self.0.push(value.into());
    }
}

/// A path as QEMU reaches it: relative where it lies in the run directory, which QEMU works in.
fn reached<'a>(launch: &Launch, path: &'a Path) -> &'a Path {
    path.strip_prefix(&launch.run_dir).unwrap_or(path)
}

/// `prefix` and a path in which QEMU's separator is doubled, as its option parser wants.
fn with_path(prefix: &str, path: &Path, suffix: &str) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut text = prefix.as_bytes().to_vec();
    for &byte in path.as_os_str().as_bytes() {
        if byte == b',' {
            text.push(b',');
        }
        text.push(byte);
    }
    text.extend_from_slice(suffix.as_bytes());
    OsString::from_vec(text)
}

fn board(launch: &Launch, line: &mut Line) {
    let hardware = &launch.hardware;
    let memory = hardware.memory_bytes;
    line.option("-name", "guest,debug-threads=on");
    line.flag("-nodefaults");
    line.flag("-no-user-config");
    line.option(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    let extra = match hardware.profile {
        Profile::Q35 => "",
        Profile::Light => ",hpet=off",
    };
    let machine = machine_type(hardware.profile);
    let flash = flash(launch, line);
    line.option(
        "-machine",
        format!(
            "{machine},memory-backend=ram,usb=off,vmport=off,dump-guest-core=off{extra}{flash}"
        ),
    );
    line.option("-m", format!("{}M", memory >> 20));
    line.option(
        "-object",
        with_path(
            &format!("memory-backend-file,id=ram,size={memory},share=on,mem-path="),
            reached(launch, &launch.ram_path),
            "",
        ),
    );
    line.option("-cpu", launch.cpu_model.as_str());
    line.option("-smp", hardware.cpus.to_string());
    match launch.accel {
        Accel::Tcg => line.option("-accel", tcg(hardware.cpus, memory)),
        Accel::Kvm => {
            line.option("-add-fd", format!("fd={FD_KVM},set={FDSET_KVM}"));
            line.option("-accel", format!("kvm,device=/dev/fdset/{FDSET_KVM}"));
        }
    }
    line.option("-uuid", uuid(&launch.uuid));
    line.option("-rtc", "base=utc,clock=host,driftfix=slew");
    line.option("-msg", "timestamp=on");
}

/// UEFI's program and its variables as the board's flash memory; what the machine is told of them.
/// With secure boot only the firmware itself, in system management mode, may write to it.
fn flash(launch: &Launch, line: &mut Line) -> String {
    let Some(program) = &launch.firmware else { return String::new() };
    let file = "driver=file,node-name=firmware-file,read-only=on,locking=off,filename=";
    line.option("-blockdev", with_path(file, reached(launch, program), ""));
    line.option("-blockdev", "driver=raw,node-name=firmware,file=firmware-file,read-only=on");
    let flash = launch.hardware.disks.iter().position(|disk| disk.bus == DiskBus::Flash);
    let variables = flash.map(|index| format!(",pflash1=disk{index}")).unwrap_or_default();
    let mut smm = ",smm=off";
    if launch.hardware.boot.secure_boot {
        smm = ",smm=on";
        line.option("-global", "driver=cfi.pflash01,property=secure,value=on");
        // Sleeping to memory would leave that mode open.
        line.option("-global", "ICH9-LPC.disable_s3=1");
    }
    format!("{smm},pflash0=firmware{variables}")
}

/// What Linux is told beside what its maker says, and before it, so that a maker may say otherwise:
/// give back free memory (the balloon's free-page reporting) from 128 KiB on. By itself Linux waits
/// for runs of 2 MiB, which a guest that has run for a while seldom has: of 32 MiB that a guest of
/// 128 MiB wrote and deleted, a checkpoint then stores all, and with this 7 MiB. Runs of 32 KiB
/// would save 2 MiB more, for four times as many requests.
const CMDLINE: &str = "page_reporting.page_reporting_order=5";

/// TCG's code buffer: QEMU takes up to 1 GiB by itself. A guest's code grows with what it runs,
/// for which its memory is the best guess: 1/4 of it, 32 MiB to 256 MiB.
fn tcg(cpus: u32, memory_bytes: u64) -> String {
    let thread = if cpus == 1 { "single" } else { "multi" };
    let buffer_mib = (memory_bytes >> 22).clamp(32, 256);
    format!("tcg,thread={thread},tb-size={buffer_mib}")
}

fn boot(launch: &Launch, line: &mut Line) {
    match launch.hardware.boot.kind {
        BootKind::Bios | BootKind::Uefi => line.option("-boot", "strict=on,menu=off"),
        BootKind::Kernel => {
            let maker = &launch.hardware.boot.cmdline;
            let cmdline = format!("{CMDLINE} {maker} {}", launch.cmdline_extra);
            for (flag, path) in [("-kernel", &launch.kernel), ("-initrd", &launch.initrd)] {
                if let Some(path) = path {
                    line.option(flag, reached(launch, path).as_os_str());
                }
            }
            line.option("-append", cmdline.trim());
        }
    }
    if launch.incoming {
        line.option("-incoming", "defer");
    }
}

fn channels(line: &mut Line) {
    line.option("-chardev", format!("socket,id=qmp,fd={FD_QMP}"));
    line.option("-mon", "chardev=qmp,mode=control");
    line.option("-add-fd", format!("fd={FD_CONSOLE_LOG},set={FDSET_CONSOLE_LOG}"));
    line.option(
        "-chardev",
        format!(
            "socket,id=console,fd={FD_CONSOLE},server=on,wait=off,\
             logfile=/dev/fdset/{FDSET_CONSOLE_LOG},logappend=on"
        ),
    );
    line.option("-chardev", format!("socket,id=agent,fd={FD_AGENT}"));
}

/// PCI slots, fixed for ever: 0 and 1 (and 31 on q35) are the board's.
mod slot {
    pub const DISPLAY: usize = 2;
    pub const RNG: usize = 3;
    pub const BALLOON: usize = 4;
    pub const SERIAL: usize = 5;
    pub const TABLET: usize = 6;
    pub const NICS: usize = 8;
    pub const DISKS: usize = 16;
}

fn devices(launch: &Launch, line: &mut Line) {
    let q35 = launch.hardware.profile == Profile::Q35;
    let bus = if q35 { "pcie.0" } else { "pci.0" };
    line.option("-device", "isa-serial,id=console0,chardev=console,index=0");
    line.option("-device", format!("vmgenid,id=vmgenid0,guid={}", uuid(&launch.vmgenid)));

    line.option("-object", "rng-builtin,id=rng");
    line.option(
        "-device",
        format!("virtio-rng-pci,id=rng0,rng=rng,bus={bus},addr={:#x}", slot::RNG),
    );
    line.option(
        "-device",
        format!(
            "virtio-balloon-pci,id=balloon0,free-page-reporting=on,deflate-on-oom=on,\
             bus={bus},addr={:#x}",
            slot::BALLOON
        ),
    );
    line.option(
        "-device",
        format!("virtio-serial-pci,id=serial0,max_ports=4,bus={bus},addr={:#x}", slot::SERIAL),
    );
    line.option(
        "-device",
        "virtserialport,id=agent0,bus=serial0.0,nr=1,chardev=agent,name=org.qemu.guest_agent.0",
    );

    // At its own address, as on every PC: no slot.
    if launch.tpm.is_some() {
        line.option("-chardev", format!("socket,id=tpm,fd={}", fd_tpm(launch.accel)));
        line.option("-tpmdev", "emulator,id=tpm0,chardev=tpm");
        line.option("-device", "tpm-crb,tpmdev=tpm0");
    }

    // The screen's socket comes later, by QMP, as a file descriptor; without a screen there is
    // still a VNC server, which shows that there is none.
    line.option("-vnc", "none");
    if let Some(display) = launch.hardware.display {
        let card = match display.card {
            DisplayCard::Vga => {
                let mib = (display.video_bytes >> 20).next_power_of_two().clamp(1, 256);
                format!("VGA,id=vga0,vgamem_mb={mib}")
            }
            // Pictures of the guest's lie in QEMU's memory: so many, and so large. xres and yres are the
            // size until a viewer says another one.
            DisplayCard::Virtio => {
                let bytes = display.video_bytes;
                format!("virtio-vga,id=vga0,max_hostmem={bytes},xres=1280,yres=800")
            }
        };
        line.option("-device", format!("{card},bus={bus},addr={:#x}", slot::DISPLAY));
        // A pointer that is where the viewer's is; the board's own mouse only knows movements.
        line.option(
            "-device",
            format!("virtio-tablet-pci,id=tablet0,bus={bus},addr={:#x}", slot::TABLET),
        );
    } else {
        line.option("-vga", "none");
    }
    for (index, disk) in launch.disks.iter().enumerate() {
        let read_only = if disk.read_only { "on" } else { "off" };
        // cache=writeback: the host's page cache, with the guest's flushes honoured.
        // QEMU would drop that cache each time it goes on after it was saved, in case another host had
        // written meanwhile: nobody else writes to these files.
        line.option(
            "-blockdev",
            with_path(
                &format!(
                    "driver=file,node-name=file{index},read-only={read_only},discard=unmap,\
                     cache.direct=off,cache.no-flush=off,drop-cache=off,aio=threads,\
                     locking=off,filename="
                ),
                reached(launch, &disk.path),
                "",
            ),
        );
        line.option(
            "-blockdev",
            format!(
                "driver=raw,node-name=disk{index},file=file{index},read-only={read_only},\
                 discard=unmap,detect-zeroes=unmap"
            ),
        );
        if let Some(device) = disk_device(launch, index, bus) {
            line.option("-device", device);
        }
    }
    for (index, nic) in launch.nics.iter().enumerate() {
        line.option("-netdev", netdev(index, &nic.netdev));
        if matches!(nic.netdev, Netdev::Tap(_)) {
            // User-mode networking has a part of its own in a device state, which loads only where
            // there is one: here nobody is plugged into it, and it leads nowhere.
            line.option("-netdev", format!("user,id=nobody{index},restrict=on"));
        }
        let model = match launch.hardware.nics[index].model {
            NicModel::Virtio => "virtio-net-pci",
            NicModel::E1000 => "e1000",
        };
        // Network boot is never meant: no option ROM to wait for.
        line.option(
            "-device",
            format!(
                "{model},id=nic{index},netdev=net{index},mac={},romfile=,bus={bus},addr={:#x}",
                nic.mac,
                slot::NICS + index
            ),
        );
    }
}

/// The guest's side of a disk; none of what it does not see as one. A virtio disk's slot is its
/// place among all disks, a SATA port its place among those.
fn disk_device(launch: &Launch, index: usize, bus: &str) -> Option<String> {
    let specs = &launch.hardware.disks;
    let place = specs[..index].iter().filter(|disk| disk.is_disk()).count();
    let serial = serial_number(&launch.disks[index].name);
    let boot = match launch.hardware.boot.kind {
        BootKind::Bios | BootKind::Uefi => format!(",bootindex={place}"),
        BootKind::Kernel => String::new(),
    };
    let common = format!("id=blk{index},drive=disk{index},serial={serial},rerror=stop,werror=stop");
    Some(match (specs[index].bus, specs[index].media) {
        (DiskBus::Flash | DiskBus::Tpm, _) => return None,
        (DiskBus::Virtio, _) => format!(
            "virtio-blk-pci,{common},write-cache=on,discard=on,write-zeroes=on,\
             discard_granularity=4096,physical_block_size=4096,bus={bus},addr={:#x}{boot}",
            slot::DISKS + place
        ),
        (DiskBus::Sata, media) => {
            let port = specs[..index].iter().filter(|disk| disk.bus == DiskBus::Sata).count();
            let device = match media {
                Media::Disk => "ide-hd",
                Media::Cd => "ide-cd",
            };
            format!("{device},{common},write-cache=on,bus=ide.{port}{boot}")
        }
    })
}

fn netdev(index: usize, netdev: &Netdev) -> String {
    match netdev {
        // A hub port without peers: packets go nowhere.
        Netdev::Unplugged => format!("hubport,id=net{index},hubid={index}"),
        Netdev::Tap(tap) => {
            // Without offloads: what its guest has negotiated then fits every other network too, and
            // a memory goes on in whichever it is plugged into next.
            let device = &tap.device;
            format!(
                "tap,id=net{index},ifname={device},script=no,downscript=no,vnet_hdr=off,vhost=off"
            )
        }
        Netdev::User(user) => {
            let mut text = format!("user,id=net{index}");
            if !user.outbound {
                text.push_str(",restrict=on");
            }
            for map in user.forwards.iter().filter(|_| !user.closed) {
                text.push_str(&format!(",hostfwd={}", forward(map)));
            }
            text
        }
    }
}

/// A published port.
pub(crate) fn forward(map: &PortMap) -> String {
    let (address, host, guest) = (map.address, map.host_port, map.guest_port);
    format!("tcp:{address}:{host}-:{guest}")
}

/// virtio-blk's serial number holds 20 bytes; commas would end the option.
fn serial_number(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(20).collect()
}

fn uuid(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jail::{Jail, Launcher};
    use crate::launch::{BASELINE_CPU, DiskFile, NicLaunch};
    use model::{
        Boot, DiskRole, DiskSpec, DisplayCard, DisplaySpec, Hardware, NicSpec, PortMap, ResetPolicy,
    };
    use network::{UserNetdev, random_mac};

    use crate::tpm::TpmLaunch;

    fn launch(profile: Profile) -> Launch {
        let disk = |name: &str| DiskSpec {
            name: name.into(),
            role: DiskRole::Data,
            reset: ResetPolicy::Keep,
            size_bytes: 4096,
            bus: DiskBus::Virtio,
            media: Media::Disk,
        };
        let file = |name: &str, path: &str, read_only| DiskFile {
            name: name.into(),
            path: path.into(),
            read_only,
        };
        let map = PortMap { address: [127, 0, 0, 1].into(), host_port: 8080, guest_port: 80 };
        Launch {
            qemu: "/usr/bin/qemu".into(),
            hardware: Hardware {
                profile,
                cpus: 2,
                memory_bytes: 512 << 20,
                boot: Boot {
                    kind: BootKind::Kernel,
                    cmdline: "console=ttyS0".into(),
                    secure_boot: false,
                },
                disks: vec![disk("system"), disk("a,b")],
                nics: vec![NicSpec {
                    network: "user".into(),
                    ports: vec![80],
                    model: NicModel::Virtio,
                }],
                display: Some(DisplaySpec { video_bytes: 3 << 20, card: DisplayCard::Vga }),
            },
            cpu_model: BASELINE_CPU.into(),
            accel: Accel::Tcg,
            ram_path: "/run/x/mnt/ram".into(),
            disks: vec![
                file("system", "/run/x/mnt/disk,0", false),
                file("a,b", "/elsewhere/disk", true),
            ],
            kernel: Some("/boot/vmlinux".into()),
            initrd: None,
            firmware: None,
            tpm: None,
            cmdline_extra: "quiet".into(),
            nics: vec![NicLaunch {
                mac: random_mac([1, 2, 3, 4]),
                netdev: Netdev::User(UserNetdev {
                    forwards: vec![map],
                    outbound: true,
                    closed: false,
                }),
            }],
            vmgenid: [0xab; 16],
            uuid: [0x12; 16],
            run_dir: "/run/x".into(),
            incoming: false,
            jail: Jail::new(Launcher::this_binary(), None),
        }
    }

    /// The values of each `flag`.
    fn values(words: &[OsString], flag: &str) -> Vec<String> {
        let pairs = words.iter().zip(words.iter().skip(1));
        pairs.filter(|(a, _)| *a == flag).map(|(_, b)| b.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_launch_in_qemus_words() {
        let launch = launch(Profile::Q35);
        let words = arguments(&launch);
        let all = words.iter().map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ");
        for part in [
            "pc-q35-10.0,memory-backend=ram",
            "mem-path=mnt/ram",
            "size=536870912,share=on",
            "tcg,thread=multi,tb-size=128",
            "-append page_reporting.page_reporting_order=5 console=ttyS0 quiet",
            // QEMU's separator is doubled in paths, and absent from serial numbers.
            "filename=mnt/disk,,0",
            "filename=/elsewhere/disk",
            "serial=ab,",
            "hostfwd=tcp:127.0.0.1:8080-:80",
            "mac=0a:c0:01:02:03:04",
            "vgamem_mb=4,",
            "guid=abababab-abab-abab-abab-abababababab",
        ] {
            assert!(all.contains(part), "{part} is not in {all}");
        }
        assert!(!all.contains("-incoming"));
    }

    #[test]
    fn a_tpm_has_the_descriptor_after_the_others() {
        let mut launch = launch(Profile::Light);
        assert_eq!(values(&arguments(&launch), "-tpmdev"), [""; 0]);
        let dir = "/run/x/tpm".into();
        launch.tpm = Some(TpmLaunch { program: "/usr/bin/swtpm".into(), dir, identity: None });
        for (accel, fd) in [(Accel::Tcg, 104), (Accel::Kvm, 105)] {
            launch.accel = accel;
            let words = arguments(&launch);
            assert_eq!(values(&words, "-tpmdev"), ["emulator,id=tpm0,chardev=tpm"]);
            assert!(values(&words, "-chardev").contains(&format!("socket,id=tpm,fd={fd}")));
        }
    }

    #[test]
    fn uefi_is_flash_memory_and_no_disk() {
        let mut launch = launch(Profile::Q35);
        launch.hardware.boot =
            Boot { kind: BootKind::Uefi, cmdline: String::new(), secure_boot: false };
        launch.kernel = None;
        launch.firmware = Some("/run/x/firmware".into());
        launch.hardware.disks[0].bus = DiskBus::Flash;
        launch.hardware.disks[0].role = DiskRole::Firmware;
        let words = arguments(&launch);
        let machine = &values(&words, "-machine")[0];
        assert!(machine.ends_with(",smm=off,pflash0=firmware,pflash1=disk0"), "{machine}");
        let devices = values(&words, "-device").join(" ");
        assert!(!devices.contains("drive=disk0"), "{devices}");
        // The other disk has the first place.
        assert!(devices.contains("bus=pcie.0,addr=0x10,bootindex=0"), "{devices}");
        assert!(values(&words, "-global").is_empty());

        launch.hardware.boot.secure_boot = true;
        let words = arguments(&launch);
        assert!(values(&words, "-machine")[0].contains(",smm=on,"));
        let secure = "driver=cfi.pflash01,property=secure,value=on".to_owned();
        assert!(values(&words, "-global").contains(&secure));
    }

    #[test]
    fn foreign_hardware_has_its_own_words() {
        let mut launch = launch(Profile::Q35);
        launch.hardware.boot.kind = BootKind::Bios;
        launch.hardware.nics[0].model = NicModel::E1000;
        for (disk, media) in launch.hardware.disks.iter_mut().zip([Media::Disk, Media::Cd]) {
            (disk.bus, disk.media) = (DiskBus::Sata, media);
        }
        let devices = values(&arguments(&launch), "-device");
        for (start, end) in [
            ("ide-hd,id=blk0", "bus=ide.0,bootindex=0"),
            ("ide-cd,id=blk1", "bus=ide.1,bootindex=1"),
            ("e1000,id=nic0", "bus=pcie.0,addr=0x8"),
        ] {
            let found = devices.iter().any(|d| d.starts_with(start) && d.ends_with(end));
            assert!(found, "{start} ... {end} is not in {devices:#?}");
        }
    }

    #[test]
    fn addresses_are_fixed_and_shared_by_nobody() {
        let cards = [DisplayCard::Vga, DisplayCard::Virtio];
        for (profile, card) in [Profile::Q35, Profile::Light].into_iter().zip(cards) {
            let mut launch = launch(profile);
            launch.hardware.display = Some(DisplaySpec { video_bytes: 1 << 20, card });
            let devices = values(&arguments(&launch), "-device");
            let addresses: Vec<&str> = devices
                .iter()
                .filter(|device| device.contains("-pci,") || device.contains("vga0"))
                .map(|device| device.split("addr=").nth(1).expect("a fixed address"))
                .map(|rest| rest.split(',').next().unwrap_or_default())
                .collect();
            let at_display = addresses.iter().filter(|address| **address == "0x2");
            assert_eq!(at_display.count(), 1, "{devices:?}");
            let unique: std::collections::BTreeSet<_> = addresses.iter().collect();
            assert_eq!(unique.len(), addresses.len(), "{addresses:?}");
        }
        // The last slots that may be taken: q35 keeps 31 for itself.
        const { assert!(slot::DISKS + crate::launch::DISKS_MAX <= 31) };
        const { assert!(slot::NICS + crate::launch::NICS_MAX <= slot::DISKS) };
    }
}
