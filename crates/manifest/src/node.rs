//! Nodes: the bytes of one, and what they must be.
//!
//! ```text
//! 0   4   magic "cltn"
//! 4   1   level, 0 for a leaf
//! 5   3   reserved, zero
//! 8   16  presence bitmap, bit i = child i, at least one bit set
//! 24  ..  32 bytes for each bit that is set, ascending: ids of pages (leaf) or nodes
//! ```
//!
//! A node is never 4096 bytes long, so no page of a guest can pass for one.

use chunk::{Verified, zero_page_id};
use model::ChunkId;

use crate::shape::{DEPTH_MAX, FAN_OUT};

/// The largest node, bytes.
pub const NODE_BYTES_MAX: usize = HEAD_BYTES + FAN_OUT * ChunkId::BYTES;

const MAGIC: [u8; 4] = *b"cltn";
const HEAD_BYTES: usize = 24;

/// A node that follows the format; whether it belongs where it was found depends on the place.
#[derive(Debug)]
pub(crate) struct Node {
    level: u8,
    present: u128,
    chunk: Verified,
}

impl Node {
    /// Reads a node; says what is wrong if it is none.
    pub(crate) fn decode(chunk: Verified) -> Result<Self, &'static str> {
        let (head, ids) =
            chunk.split_first_chunk::<HEAD_BYTES>().ok_or("too short to be a node")?;
        if head[..4] != MAGIC {
            return Err("not a node");
        }
        let level = head[4];
        if level >= DEPTH_MAX || head[5..8] != [0; 3] {
            return Err("an impossible level, or a reserved byte is set");
        }
        let present = u128::from_le_bytes(std::array::from_fn(|i| head[8 + i]));
        if present == 0 {
            return Err("a node without children should be absent");
        }
        if ids.len() != present.count_ones() as usize * ChunkId::BYTES {
            return Err("its length does not fit its bitmap");
        }
        if level == 0 && ids.chunks_exact(ChunkId::BYTES).any(|id| id == zero_page_id().as_bytes())
        {
            return Err("a page of zeros should be a hole");
        }
        Ok(Self { level, present, chunk })
    }

    /// The level it says it has.
    pub(crate) fn level(&self) -> u8 {
        self.level
    }

    /// One more than the last child's number.
    pub(crate) fn children_end(&self) -> usize {
        128 - self.present.leading_zeros() as usize
    }

    /// The child in a slot, if it exists.
    pub(crate) fn child(&self, slot: usize) -> Option<ChunkId> {
        let bit = 1_u128.checked_shl(slot as u32)?;
        if self.present & bit == 0 {
            return None;
        }
        let rank = (self.present & (bit - 1)).count_ones() as usize;
        let at = HEAD_BYTES + rank * ChunkId::BYTES;
        self.chunk[at..].first_chunk().copied().map(ChunkId::from_bytes)
    }
}

/// The children of a node that is being made.
#[derive(Clone)]
pub(crate) struct Children(pub(crate) Box<[Option<ChunkId>; FAN_OUT]>);

impl Children {
    pub(crate) fn none() -> Self {
        Self(Box::new([None; FAN_OUT]))
    }

    pub(crate) fn of(node: &Node) -> Self {
        Self(Box::new(std::array::from_fn(|slot| node.child(slot))))
    }

    /// The node's bytes; nothing when it has no children.
    pub(crate) fn encode(&self, level: u8) -> Option<Vec<u8>> {
        let present =
            |(slot, child): (usize, &Option<ChunkId>)| u128::from(child.is_some()) << slot;
        let bitmap = self.0.iter().enumerate().map(present).fold(0, |all, bit| all | bit);
        if bitmap == 0 {
            return None;
        }
        let ids = bitmap.count_ones() as usize * ChunkId::BYTES;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + ids);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[level, 0, 0, 0]);
        bytes.extend_from_slice(&bitmap.to_le_bytes());
        for id in self.0.iter().flatten() {
            bytes.extend_from_slice(id.as_bytes());
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u8) -> ChunkId {
        ChunkId::from_bytes([n; 32])
    }

    fn node(level: u8, children: &[(usize, u8)]) -> Vec<u8> {
        let mut all = Children::none();
        children.iter().for_each(|(slot, n)| all.0[*slot] = Some(id(*n)));
        all.encode(level).unwrap()
    }

    fn check(bytes: Vec<u8>, expected: &str) {
        let found = Node::decode(Verified::of(bytes));
        assert_eq!(found.map(|_| "ok").unwrap_or_else(|detail| detail), expected);
    }

    #[test]
    fn children_are_found_where_they_were_put() {
        let bytes = node(1, &[(0, 1), (5, 2), (127, 3)]);
        assert_eq!(bytes.len(), 24 + 3 * 32);
        let node = Node::decode(Verified::of(bytes)).unwrap();
        assert_eq!((node.level(), node.children_end()), (1, 128));
        assert_eq!(
            (node.child(0), node.child(5), node.child(127)),
            (Some(id(1)), Some(id(2)), Some(id(3)))
        );
        assert_eq!((node.child(1), node.child(126), node.child(128)), (None, None, None));
        assert_eq!(Children::of(&node).encode(1).unwrap(), **node.chunk.bytes());
    }

    #[test]
    fn no_node_has_the_size_of_a_page() {
        let sizes = (1..=FAN_OUT).map(|count| HEAD_BYTES + count * 32);
        assert!(sizes.into_iter().all(|bytes| bytes != model::PAGE_BYTES));
    }

    #[test]
    fn whatever_is_not_canonical_is_refused() {
        let good = node(0, &[(3, 1)]);
        check(good.clone(), "ok");
        check(good[..23].to_vec(), "too short to be a node");
        check(good[..good.len() - 1].to_vec(), "its length does not fit its bitmap");
        check([good.clone(), vec![0]].concat(), "its length does not fit its bitmap");
        let with = |at: usize, value| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        check(with(0, 0), "not a node");
        check(with(4, DEPTH_MAX), "an impossible level, or a reserved byte is set");
        check(with(6, 1), "an impossible level, or a reserved byte is set");
        check(with(9, 1), "its length does not fit its bitmap");
        check(with(8, 0)[..24].to_vec(), "a node without children should be absent");
        let mut zero = good[..24].to_vec();
        zero.extend_from_slice(zero_page_id().as_bytes());
        check(zero, "a page of zeros should be a hole");
    }
}
