//! The wire form of heads.

use model::{CheckpointId, InstanceState, Lease, Name};
use serde::{Deserialize, Serialize};

use super::hardware::id;
use super::wire::{
    AutoWire, BlobWire, FORMAT, LINE_FORMAT, RecordError, appliance, decode, decode_auto,
    decode_blob, encode, encode_auto, encode_blob, name,
};
use super::{AutoPoint, Follow, Head, Hold, Parcel, Trial, UpdatePolicy};
use crate::auto::Keep;

/// What a head has that needs more than format 3: what it is plugged into.
const NETWORK_FORMAT: u32 = 4;
/// What a head has that needs more than format 4: what is gone of its line.
const GONE_FORMAT: u32 = 5;
/// What a head has that needs more than format 5: what is kept of what somebody took.
const KEEP_FORMAT: u32 = 6;
/// What a head has that needs more than format 6: a checkpoint that the repository does not have yet.
pub(super) const HEAD_FORMAT: u32 = 7;
/// Most checkpoints that are gone, of one head.
pub(crate) const GONE_MAX: usize = 1024;
/// What a head has that needs more than format 2: whose versions it gets.
const FOLLOW_FORMAT: u32 = 3;
/// The longest location of a maker's repository, bytes.
const LOCATION_BYTES_MAX: usize = 4096;
/// Most automatic checkpoints, and holds, of one head.
const AUTOS_MAX: usize = 512;

#[derive(Serialize, Deserialize)]
struct HeadWire {
    kind: String,
    format: u32,
    instance: String,
    name: String,
    appliance: String,
    version: String,
    state: String,
    lease: Option<LeaseWire>,
    checkpoint: Option<String>,
    origin: Option<String>,
    macs: Vec<[u8; 6]>,
    vmgenid: [u8; 16],
    #[serde(default)]
    fresh: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    warm: bool,
    /// Format 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auto: Option<AutoWire>,
    /// Format 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    autos: Vec<AutoPointWire>,
    /// Format 2.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    holds: Vec<HoldWire>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left: Option<String>,
    /// Format 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    follow: Option<FollowWire>,
    /// Format 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trial: Option<TrialWire>,
    /// Format 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<String>,
    /// Format 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    gone: Vec<String>,
    /// Format 6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keep_taken: Option<String>,
    /// Format 7.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parcel: Option<ParcelWire>,
}

#[derive(Serialize, Deserialize)]
struct ParcelWire {
    checkpoint: String,
    chunks: BlobWire,
    host: String,
    host_name: String,
    peer: String,
    address: String,
}

#[derive(Serialize, Deserialize)]
struct FollowWire {
    location: String,
    channel: Option<String>,
    policy: String,
    release: String,
}

#[derive(Serialize, Deserialize)]
struct TrialWire {
    back: String,
    release: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    begun: bool,
}

#[derive(Serialize, Deserialize)]
struct AutoPointWire {
    id: String,
    taken_unix_ms: u64,
    parent: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct HoldWire {
    host: String,
    checkpoint: String,
}

#[derive(Serialize, Deserialize)]
struct LeaseWire {
    holder: String,
    holder_name: String,
    granted_unix_ms: u64,
}

/// Writes a head's body.
pub fn encode_head(head: &Head) -> Vec<u8> {
    encode(&HeadWire {
        kind: "head".to_owned(),
        // A program that does not know these would drop them when it moves the head.
        format: if head.parcel.is_some() {
            HEAD_FORMAT
        } else if head.keep_taken.is_some() {
            KEEP_FORMAT
        } else if !head.gone.is_empty() {
            GONE_FORMAT
        } else if head.network.is_some() {
            NETWORK_FORMAT
        } else if head.follow.is_some() || head.trial.is_some() {
            FOLLOW_FORMAT
        } else if head.auto.is_some() || !head.autos.is_empty() || !head.holds.is_empty() {
            LINE_FORMAT
        } else {
            FORMAT
        },
        instance: head.instance.to_string(),
        name: head.name.to_string(),
        appliance: head.appliance.to_string(),
        version: head.version.to_string(),
        state: head.state.as_str().to_owned(),
        lease: head.lease.as_ref().map(|lease| LeaseWire {
            holder: lease.holder.to_string(),
            holder_name: lease.holder_name.clone(),
            granted_unix_ms: lease.granted_unix_ms,
        }),
        checkpoint: head.checkpoint.map(|id| id.to_string()),
        origin: head.origin.map(|id| id.to_string()),
        macs: head.macs.clone(),
        vmgenid: head.vmgenid,
        fresh: head.fresh,
        warm: head.warm,
        auto: head.auto.map(encode_auto),
        autos: head
            .autos
            .iter()
            .map(|auto| AutoPointWire {
                id: auto.id.to_string(),
                taken_unix_ms: auto.taken_unix_ms,
                parent: auto.parent.map(|id| id.to_string()),
            })
            .collect(),
        holds: head
            .holds
            .iter()
            .map(|hold| HoldWire {
                host: hold.host.to_string(),
                checkpoint: hold.checkpoint.to_string(),
            })
            .collect(),
        left: head.left.map(|id| id.to_string()),
        follow: head.follow.as_ref().map(|follow| FollowWire {
            location: follow.location.clone(),
            channel: follow.channel.clone(),
            policy: follow.policy.as_str().to_owned(),
            release: follow.release.to_string(),
        }),
        trial: head.trial.map(|trial| TrialWire {
            back: trial.back.to_string(),
            release: trial.release.to_string(),
            begun: trial.begun,
        }),
        network: head.network.as_ref().map(Name::to_string),
        gone: head.gone.iter().map(CheckpointId::to_string).collect(),
        keep_taken: head.keep_taken.map(|keep| keep.to_string()),
        parcel: head.parcel.as_ref().map(|parcel| ParcelWire {
            checkpoint: parcel.checkpoint.to_string(),
            chunks: encode_blob(&parcel.chunks),
            host: parcel.host.to_string(),
            host_name: parcel.host_name.clone(),
            peer: parcel.peer.clone(),
            address: parcel.address.clone(),
        }),
    })
}

fn decode_parcel(wire: ParcelWire) -> Result<Parcel, RecordError> {
    Ok(Parcel {
        checkpoint: id("parcel", &wire.checkpoint)?,
        chunks: decode_blob(wire.chunks)?,
        host: id("parcel", &wire.host)?,
        host_name: wire.host_name,
        peer: wire.peer,
        address: wire.address,
    })
}

fn decode_follow(wire: FollowWire) -> Result<Follow, RecordError> {
    if wire.location.len() > LOCATION_BYTES_MAX {
        return Err(RecordError::field("follow", wire.location.len()));
    }
    let channel = wire.channel.map(|text| match Name::new(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(RecordError::field("channel", text)),
    });
    Ok(Follow {
        location: wire.location,
        channel: channel.transpose()?,
        policy: UpdatePolicy::parse(&wire.policy)
            .ok_or_else(|| RecordError::field("policy", &wire.policy))?,
        release: id("release", &wire.release)?,
    })
}

/// Reads a head's body.
pub fn decode_head(body: &[u8]) -> Result<Head, RecordError> {
    let wire: HeadWire = decode("head", body)?;
    let state = match wire.state.as_str() {
        "running" => InstanceState::Running,
        "suspended" => InstanceState::Suspended,
        "stopped" => InstanceState::Stopped,
        other => return Err(RecordError::field("state", other)),
    };
    let lease = match wire.lease {
        None => None,
        Some(lease) => Some(Lease {
            holder: id("holder", &lease.holder)?,
            holder_name: lease.holder_name,
            granted_unix_ms: lease.granted_unix_ms,
        }),
    };
    if (state == InstanceState::Running) != lease.is_some() {
        return Err(RecordError::field("lease", lease.is_some()));
    }
    let parcel = wire.parcel.map(decode_parcel).transpose()?;
    if parcel.is_some() && lease.is_none() {
        return Err(RecordError::field("parcel", "of nobody"));
    }
    if wire.gone.len() > GONE_MAX {
        return Err(RecordError::field("gone", wire.gone.len()));
    }
    if wire.autos.len() > AUTOS_MAX || wire.holds.len() > AUTOS_MAX {
        return Err(RecordError::field("autos", wire.autos.len()));
    }
    let autos = wire.autos.into_iter().map(|auto| {
        Ok(AutoPoint {
            id: id("autos", &auto.id)?,
            taken_unix_ms: auto.taken_unix_ms,
            parent: auto.parent.map(|text| id("autos", &text)).transpose()?,
        })
    });
    let holds = wire.holds.into_iter().map(|hold| {
        Ok(Hold { host: id("holds", &hold.host)?, checkpoint: id("holds", &hold.checkpoint)? })
    });
    Ok(Head {
        instance: id("instance", &wire.instance)?,
        name: name(&wire.name)?,
        appliance: appliance(&wire.appliance)?,
        version: id("version", &wire.version)?,
        state,
        lease,
        checkpoint: wire.checkpoint.map(|text| id("checkpoint", &text)).transpose()?,
        origin: wire.origin.map(|text| id("origin", &text)).transpose()?,
        macs: wire.macs,
        vmgenid: wire.vmgenid,
        fresh: wire.fresh,
        warm: wire.warm,
        auto: wire.auto.map(decode_auto).transpose()?,
        autos: autos.collect::<Result<_, RecordError>>()?,
        holds: holds.collect::<Result<_, RecordError>>()?,
        left: wire.left.map(|text| id("left", &text)).transpose()?,
        follow: wire.follow.map(decode_follow).transpose()?,
        trial: match wire.trial {
            None => None,
            Some(trial) => Some(Trial {
                back: id("trial", &trial.back)?,
                release: id("trial", &trial.release)?,
                begun: trial.begun,
            }),
        },
        network: wire.network.as_deref().map(name).transpose()?,
        gone: wire.gone.iter().map(|text| id("gone", text)).collect::<Result<_, RecordError>>()?,
        keep_taken: match wire.keep_taken {
            None => None,
            Some(text) => {
                Some(Keep::parse(&text).map_err(|_| RecordError::field("keep_taken", &text))?)
            }
        },
        parcel,
    })
}
#[cfg(test)]
pub mod tests {
    use super::*;
    use model::{ChunkId, HostId, InstanceId, VersionId};

    use super::super::Blob;

    /// One that is held.
    pub fn head() -> Head {
        Head {
            instance: InstanceId::from_bytes([1; 16]),
            name: Name::new("t1").unwrap(),
            appliance: Name::appliance("maker/tiny").unwrap(),
            version: VersionId::from_bytes([2; 32]),
            state: InstanceState::Running,
            lease: Some(Lease {
                holder: HostId::from_bytes([3; 16]),
                holder_name: "h".to_owned(),
                granted_unix_ms: 4,
            }),
            checkpoint: Some(CheckpointId::from_bytes([5; 32])),
            origin: None,
            macs: vec![[6; 6]],
            vmgenid: [7; 16],
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
        }
    }

    #[test]
    fn a_head_survives_and_a_running_one_has_a_lease() {
        assert_eq!(decode_head(&encode_head(&head())), Ok(head()));
        let broken = Head { lease: None, ..head() };
        assert!(matches!(decode_head(&encode_head(&broken)), Err(RecordError::Field { .. })));
    }

    #[test]
    fn what_is_on_its_way_survives_and_belongs_to_somebody() {
        let chunks = Blob { id: ChunkId::from_bytes([8; 32]), bytes: 64, blake3: [9; 32] };
        let (host, host_name) = (HostId::from_bytes([3; 16]), "h".to_owned());
        let checkpoint = CheckpointId::from_bytes([10; 32]);
        let (peer, address) = ("i1.h3.x".to_owned(), "192.0.2.1:7".to_owned());
        let parcel = Some(Parcel { checkpoint, chunks, host, host_name, peer, address });
        let offered = Head { parcel, ..head() };
        assert_eq!(decode_head(&encode_head(&offered)), Ok(offered.clone()));
        assert!(offered.is_offered() && !head().is_offered());
        let holder = HostId::from_bytes([4; 16]);
        let taken = Lease { holder, ..offered.lease.clone().unwrap() };
        assert!(!Head { lease: Some(taken), ..offered.clone() }.is_offered());
        let broken = Head { lease: None, state: InstanceState::Suspended, ..offered };
        assert!(matches!(decode_head(&encode_head(&broken)), Err(RecordError::Field { .. })));
    }

    #[test]
    fn other_kinds_newer_formats_and_noise_are_told_apart() {
        let body = String::from_utf8(encode_head(&head())).unwrap();
        let newer = body.replacen("\"format\":1", "\"format\":8", 1);
        assert!(matches!(decode_head(newer.as_bytes()), Err(RecordError::Newer { .. })));
        assert!(matches!(
            super::super::decode_version(body.as_bytes()),
            Err(RecordError::Malformed { .. })
        ));
        assert!(matches!(decode_head(b"\xff"), Err(RecordError::Malformed { .. })));
        assert!(matches!(decode_head(&vec![b' '; 2 << 20]), Err(RecordError::Malformed { .. })));
    }
}
