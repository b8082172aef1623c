//! A real guest (one sector large): boot, console, screen, saved state, and death.

mod common;

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use common::{Dir, LONG, Typist, nano};
use model::Profile;
use serde_json::{Value, json};
use vmm::{Qemu, RunState, VNC_SOCKET, VmmError};

#[test]
fn the_committed_image_is_what_the_source_says() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../appliances/nano/nano.S");
    let dir = Dir::new("assemble");
    let run = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).current_dir(dir.path()).status()
    };
    match run("as", &["--32", source, "-o", "nano.o"]) {
        // A host without binutils still has the committed image.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        status => assert!(status.unwrap().success()),
    }
    let link =
        ["-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "nano.o", "-o", "nano.img"];
    assert!(run("ld", &link).unwrap().success());
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/../../appliances/nano/nano.img");
    assert_eq!(fs::read(dir.join("nano.img")).unwrap(), fs::read(committed).unwrap());
}

#[test]
fn guest_session_goes_on_in_another_qemu_q35() {
    a_session_goes_on(Profile::Q35);
}

#[test]
fn guest_session_goes_on_in_another_qemu_light() {
    a_session_goes_on(Profile::Light);
}

fn a_session_goes_on(profile: Profile) {
    let dir = Dir::new("session");
    let mut launch = nano(&dir, profile);
    let start = ambient::now();
    let qemu = Qemu::spawn(&launch).unwrap();
    let spawned = start.elapsed();
    assert!(qemu.console().wait_for("nano: boots=1", LONG), "{}", qemu.console().recent());
    let booted = start.elapsed();
    let mut typist = Typist::new(qemu.console().attach().unwrap());
    typist.type_text("abc\r");
    typist.expect("keys=3");

    let picture = dir.join("screen.png");
    qemu.screendump(&picture).unwrap();
    assert!(fs::read(&picture).unwrap().starts_with(b"\x89PNG"));

    let mut viewer = UnixStream::connect(launch.run_dir.join(VNC_SOCKET)).unwrap();
    let mut greeting = [0; 12];
    viewer.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"RFB 003.008\n");

    // While a save is expected, it runs on.
    let files = || {
        let sets = qemu.call("query-fdsets", Value::Null, LONG).unwrap();
        sets.as_array().unwrap().iter().filter(|set| set["fds"] != json!([])).count()
    };
    let given = files();
    let state = dir.join("state");
    qemu.expect_save(&state).unwrap();
    assert_eq!(qemu.status().unwrap(), RunState::Running);
    qemu.stop().unwrap();
    let start = ambient::now();
    let bytes = qemu.save_state(&state, LONG).unwrap();
    let saved = start.elapsed();
    assert_eq!(qemu.status().unwrap(), RunState::Stopped);
    assert_eq!(bytes, fs::metadata(&state).unwrap().len());

    // It can go on here, with its disks ...
    assert!(!qemu.block_devices().unwrap()[0].active);
    qemu.cont().unwrap();
    assert_eq!(qemu.status().unwrap(), RunState::Running);
    assert_eq!(files(), given + 1, "it goes on before anything else is done");
    qemu.end_save();
    assert_eq!(files(), given, "what was saved to is taken back");
    let disks = qemu.block_devices().unwrap();
    assert!(disks[0].active && disks[0].healthy && disks.len() == 1, "{disks:?}");
    typist.type_text("x\r");
    typist.expect("keys=4");

    // ... and again be saved, and go on elsewhere.
    let bytes = qemu.save_state(&state, LONG).unwrap();
    assert!(bytes < 1 << 20, "{bytes}");
    assert!(!qemu.kill().clean);
    drop(qemu);

    launch.incoming = true;
    let start = ambient::now();
    let qemu = Qemu::spawn(&launch).unwrap();
    assert_eq!(qemu.status().unwrap(), RunState::Incoming);
    qemu.load_state(&state, LONG).unwrap();
    assert_eq!(qemu.status().unwrap(), RunState::Stopped);
    qemu.cont().unwrap();
    let loaded = start.elapsed();
    let mut typist = Typist::new(qemu.console().attach().unwrap());
    typist.type_text("de\r");
    typist.expect("keys=6");
    let exit = qemu.quit(LONG);
    assert!(exit.clean && exit.reason.as_deref() == Some("host-qmp-quit"), "{exit:?}");

    // The disk remembers the boot; memory alone remembered the keys.
    launch.incoming = false;
    let qemu = Qemu::spawn(&launch).unwrap();
    assert!(qemu.console().wait_for("nano: boots=2", LONG), "{}", qemu.console().recent());
    println!(
        "{profile:?}: monitor {spawned:?}, booted {booted:?}, saved {bytes} bytes in {saved:?}, \
         running again {loaded:?} after exec"
    );
}

/// QEMU drops its disks' page cache when it goes on, unless told not to: a pause that grows with what
/// the cache holds. (In memory file systems nothing can be dropped.)
#[test]
fn guest_that_goes_on_finds_its_disks_in_the_page_cache() {
    use rustix::io::{ReadWriteFlags, preadv2};
    let dir = Dir::new("cached");
    let launch = nano(&dir, Profile::Light);
    let qemu = Qemu::spawn(&launch).unwrap();
    assert!(qemu.console().wait_for("nano: boots=1", LONG));
    let disk = fs::File::open(&launch.disks[0].path).unwrap();
    // The kernel may always drop something of its own accord, but not each time.
    let kept = (0..10).any(|_| {
        disk.sync_all().unwrap();
        let mut bytes = fs::read(&launch.disks[0].path).unwrap();
        let length = bytes.len();
        qemu.stop().unwrap();
        qemu.save_state(&dir.join("state"), LONG).unwrap();
        qemu.cont().unwrap();
        qemu.end_save();
        let mut buffers = [std::io::IoSliceMut::new(&mut bytes)];
        preadv2(&disk, &mut buffers, 0, ReadWriteFlags::NOWAIT) == Ok(length)
    });
    assert!(kept, "it was dropped each time");
}

/// Huge pages would make every fault of a memory file read 2 MiB.
#[test]
fn guest_memory_is_faulted_page_by_page() {
    let dir = Dir::new("pages");
    let launch = nano(&dir, Profile::Light);
    let qemu = Qemu::spawn(&launch).unwrap();
    assert!(qemu.console().wait_for("nano: boots=1", LONG));
    let maps = fs::read_to_string(format!("/proc/{}/smaps", qemu.pid())).unwrap();
    let ram = launch.ram_path.to_str().unwrap();
    let flags: Vec<&str> = maps
        .split("VmFlags:")
        .zip(maps.split("VmFlags:").skip(1))
        .filter(|(mapping, _)| mapping.contains(ram))
        .map(|(_, after)| after.lines().next().unwrap())
        .collect();
    assert!(!flags.is_empty(), "{ram} is not mapped");
    for flags in flags {
        assert!(!flags.split_whitespace().any(|flag| flag == "hg"), "{flags}");
    }
}

#[test]
fn guest_death_is_noticed_at_once_and_explained() {
    let dir = Dir::new("death");
    let qemu = Qemu::spawn(&nano(&dir, Profile::Light)).unwrap();
    let events = qemu.events();
    let start = ambient::now();
    let pid = rustix::process::Pid::from_raw(qemu.pid() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    while events.recv_timeout(LONG).is_ok() {}
    let error = qemu.status().unwrap_err();
    assert!(matches!(&error, VmmError::Died { status, .. } if status == "signal 9"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(qemu.wait_exit(LONG).unwrap().status, "signal 9");
}

#[test]
fn what_qemu_refuses_is_explained() {
    let dir = Dir::new("refuse");
    let mut launch = nano(&dir, Profile::Light);
    launch.cpu_model = "no-such-cpu".into();
    let error = Qemu::spawn(&launch).err().unwrap();
    assert!(error.to_string().contains("no-such-cpu"), "{error}");

    let mut launch = nano(&dir, Profile::Light);
    launch.hardware.memory_bytes *= 2;
    let error = Qemu::spawn(&launch).err().unwrap();
    assert!(matches!(&error, VmmError::Invalid { what } if what.contains("memory")), "{error}");
}

#[test]
fn guest_state_that_cannot_be_written_or_read_is_explained() {
    let dir = Dir::new("badstate");
    let mut launch = nano(&dir, Profile::Light);
    let qemu = Qemu::spawn(&launch).unwrap();
    assert!(qemu.console().wait_for("nano: boots=1", LONG));
    let error = qemu.save_state("/dev/full".as_ref(), LONG).unwrap_err();
    assert!(matches!(error, VmmError::State { verb: "save", .. }), "{error}");
    // The guest is unharmed.
    let state = dir.join("state");
    qemu.save_state(&state, LONG).unwrap();
    qemu.cont().unwrap();
    let mut typist = Typist::new(qemu.console().attach().unwrap());
    typist.type_text("a\r");
    typist.expect("keys=1");
    drop(qemu);

    let whole = fs::read(&state).unwrap();
    launch.incoming = true;
    for bad in [&whole[..whole.len() / 2], b"garbage", b""] {
        fs::write(&state, bad).unwrap();
        let qemu = Qemu::spawn(&launch).unwrap();
        let error = qemu.load_state(&state, LONG).unwrap_err();
        assert!(matches!(error, VmmError::State { verb: "load", .. }), "{error}");
        assert!(error.hint().is_some());
    }
    // Another board does not take it.
    fs::write(&state, &whole).unwrap();
    launch.hardware.profile = Profile::Q35;
    let qemu = Qemu::spawn(&launch).unwrap();
    let error = qemu.load_state(&state, LONG).unwrap_err();
    assert!(matches!(error, VmmError::State { verb: "load", .. }), "{error}");
}
