//! What instances use, added up: pure.
//!
//! ```text
//! host's report (a start's counters, which only grow) ──▶ what is more than was counted of that start
//!                                                      ──▶ whose: project, user, appliance ──▶ sums
//! ```
//!
//! **Invariant:** of each start no more and no less than its counters is added, however often, and in
//! which order, a host says them: what was counted of a start is kept until its host speaks of it no
//! more, and a report is counted only on top of the one before ([`Ledger::number`]).
//! **Invariant:** to whom a start is counted does not change. As long as nobody wishes for its instance
//! it is counted to nobody, and from then on to who does.

use std::collections::BTreeMap;

use api::{MeterReport, RunPrint};
use serde::{Deserialize, Serialize};

/// Starts that one report may speak of.
pub const RUNS_MAX: usize = 1000;
/// No counter is greater: sums of them stay numbers.
const COUNTER_MAX: u64 = 1 << 56;
/// Characters in what a host calls something.
const WORD_CHARS_MAX: usize = 200;

/// What was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    pub running_ms: u64,
    pub cpu_ms: u64,
    pub memory_mib_s: u64,
    pub fetched_bytes: u64,
    pub peer_bytes: u64,
    pub stored_bytes: u64,
}

impl Counters {
    /// What a host says of a start.
    pub fn of(run: &RunPrint) -> Self {
        Self {
            running_ms: run.running_ms,
            cpu_ms: run.cpu_ms,
            memory_mib_s: run.memory_mib_s,
            fetched_bytes: run.fetched_bytes,
            peer_bytes: run.peer_bytes,
            stored_bytes: run.stored_bytes,
        }
    }

    fn each(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            running_ms: with(self.running_ms, other.running_ms),
            cpu_ms: with(self.cpu_ms, other.cpu_ms),
            memory_mib_s: with(self.memory_mib_s, other.memory_mib_s),
            fetched_bytes: with(self.fetched_bytes, other.fetched_bytes),
            peer_bytes: with(self.peer_bytes, other.peer_bytes),
            stored_bytes: with(self.stored_bytes, other.stored_bytes),
        }
    }

    pub fn and(self, other: Self) -> Self {
        self.each(other, u64::saturating_add)
    }

    /// What is more than it was.
    pub fn since(self, before: Self) -> Self {
        self.each(before, u64::saturating_sub)
    }

    /// Of each the greater.
    fn most(self, other: Self) -> Self {
        self.each(other, u64::max)
    }

    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }

    fn is_possible(self) -> bool {
        let most = self.each(Self::default(), u64::max);
        [most.running_ms, most.cpu_ms, most.memory_mib_s]
            .into_iter()
            .chain([most.fetched_bytes, most.peer_bytes, most.stored_bytes])
            .all(|counter| counter <= COUNTER_MAX)
    }
}

/// To whom something is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Account {
    pub project: String,
    pub user: String,
    /// `name` or `maker/name`.
    pub appliance: String,
}

impl Account {
    /// The maker of its appliance; `-`: it has none.
    pub fn maker(&self) -> &str {
        self.appliance.split_once('/').map_or("-", |(maker, _)| maker)
    }
}

/// What was counted of a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    /// None: nobody had wished for its instance when it was first heard of.
    to: Option<Account>,
    so_far: Counters,
}

/// What was counted of the starts of one host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// Of the next report.
    number: u64,
    runs: BTreeMap<String, Counted>,
}

/// A report, taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub ledger: Ledger,
    /// What it adds, and to whom.
    pub added: BTreeMap<Account, Counters>,
    /// All of it; else it is to be taken in once more.
    pub all: bool,
}

impl Ledger {
    /// What the next report has to say.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The ledger with a report in it, or with a part of it that adds to no more than `accounts_max`;
    /// none: it is not the next one. `whose` says to whom an instance is counted.
    pub fn with<E>(
        &self,
        report: &MeterReport,
        accounts_max: usize,
        mut whose: impl FnMut(&RunPrint) -> Result<Option<Account>, E>,
    ) -> Result<Option<Taken>, E> {
        if report.number != self.number {
            return Ok(None);
        }
        let (mut runs, mut added, mut all) = (BTreeMap::new(), BTreeMap::new(), true);
        for run in &report.runs {
            let known = runs.get(&run.run).or_else(|| self.runs.get(&run.run));
            let before = known.map_or(Counters::default(), |known: &Counted| known.so_far);
            let to = match known.and_then(|known| known.to.clone()) {
                Some(to) => Some(to),
                None => whose(run)?,
            };
            let so_far = Counters::of(run).most(before);
            let more = so_far.since(before);
            if let Some(to) = &to
                && !more.is_nothing()
            {
                if added.len() == accounts_max && !added.contains_key(to) {
                    all = false;
                    continue;
                }
                let sum: &mut Counters = added.entry(to.clone()).or_default();
                *sum = sum.and(more);
            }
            // Kept also when it has ended: the host may not hear that it was counted.
            runs.insert(run.run.clone(), Counted { to, so_far });
        }
        let number = self.number + u64::from(all);
        if !all {
            for (run, known) in &self.runs {
                runs.entry(run.clone()).or_insert_with(|| known.clone());
            }
        }
        Ok(Some(Taken { ledger: Self { number, runs }, added, all }))
    }
}

/// Why a report cannot be one.
pub fn check(report: &MeterReport) -> Result<(), String> {
    if report.runs.len() > RUNS_MAX {
        return Err(format!("{} starts in one report", report.runs.len()));
    }
    for run in &report.runs {
        let word = |text: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@".contains(c);
            !text.is_empty() && text.len() <= WORD_CHARS_MAX && text.chars().all(plain)
        };
        if ![&run.run, &run.name, &run.appliance].into_iter().all(|text| word(text)) {
            return Err("a start, an instance or an appliance with no proper name".to_owned());
        }
        if !Counters::of(run).is_possible() {
            return Err(format!("{} has used more than there is", run.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn run(id: &str, seconds: u64) -> RunPrint {
        RunPrint {
            run: id.to_owned(),
            name: "web".to_owned(),
            appliance: "acme/web".to_owned(),
            ended: false,
            running_ms: seconds * 1000,
            cpu_ms: seconds * 100,
            memory_mib_s: seconds * 512,
            fetched_bytes: 7,
            peer_bytes: 3,
            stored_bytes: 0,
        }
    }

    fn anna(run: &RunPrint) -> Account {
        let (project, user) = ("blue".to_owned(), "anna".to_owned());
        Account { project, user, appliance: run.appliance.clone() }
    }

    /// A plane's state, and what it has added up.
    #[derive(Default, Clone)]
    struct Books {
        ledger: Ledger,
        seconds: u64,
        fetched: u64,
    }

    impl Books {
        fn hear(&mut self, number: u64, runs: &[RunPrint]) -> bool {
            let report = MeterReport { number, runs: runs.to_vec() };
            let of = |run: &RunPrint| Ok::<_, Infallible>(Some(anna(run)));
            loop {
                let Ok(Some(taken)) = self.ledger.with(&report, 2, of) else { return false };
                self.ledger = taken.ledger;
                assert!(taken.added.len() <= 2);
                for counters in taken.added.values() {
                    self.seconds += counters.running_ms / 1000;
                    self.fetched += counters.fetched_bytes;
                }
                if taken.all {
                    return true;
                }
            }
        }
    }

    #[test]
    fn what_is_said_twice_late_or_never_answered_is_counted_once() {
        let mut books = Books::default();
        assert!(books.hear(0, &[run("a", 10)]));
        assert_eq!((books.seconds, books.fetched), (10, 7));
        // The same report again, as when its answer was lost; and one that was on its way for long.
        assert!(!books.hear(0, &[run("a", 10)]));
        assert!(books.hear(1, &[run("a", 10)]));
        assert_eq!(books.seconds, 10);
        assert!(books.hear(2, &[run("a", 25), run("b", 5)]));
        assert!(!books.hear(1, &[run("a", 12)]));
        assert_eq!((books.seconds, books.fetched), (30, 14));
        // The agent begins anew and knows no number: it is told, and says all of it again.
        assert!(!books.hear(0, &[run("a", 30), run("b", 5)]));
        assert_eq!(books.ledger.number(), 3);
        assert!(books.hear(3, &[run("a", 30), run("b", 5)]));
        assert_eq!(books.seconds, 35);
    }

    #[test]
    fn a_start_that_ended_is_forgotten_when_its_host_speaks_of_it_no_more() {
        let mut books = Books::default();
        let ended = RunPrint { ended: true, ..run("a", 10) };
        assert!(books.hear(0, std::slice::from_ref(&ended)));
        // The host has not heard that it was counted, and says it again.
        assert!(books.hear(1, std::slice::from_ref(&ended)));
        assert!(books.hear(2, &[]));
        assert!(books.ledger.runs.is_empty());
        // A copy of the first that was under way for long counts nothing.
        let late = [ended];
        assert!(!books.hear(0, &late) && !books.hear(1, &late));
        assert_eq!(books.seconds, 10);
        // The next start of that instance, here or elsewhere, is another one.
        assert!(books.hear(3, &[run("b", 4)]));
        assert_eq!(books.seconds, 14);
    }

    #[test]
    fn an_older_state_goes_on_from_what_it_knows_and_a_new_one_counts_all() {
        let mut books = Books::default();
        books.hear(0, &[run("a", 10)]);
        let backup = books.clone();
        books.hear(1, &[run("a", 20)]);
        let mut books = backup;
        assert!(!books.hear(2, &[run("a", 30)]));
        assert!(books.hear(books.ledger.number(), &[run("a", 30)]));
        assert_eq!(books.seconds, 30);
        let mut new = Books::default();
        assert!(!new.hear(2, &[run("a", 30)]));
        assert!(new.hear(0, &[run("a", 30)]));
        assert_eq!(new.seconds, 30);
    }

    #[test]
    fn counters_that_go_back_take_nothing_away_and_add_nothing() {
        let mut books = Books::default();
        books.hear(0, &[run("a", 10)]);
        books.hear(1, &[run("a", 4)]);
        books.hear(2, &[run("a", 11)]);
        assert_eq!(books.seconds, 11);
        // Named twice in one report: once.
        books.hear(3, &[run("a", 12), run("a", 12), run("a", 11)]);
        assert_eq!(books.seconds, 12);
    }

    #[test]
    fn a_report_about_many_is_taken_in_by_parts_and_counted_once() {
        let of = |appliance: &str, seconds| RunPrint {
            appliance: appliance.to_owned(),
            ..run(appliance, seconds)
        };
        let mut books = Books::default();
        let five = ["a", "b", "c", "d", "e"];
        assert!(books.hear(0, &five.map(|appliance| of(appliance, 2))));
        assert_eq!(books.seconds, 10);
        // The plane dies between two parts: the host says it again, to whoever is there.
        let report = MeterReport { number: 1, runs: five.map(|app| of(app, 3)).to_vec() };
        let whose = |run: &RunPrint| Ok::<_, Infallible>(Some(anna(run)));
        let Ok(Some(taken)) = books.ledger.with(&report, 2, whose) else { panic!() };
        assert_eq!((taken.added.len(), taken.all, taken.ledger.number()), (2, false, 1));
        books.ledger = taken.ledger;
        books.seconds += 2;
        assert!(books.hear(1, &five.map(|appliance| of(appliance, 4))));
        assert_eq!(books.seconds, 20);
    }

    #[test]
    fn what_was_started_by_hand_counts_from_when_it_is_wished_for_and_then_to_the_same() {
        let report = |number, seconds| MeterReport { number, runs: vec![run("a", seconds)] };
        let nobody = |_: &RunPrint| Ok::<_, Infallible>(None);
        let Ok(Some(by_hand)) = Ledger::default().with(&report(0, 9), 9, nobody) else { panic!() };
        assert!(by_hand.added.is_empty());
        let whose = |run: &RunPrint| Ok::<_, Infallible>(Some(anna(run)));
        let Ok(Some(wished)) = by_hand.ledger.with(&report(1, 12), 9, whose) else { panic!() };
        assert_eq!(wished.added[&anna(&run("a", 0))].running_ms, 3000);
        // The wish is gone before the host has said the last of it.
        let Ok(Some(last)) = wished.ledger.with(&report(2, 14), 9, nobody) else { panic!() };
        assert_eq!(last.added[&anna(&run("a", 0))].running_ms, 2000);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let of = |run: RunPrint| check(&MeterReport { number: 0, runs: vec![run] });
        assert_eq!(of(run("a", 5)), Ok(()));
        assert!(of(RunPrint { cpu_ms: u64::MAX, ..run("a", 5) }).is_err());
        assert!(of(RunPrint { appliance: "a b".to_owned(), ..run("a", 5) }).is_err());
        assert!(of(run("", 5)).is_err());
        assert!(check(&MeterReport { number: 0, runs: vec![run("a", 1); RUNS_MAX + 1] }).is_err());
        let (local, of_a_maker) = (anna(&run("a", 1)), anna(&run("a", 1)));
        assert_eq!(of_a_maker.maker(), "acme");
        assert_eq!(Account { appliance: "web".to_owned(), ..local }.maker(), "-");
    }
}
