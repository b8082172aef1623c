//! The accelerator probe: it can succeed, and it tells the truth about this host.

mod common;

use std::fs;
use std::process::Command;

use common::{Dir, LONG, jail};
use vmm::{KvmProof, prove_kvm, prove_tcg};

#[test]
fn the_committed_payload_is_what_the_source_says() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/probe/payload.S");
    let dir = Dir::new("payload");
    let run = |program: &str, arguments: &[&str]| {
        Command::new(program).args(arguments).current_dir(dir.path()).status()
    };
    match run("as", &["--64", source, "-o", "p.o"]) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        status => assert!(status.unwrap().success()),
    }
    let link =
        ["-m", "elf_x86_64", "-Ttext", "0xf0000", "--oformat", "binary", "p.o", "-o", "p.bin"];
    assert!(run("ld", &link).unwrap().success());
    let committed = concat!(env!("CARGO_MANIFEST_DIR"), "/src/probe/payload.bin");
    assert_eq!(fs::read(dir.join("p.bin")).unwrap(), fs::read(committed).unwrap());
}

#[test]
fn the_payload_can_succeed() {
    let start = ambient::now();
    prove_tcg(&vmm::find_qemu().unwrap(), &jail(), LONG).unwrap();
    println!("TCG: proven in {:?}", start.elapsed());
}

#[test]
fn kvm_is_judged_within_its_deadline() {
    let start = ambient::now();
    let deadline = std::time::Duration::from_secs(3);
    let proof = prove_kvm(&vmm::find_qemu().unwrap(), &jail(), deadline);
    println!("KVM: {proof:?} in {:?}", start.elapsed());
    assert!(start.elapsed() < LONG);
    if let KvmProof::False { why } | KvmProof::NotThere { why } = proof {
        assert!(why.len() > 10, "{why}");
    }
}
