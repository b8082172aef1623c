//! Mutations of examples, the same for the same seed.

/// Numbers at which bounds lie.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    1 << 52,
    i64::MAX as u64,
    u64::MAX,
];
/// Inputs never grow beyond this.
const BYTES_MAX: usize = 64 << 10;

/// Makes new inputs of old ones.
pub struct Mutations {
    state: u64,
}

impl Mutations {
    /// From a seed; each has its own sequence.
    pub fn new(seed: u64) -> Self {
        Self { state: seed ^ 0x9e37_79b9_7f4a_7c15 }
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// One of the examples, changed in one to eight places.
    pub fn of(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = match self.below(seeds.len() + 1) {
            // Now and then something that begins as nothing known.
            0 => Vec::new(),
            at => seeds[at - 1].clone(),
        };
        bytes.truncate(BYTES_MAX);
        for _ in 0..1 << self.below(4) {
            self.change(&mut bytes, seeds);
        }
        bytes.truncate(BYTES_MAX);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        // Half of all changes are near the beginning, where headers are.
        let reach = if self.next() & 1 == 0 { bytes.len().min(64) } else { bytes.len() };
        let at = self.below(reach + 1);
        match self.below(9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = self.next() as u8,
            2 => self.number(bytes, at),
            3 => {
                let count = 1 + self.below(16);
                let filler = if self.next() & 1 == 0 { 0 } else { self.next() as u8 };
                bytes.splice(at..at, std::iter::repeat_n(filler, count));
            }
            4 => {
                let end = (at + 1 + self.below(32)).min(bytes.len());
                bytes.drain(at..end);
            }
            5 => bytes.truncate(at),
            6 if !bytes.is_empty() => {
                // A part once more, elsewhere.
                let start = self.below(bytes.len());
                let end = (start + 1 + self.below(64)).min(bytes.len());
                let part = bytes[start..end].to_vec();
                bytes.splice(at..at, part);
            }
            7 if !seeds.is_empty() => {
                // A part of another example.
                let other = &seeds[self.below(seeds.len())];
                let start = self.below(other.len() + 1);
                let end = (start + 1 + self.below(64)).min(other.len());
                let part = other[start.min(end)..end].to_vec();
                let over = if self.next() & 1 == 0 { part.len() } else { 0 };
                let until = (at + over).min(bytes.len());
                bytes.splice(at..until, part);
            }
            _ => bytes.insert(at, self.next() as u8),
        }
    }

    /// Overwrites a number of 1 to 8 bytes, in either order, with one at a bound or near it.
    fn number(&mut self, bytes: &mut [u8], at: usize) {
        let width = 1 << self.below(4);
        let edge = EDGES[self.below(EDGES.len())];
        let number = edge.wrapping_add(self.next() % 3).wrapping_sub(1);
        let mut encoded = number.to_le_bytes()[..width].to_vec();
        if self.next() & 1 == 0 {
            encoded.reverse();
        }
        for (place, byte) in bytes.iter_mut().skip(at).zip(encoded) {
            *place = byte;
        }
    }
}
