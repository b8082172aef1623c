//! Any history of publishing, removing, collecting and reopening, against a plain map.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{again, assert_whole, init, publish, verify};
use objects::{Memory, Objects};
use proptest::prelude::*;
use repository::GcOptions;

const GRACE_MS: u64 = 1_000;

#[derive(Debug, Clone)]
enum Act {
    /// Name, first page, pages, which host.
    Publish(u8, u64, u64, usize),
    Remove(u8, usize),
    Collect(usize),
    /// Milliseconds.
    Wait(u64),
    Reopen(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        5 => (0..4u8, 0..60u64, 0..50u64, 0..2usize).prop_map(|(n, f, l, h)| Act::Publish(n, f, l, h)),
        2 => (0..4u8, 0..2usize).prop_map(|(n, h)| Act::Remove(n, h)),
        3 => (0..2usize).prop_map(Act::Collect),
        3 => (0..1500u64).prop_map(Act::Wait),
        1 => (0..2usize).prop_map(Act::Reopen),
    ];
    proptest::collection::vec(act, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_ref_is_whole_at_every_moment(acts in acts(), percent in 0..=100u8) {
        let memory = Arc::new(Memory::new());
        let objects: Arc<dyn Objects> = Arc::clone(&memory) as _;
        let first = init(&objects, GRACE_MS);
        let mut hosts = [again(&first, &objects).unwrap(), again(&first, &objects).unwrap()];
        let mut model = BTreeMap::new();
        let options = GcOptions { keep_generations: 1, repack_below_percent: percent };
        for act in acts {
            match act {
                Act::Publish(name, start, pages, host) => {
                    let id = publish(&hosts[host], &name.to_string(), start..start + pages).unwrap();
                    model.insert(name, (id, start, pages));
                }
                Act::Remove(name, host) => {
                    if model.remove(&name).is_some() {
                        let refs = hosts[host].refs();
                        let at = refs.current("instance", &name.to_string()).unwrap().unwrap();
                        refs.remove("instance", &name.to_string(), at).unwrap();
                    }
                }
                Act::Collect(host) => {
                    hosts[host].gc(options).unwrap();
                }
                Act::Wait(ms) => memory.advance_ms(ms),
                Act::Reopen(host) => hosts[host] = again(&first, &objects).unwrap(),
            }
        }
        for host in &hosts {
            let refs = host.refs().list("instance").unwrap();
            prop_assert_eq!(refs.len(), model.len());
            for (id, start, pages) in model.values() {
                verify(host, *id, *start..start + pages);
            }
            assert_whole(host);
        }
        // Left alone, the collector gets rid of everything that nothing needs.
        model.clear();
        for entry in first.refs().list("").unwrap() {
            first.refs().remove("instance", &entry.name, entry.value.generation).unwrap();
        }
        for _ in 0..3 {
            memory.advance_ms(2 * GRACE_MS);
            first.gc(options).unwrap();
        }
        prop_assert_eq!(objects.list("packs").unwrap(), []);
        let stats = first.stats().unwrap();
        prop_assert_eq!((stats.chunks, stats.logical_bytes), (0, 0));
    }
}
