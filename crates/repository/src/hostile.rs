//! Property tests on what comes from outside, and of the index against a plain map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chunk::crypt::{Cipher, PackId, RepositoryId, StoredName};
use chunk::header::Intent;
use model::{ChunkId, Generation};
use proptest::prelude::*;

use crate::config::Config;
use crate::index::{Index, LocalDir};
use crate::log::{IndexObject, decode_table};
use crate::pack::{FrameEntry, PackEntry, read_pack};
use crate::record::parse_record;
use crate::{import_key, refs};

fn cipher() -> Cipher {
    Cipher::none(RepositoryId([7; 16]))
}

/// What an adversary can make of a public repository's seal, which anyone can compute.
fn sealed(format: &chunk::header::Format, key: &str, plain: &[u8]) -> Vec<u8> {
    crate::log::seal(&cipher(), format, key, [1; 32], plain)
}

fn name(number: u8) -> StoredName {
    // Few different first bytes, so that fences and blocks are shared.
    let mut name = [number; 16];
    name[..8].fill(number & 3);
    name
}

fn pack(number: u8, names: &[u8]) -> PackEntry {
    let frames = names
        .chunks(3)
        .map(|names| FrameEntry {
            stored_bytes: 100,
            names: names.iter().map(|number| name(*number)).collect(),
        })
        .collect();
    PackEntry { id: PackId([number; 32]), bytes: 1 << 20, frames }
}

#[derive(Debug, Clone)]
enum Act {
    Add(Vec<u8>),
    Condemn(u8),
    Revive(u8),
    Remove(u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => proptest::collection::vec(0..40u8, 1..30).prop_map(Act::Add),
        1 => (0..30u8).prop_map(Act::Condemn),
        1 => (0..30u8).prop_map(Act::Revive),
        1 => (0..30u8).prop_map(Act::Remove),
    ];
    proptest::collection::vec(act, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_index_is_a_map(acts in acts(), on_disk in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let local = on_disk.then(|| {
                Arc::new(LocalDir::open(dir.path(), RepositoryId([7; 16])).unwrap())
            });
            Index::open(local)
        };
        let mut index = open();
        // Pack -> (its names, whether it is condemned).
        let mut model: BTreeMap<u8, (BTreeSet<u8>, bool)> = BTreeMap::new();
        let mut packs = 0u8;
        for (at, act) in acts.into_iter().enumerate() {
            let mut object = IndexObject::default();
            match act {
                Act::Add(names) => {
                    object.added.push(pack(packs, &names));
                    model.insert(packs, (names.into_iter().collect(), false));
                    packs += 1;
                }
                Act::Condemn(number) => {
                    if let Some(pack) = model.get_mut(&number) {
                        object.condemned.push(PackId([number; 32]));
                        pack.1 = true;
                    }
                }
                Act::Revive(number) => {
                    object.revived.push(PackId([number; 32]));
                    if let Some(pack) = model.get_mut(&number) {
                        pack.1 = false;
                    }
                }
                Act::Remove(number) => {
                    object.removed.push(PackId([number; 32]));
                    model.remove(&number);
                }
            }
            index.apply(at as u64 + 1, &object, Vec::new()).unwrap();
            index.save().unwrap();
            if on_disk && at % 7 == 3 {
                // Another process: it goes on from what was saved, if anything was.
                let other = open();
                if other.applied == index.applied {
                    index = other;
                }
            }
        }
        for number in 0..40u8 {
            let expected: BTreeSet<u8> = model
                .iter()
                .filter(|(_, (names, _))| names.contains(&number))
                .map(|(pack, _)| *pack)
                .collect();
            let found = index.locations(&name(number)).unwrap();
            let packs: BTreeSet<u8> = found.iter().map(|location| location.pack.0[0]).collect();
            prop_assert_eq!(&packs, &expected);
            let condemned: Vec<bool> =
                found.iter().map(|location| model[&location.pack.0[0]].1).collect();
            prop_assert!(condemned.is_sorted(), "those in use come first");
            let in_use = index.pack_in_use(&name(number)).unwrap();
            prop_assert_eq!(in_use.is_some(), condemned.contains(&false));
            let mut marks = index.marks();
            let marked = index.mark(&mut marks, &name(number)).unwrap();
            prop_assert_eq!(marked, (!expected.is_empty()).then_some(false));
            let again = index.mark(&mut marks, &name(number)).unwrap();
            prop_assert_eq!(again, (!expected.is_empty()).then_some(true));
            let mut counted = 0;
            index.for_each(&marks, |_, _, marked| counted += u32::from(marked)).unwrap();
            prop_assert_eq!(counted, u32::from(!expected.is_empty()));
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        small in proptest::collection::vec(0..3u8, 0..400),
    ) {
        for plain in [&bytes, &small] {
            let cipher = cipher();
            let id = ChunkId::from_bytes([1; 32]);
            let _ = IndexObject::decode(&cipher, 1, plain);
            let _ = IndexObject::decode(
                &cipher, 1, &sealed(&crate::layout::INDEX_FORMAT, &crate::layout::index_key(1), plain),
            );
            let key = crate::layout::table_key(&[2; 16]);
            let _ = decode_table(&cipher, &[2; 16], &sealed(&crate::layout::TABLE_FORMAT, &key, plain));
            let _ = Config::decode(plain, Intent::Read);
            let _ = read_pack(&cipher, PackId([3; 32]), plain);
            let mut head = crate::layout::PACK_FORMAT.header().encode().to_vec();
            head.extend_from_slice(&[7; 16]);
            head.extend_from_slice(&[3; 32]);
            head.extend_from_slice(plain);
            let _ = read_pack(&cipher, PackId([3; 32]), &head);
            let mut record = crate::layout::RECORD_FORMAT.header().encode().to_vec();
            record.extend_from_slice(plain);
            let _ = parse_record(&id, &record);
            let stored = cipher.stored_ref_name("k", "n");
            let bytes = refs::seal(&cipher, &stored, Generation(1), [4; 32], plain, false);
            let _ = refs::open(&cipher, &stored, Generation(1), &bytes);
            let _ = import_key(&String::from_utf8_lossy(plain));
        }
    }
}
