//! What is compressed in a file, as items of a delta: each stream with those of the old file around the same place.

use std::ops::Range;

use delta::{NEW_BYTES_MAX, OLD_BYTES_MAX, Opening, PLAIN_BYTES_MAX};

use super::make::Item;
use super::{PAGE, Spot};

/// A file with what is compressed in it.
pub struct Side {
    /// Where its pages lie; none: a hole.
    spots: Vec<Option<Spot>>,
    streams: Vec<Stream>,
}

struct Stream {
    /// Where in the file it lies, bytes.
    bytes: Range<usize>,
    opening: Opening,
}

impl Side {
    /// None: nothing is compressed in it that is known here.
    pub fn new(bytes: Option<Vec<u8>>, spots: Vec<Option<Spot>>) -> Option<Self> {
        let (mut streams, mut at) = (Vec::new(), 0);
        for opening in delta::find(&bytes?) {
            let begin = at + opening.skip as usize;
            at = begin + opening.packed as usize;
            streams.push(Stream { bytes: begin..at, opening });
        }
        (!streams.is_empty()).then_some(Self { spots, streams })
    }

    /// The pages of some streams, and how they are opened in these. None: not all of them have a place, or they
    /// are too many.
    fn part(
        &self,
        range: Range<usize>,
        most: usize,
    ) -> Option<(Range<usize>, Vec<Spot>, Vec<Opening>)> {
        let streams = self.streams.get(range)?;
        let (first, last) = (streams.first()?, streams.last()?);
        let pages = first.bytes.start / PAGE..last.bytes.end.div_ceil(PAGE);
        let spots: Option<Vec<Spot>> = self.spots.get(pages.clone())?.iter().copied().collect();
        let (mut at, mut plain) = (pages.start * PAGE, pages.len() * PAGE);
        let mut openings = Vec::new();
        for Stream { bytes, opening } in streams {
            plain = (plain + opening.plain as usize).checked_sub(bytes.len())?;
            openings.push(Opening { skip: (bytes.start - at) as u32, ..*opening });
            at = bytes.end;
        }
        let fits = pages.len() * PAGE <= most && plain <= PLAIN_BYTES_MAX;
        fits.then_some((pages, spots?, openings))
    }
}

/// An item for each stream of `new`, with the pages of the file that it says.
pub fn items(new: &Side, old: Option<&Side>) -> Vec<(Range<usize>, Item)> {
    let item = |at: usize| {
        let (pages, spots, new_opened) = new.part(at..at + 1, NEW_BYTES_MAX)?;
        // Blocks of a kernel move a little: those beside it help too, where there is room for them.
        let around = old.and_then(|old| {
            let last = old.streams.len().min(at + 2);
            let some = [at.saturating_sub(1)..last, at..last, at..last.min(at + 1)];
            some.into_iter().find_map(|range| old.part(range, OLD_BYTES_MAX))
        });
        let (_, old, old_opened) = around.unwrap_or_default();
        let item = Item { new: spots, old, new_opened, old_opened, ..Item::default() };
        Some((pages, item))
    };
    (0..new.streams.len()).filter_map(item).collect()
}
