//! Which chunks to ask for in one request. Pure.
//!
//! A trace wants pages in the order in which a guest touches them; a repository keeps them in the
//! order in which they were written. So chunks that are wanted soon are looked at together, and
//! those that lie near one another make one request; requests go in the order of the first chunk
//! in each.

use chunk::{ChunkId, Place};

/// What lies between two wanted frames comes along, up to this many bytes: on a line of 10 Mbit/s
/// and 20 ms, about what the round trip of another request would cost.
const GAP_BYTES: u64 = 32 << 10;
/// Bytes of one request, at most.
const SPAN_BYTES_MAX: u64 = 4 << 20;

/// Groups chunks, given in the order in which they are wanted with where they lie, into requests
/// for up to `chunks_max` of them. Each chunk is in one group once.
pub fn group(wanted: &[(ChunkId, Option<Place>)], chunks_max: usize) -> Vec<Vec<ChunkId>> {
    let mut placed: Vec<(Place, usize)> =
        wanted.iter().enumerate().filter_map(|(at, (_, place))| Some(((*place)?, at))).collect();
    placed.sort_unstable();
    // The place of each group's first chunk among the wanted ones, and its members.
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut span: Option<(Place, u64)> = None;
    for (place, at) in placed {
        let end = place.offset.saturating_add(u64::from(place.bytes));
        let fits = span.zip(groups.last()).is_some_and(|((first, last_end), (_, members))| {
            let same_frame = place.offset < last_end;
            let near = place.offset <= last_end.saturating_add(GAP_BYTES)
                && end.saturating_sub(first.offset) <= SPAN_BYTES_MAX
                && members.len() < chunks_max;
            first.object == place.object && (same_frame || near)
        });
        match groups.last_mut() {
            Some((first, members)) if fits => {
                *first = at.min(*first);
                members.push(at);
                span = span.map(|(first, last_end)| (first, last_end.max(end)));
            }
            _ => {
                groups.push((at, vec![at]));
                span = Some((place, end));
            }
        }
    }
    // What nobody knows the place of is asked for alone.
    let unplaced = wanted.iter().enumerate().filter(|(_, (_, place))| place.is_none());
    groups.extend(unplaced.map(|(at, _)| (at, vec![at])));
    groups.sort_unstable();
    let mut seen = std::collections::HashSet::new();
    groups
        .into_iter()
        .map(|(_, members)| {
            let ids = members.into_iter().map(|at| wanted[at].0);
            ids.filter(|id| seen.insert(*id)).collect::<Vec<_>>()
        })
        .filter(|ids| !ids.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Object, offset and length (KiB).
    type At = (u64, u64, u32);

    /// Chunks by number with where they lie; groups as numbers.
    fn check(wanted: &[(u8, Option<At>)], chunks_max: usize, expected: &[&[u8]]) {
        let id = |n: u8| chunk::id_of(&[n]);
        let wanted: Vec<_> = wanted
            .iter()
            .map(|(n, place)| {
                let place = place.map(|(object, offset, bytes)| Place {
                    object,
                    offset: offset << 10,
                    bytes: bytes << 10,
                });
                (id(*n), place)
            })
            .collect();
        let expected: Vec<Vec<ChunkId>> =
            expected.iter().map(|ids| ids.iter().map(|n| id(*n)).collect()).collect();
        assert_eq!(group(&wanted, chunks_max), expected);
    }

    #[test]
    fn what_lies_near_is_one_request_and_requests_go_by_their_first_chunk() {
        // Two frames side by side, one at the other end, one in another object.
        let wanted = [
            (1, Some((7, 900, 40))),
            (2, Some((7, 40, 40))),
            (3, Some((8, 41, 40))),
            (4, Some((7, 0, 40))),
            (5, Some((7, 40, 40))),
        ];
        check(&wanted, 100, &[&[1], &[4, 2, 5], &[3]]);
        // A gap that is small comes along, a larger one does not.
        check(&[(1, Some((7, 0, 8))), (2, Some((7, 40, 8)))], 100, &[&[1, 2]]);
        check(&[(1, Some((7, 0, 8))), (2, Some((7, 41, 8)))], 100, &[&[1], &[2]]);
    }

    #[test]
    fn a_request_is_bounded_but_a_frame_is_not_cut() {
        let wanted: Vec<_> = (0..6).map(|n| (n, Some((7, u64::from(n / 2) * 8, 8)))).collect();
        check(&wanted, 3, &[&[0, 1, 2, 3], &[4, 5]]);
        check(&wanted, 1, &[&[0, 1], &[2, 3], &[4, 5]]);
        let wanted: Vec<_> = (0..3).map(|n| (n, Some((7, u64::from(n) * 3072, 3072)))).collect();
        check(&wanted, 100, &[&[0], &[1], &[2]]);
    }

    #[test]
    fn each_chunk_is_asked_for_once_and_without_a_place_alone() {
        check(
            &[(1, None), (2, Some((7, 0, 8))), (1, None), (3, None), (2, Some((7, 0, 8)))],
            100,
            &[&[1], &[2], &[3]],
        );
        check(&[], 100, &[]);
    }
}
