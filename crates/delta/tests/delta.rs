//! What goes in comes out, and what a stranger wrote is refused.

use delta::{DeltaError, Group, PART_BYTES_MAX, Part, Run, pack, unpack};
use proptest::prelude::*;

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

fn part() -> Part {
    let run = |source, first, count| Run { source, first, count };
    let group = |old: Vec<Run>, new: Vec<Run>| Group { old, new, packed: vec![1, 2, 3] };
    Part {
        from: [1; 32],
        to: [2; 32],
        groups: vec![
            group(vec![run(0, 500, 3), run(0, 7, 1)], vec![run(0, 500, 2), run(2, 0, 1)]),
            group(Vec::new(), vec![run(1, u64::from(u32::MAX) * 4, 9)]),
        ],
    }
}

#[test]
fn what_changed_a_little_takes_a_little() {
    let old = bytes(1, 1 << 20);
    let mut new = old.clone();
    new.splice(1000..1000, *b"something is put in");
    new[700_000] ^= 1;
    new.truncate(1 << 20);
    let packed = pack(&old, &new).unwrap();
    assert!(packed.len() < 4096, "{} bytes", packed.len());
    assert_eq!(unpack(&old, &packed, new.len()).unwrap(), new);
    // Without the old bytes it is as large as it is.
    assert!(pack(&[], &new).unwrap().len() > 1 << 20);
    // With others nothing comes out, or other bytes: whoever unpacks looks at their ids.
    assert!(unpack(&bytes(2, 1 << 20), &packed, new.len()).is_ok_and(|other| other != new));
    assert!(unpack(&old, &packed, new.len() - 1).is_err());
    assert!(unpack(&old, &packed, new.len() + 1).is_err());
    assert!(unpack(&old, &packed[..packed.len() / 2], new.len()).is_err());
    assert!(unpack(&old, &packed, usize::MAX).is_err());
}

#[test]
fn a_part_is_read_as_it_was_written() {
    let encoded = part().encode();
    assert_eq!(Part::decode(&encoded), Ok(part()));
    for cut in 0..encoded.len() {
        assert!(Part::decode(&encoded[..cut]).is_err(), "{cut}");
    }
    assert!(Part::decode(&[&encoded[..], &[0]].concat()).is_err());
    let mut newer = encoded.clone();
    newer[32] = 1;
    let refused = Part::decode(&newer).unwrap_err();
    assert!(refused.to_string().contains("newer Collective"), "{refused}");
    assert!(matches!(Part::decode(&vec![0; PART_BYTES_MAX + 1]), Err(DeltaError::Malformed(_))));
}

#[test]
fn the_bytes_stay_what_they_are() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/part.bin");
    let encoded = part().encode();
    if std::env::var_os("COLLECTIVE_BLESS").is_some() {
        std::fs::write(golden, &encoded).unwrap();
    }
    assert_eq!(std::fs::read(golden).unwrap(), encoded);
}

proptest! {
    #[test]
    fn noise_is_refused_and_never_takes_more_than_its_room(
        at in 0_usize..200,
        noise in proptest::collection::vec(any::<u8>(), 1..24),
    ) {
        let mut encoded = part().encode();
        let at = at.min(encoded.len());
        let end = (at + noise.len()).min(encoded.len());
        encoded.splice(at..end, noise);
        if let Ok(part) = Part::decode(&encoded) {
            let chunks: u64 =
                part.groups.iter().flat_map(|g| &g.new).map(|run| u64::from(run.count)).sum();
            prop_assert!(chunks <= part.groups.len() as u64 * u64::from(delta::RUN_MAX));
        }
    }
}
