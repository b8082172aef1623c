//! How much to ask for at a time in the background: much where it comes quickly, little where a
//! guest's own request would have to share a slow line with it.

use ambient::Duration;

/// A frame's worth.
const PAGES_MIN: usize = 32;
/// 4 MiB.
const PAGES_MAX: usize = 1024;
/// Took less: ask for twice as much.
const SHORT: Duration = Duration::from_millis(50);
/// Took more: ask for half as much.
const LONG: Duration = Duration::from_millis(200);
/// Took more, and was no more than a frame: it is the line that is slow, and not the way far.
const VERY_LONG: Duration = Duration::from_secs(1);

/// A number of pages that takes about a tenth of a second.
#[derive(Debug, Clone, Copy)]
pub struct Stride(usize, bool);

impl Default for Stride {
    fn default() -> Self {
        Self(PAGES_MIN * 2, false)
    }
}

impl Stride {
    /// Pages to ask for next.
    pub fn pages(self) -> usize {
        self.0
    }

    /// Whether the line is so slow that who waits for a page should have it alone.
    pub fn is_crawling(self) -> bool {
        self.1
    }

    /// How long the last ones took.
    pub fn took(&mut self, time: Duration) {
        self.1 = self.0 == PAGES_MIN && time > VERY_LONG;
        if time < SHORT {
            self.0 = (self.0 * 2).min(PAGES_MAX);
        } else if time > LONG {
            self.0 = (self.0 / 2).max(PAGES_MIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_line_within_bounds() {
        let mut stride = Stride::default();
        (0..100).for_each(|_| stride.took(Duration::from_millis(1)));
        assert_eq!(stride.pages(), PAGES_MAX);
        stride.took(Duration::from_millis(100));
        assert_eq!(stride.pages(), PAGES_MAX, "just right");
        (0..100).for_each(|_| stride.took(Duration::from_secs(3)));
        assert_eq!(stride.pages(), PAGES_MIN);
        assert!(stride.is_crawling());
        stride.took(Duration::from_millis(900));
        assert!(!stride.is_crawling(), "a way that is far is not a slow line");
    }
}
