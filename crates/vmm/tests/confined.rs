//! A tool behind the walls, tried from inside and at its limits.

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use common::{Dir, launcher};
use vmm::{Confined, Ended, Identity, Limits, VmmError};

/// A run of a program of the system.
fn confined(dir: &Dir, program: &str, arguments: &[&str]) -> Confined {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = rustix::process::geteuid().is_root();
    Confined {
        launcher: launcher(),
        identity: root.then_some(Identity { uid: 65534, gid: 65534 }),
        program: fs::canonicalize(program).unwrap(),
        arguments: arguments.iter().map(Into::into).collect(),
        cwd: dir.path().to_owned(),
        readable: vec![],
        writable: vec![],
        limits: Limits::default(),
        deadline: common::LONG,
        output_bytes_max: 1 << 20,
    }
}

#[track_caller]
fn run(confined: &Confined) -> Ended {
    confined.run(|| Ok::<(), ()>(())).unwrap().unwrap()
}

/// A file that the tool's user may do everything with, as far as its mode goes.
fn file(dir: &Dir, name: &str, content: &str) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    path
}

#[test]
fn it_reads_and_writes_what_it_was_given_alone() {
    let dir = Dir::new("confined");
    let (given, other) = (file(&dir, "given", "mine"), file(&dir, "other", "secret"));
    let (output, untouched) = (file(&dir, "output", ""), file(&dir, "untouched", ""));
    let mut cat = confined(&dir, "/bin/cat", &["given"]);
    cat.readable = vec![given.clone()];
    let ended = run(&cat);
    assert!(ended.status.success(), "{}", ended.messages);
    assert_eq!(ended.output, b"mine");
    cat.arguments = vec!["other".into()];
    let ended = run(&cat);
    assert!(!ended.status.success() && ended.output.is_empty());
    assert!(ended.messages.contains("Permission denied"), "{}", ended.messages);

    let mut dd = confined(&dir, "/bin/dd", &["if=given", "of=output"]);
    (dd.readable, dd.writable) = (vec![given], vec![output.clone()]);
    assert!(run(&dd).status.success());
    assert_eq!(fs::read(output).unwrap(), b"mine");
    for target in ["of=untouched", "of=other", "of=new"] {
        dd.arguments = vec!["if=given".into(), target.into()];
        assert!(!run(&dd).status.success(), "{target}");
    }
    assert_eq!(fs::read(untouched).unwrap(), b"");
    assert_eq!(fs::read(other).unwrap(), b"secret");
    assert!(!dir.join("new").exists());
}

/// The real converter, given a file that leads to another one: it cannot follow.
#[test]
fn a_converter_follows_nothing() {
    let dir = Dir::new("converter");
    let secret = file(&dir, "secret", &"secret".repeat(1000));
    let make = |arguments: &[&str]| {
        let done = std::process::Command::new("qemu-img")
            .args(arguments)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    make(&["create", "-f", "qcow2", "-b", secret.to_str().unwrap(), "-F", "raw", "evil"]);
    make(&["convert", "-f", "qcow2", "-O", "raw", "evil", "proof"]);
    assert!(fs::read(dir.join("proof")).unwrap().starts_with(b"secretsecret"));
    let output = file(&dir, "output", "");
    let arguments = ["convert", "-n", "-f", "qcow2", "-O", "raw", "evil", "output"];
    let mut convert = confined(&dir, "/usr/bin/qemu-img", &arguments);
    fs::File::options().write(true).open(&output).unwrap().set_len(1 << 20).unwrap();
    (convert.readable, convert.writable) = (vec![dir.join("evil")], vec![output.clone()]);
    let ended = run(&convert);
    assert!(!ended.status.success());
    assert!(ended.messages.contains("Permission denied"), "{}", ended.messages);
    assert!(fs::read(output).unwrap().iter().all(|byte| *byte == 0));
    // The same walls around a file that leads nowhere: it converts.
    make(&["create", "-f", "qcow2", "whole", "64K"]);
    convert.readable = vec![dir.join("whole")];
    convert.arguments[6] = "whole".into();
    let ended = run(&convert);
    assert!(ended.status.success(), "{}", ended.messages);
}

#[test]
fn it_uses_no_more_than_it_may() {
    let dir = Dir::new("limits");
    let output = file(&dir, "output", "");
    let mut dd = confined(&dir, "/bin/dd", &["if=/dev/zero", "of=output", "bs=4096", "count=64"]);
    dd.writable = vec![output.clone()];
    assert!(run(&dd).status.success());
    dd.limits.file_bytes = Some(64 << 10);
    assert!(!run(&dd).status.success());
    assert_eq!(fs::metadata(&output).unwrap().len(), 64 << 10);

    // One buffer of 512 MiB.
    let mut large = confined(
        &dir,
        "/bin/dd",
        &["if=/dev/zero", "of=output", "bs=512M", "count=1", "conv=notrunc"],
    );
    large.arguments.push("iflag=count_bytes".into());
    large.writable = vec![output];
    large.limits.memory_bytes = Some(256 << 20);
    let ended = run(&large);
    assert!(!ended.status.success() && ended.messages.contains("memory"), "{}", ended.messages);

    let mut busy = confined(&dir, "/bin/dd", &["if=/dev/zero", "of=/dev/null", "bs=1M"]);
    busy.limits.cpu_s = Some(1);
    let ended = run(&busy);
    assert!(ended.status.signal().is_some(), "{:?}", ended.status);

    // What is not read of its output meets a closed pipe.
    let mut talks = confined(&dir, "/bin/cat", &["/dev/zero"]);
    talks.output_bytes_max = 1 << 20;
    let ended = run(&talks);
    assert!(!ended.status.success());
    assert_eq!(ended.output.len(), 1 << 20);
}

#[test]
fn it_ends_at_its_deadline_and_when_its_caller_says() {
    let dir = Dir::new("deadline");
    let mut sleep = confined(&dir, "/bin/sleep", &["1000"]);
    sleep.deadline = Duration::from_millis(300);
    let error = sleep.run(|| Ok::<(), ()>(())).unwrap_err();
    assert!(matches!(error, VmmError::Timeout { .. }), "{error}");
    sleep.deadline = common::LONG;
    assert_eq!(sleep.run(|| Err("enough")).unwrap().unwrap_err(), "enough");
}
