//! A door for the fuzzers (crate `fuzz`): what reads this host's own files and what people and
//! commands say, as functions of bytes. Nothing else goes through it.

use std::path::Path;

use api::{Asked, Reply};

use crate::inside::Subject;
use crate::local::LocalInstance;
use crate::{dir, parse_port, socket, tpm};

/// A line to a shim, and one from it.
pub fn shim(bytes: &[u8]) {
    use std::io::Write;
    let Ok((ours, mut theirs)) = std::os::unix::net::UnixStream::pair() else { return };
    let said = &bytes[..bytes.len().min(16 << 10)];
    if theirs.write_all(said).is_err() || theirs.shutdown(std::net::Shutdown::Write).is_err() {
        return;
    }
    if let Ok(Some(asked)) = socket::receive::<Asked>(&ours) {
        let again = serde_json::to_vec(&asked).unwrap_or_default();
        assert!(serde_json::from_slice::<Asked>(&again).is_ok());
    }
    let _ = serde_json::from_slice::<Reply>(bytes);
}

/// A JSON file of this host, at `path`.
pub fn file(bytes: &[u8], path: &Path) {
    if std::fs::write(path, bytes).is_ok() {
        let _ = dir::decode::<dir::HostFile>(path);
        if let Ok(instance) = dir::decode::<LocalInstance>(path) {
            let _ = instance.instance_id();
            let _ = crate::ports::read(&instance.ports);
        }
    }
}

/// What the volume of a virtual TPM begins with.
pub fn tpm_volume(bytes: &[u8]) {
    let Some(before) = bytes.first_chunk() else { return };
    if let Ok(Some(length)) = tpm::length(before) {
        let end = (tpm::BEFORE_BYTES + length) as u64;
        assert!(length > 0 && end <= model::DiskSpec::TPM_BYTES, "it lies in its volume");
    }
}

/// Words of a command line.
pub fn words(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(port) = parse_port(&text) {
        assert_ne!(port.guest_port, 0);
    }
    let _ = Subject::parse(&text);
    if let Ok(bytes) = model::parse_bytes(&text) {
        let _ = model::format_bytes(bytes);
    }
    let _ = model::Name::new(&text);
    let _ = model::Name::appliance(&text);
    let _ = text.parse::<model::CheckpointId>();
    let _ = text.parse::<model::InstanceId>();
}
