//! Computers that boot by UEFI: whose its variables are, and what secure boot refuses.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{World, appliance};

#[track_caller]
/// The guest keeps one count in its memory and two in the firmware's variables.
#[test]
fn guest_of_uefi_keeps_its_variables() {
    let world = World::empty("uefi");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    world.run("A", &["build", &appliance("nano-uefi")]).ok();
    world.run("A", &["run", "nano-uefi", "--name", "u1"]).ok();
    world.await_console("A", "u1", "nano-uefi: boots=1 writes=0 secure=0");
    world.type_in("A", "u1", "abw\r");
    world.await_console("A", "u1", "writes=1");
    world.await_console("A", "u1", "keys=3");

    // Another host goes on with memory and variables, and has no need of the package.
    world.run("A", &["suspend", "u1"]).ok();
    world.run("B", &["resume", "u1"]).ok();
    world.type_in("B", "u1", "\r");
    world.await_console("B", "u1", "keys=3");
    world.type_in("B", "u1", "w");
    world.await_console("B", "u1", "writes=2");

    // A fork has them from there on as its own.
    world.run("B", &["fork", "u1", "--name", "f1"]).ok();
    world.type_in("B", "f1", "w");
    world.await_console("B", "f1", "writes=3");
    for (name, line) in [("u1", "boots=2 writes=2"), ("f1", "boots=2 writes=3")] {
        world.run("B", &["stop", name, "--force"]).ok();
        world.run("B", &["resume", name]).ok();
        world.await_console("B", name, line);
    }

    // The variables are nobody's disk.
    world.run("B", &["stop", "u1", "--force"]).ok();
    let raw = world.root().join("u1.raw").to_string_lossy().into_owned();
    let exported = world.run("B", &["export", "u1", &raw, "--format", "raw"]).ok();
    assert_eq!(exported["disks"].as_array().unwrap().len(), 1, "{exported}");

    // Neither is secure boot anybody's but UEFI's.
    let arguments = ["import", &raw, "--format", "raw", "--name", "locked", "--secure-boot"];
    let refused = world.run("B", &arguments);
    assert_eq!((refused.code, &refused.json()["error"]["kind"]), (2, &"usage".into()));
}

/// Runs a program of the firmware's makers; it must succeed.
#[track_caller]
fn tool(folder: &Path, words: &[&str]) {
    let done = Command::new(words[0]).args(&words[1..]).current_dir(folder).output();
    let done = done.unwrap_or_else(|error| panic!("{}: {error}", words[0]));
    assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Signs the program on the disk in `folder` with the key that anybody has, from the package ovmf.
fn sign(folder: &Path) {
    let key = "/usr/share/ovmf/PkKek-1-snakeoil.key";
    let certificate = "/usr/share/ovmf/PkKek-1-snakeoil.pem";
    let program = "::EFI/BOOT/BOOTX64.EFI";
    tool(folder, &["mcopy", "-i", "nano.img", program, "bare.efi"]);
    let open = ["openssl", "rsa", "-passin", "pass:snakeoil", "-out", "key.pem", "-in", key];
    tool(folder, &open);
    let signed = ["--cert", certificate, "--output", "signed.efi", "bare.efi"];
    tool(folder, &[&["sbsign", "--key", "key.pem"], &signed[..]].concat());
    tool(folder, &["mcopy", "-o", "-i", "nano.img", "signed.efi", program]);
}

/// Variables with a key of one's own: that starts which is signed with it, and nothing else.
#[test]
fn guest_of_secure_boot_starts_what_is_signed_and_nothing_else() {
    let world = World::empty("secure-boot");
    world.run("A", &["repo", "init", &world.repository()]).ok();
    let folder = world.root().join("locked");
    fs::create_dir(&folder).unwrap();
    let source = appliance("nano-uefi");
    fs::copy(Path::new(&source).join("nano.img"), folder.join("nano.img")).unwrap();
    fs::copy("/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd", folder.join("keys.fd")).unwrap();
    let recipe = fs::read_to_string(Path::new(&source).join("appliance.yaml")).unwrap();
    let keys = "  mode: uefi\n  secure_boot: true\n  variables: keys.fd\n";
    let recipe = recipe.replacen("  mode: uefi\n", keys, 1);
    fs::write(folder.join("appliance.yaml"), recipe.replacen("name: nano-uefi", "name: locked", 1))
        .unwrap();
    let locked = folder.to_string_lossy().into_owned();

    world.run("A", &["build", &locked]).ok();
    world.run("A", &["run", "locked", "--name", "bare", "--no-wait"]).ok();
    world.await_console("A", "bare", "Access Denied");
    assert!(!world.console("A", "bare").contains("boots="));
    world.run("A", &["stop", "bare", "--force"]).ok();

    sign(&folder);
    world.run("A", &["build", &locked]).ok();
    world.run("A", &["run", "locked", "--name", "signed"]).ok();
    world.await_console("A", "signed", "nano-uefi: boots=1 writes=0 secure=1");
    // Its memory, with the firmware's in it, goes on elsewhere.
    world.run("A", &["suspend", "signed"]).ok();
    world.run("B", &["resume", "signed"]).ok();
    world.type_in("B", "signed", "w");
    world.await_console("B", "signed", "writes=1");

    // A file that is none is refused before anything is stored.
    fs::write(folder.join("keys.fd"), [0; 4096]).unwrap();
    let (kind, message, _) = world.run("A", &["build", &locked]).error();
    assert_eq!(kind, "recipe");
    assert!(message.contains("4096 bytes"), "{message}");
}
