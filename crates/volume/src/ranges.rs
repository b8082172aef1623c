//! A set of pages kept as ranges: what costs nothing per page.

use std::collections::BTreeMap;

/// A set of `u64` as disjoint, non-adjacent ranges `start..end`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RangeSet {
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// Adds `first..first + count`, merging with what it touches.
    pub fn insert(&mut self, first: u64, count: u64) {
        if count == 0 {
            return;
        }
        let (mut start, mut end) = (first, first + count);
        if let Some((&left, &left_end)) = self.ranges.range(..=start).next_back()
            && left_end >= start
        {
            if left_end >= end {
                return;
            }
            start = left;
        }
        while let Some((&right, &right_end)) = self.ranges.range(start..=end).next() {
            self.ranges.remove(&right);
            end = end.max(right_end);
        }
        self.ranges.insert(start, end);
    }

    /// Whether `value` is in the set.
    pub fn contains(&self, value: u64) -> bool {
        self.ranges.range(..=value).next_back().is_some_and(|(_, &end)| end > value)
    }

    /// The parts of `first..first + count` that are in the set, ascending, as `(first, count)`.
    pub fn overlaps(&self, first: u64, count: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        let end = first.saturating_add(count);
        let from = match self.ranges.range(..=first).next_back() {
            Some((&left, &left_end)) if left_end > first => left,
            _ => first,
        };
        self.ranges.range(from..end.max(from)).map(move |(&start, &stop)| {
            let start = start.max(first);
            (start, stop.min(end) - start)
        })
    }

    /// All ranges, ascending, as `(first, count)`.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(&start, &end)| (start, end - start))
    }

    /// Number of ranges.
    pub fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn is_a_set(inserts in prop::collection::vec((0u64..200, 0u64..20), 0..40),
                    window in (0u64..220, 0u64..60)) {
            let mut set = RangeSet::default();
            let mut model = BTreeSet::new();
            for (first, count) in inserts {
                set.insert(first, count);
                model.extend(first..first + count);
            }
            for value in 0..240 {
                prop_assert_eq!(set.contains(value), model.contains(&value));
            }
            let pages: Vec<u64> = set.iter().flat_map(|(f, c)| f..f + c).collect();
            prop_assert_eq!(pages, model.iter().copied().collect::<Vec<_>>());
            let (first, count) = window;
            let inside: Vec<u64> =
                set.overlaps(first, count).flat_map(|(f, c)| f..f + c).collect();
            prop_assert_eq!(inside, model.range(first..first + count).copied().collect::<Vec<_>>());
            let ends: Vec<(u64, u64)> = set.iter().map(|(f, c)| (f, f + c)).collect();
            prop_assert!(ends.windows(2).all(|w| w[0].1 < w[1].0), "merged");
        }
    }
}
