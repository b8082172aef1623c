//! Traces as bytes: golden, and from an adversary.

use proptest::prelude::*;
use volume::{Recorded, Trace, TraceError};

fn names() -> Vec<String> {
    ["ram", "system", "data"].map(str::to_owned).to_vec()
}

fn sample() -> Trace {
    let old = Trace::of(names(), [(0, 70_000), (1, 0), (1, 1), (2, 4000)]);
    let new = [(0, 256), (0, 257), (1, 1), (0, 3), (1, 2), (1, 3), (0, 1 << 40)];
    old.merged(&Trace::of(names(), new), Recorded::Whole)
}

#[test]
fn a_trace_is_read_back() {
    assert_eq!(Trace::decode(&sample().encode()).unwrap(), sample());
    let none = Trace::default();
    assert_eq!(Trace::decode(&none.encode()).unwrap(), none);
}

#[test]
fn what_is_not_a_trace_is_refused_with_a_reason() {
    let whole = sample().encode();
    let check = |bytes: &[u8], expected: &str| {
        assert_eq!(Trace::decode(bytes).unwrap_err().to_string(), expected);
    };
    check(b"short", "5 bytes are too few to be a trace");
    check(&[&whole[..], b"x"].concat(), "not a trace: bytes after its end");
    let with = |at: usize, byte: u8| {
        let mut bytes = whole.clone();
        bytes[at] = byte;
        bytes
    };
    check(&with(0, b'x'), "this is not a trace");
    check(
        &with(8, 2),
        "this trace has version 2, made by a newer Collective; up to 1 can be read here",
    );
    check(&with(46, 1), "not a trace: a reserved byte is set");
    check(&with(45, 1), "not a trace: too many volumes or runs");
    check(&with(50, 1), "not a trace: too many volumes or runs");
    check(&with(53, 0xff), "not a trace: a volume's name is not text");
    // One volume "a", and runs by hand.
    let runs = |count: u32, runs: &[u8]| {
        let mut bytes = Trace::of(vec!["a".to_owned()], []).encode();
        bytes[48..52].copy_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(runs);
        bytes
    };
    assert_eq!(Trace::decode(&runs(1, &[0, 2, 0])).unwrap().runs()[0].first, 1);
    check(&runs(1, &[4, 2, 0]), "not a trace: a run of a volume that is not there");
    check(&runs(1, &[0, 1, 0]), "not a trace: a run lies beyond any volume");
    check(&runs(1, &[0, 0x82, 0, 0]), "not a trace: a number is too long");
    check(&runs(1, &[0xff; 12]), "not a trace: a number is too large");
    check(&runs(2, &[0, 2, 1, 0, 1, 0]), "not a trace: a page is in it twice");
    check(&runs(2, &[0, 2, 1, 0, 0, 0]), "not a trace: a run goes on in the next");
    assert!(Trace::decode(&runs(2, &[0, 2, 1, 1, 0, 0])).is_ok(), "of another age");
    check(&runs(1, &[0, 0, 0x80]), "not a trace: it is cut");
    check(&runs(1, &[0, 0, 0x80, 0x80, 0x20]), "not a trace: a run lies beyond any volume");
    check(&runs(2, &[0, 0, 0xff, 0xff, 0xf, 0, 2, 0]), "not a trace: too many pages");
    for cut in 0..whole.len() {
        assert!(Trace::decode(&whole[..cut]).is_err(), "{cut}");
    }
}

proptest! {
    #[test]
    fn what_is_recorded_is_read_back(touched in prop::collection::vec((0_u8..4, 0_u64..50), 0..300)) {
        let trace = Trace::of(names(), touched);
        prop_assert_eq!(Trace::decode(&trace.encode()).unwrap(), trace);
    }

    /// Noise behind a good head, and a good trace with changed bytes: refused, or canonical.
    #[test]
    fn noise_is_refused_or_means_one_thing(
        noise in prop::collection::vec(any::<u8>(), 0..64),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        runs in 0_u32..20,
    ) {
        let mut from_noise = Trace::of(names(), []).encode();
        from_noise[48..52].copy_from_slice(&runs.to_le_bytes());
        from_noise.extend_from_slice(&noise);
        let mut changed = sample().encode();
        for (at, byte) in changes {
            *at.get_mut(&mut changed[40..]) = byte;
        }
        for bytes in [from_noise, changed] {
            match Trace::decode(&bytes) {
                Ok(trace) => prop_assert_eq!(trace.encode(), bytes),
                Err(TraceError::Malformed(_)) => {}
                Err(other) => prop_assert!(false, "{}", other),
            }
        }
    }
}
