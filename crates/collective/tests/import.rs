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
