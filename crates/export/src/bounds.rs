//! Every number the kernel sends is checked here, against the fixed size of the file.

use crate::PAGE;

/// Bytes to answer a read with: short at the end of the file, none beyond it.
pub(crate) fn read_len(offset: u64, len: u32, size: u64) -> usize {
    u64::from(len).min(size.saturating_sub(offset)) as usize
}

/// Whether a write, a discard or a preallocation lies within the file.
pub(crate) fn inside(offset: u64, len: u64, size: u64) -> bool {
    offset.checked_add(len).is_some_and(|end| end <= size)
}

/// A range cut into whole pages and what sticks out at both ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Start and length of the part before the first whole page.
    pub head: (u64, u64),
    /// Start and length of the whole pages (the last may be cut by the end of the file).
    pub pages: (u64, u64),
    /// Start and length of the part after the last whole page.
    pub tail: (u64, u64),
}

/// Cuts a range that lies within a file of `size` bytes.
pub(crate) fn cut(offset: u64, len: u64, size: u64) -> Cut {
    let end = offset + len;
    let first = offset.checked_next_multiple_of(PAGE).map_or(end, |first| first.min(end));
    let last = if end == size { end } else { (end / PAGE * PAGE).max(first) };
    Cut { head: (offset, first - offset), pages: (first, last - first), tail: (last, end - last) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_are_short_at_the_end() {
        assert_eq!(read_len(0, 4096, 10_000), 4096);
        assert_eq!(read_len(8192, 4096, 10_000), 1808);
        assert_eq!(read_len(10_000, 4096, 10_000), 0);
        assert_eq!(read_len(u64::MAX, u32::MAX, 10_000), 0);
        assert_eq!(read_len(0, u32::MAX, u64::MAX), u32::MAX as usize);
    }

    #[test]
    fn ranges_that_overflow_or_reach_over_the_end_are_outside() {
        assert!(inside(0, 10_000, 10_000));
        assert!(inside(10_000, 0, 10_000));
        assert!(!inside(10_000, 1, 10_000));
        assert!(!inside(u64::MAX, 2, 10_000));
        assert!(!inside(1, u64::MAX, u64::MAX));
    }

    #[test]
    fn cuts_add_up() {
        let size = 40_000;
        for offset in [0, 1, 4095, 4096, 4097, 8192, 36_863, 36_864, 39_999, 40_000] {
            for end in [offset, offset + 1, 4096, 8192, 8193, 36_864, 39_999, 40_000] {
                if end < offset || end > size {
                    continue;
                }
                let cut = cut(offset, end - offset, size);
                assert_eq!(cut.head.0, offset);
                assert_eq!(cut.head.0 + cut.head.1, cut.pages.0);
                assert_eq!(cut.pages.0 + cut.pages.1, cut.tail.0);
                assert_eq!(cut.tail.0 + cut.tail.1, end);
                if cut.pages.1 > 0 {
                    assert_eq!(cut.pages.0 % PAGE, 0);
                    let pages_end = cut.pages.0 + cut.pages.1;
                    assert!(pages_end.is_multiple_of(PAGE) || pages_end == size);
                }
                assert!(cut.head.1 < PAGE && cut.tail.1 < PAGE);
            }
        }
    }
}
