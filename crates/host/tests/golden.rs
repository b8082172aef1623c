//! Golden bytes of what versions, checkpoints and heads say: once written, read for ever.
//!
//! `COLLECTIVE_BLESS=1 cargo test -p host --test golden` makes files that are not there yet. It
//! never overwrites one.

use std::fs;
use std::path::Path;

use host::auto::{Auto, Keep};
use host::record::{
    AutoPoint, Blob, Change, Checkpoint, Follow, Head, Hold, How, Machine, Memory, Parcel, Traces,
    Trial, UpdatePolicy, Version, Warm, Why, decode_checkpoint, decode_head, decode_version,
    encode_checkpoint, encode_head, encode_version,
};
use import::ovf::Property;
use model::{
    Boot, BootKind, CheckpointId, ChunkId, DiskBus, DiskRole, DiskSpec, DisplayCard, DisplaySpec,
    Hardware, HostId, InstanceId, InstanceState, Lease, ManifestId, Media, Name, NicModel, NicSpec,
    Profile, Ready, ResetPolicy, VersionId,
};

fn golden(name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if !path.exists() && std::env::var_os("COLLECTIVE_BLESS").is_some() {
        fs::write(&path, bytes).unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(golden == bytes, "{name} is no longer written as it was");
}

fn blob(number: u8) -> Blob {
    Blob { id: ChunkId::from_bytes([number; 32]), bytes: 4097, blake3: [number + 1; 32] }
}

fn disk(name: &str, role: DiskRole, reset: ResetPolicy) -> DiskSpec {
    DiskSpec {
        name: name.to_owned(),
        role,
        reset,
        size_bytes: 64 << 20,
        bus: DiskBus::Virtio,
        media: Media::Disk,
    }
}

fn memory() -> Memory {
    Memory {
        ram: ManifestId::from_bytes([4; 32]),
        device_state: blob(5),
        machine: Machine {
            machine_type: "pc-q35-10.0".to_owned(),
            cpu_model: "Nehalem-v1".to_owned(),
            accel: "tcg".to_owned(),
            memory_bytes: 512 << 20,
        },
    }
}

#[test]
fn a_version() {
    let version = Version {
        appliance: Name::appliance("maker/web").unwrap(),
        version: "1.4.0".to_owned(),
        description: "Notes & more".to_owned(),
        hardware: Hardware {
            profile: Profile::Q35,
            cpus: 2,
            memory_bytes: 512 << 20,
            boot: Boot {
                kind: BootKind::Kernel,
                cmdline: "console=ttyS0".to_owned(),
                secure_boot: false,
            },
            disks: vec![
                disk("system", DiskRole::System, ResetPolicy::Reset),
                disk("data", DiskRole::Data, ResetPolicy::Keep),
                disk("scratch", DiskRole::Scratch, ResetPolicy::Reset),
            ],
            nics: vec![NicSpec {
                network: "user".to_owned(),
                ports: vec![80],
                model: NicModel::Virtio,
            }],
            display: Some(DisplaySpec { video_bytes: 16 << 20, card: DisplayCard::Vga }),
        },
        ready: Ready::Port(80),
        kernel: Some(blob(1)),
        initrd: Some(blob(3)),
        firmware: None,
        disks: (5..8).map(|number| ManifestId::from_bytes([number; 32])).collect(),
        packages: vec![("nginx-light".to_owned(), "1.22.1-9".to_owned())],
        packages_of: None,
        properties: Vec::new(),
        vendor_data: None,
        auto: None,
        warm: None,
    };
    let bytes = encode_version(&version);
    golden("version.json", &bytes);
    assert_eq!(decode_version(&bytes), Ok(version.clone()));
    // As many manifests as disks, or it is none.
    let broken = Version { disks: Vec::new(), ..version.clone() };
    assert!(decode_version(&encode_version(&broken)).is_err());

    // Warm: it holds the same computer running too, with as many disks.
    let disks: Vec<_> = (10..13).map(|number| ManifestId::from_bytes([number; 32])).collect();
    let warm = Warm { memory: memory(), disks, agent: true };
    let running = Version { warm: Some(warm.clone()), ..version.clone() };
    let bytes = encode_version(&running);
    golden("version-warm.json", &bytes);
    assert_eq!(decode_version(&bytes), Ok(running.clone()));
    assert_eq!(running.first_disks(true), warm.disks);
    assert_eq!(running.first_disks(false), version.disks);
    assert_eq!(version.first_disks(true), version.disks);
    // A page has to be there, and not only a port; who does not know that sees the port.
    let ready = Ready::Http { port: 80, path: "/api/state?short".to_owned() };
    let with_page = Version { ready, ..version.clone() };
    let bytes = encode_version(&with_page);
    golden("version-page.json", &bytes);
    assert_eq!(decode_version(&bytes), Ok(with_page));
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(
        decode_version(text.replace("ready_path", "unknown").as_bytes()),
        Ok(version.clone())
    );
    for wrong in ["api", "/a b", "/a\\r\\nX: y", ""] {
        let text = text.replace("/api/state?short", wrong);
        assert!(decode_version(text.as_bytes()).is_err(), "{wrong}");
    }
    // No disk is taken for the memory, which nobody keeps when a host crashes.
    let text = text.replace(r#""name":"data""#, r#""name":"ram""#);
    assert!(text.contains("ram") && decode_version(text.as_bytes()).is_err());
    // It was imported, from another distribution.
    let foreign = Version { packages_of: Some("deb/ubuntu".to_owned()), ..version.clone() };
    let bytes = encode_version(&foreign);
    golden("version-packages.json", &bytes);
    assert_eq!(decode_version(&bytes), Ok(foreign));
    let text = String::from_utf8(bytes).unwrap();
    for wrong in ["deb", "deb/", "/ubuntu", "deb/a b", "deb/a/b", "deb/a@1"] {
        let text = text.replace("deb/ubuntu", wrong);
        assert!(decode_version(text.as_bytes()).is_err(), "{wrong}");
    }
    // Its maker says when checkpoints are taken by themselves.
    let auto = Some(Auto::parse("5m,dirtied=256MiB,last=6,hourly=24").unwrap());
    let saved = Version { auto, ..version.clone() };
    let bytes = encode_version(&saved);
    golden("version-auto.json", &bytes);
    assert_eq!(decode_version(&bytes), Ok(saved));
    let broken = Version { warm: Some(Warm { disks: Vec::new(), ..warm }), ..version };
    assert!(decode_version(&encode_version(&broken)).is_err());
}

/// Foreign hardware is what format 1 does not know.
#[test]
fn a_foreign_version() {
    let system = disk("disk1", DiskRole::Data, ResetPolicy::Keep);
    let cd = DiskSpec { media: Media::Cd, ..disk("cd", DiskRole::System, ResetPolicy::Reset) };
    let version = Version {
        appliance: Name::appliance("maker/old").unwrap(),
        version: "1".to_owned(),
        description: "imported from old.vmdk (vmdk)".to_owned(),
        hardware: Hardware {
            profile: Profile::Q35,
            cpus: 1,
            memory_bytes: 1 << 30,
            boot: Boot { kind: BootKind::Bios, cmdline: String::new(), secure_boot: false },
            disks: vec![system, cd]
                .into_iter()
                .map(|d| DiskSpec { bus: DiskBus::Sata, ..d })
                .collect(),
            nics: vec![NicSpec {
                network: "user".to_owned(),
                ports: Vec::new(),
                model: NicModel::E1000,
            }],
            display: None,
        },
        ready: Ready::Started,
        kernel: None,
        initrd: None,
        firmware: None,
        disks: (5..7).map(|number| ManifestId::from_bytes([number; 32])).collect(),
        packages: Vec::new(),
        packages_of: None,
        properties: Vec::new(),
        vendor_data: None,
        auto: None,
        warm: None,
    };
    let bytes = encode_version(&version);
    golden("version-foreign.json", &bytes);
    assert_eq!(decode_version(&bytes), Ok(version.clone()));

    let property = |key: &str, value: Option<&str>| Property {
        key: key.to_owned(),
        kind: "string".to_owned(),
        qualifiers: "MaxLen(20)".to_owned(),
        label: "A label".to_owned(),
        configurable: true,
        password: false,
        value: value.map(str::to_owned),
    };
    let form = Version {
        properties: vec![property("net.address", Some("<here>")), property("name", None)],
        vendor_data: Some(blob(9)),
        ..version
    };
    let bytes = encode_version(&form);
    golden("version-form.json", &bytes);
    assert_eq!(decode_version(&bytes), Ok(form));
}

/// UEFI, its program and its variables, and a TPM are what format 2 does not know.
#[test]
fn a_version_that_boots_by_uefi() {
    let system = disk("disk1", DiskRole::Data, ResetPolicy::Keep);
    let variables = DiskSpec {
        size_bytes: 540_672,
        bus: DiskBus::Flash,
        ..disk("uefi-vars", DiskRole::Firmware, ResetPolicy::Keep)
    };
    let boot = Boot { kind: BootKind::Uefi, cmdline: String::new(), secure_boot: true };
    let version = Version {
        appliance: Name::appliance("maker/new").unwrap(),
        version: "1".to_owned(),
        description: String::new(),
        hardware: Hardware {
            profile: Profile::Q35,
            cpus: 1,
            memory_bytes: 1 << 30,
            boot,
            disks: vec![system, variables],
            nics: Vec::new(),
            display: None,
        },
        ready: Ready::Started,
        kernel: None,
        initrd: None,
        firmware: Some(blob(1)),
        disks: (5..7).map(|number| ManifestId::from_bytes([number; 32])).collect(),
        packages: Vec::new(),
        packages_of: None,
        properties: Vec::new(),
        vendor_data: None,
        auto: None,
        warm: None,
    };
    let bytes = encode_version(&version);
    golden("version-uefi.json", &bytes);
    assert_eq!(decode_version(&bytes), Ok(version.clone()));
    // Neither without the program nor without the variables.
    let broken = Version { firmware: None, ..version.clone() };
    assert!(decode_version(&encode_version(&broken)).is_err());
    let mut tpm = version.clone();
    tpm.hardware.disks.push(DiskSpec::tpm());
    tpm.disks.push(ManifestId::from_bytes([7; 32]));
    let bytes = encode_version(&tpm);
    golden("version-tpm.json", &bytes);
    assert_eq!(decode_version(&bytes), Ok(tpm.clone()));
    let mut screen = tpm.clone();
    let card = DisplayCard::Virtio;
    screen.hardware.display = Some(DisplaySpec { video_bytes: 64 << 20, card });
    let bytes = encode_version(&screen);
    golden("version-screen.json", &bytes);
    assert_eq!(decode_version(&bytes), Ok(screen.clone()));
    // By itself it is what needs format 3; and a card needs its memory.
    screen.hardware.boot.kind = BootKind::Bios;
    screen.hardware.disks.clear();
    assert!(String::from_utf8_lossy(&encode_version(&screen)).contains("\"format\":3"));
    let text = String::from_utf8(bytes).unwrap().replace(",\"video_bytes\":67108864", "");
    assert!(decode_version(text.as_bytes()).is_err());
    tpm.hardware.disks[2].size_bytes /= 2;
    assert!(decode_version(&encode_version(&tpm)).is_err());
    let mut broken = version;
    broken.hardware.disks[1].bus = DiskBus::Virtio;
    assert!(decode_version(&encode_version(&broken)).is_err());
}

#[test]
fn a_checkpoint() {
    let checkpoint = Checkpoint {
        instance: InstanceId::from_bytes([1; 16]),
        parent: Some(CheckpointId::from_bytes([2; 32])),
        version: VersionId::from_bytes([3; 32]),
        label: Some("before the mistake".to_owned()),
        why: Why::Suspend,
        taken_unix_ms: 1_763_836_304_000,
        memory: Some(memory()),
        disks: vec![ManifestId::from_bytes([7; 32])],
        dirty_bytes: 8192,
        stored_bytes: 1234,
        traces: Traces::default(),
        pause_us: None,
        change: None,
    };
    let bytes = encode_checkpoint(&checkpoint);
    golden("checkpoint.json", &bytes);
    assert_eq!(decode_checkpoint(&bytes), Ok(checkpoint.clone()));
    let boots = Checkpoint { memory: None, parent: None, label: None, ..checkpoint };
    let bytes = encode_checkpoint(&boots);
    golden("checkpoint-boots.json", &bytes);
    assert_eq!(decode_checkpoint(&bytes), Ok(boots.clone()));
    let traces = Traces::default().with(How::Continued, ChunkId::from_bytes([8; 32]));
    let traced =
        Checkpoint { traces: traces.with(How::Booted, ChunkId::from_bytes([9; 32])), ..boots };
    let bytes = encode_checkpoint(&traced);
    golden("checkpoint-traces.json", &bytes);
    assert_eq!(decode_checkpoint(&bytes), Ok(traced.clone()));
    // One that was taken by itself is what format 1 does not know.
    let auto = Checkpoint { why: Why::Auto, pause_us: Some(8125), ..traced };
    let bytes = encode_checkpoint(&auto);
    golden("checkpoint-auto.json", &bytes);
    assert_eq!(decode_checkpoint(&bytes), Ok(auto.clone()));
    let update = Checkpoint { why: Why::Update, pause_us: None, ..auto };
    let bytes = encode_checkpoint(&update);
    golden("checkpoint-update.json", &bytes);
    assert_eq!(decode_checkpoint(&bytes), Ok(update.clone()));
    let change = Some(Change {
        from: VersionId::from_bytes([3; 32]),
        to: VersionId::from_bytes([4; 32]),
        back: Some(CheckpointId::from_bytes([5; 32])),
        tried: true,
        within_s: 90,
        migrate: vec!["/usr/bin/migrate".to_owned(), "/data".to_owned()],
        health: vec!["/usr/bin/well".to_owned()],
    });
    let changes = Checkpoint { change, ..update };
    let bytes = encode_checkpoint(&changes);
    golden("checkpoint-change.json", &bytes);
    assert_eq!(decode_checkpoint(&bytes), Ok(changes));
}

#[test]
fn a_head() {
    let head = Head {
        instance: InstanceId::from_bytes([1; 16]),
        name: Name::new("t1").unwrap(),
        appliance: Name::appliance("maker/web").unwrap(),
        version: VersionId::from_bytes([2; 32]),
        state: InstanceState::Running,
        lease: Some(Lease {
            holder: HostId::from_bytes([3; 16]),
            holder_name: "desk".to_owned(),
            granted_unix_ms: 1_763_836_304_000,
        }),
        checkpoint: Some(CheckpointId::from_bytes([4; 32])),
        origin: Some(CheckpointId::from_bytes([5; 32])),
        macs: vec![[0x0a, 0xc0, 1, 2, 3, 4]],
        vmgenid: [6; 16],
        fresh: true,
        warm: false,
        auto: None,
        autos: Vec::new(),
        holds: Vec::new(),
        left: None,
        follow: None,
        trial: None,
        network: None,
        gone: Vec::new(),
        keep_taken: None,
        parcel: None,
    };
    let bytes = encode_head(&head);
    golden("head.json", &bytes);
    assert_eq!(decode_head(&bytes), Ok(head.clone()));
    let thinned = vec![CheckpointId::from_bytes([8; 32]), CheckpointId::from_bytes([9; 32])];
    let thinned = Head { gone: thinned, ..head.clone() };
    let bytes = encode_head(&thinned);
    golden("head-gone.json", &bytes);
    assert_eq!(decode_head(&bytes), Ok(thinned));
    let keeps = Head { keep_taken: Keep::parse("last=20,weekly=8").ok(), ..head.clone() };
    let bytes = encode_head(&keeps);
    golden("head-keep-taken.json", &bytes);
    assert_eq!(decode_head(&bytes), Ok(keeps));
    let chunks = Blob { id: ChunkId::from_bytes([8; 32]), bytes: 64, blake3: [9; 32] };
    let parcel = Some(Parcel {
        checkpoint: CheckpointId::from_bytes([10; 32]),
        chunks,
        host: HostId::from_bytes([3; 16]),
        host_name: "desk".to_owned(),
        peer: "i1.h03.host.collective.internal".to_owned(),
        address: "192.0.2.1:7071".to_owned(),
    });
    let offered = Head { parcel, ..head.clone() };
    let bytes = encode_head(&offered);
    golden("head-parcel.json", &bytes);
    assert_eq!(decode_head(&bytes), Ok(offered));
    let warm = Head { checkpoint: None, origin: None, fresh: false, warm: true, ..head.clone() };
    let bytes = encode_head(&warm);
    golden("head-warm.json", &bytes);
    assert_eq!(decode_head(&bytes), Ok(warm));
    // Automatic checkpoints are what format 1 does not know.
    let checkpoint = CheckpointId::from_bytes([4; 32]);
    let parent = Some(CheckpointId::from_bytes([7; 32]));
    let auto = Head {
        auto: Some(Auto::parse("5m,last=6,hourly=24").unwrap()),
        autos: vec![AutoPoint { id: checkpoint, taken_unix_ms: 1_763_836_304_000, parent }],
        holds: vec![Hold { host: HostId::from_bytes([3; 16]), checkpoint }],
        ..head.clone()
    };
    assert_eq!(auto.explicit(), parent);
    let bytes = encode_head(&auto);
    golden("head-auto.json", &bytes);
    assert_eq!(decode_head(&bytes), Ok(auto));
    let policy = Auto::parse("1h,dirtied=64MiB,last=2").unwrap();
    let dirtied = Head { auto: Some(policy), ..head.clone() };
    let bytes = encode_head(&dirtied);
    golden("head-dirtied.json", &bytes);
    assert_eq!(decode_head(&bytes), Ok(dirtied));
    // What nobody could have said is no policy.
    for (said, wrong) in [("3600", "9999999"), ("67108864", "67108865")] {
        let broken = String::from_utf8(bytes.clone()).unwrap().replacen(said, wrong, 1);
        assert!(decode_head(broken.as_bytes()).is_err(), "{broken}");
    }
    // Whose versions it gets is what format 2 does not know.
    let release = VersionId::from_bytes([9; 32]);
    let follow = Follow {
        location: "https://acme.example/appliances".to_owned(),
        channel: Some("stable".to_owned()),
        policy: UpdatePolicy::Auto,
        release: VersionId::from_bytes([8; 32]),
    };
    let trial = Some(Trial { back: checkpoint, release, begun: false });
    let follows = Head { follow: Some(follow.clone()), trial, ..head.clone() };
    let bytes = encode_head(&follows);
    golden("head-follows.json", &bytes);
    assert_eq!(decode_head(&bytes), Ok(follows.clone()));
    let begun = trial.map(|trial| Trial { begun: true, ..trial });
    let begun = Head { trial: begun, ..follows };
    let bytes = encode_head(&begun);
    golden("head-begun.json", &bytes);
    assert_eq!(decode_head(&bytes), Ok(begun));
    let stays = Follow { channel: None, policy: UpdatePolicy::Ask, ..follow };
    let stays = Head { follow: Some(stays), ..head.clone() };
    let bytes = encode_head(&stays);
    golden("head-stays.json", &bytes);
    assert_eq!(decode_head(&bytes), Ok(stays));
    let broken = String::from_utf8(bytes).unwrap().replace("\"ask\"", "\"perhaps\"");
    assert!(decode_head(broken.as_bytes()).is_err(), "{broken}");
    // Nor does format 3 know that it is plugged in elsewhere.
    let plugged = Head { network: Some(Name::new("lan").unwrap()), ..head.clone() };
    let bytes = encode_head(&plugged);
    golden("head-plugged.json", &bytes);
    assert_eq!(decode_head(&bytes), Ok(plugged));
    let branch = Head { left: parent, auto: Some(Auto::Off), ..head };
    let bytes = encode_head(&branch);
    golden("head-branch.json", &bytes);
    assert_eq!(decode_head(&bytes), Ok(branch));
}

#[test]
fn noise_never_panics() {
    let whole = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/version.json"));
    let whole = whole.unwrap();
    for cut in 0..whole.len() {
        assert!(decode_version(&whole[..cut]).is_err());
        let mut damaged = whole.clone();
        damaged[cut] ^= 0x15;
        // It may still be a version, of other values; it must not panic.
        let _ = decode_version(&damaged);
    }
}

#[test]
fn what_makers_sign() {
    use host::makers::document::{Built, Offered, encode};
    use host::makers::{Appliance, Channel, Listed, Release};
    let id = VersionId::from_bytes([2; 32]);
    let mut appliance = Appliance::new("web");
    appliance.description = "a page of notes".to_owned();
    appliance.licence = "MIT".to_owned();
    for (version, yanked) in [("1.0", Some("it hums".to_owned())), ("1.1", None)] {
        let (version, id) = (version.to_owned(), id.to_string());
        let published_unix_ms = 1_763_836_304_000;
        appliance.versions.push(Listed { version, id, published_unix_ms, yanked });
    }
    let stable = Channel {
        version: "1.1".to_owned(),
        percent: 10,
        before: Some("1.0".to_owned()),
        emergency: false,
        from_unix_ms: 0,
        history: Vec::new(),
    };
    appliance.channels.insert("stable".to_owned(), stable);
    let bytes = encode(&appliance).unwrap();
    golden("signed-appliance.json", &bytes);
    assert_eq!(Appliance::parse(&bytes, "web").unwrap(), appliance);
    let stable = appliance.channels.get_mut("stable").unwrap();
    for (version, percent, at_unix_ms) in [("1.0", 100, 1), ("1.1", 10, 2)] {
        stable.history.push(Offered { version: version.to_owned(), percent, at_unix_ms });
    }
    let remembers = encode(&appliance).unwrap();
    golden("signed-appliance-history.json", &remembers);
    assert_eq!(Appliance::parse(&remembers, "web").unwrap(), appliance);
    assert!(Appliance::parse(&bytes, "other").is_err());
    let newer = String::from_utf8(bytes).unwrap().replace("\"format\": 1", "\"format\": 2");
    assert_eq!(Appliance::parse(newer.as_bytes(), "web").unwrap_err().kind, "format");
    let built = Built {
        by: "collective 0.1.0".to_owned(),
        from: id.to_string(),
        from_version: "1".to_owned(),
        ..Built::default()
    };
    let mut release = Release::new("web", "1.1", id, built);
    release.published_unix_ms = 1_763_836_304_000;
    release.sbom = Some(Release::sbom_document(&id.to_string()));
    release.trace_booted = Some(id.to_string());
    release.update.health = vec!["/usr/bin/healthy".to_owned(), "--quiet".to_owned()];
    release.update.least = Some("1.0".to_owned());
    let bytes = encode(&release).unwrap();
    golden("signed-release.json", &bytes);
    let parse = host::makers::document::parse::<Release>;
    assert_eq!(parse(&bytes, "it", "release").unwrap(), release);
    release.built.recipe = Some("3".repeat(64));
    release.built.packages = Some("4".repeat(64));
    release.built.recipe_by = Some("collective 0.1.0".to_owned());
    let bytes = encode(&release).unwrap();
    golden("signed-release-built.json", &bytes);
    assert_eq!(parse(&bytes, "it", "release").unwrap(), release);
}
