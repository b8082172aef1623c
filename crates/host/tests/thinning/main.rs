//! Which checkpoints stay, and that the rest can be collected while everything else stays.

mod policy;
mod stored;

use host::auto::{Auto, Keep};
use host::record::Head;
use model::{CheckpointId, HostId, InstanceId, InstanceState, Lease, Name, VersionId};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const DAY_MS: u64 = 24 * HOUR_MS;

fn keep(text: &str) -> Keep {
    Keep::parse(text).unwrap()
}

fn id(number: u64) -> CheckpointId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    CheckpointId::from_bytes(bytes)
}

fn lease(host: u8) -> Lease {
    let holder = HostId::from_bytes([host; 16]);
    Lease { holder, holder_name: "h".to_owned(), granted_unix_ms: 0 }
}

fn head() -> Head {
    Head {
        instance: InstanceId::from_bytes([1; 16]),
        name: Name::new("t1").unwrap(),
        appliance: Name::appliance("tiny").unwrap(),
        version: VersionId::from_bytes([2; 32]),
        state: InstanceState::Running,
        lease: Some(lease(1)),
        checkpoint: None,
        origin: None,
        macs: Vec::new(),
        vmgenid: [0; 16],
        fresh: false,
        warm: false,
        auto: Some(Auto::Off),
        autos: Vec::new(),
        holds: Vec::new(),
        left: None,
        follow: None,
        trial: None,
        network: None,
        gone: Vec::new(),
        keep_taken: None,
        parcel: None,
    }
}
