//! What a host reads: records, its own files, lines to its shims, words of people.

use ::host::record;

use super::texts;
use crate::{golden, scratch};

fn goldens(names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| golden(&format!("host/tests/golden/{name}.json"))).collect()
}

pub fn version(bytes: &[u8]) {
    if let Ok(version) = record::decode_version(bytes) {
        let again = record::decode_version(&record::encode_version(&version));
        assert_eq!(again.ok(), Some(version), "what is read is written so that it is read again");
    }
}

pub fn versions() -> Vec<Vec<u8>> {
    goldens(&[
        "version",
        "version-form",
        "version-foreign",
        "version-tpm",
        "version-uefi",
        "version-warm",
    ])
}

pub fn checkpoint(bytes: &[u8]) {
    if let Ok(checkpoint) = record::decode_checkpoint(bytes) {
        let again = record::decode_checkpoint(&record::encode_checkpoint(&checkpoint));
        assert_eq!(again.ok(), Some(checkpoint));
    }
}

pub fn checkpoints() -> Vec<Vec<u8>> {
    goldens(&["checkpoint", "checkpoint-auto", "checkpoint-boots", "checkpoint-traces"])
}

pub fn head(bytes: &[u8]) {
    if let Ok(head) = record::decode_head(bytes) {
        assert_eq!(record::decode_head(&record::encode_head(&head)).ok(), Some(head));
    }
}

pub fn heads() -> Vec<Vec<u8>> {
    goldens(&["head", "head-auto", "head-branch", "head-follows", "head-warm"])
}

/// What makers sign: whoever has their keys may write anything into it.
pub fn signed(bytes: &[u8]) {
    use ::host::makers::{Appliance, Release, Wanted, document, offer};
    let id = model::InstanceId::from_bytes([1; 16]);
    if let Ok(appliance) = Appliance::parse(bytes, "web") {
        for wanted in [Wanted::Channel("stable"), Wanted::Version("1"), Wanted::Version("020202")] {
            if let Ok(offer) = offer(&appliance, wanted, id, None, 0) {
                assert!(appliance.find(&offer.listed.version).is_some());
            }
        }
        let again = document::encode(&appliance).expect("it was short enough");
        assert_eq!(Appliance::parse(&again, "web").ok(), Some(appliance));
    }
    let _ = document::parse::<Release>(bytes, "a release", "release");
}

pub fn documents() -> Vec<Vec<u8>> {
    goldens(&["signed-appliance", "signed-release"])
}

pub fn lines() -> Vec<Vec<u8>> {
    texts(&[
        "{\"verb\":\"status\"}\n",
        "{\"verb\":\"exec\",\"argv\":[\"a\"],\"stdin_base64\":null,\"timeout_ms\":5}\n",
        "{\"verb\":\"suspend\",\"label\":\"x\",\"branch\":false}\n",
        "{\"reply\":\"failed\",\"error\":{\"kind\":\"state\",\"message\":\"m\",\"hint\":\"h\"}}\n",
        "{\"reply\":\"done\",\"checkpoint\":null}\n",
    ])
}

pub fn file(bytes: &[u8]) {
    scratch::with(|dir| ::host::fuzz::file(bytes, &dir.join("file.json")));
}

pub fn files() -> Vec<Vec<u8>> {
    texts(&[
        "{\"format\":1,\"id\":\"00112233445566778899aabbccddeeff\",\"name\":\"x\",\"repository\":null}",
        "{\"format\":1,\"id\":\"00112233445566778899aabbccddeeff\",\"appliance\":\"a\",\
         \"version\":\"v\",\"generation\":1,\"repository\":\"/r\",\"ports\":[{\"address\":\
         \"127.0.0.1\",\"host_port\":1,\"guest_port\":80}],\"accel\":\"tcg\",\"open\":true}",
    ])
}

pub fn tpms() -> Vec<Vec<u8>> {
    let volume = golden("host/tests/golden/tpm.bin");
    let empty = vec![0; volume.len()];
    vec![volume, empty]
}

pub fn words() -> Vec<Vec<u8>> {
    texts(&["8080:80", "[::1]:8080:80/tcp", "512MiB", "18014398509481984K", "a/b", "demo@before"])
}
