//! Every act in any order, against a plain array of bytes.

use std::sync::Arc;

use chunk::Memory;
use proptest::prelude::*;
use volume::Volume;

use crate::support::{Host, MemDisk, PAGE, page, read};

const PAGES: u64 = 300;
const SIZE: u64 = PAGES * PAGE as u64;

#[derive(Debug, Clone)]
enum Act {
    Write { offset: u64, len: u64, fill: u64 },
    Zeros { offset: u64, len: u64 },
    Read { offset: u64, len: u64 },
    Discard { offset: u64, len: u64 },
    Flush,
    Freeze,
    Seal,
    SealAndAdopt,
    Reopen,
    Fork,
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    prop_oneof![
        (0..PAGES, 1u64..40).prop_map(|(p, n)| (p * 4096, n.min(PAGES - p) * 4096)),
        (0..SIZE, 1u64..9000).prop_map(|(o, n)| (o, n.min(SIZE - o))),
        (0..SIZE, 1u64..SIZE).prop_map(|(o, n)| (o, n.min(SIZE - o))),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (range(), any::<u64>()).prop_map(|((offset, len), fill)| Act::Write { offset, len, fill }),
        1 => range().prop_map(|(offset, len)| Act::Zeros { offset, len }),
        4 => range().prop_map(|(offset, len)| Act::Read { offset, len }),
        2 => range().prop_map(|(offset, len)| Act::Discard { offset, len }),
        2 => Just(Act::Flush),
        1 => Just(Act::Freeze),
        1 => Just(Act::Seal),
        2 => Just(Act::SealAndAdopt),
        2 => Just(Act::Reopen),
        1 => Just(Act::Fork),
    ]
}

/// The same bytes for the same `fill`, with whole zero pages in between.
fn content(fill: u64, len: u64) -> Vec<u8> {
    let pages = (0..=len / PAGE as u64).flat_map(|n| match (fill ^ n) % 5 {
        0 => vec![0; PAGE],
        _ => page(fill.wrapping_add(n) % 64),
    });
    pages.take(len as usize).collect()
}

fn check(acts: Vec<Act>, cache_bytes: u64) {
    let store = Arc::new(Memory::new());
    let host = Host::with_cache(store.clone(), cache_bytes);
    let mut disk = MemDisk::new();
    let mut volume: Option<Volume> = Some(host.create(&disk, None, PAGES));
    let mut model = vec![0u8; SIZE as usize];
    for act in acts {
        let v = volume.as_ref().unwrap();
        match act {
            Act::Write { offset, len, fill } => {
                let bytes = content(fill, len);
                v.write_at(offset, &bytes).unwrap();
                model[offset as usize..][..len as usize].copy_from_slice(&bytes);
            }
            Act::Zeros { offset, len } => {
                v.write_at(offset, &vec![0; len as usize]).unwrap();
                model[offset as usize..][..len as usize].fill(0);
            }
            Act::Discard { offset, len } => {
                v.discard(offset, len).unwrap();
                model[offset as usize..][..len as usize].fill(0);
            }
            Act::Read { offset, len } => {
                let bytes = read(v, offset, len as usize).unwrap();
                assert!(bytes == model[offset as usize..][..len as usize]);
            }
            Act::Flush => v.flush().unwrap(),
            Act::Freeze => v.freeze().unwrap(),
            Act::Seal => {
                v.freeze().unwrap();
                v.seal(&mut store.clone()).unwrap();
            }
            Act::SealAndAdopt => {
                v.freeze().unwrap();
                let sealed = v.seal(&mut store.clone()).unwrap();
                // What is written between the two belongs to the next base.
                v.write_at(5000, b"between").unwrap();
                model[5000..5007].copy_from_slice(b"between");
                v.adopt(&sealed).unwrap();
                assert_eq!(v.base(), Some(sealed.manifest));
            }
            Act::Reopen => {
                v.flush().unwrap();
                volume = None;
                volume = Some(
                    host.open(&disk)
                        .unwrap_or_else(|e| panic!("{e} {volume:?}", volume = volume.is_some())),
                );
            }
            Act::Fork => {
                v.freeze().unwrap();
                let sealed = v.seal(&mut store.clone()).unwrap();
                disk = MemDisk::new();
                volume = Some(host.create(&disk, Some(sealed.manifest), PAGES));
            }
        }
    }
    let v = volume.unwrap();
    assert!(read(&v, 0, SIZE as usize).unwrap() == model);
    // The same content has the same name, however it came about.
    v.freeze().unwrap();
    let sealed = v.seal(&mut store.clone()).unwrap();
    let plain = host.create(&MemDisk::new(), None, PAGES);
    plain.write_at(0, &model).unwrap();
    plain.freeze().unwrap();
    assert_eq!(plain.seal(&mut store.clone()).unwrap().manifest, sealed.manifest);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_volume_is_an_array_of_bytes(acts in prop::collection::vec(act(), 1..60)) {
        check(acts, 64 << 20);
    }

    #[test]
    fn also_with_a_cache_that_holds_almost_nothing(acts in prop::collection::vec(act(), 1..40)) {
        check(acts, 1);
    }
}
