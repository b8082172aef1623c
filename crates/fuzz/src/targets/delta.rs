//! Parts of deltas, and what unpacks from them.

use ::delta::{Layout, NEW_BYTES_MAX, Part};

use crate::golden;

pub fn delta(bytes: &[u8]) {
    if let Ok(layout) = Layout::decode(bytes) {
        let again = layout.encode().map(|bytes| Layout::decode(&bytes));
        assert_eq!(again, Ok(Ok(layout)));
    }
    let Ok(part) = Part::decode(bytes) else { return };
    // Whoever reads a part can write it again.
    assert_eq!(Part::decode(&part.encode()), Ok(part.clone()));
    for group in &part.groups {
        let pages: u64 = group.new.iter().map(|run| u64::from(run.count)).sum();
        let wanted = usize::try_from(pages * 4096).unwrap_or(usize::MAX);
        if let Ok(new) = part.unpack(group, &[7; 4096], wanted) {
            assert!(new.len() == wanted && wanted <= NEW_BYTES_MAX);
        }
    }
}

pub fn deltas() -> Vec<Vec<u8>> {
    vec![
        golden("delta/tests/golden/part.bin"),
        golden("delta/tests/golden/steps.bin"),
        golden("delta/tests/golden/opened.bin"),
        golden("delta/tests/golden/layout.bin"),
    ]
}
