//! Finding what new bytes resemble in old ones: as `bsdiff` does, an exact match is stretched both ways over
//! bytes that differ here and there. In programs, most of what differs between two versions are addresses.
//!
//! Whoever packs may take its time and memory (eight bytes for each old one); whoever unpacks sees steps alone.

/// Bytes that an exact match has at least.
const SEED: usize = 8;
/// Earlier places of the same seed that are looked at, at most.
const TRIES: usize = 96;
/// A match this long is not searched for a longer one; nor one this long where the old bytes go on anyway, as
/// what repeats itself would be compared with itself for ever.
const ENOUGH: usize = 4096;
const ENOUGH_HERE: usize = 64;
/// By so many bytes another place has to match better to be gone to.
const BETTER: usize = 8;
const HASH_BITS: u32 = 22;
const NONE: u32 = u32::MAX;

/// So many bytes that resemble old ones, then so many that resemble none; and where the old ones go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub alike: usize,
    pub fresh: usize,
    /// From the end of the old bytes of this step to the first of the next one's.
    pub seek: i64,
}

/// Old bytes by what begins where.
struct Places<'a> {
    old: &'a [u8],
    last: Vec<u32>,
    before: Vec<u32>,
}

impl<'a> Places<'a> {
    fn new(old: &'a [u8]) -> Self {
        let mut last = vec![NONE; 1 << HASH_BITS];
        let mut before = vec![NONE; old.len()];
        for (at, seed) in old.windows(SEED).enumerate() {
            let slot = &mut last[hash(seed)];
            before[at] = *slot;
            *slot = at as u32;
        }
        Self { old, last, before }
    }

    /// Where the old bytes match these for the longest, and how long; `here` is tried first.
    fn longest(&self, new: &[u8], here: Option<usize>) -> (usize, usize) {
        let mut best = match here.and_then(|at| Some((at, self.old.get(at..)?))) {
            Some((at, old)) => (at, common(old, new)),
            None => (0, 0),
        };
        let Some(seed) = new.get(..SEED).filter(|_| best.1 < ENOUGH_HERE) else { return best };
        let mut at = self.last[hash(seed)];
        for _ in 0..TRIES {
            if at == NONE || best.1 >= ENOUGH {
                break;
            }
            let place = at as usize;
            // Only one that matches there too can be longer.
            if self.old.get(place + best.1) == new.get(best.1) {
                let length = common(&self.old[place..], new);
                if length > best.1 {
                    best = (place, length);
                }
            }
            at = self.before[place];
        }
        best
    }
}

fn hash(seed: &[u8]) -> usize {
    let word = u64::from_le_bytes(std::array::from_fn(|at| seed[at]));
    (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - HASH_BITS)) as usize
}

fn common(one: &[u8], other: &[u8]) -> usize {
    let words = one.chunks_exact(8).zip(other.chunks_exact(8)).take_while(|(a, b)| a == b).count();
    let rest = one[words * 8..].iter().zip(&other[words * 8..]).take_while(|(a, b)| a == b);
    words * 8 + rest.count()
}

/// The steps that make `new` of `old`.
pub fn steps(old: &[u8], new: &[u8]) -> Vec<Step> {
    let places = Places::new(old);
    let mut steps = Vec::new();
    // The last place that was gone to: of the new bytes, and of the old ones.
    let (mut begun, mut from) = (0, 0);
    let (mut scan, mut length, mut place) = (0, 0, 0);
    // The old byte that a new one at `at` has now.
    let along = |at: usize, begun: usize, from: usize| (from + at).checked_sub(begun);
    let same = |at: usize, begun: usize, from: usize| {
        along(at, begun, from).is_some_and(|old_at| old.get(old_at) == new.get(at))
    };
    while scan < new.len() {
        scan += length;
        let (mut alike, mut counted) = (0, scan);
        while scan < new.len() {
            (place, length) = places.longest(&new[scan..], along(scan, begun, from));
            while counted < scan + length {
                alike += usize::from(same(counted, begun, from));
                counted += 1;
            }
            if (length == alike && length != 0) || length > alike + BETTER {
                break;
            }
            if counted > scan {
                alike -= usize::from(same(scan, begun, from));
            } else {
                counted += 1;
            }
            scan += 1;
        }
        if length == alike && scan < new.len() {
            continue;
        }
        let ahead = stretch((0..scan - begun).map(|by| same(begun + by, begun, from)));
        let mut back = 0;
        if scan < new.len() {
            let most = (scan - begun).min(place);
            back = stretch((1..=most).map(|by| old[place - by] == new[scan - by]));
        }
        let mut ahead = ahead;
        // Where both reach into the same bytes, each gets those that it has more of.
        if let Some(both) = (begun + ahead).checked_sub(scan - back).filter(|both| *both > 0) {
            let first = begun + ahead - both;
            let other = place - back;
            let (mut score, mut best, mut keep) = (0_i64, 0_i64, 0);
            for by in 0..both {
                score += i64::from(same(first + by, begun, from));
                score -= i64::from(old.get(other + by) == new.get(first + by));
                if score > best {
                    (best, keep) = (score, by + 1);
                }
            }
            ahead = ahead - both + keep;
            back -= keep;
        }
        let fresh = scan - back - (begun + ahead);
        let seek = (place as i64 - back as i64) - (from as i64 + ahead as i64);
        let ends = scan >= new.len();
        steps.push(Step { alike: ahead, fresh, seek: if ends { 0 } else { seek } });
        (begun, from) = (scan - back, place - back);
    }
    steps
}

/// How far more than half of them are alike.
fn stretch(alike: impl Iterator<Item = bool>) -> usize {
    let (mut score, mut best, mut far) = (0_i64, 0_i64, 0);
    for (by, alike) in alike.enumerate() {
        score += if alike { 1 } else { -1 };
        if score > best {
            (best, far) = (score, by + 1);
        }
    }
    far
}
