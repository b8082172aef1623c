//! What goes in comes out, and what a stranger wrote is refused.

use delta::{
    DeltaError, DiskLayout, Group, Layout, PART_BYTES_MAX, Part, Run, Stretch, What, pack, unpack,
};
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
    let group = |old: Vec<Run>, new: Vec<Run>| Group {
        old,
        new,
        old_opened: Vec::new(),
        new_opened: Vec::new(),
        packed: vec![1, 2, 3],
    };
    Part {
        from: [1; 32],
        to: [2; 32],
        steps: false,
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
    assert!(unpack(&old[..1 << 19], &packed, new.len()).is_err());
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
    newer[32] = 4;
    let refused = Part::decode(&newer).unwrap_err();
    assert!(refused.to_string().contains("newer Collective"), "{refused}");
    assert!(matches!(Part::decode(&vec![0; PART_BYTES_MAX + 1]), Err(DeltaError::Malformed(_))));
}

/// Nothing takes much longer than noise does: not zeros, nor what repeats itself a little differently.
#[test]
fn what_repeats_itself_is_packed_in_time() {
    let repeated = |every: usize| -> Vec<u8> {
        (0..4 << 20).map(|at: usize| if at.is_multiple_of(every) { at as u8 } else { 0 }).collect()
    };
    for (old, new) in [(4000, 4005), (1 << 20, 4096), (24, 24), (4096, 1 << 20)] {
        let (old, new) = (repeated(old), repeated(new));
        let began = std::time::Instant::now();
        let packed = pack(&old, &new).unwrap();
        assert_eq!(unpack(&old, &packed, new.len()).unwrap(), new);
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "{:?}", began.elapsed());
    }
}

/// A program whose addresses have moved.
fn program(moved: u32) -> Vec<u8> {
    (0..20_000_u32)
        .flat_map(|at| (at.wrapping_mul(2_654_435_761) / 7 + moved).to_le_bytes())
        .collect()
}

#[test]
fn addresses_that_moved_take_next_to_nothing() {
    let (old, new) = (program(0), program(4096));
    let packed = pack(&old, &new).unwrap();
    assert!(packed.len() < new.len() / 8, "{} bytes", packed.len());
    assert_eq!(unpack(&old, &packed, new.len()).unwrap(), new);
}

/// What is once written can be read, and a part in steps gives what it gave.
#[test]
fn the_bytes_stay_what_they_are() {
    let check = |name: &str, part: Part| {
        let golden = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        let encoded = part.encode();
        if std::env::var_os("COLLECTIVE_BLESS").is_some() && !std::path::Path::new(&golden).exists()
        {
            std::fs::write(&golden, &encoded).unwrap();
        }
        let golden = std::fs::read(&golden).unwrap();
        let read = Part::decode(&golden).unwrap();
        assert_eq!(read.encode(), golden);
        read
    };
    assert_eq!(check("part.bin", part()), part());
    let (old, new) = (program(0), program(4096)[..65_536].to_vec());
    let group = Group {
        old: vec![Run { source: 0, first: 1, count: 20 }],
        new: vec![Run { source: 0, first: 9, count: 16 }],
        old_opened: Vec::new(),
        new_opened: Vec::new(),
        packed: pack(&old, &new).unwrap(),
    };
    let made = Part { steps: true, groups: vec![group], ..part() };
    let read = check("steps.bin", made);
    // A compressor may come to pack it in other bytes; these have to give the same for ever.
    assert_eq!(read.unpack(&read.groups[0], &old, new.len()).unwrap(), new);
}

/// What a compressor can do something with.
fn words(seed: u64) -> Vec<u8> {
    let of = |byte: u8| format!("word-{} of many\n", u32::from(byte) * 77);
    bytes(seed, 20_000).into_iter().flat_map(|byte| of(byte).into_bytes()).collect()
}

/// As a kernel has it, behind a program: blocks of 8 MiB, of which there is one and a short one here.
fn lz4_kernel(plain: &[u8]) -> Vec<u8> {
    let mut all = bytes(7, 5000);
    all.extend([0x02, 0x21, 0x4c, 0x18]);
    for part in plain.chunks(100_000) {
        let level = lz4::block::CompressionMode::HIGHCOMPRESSION(9);
        let block = lz4::block::compress(part, Some(level), false).unwrap();
        all.extend((block.len() as u32).to_le_bytes());
        all.extend(block);
    }
    all.extend(bytes(8, 300));
    all
}

#[test]
fn what_is_compressed_is_compared_as_what_it_was() {
    let check = |form: fn(&[u8]) -> Vec<u8>, streams: usize| {
        let before = words(1);
        let mut after = before.clone();
        after.splice(500..500, *b"a few more words");
        let (mut old, mut new) = (form(&before), form(&after));
        let (old_opened, new_opened) = (delta::find(&old), delta::find(&new));
        assert_eq!((old_opened.len(), new_opened.len()), (streams, streams), "{}", before.len());
        for bytes in [&mut old, &mut new] {
            bytes.resize(bytes.len().next_multiple_of(4096), 0);
        }
        let without = pack(&old, &new).unwrap().len();
        let plain = |bytes, opened: &[_]| delta::open(bytes, opened).unwrap();
        let packed = pack(&plain(&old, &old_opened), &plain(&new, &new_opened)).unwrap();
        assert!(packed.len() * 2 < without, "{} of {without}", packed.len());
        let group = Group { old: Vec::new(), new: Vec::new(), old_opened, new_opened, packed };
        let made = Part { steps: true, groups: vec![group], ..part() };
        let read = Part::decode(&made.encode()).unwrap();
        assert_eq!(read, made);
        let group = &read.groups[0];
        assert_eq!(read.unpack(group, &old, new.len()).unwrap(), new);
        assert!(read.unpack(group, &old[4096..], new.len()).is_err());
        assert!(read.unpack(group, &old, new.len() - 4096).is_err());
        let mut large = group.clone();
        large.old_opened[0].plain = u32::MAX;
        assert!(read.unpack(&large, &old, new.len()).is_err());
        let mut large = group.clone();
        large.new_opened[0].plain = u32::MAX;
        assert!(read.unpack(&large, &old, new.len()).is_err());
        made
    };
    let made = check(lz4_kernel, 4).encode();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/opened.bin");
    if std::env::var_os("COLLECTIVE_BLESS").is_some() && !std::path::Path::new(golden).exists() {
        std::fs::write(golden, made).unwrap();
    }
    let golden = std::fs::read(golden).unwrap();
    assert_eq!(Part::decode(&golden).unwrap().encode(), golden);
    assert!(delta::find(&bytes(9, 1 << 20)).is_empty());
}

fn layout() -> Layout {
    let stretch = |what, count| Stretch { what, count };
    Layout {
        from: [1; 32],
        to: [2; 32],
        records: vec![b"a record".to_vec(), Vec::new()],
        disks: vec![
            DiskLayout {
                source: 0,
                stretches: vec![
                    stretch(What::Old { source: 0, first: 9 }, 3),
                    stretch(What::New, 2),
                    stretch(What::Hole, 1 << 20),
                    stretch(What::Old { source: 1, first: 2 }, 1),
                    stretch(What::Again { source: 0, first: 3 }, 2),
                ],
            },
            DiskLayout { source: 3, stretches: Vec::new() },
        ],
    }
}

#[test]
fn a_layout_is_read_as_it_was_written() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/layout.bin");
    if std::env::var_os("COLLECTIVE_BLESS").is_some() && !std::path::Path::new(golden).exists() {
        std::fs::write(golden, layout().encode().unwrap()).unwrap();
    }
    assert_eq!(Layout::decode(&std::fs::read(golden).unwrap()), Ok(layout()));
    let encoded = layout().encode().unwrap();
    assert_eq!(Layout::decode(&encoded), Ok(layout()));
    for cut in 0..encoded.len() {
        assert!(Layout::decode(&encoded[..cut]).is_err(), "{cut}");
    }
    let mut newer = encoded.clone();
    newer[32] = 1;
    let refused = Layout::decode(&newer).unwrap_err();
    assert!(refused.to_string().contains("newer Collective"), "{refused}");
    // What says that it unpacks to more than there may be is not unpacked.
    let mut large = encoded[..104].to_vec();
    large.extend([0xff, 0xff, 0xff, 0x7f]);
    large.extend(&encoded[105..]);
    assert!(matches!(Layout::decode(&large), Err(DeltaError::Malformed(_))));
}

/// What nobody would read is not written.
#[test]
fn a_layout_that_is_too_long_is_refused_where_it_is_written() {
    let what = |at: u64| match at % 2 {
        0 => What::New,
        _ => What::Old { source: 0, first: at * at % 1_000_003 },
    };
    let with = |count: u64| {
        let stretches = (0..count).map(|at| Stretch { what: what(at), count: 1 }).collect();
        Layout { disks: vec![DiskLayout { source: 0, stretches }], ..layout() }
    };
    let most = with(1 << 20);
    assert_eq!(Layout::decode(&most.encode().unwrap()), Ok(most));
    let too_large = |layout: Layout| matches!(layout.encode(), Err(DeltaError::TooLarge { .. }));
    assert!(too_large(with((1 << 20) + 1)));
    assert!(too_large(Layout { records: vec![Vec::new(); 17], ..layout() }));
    assert!(too_large(Layout { records: vec![vec![0; (1 << 20) + 1]], ..layout() }));
    // Nor what no compressor makes short enough.
    let records = (1..=6).map(|seed| bytes(seed, 1 << 20)).collect();
    assert!(too_large(Layout { records, ..layout() }));
}

proptest! {
    #[test]
    fn whatever_changed_comes_out(
        seed in 1_u64..1000,
        cuts in proptest::collection::vec((0_usize..9000, 0_usize..2000, 0_usize..300), 0..8),
    ) {
        let old = bytes(seed, 9000);
        let mut new = old.clone();
        for (at, remove, put) in cuts {
            let at = at.min(new.len());
            let end = (at + remove).min(new.len());
            new.splice(at..end, bytes(seed + put as u64, put));
        }
        let packed = pack(&old, &new).unwrap();
        prop_assert_eq!(unpack(&old, &packed, new.len()).unwrap(), new);
    }

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
