//! Which pages of an instance's volumes a start touches, in order: what the next start wants
//! first.
//!
//! A trace is learned from the starts before. Each one is merged into it: what was touched last
//! comes first, in its order, then what earlier starts touched and this one did not, until
//! [`AGE_MAX`] starts in a row had no use for it.
//!
//! A trace is a hint. What it says may be wrong (it may have been made by anybody who can write
//! to the repository) and then costs some fetches for nothing: pages are fetched by what the
//! volume's own base says they are.
//!
//! The bytes are described in docs/format/trace.md.

mod format;

use std::collections::HashSet;

pub use format::TraceError;

/// Pages that a trace holds at most: 1 GiB of them.
pub const PAGES_MAX: usize = 1 << 18;
/// Volumes of one instance.
pub const VOLUMES_MAX: usize = 64;
/// Runs in a trace.
pub const RUNS_MAX: usize = 1 << 16;
/// Starts that may pass without a page being touched until it is forgotten.
pub const AGE_MAX: u8 = 3;

/// Pages that follow one another, of one volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Which of the trace's volumes.
    pub volume: u8,
    /// How many starts have passed since one touched it, 0 to [`AGE_MAX`].
    pub age: u8,
    /// The first page.
    pub first: u64,
    /// How many, at least 1.
    pub count: u64,
}

/// What starts touched, in order. See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    starts: u32,
    volumes: Vec<String>,
    runs: Vec<Run>,
}

/// Whether a recording went on for as long as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// What it does not have was not touched.
    Whole,
    /// It was cut short: what it does not have might have been touched.
    Part,
}

impl Trace {
    /// A trace of one start: the pages of these volumes, each once, in the order of their first
    /// touch. Volumes are named by their place in `volumes`. What is too much is left out.
    pub fn of(volumes: Vec<String>, touched: impl IntoIterator<Item = (u8, u64)>) -> Self {
        let mut trace = Self { starts: 1, volumes, runs: Vec::new() };
        trace.volumes.truncate(VOLUMES_MAX);
        let mut builder = Builder::new(&mut trace);
        for (volume, page) in touched {
            builder.push(volume, page, 0);
        }
        trace
    }

    /// The volumes' names.
    pub fn volumes(&self) -> &[String] {
        &self.volumes
    }

    /// What to fetch, in order.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// How many starts it was learned from.
    pub fn starts(&self) -> u32 {
        self.starts
    }

    /// Pages in it.
    pub fn pages(&self) -> u64 {
        self.runs.iter().map(|run| run.count).sum()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// This trace with one more start, which was just recorded.
    pub fn merged(&self, new: &Self, recorded: Recorded) -> Self {
        let mut merged = Self {
            starts: self.starts.saturating_add(1),
            volumes: new.volumes.clone(),
            runs: Vec::new(),
        };
        // Volumes are known by their names: what the old one says of others is of no use.
        let places: Vec<Option<u8>> = self
            .volumes
            .iter()
            .map(|name| new.volumes.iter().position(|new| new == name).map(|at| at as u8))
            .collect();
        let mut builder = Builder::new(&mut merged);
        new.each(|volume, _, page| builder.push(volume, page, 0));
        let older = u8::from(recorded == Recorded::Whole);
        self.each(|volume, age, page| {
            let age = age + older;
            if let Some(volume) = places[usize::from(volume)]
                && age <= AGE_MAX
            {
                builder.push(volume, page, age);
            }
        });
        merged
    }

    /// Whether a start that touched `new` shows that this trace is out of date: that it lacks more
    /// than a sixteenth of it, or that more than half of it was of no use.
    pub fn is_stale(&self, new: &Self, recorded: Recorded) -> bool {
        let mut known = HashSet::new();
        self.each(|volume, _, page| {
            known.insert((self.volumes[usize::from(volume)].as_str(), page));
        });
        let (mut of_use, mut lacking) = (0, 0);
        new.each(|volume, _, page| {
            match known.contains(&(new.volumes[usize::from(volume)].as_str(), page)) {
                true => of_use += 1,
                false => lacking += 1,
            }
        });
        let useless = known.len() as u64 - of_use;
        lacking * 16 > new.pages() || (recorded == Recorded::Whole && useless > of_use)
    }

    /// Every page: volume, age, number.
    fn each(&self, mut page: impl FnMut(u8, u8, u64)) {
        for run in &self.runs {
            (run.first..run.first + run.count).for_each(|at| page(run.volume, run.age, at));
        }
    }
}

/// Makes runs of single pages, each page once, within the bounds.
struct Builder<'a> {
    trace: &'a mut Trace,
    seen: HashSet<(u8, u64)>,
}

impl<'a> Builder<'a> {
    fn new(trace: &'a mut Trace) -> Self {
        Self { trace, seen: HashSet::new() }
    }

    fn push(&mut self, volume: u8, page: u64, age: u8) {
        let is_known = usize::from(volume) < self.trace.volumes.len();
        if !is_known || self.seen.len() >= PAGES_MAX || !self.seen.insert((volume, page)) {
            return;
        }
        let runs = &mut self.trace.runs;
        if let Some(run) = runs.last_mut()
            && (run.volume, run.age, run.first + run.count) == (volume, age, page)
        {
            run.count += 1;
        } else if runs.len() < RUNS_MAX {
            runs.push(Run { volume, age, first: page, count: 1 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn trace(volumes: &[&str], touched: &[(u8, u64)]) -> Trace {
        Trace::of(names(volumes), touched.iter().copied())
    }

    /// Runs as `volume:first+count@age`.
    fn show(trace: &Trace) -> String {
        let run = |run: &Run| {
            let volume = &trace.volumes[usize::from(run.volume)];
            format!("{volume}:{}+{}@{}", run.first, run.count, run.age)
        };
        trace.runs.iter().map(run).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn pages_that_follow_one_another_are_one_run_and_each_is_there_once() {
        let touched = [(0, 5), (0, 6), (1, 7), (0, 7), (0, 6), (0, 8), (1, 3), (2, 1)];
        let trace = trace(&["ram", "disk"], &touched);
        assert_eq!(show(&trace), "ram:5+2@0 disk:7+1@0 ram:7+2@0 disk:3+1@0");
        assert_eq!((trace.pages(), trace.starts()), (6, 1), "there is no volume 2");
        assert!(Trace::default().is_empty() && !trace.is_empty());
    }

    #[test]
    fn what_was_touched_last_comes_first_and_what_is_never_touched_again_is_forgotten() {
        let mut known = trace(&["ram", "disk"], &[(0, 1), (1, 9), (0, 2)]);
        // Volumes may stand in another order, and be others.
        let next = trace(&["disk", "new", "ram"], &[(1, 4), (2, 2)]);
        known = known.merged(&next, Recorded::Whole);
        assert_eq!(show(&known), "new:4+1@0 ram:2+1@0 ram:1+1@1 disk:9+1@1");
        assert_eq!(known.starts(), 2);
        // A start that was cut short proves nothing.
        known = known.merged(&trace(&["disk", "new", "ram"], &[(0, 9)]), Recorded::Part);
        assert_eq!(show(&known), "disk:9+1@0 new:4+1@0 ram:2+1@0 ram:1+1@1");
        let again = trace(&["disk", "new", "ram"], &[(2, 2)]);
        for _ in 0..2 {
            known = known.merged(&again, Recorded::Whole);
        }
        assert_eq!(show(&known), "ram:2+1@0 disk:9+1@2 new:4+1@2 ram:1+1@3");
        known = known.merged(&again, Recorded::Whole).merged(&again, Recorded::Whole);
        assert_eq!(show(&known), "ram:2+1@0");
    }

    #[test]
    fn a_trace_is_stale_when_it_lacks_much_or_is_mostly_of_no_use() {
        let known = Trace::of(names(&["ram"]), (0..160).map(|page| (0, page)));
        let check = |touched: std::ops::Range<u64>, recorded, stale: bool| {
            let new = Trace::of(names(&["ram"]), touched.map(|page| (0, page)));
            assert_eq!(known.is_stale(&new, recorded), stale, "{new:?}");
        };
        check(0..160, Recorded::Whole, false);
        check(0..170, Recorded::Whole, false);
        check(0..171, Recorded::Whole, true);
        check(0..80, Recorded::Whole, false);
        check(0..79, Recorded::Whole, true);
        check(0..79, Recorded::Part, false);
        check(0..0, Recorded::Part, false);
        check(500..501, Recorded::Part, true);
    }

    #[test]
    fn a_trace_is_bounded() {
        let every_other = (0..PAGES_MAX as u64).map(|page| (0, page * 2));
        let trace = Trace::of(names(&["ram"]), every_other);
        assert_eq!(trace.runs().len(), RUNS_MAX);
        let all = (0..PAGES_MAX as u64 + 10).map(|page| (0, page));
        let trace = Trace::of(names(&["ram"]), all);
        assert_eq!((trace.runs().len(), trace.pages()), (1, PAGES_MAX as u64));
        assert_eq!(trace.merged(&trace, Recorded::Whole).pages(), PAGES_MAX as u64);
    }
}
