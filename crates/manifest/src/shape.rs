//! The arithmetic of the tree: what a size means for its depth, and a position for its node.

use model::PAGE_BYTES;

use crate::ManifestError;

/// Children of a node.
pub const FAN_OUT: usize = 128;
/// The most levels a tree can have.
pub const DEPTH_MAX: u8 = 7;
/// The largest volume, bytes (64 PiB): bounds depth, recursion and arithmetic.
pub const SIZE_BYTES_MAX: u64 = 1 << 56;

const FAN_OUT_BITS: u32 = FAN_OUT.trailing_zeros();

/// Pages in a volume of this size, when there can be one.
pub(crate) fn pages_of(size_bytes: u64) -> Result<u64, ManifestError> {
    let page_bytes = PAGE_BYTES as u64;
    if size_bytes > SIZE_BYTES_MAX || !size_bytes.is_multiple_of(page_bytes) {
        return Err(ManifestError::Size { size_bytes });
    }
    Ok(size_bytes / page_bytes)
}

/// Levels of the tree over this many pages: the fewest that cover them, at least one.
pub(crate) fn depth_of(pages: u64) -> u8 {
    (0..DEPTH_MAX).find(|level| span(*level) >= pages).unwrap_or(DEPTH_MAX - 1) + 1
}

/// Pages under one node of this level.
pub(crate) fn span(level: u8) -> u64 {
    child_span(level) << FAN_OUT_BITS
}

/// Pages under one child of a node of this level; 1 for a leaf.
pub(crate) fn child_span(level: u8) -> u64 {
    1 << (u32::from(level) * FAN_OUT_BITS)
}

/// How many children a node may have that starts at page `start` in a volume of `pages`.
pub(crate) fn children_allowed(level: u8, start: u64, pages: u64) -> usize {
    pages.saturating_sub(start).div_ceil(child_span(level)).min(FAN_OUT as u64) as usize
}

/// The child under which `page` lies, in the node of this level that covers it.
pub(crate) fn slot_of(level: u8, page: u64) -> usize {
    (page / child_span(level)) as usize % FAN_OUT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_grows_with_the_size() {
        for (pages, depth) in [
            (0, 1),
            (1, 1),
            (128, 1),
            (129, 2),
            (1 << 14, 2),
            ((1 << 14) + 1, 3),
            (1 << 34, 5),
            (SIZE_BYTES_MAX / 4096, 7),
        ] {
            assert_eq!(depth_of(pages), depth, "{pages}");
        }
    }

    #[test]
    fn only_whole_pages_up_to_the_bound() {
        assert_eq!(pages_of(SIZE_BYTES_MAX), Ok(1 << 44));
        for size_bytes in [1, 4095, 4097, SIZE_BYTES_MAX + 4096, u64::MAX] {
            assert_eq!(pages_of(size_bytes), Err(ManifestError::Size { size_bytes }));
        }
    }

    #[test]
    fn children_end_with_the_volume() {
        assert_eq!(children_allowed(0, 0, 5), 5);
        assert_eq!(children_allowed(0, 128, 5), 0);
        assert_eq!(children_allowed(1, 0, 129), 2);
        assert_eq!(children_allowed(1, 0, 1 << 20), 128);
        assert_eq!((slot_of(0, 130), slot_of(1, 130)), (2, 1));
    }
}
