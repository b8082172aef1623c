//! Time that has gone by, clocks that are wrong, and hosts that die: in a world of the test's own.

mod support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use ambient::simulated::{Simulated, World, simulate};
use support::{DOCUMENT, Story, roles};
use trust::key::Key;
use trust::{TrustError, Trusted, Validity};

const DAY_MS: i64 = 86_400_000;

/// The machine's own, but for the date; and with a step at which whoever reaches it is no more.
struct Ours {
    began: ambient::Instant,
    began_unix_ms: u64,
    ahead_ms: AtomicI64,
    deadly: Mutex<Option<&'static str>>,
}

impl Ours {
    fn begin() -> (Arc<Self>, Simulated) {
        let ours = Arc::new(Self {
            began: ambient::now(),
            began_unix_ms: ambient::unix_ms(),
            ahead_ms: 0.into(),
            deadly: Mutex::new(None),
        });
        (ours.clone(), simulate(ours))
    }

    fn days(&self, days: i64) {
        self.ahead_ms.store(days * DAY_MS, Ordering::SeqCst);
    }
}

impl World for Ours {
    fn unix_ms(&self) -> u64 {
        let real = self.began_unix_ms + self.began.elapsed().as_millis() as u64;
        (real as i64 + self.ahead_ms.load(Ordering::SeqCst)) as u64
    }
    fn now(&self) -> ambient::Instant {
        self.began + self.began.elapsed()
    }
    fn sleep(&self, duration: ambient::Duration) {
        std::thread::sleep(duration);
    }
    fn fill(&self, bytes: &mut [u8]) {
        aws_lc_rs::rand::fill(bytes).unwrap();
    }
    fn born(&self) -> Box<dyn FnOnce() + Send> {
        Box::new(|| {})
    }
    fn step(&self, name: &'static str) {
        if *self.deadly.lock().unwrap() == Some(name) {
            std::panic::resume_unwind(Box::new(name));
        }
    }
}

fn expired<T: std::fmt::Debug>(result: trust::Result<T>) -> String {
    match result {
        Err(TrustError::Expired { role, .. }) => role,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_maker_who_missed_an_expiry_signs_again() {
    let (ours, _world) = Ours::begin();
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    let online = [story.online.clone()];
    let again =
        |keys: &[Key]| trust::sign_again(&story.store, &story.own(), keys, Validity::default());
    ours.days(91);
    assert_eq!(expired(story.ask()), "timestamp");
    story.publish("2");
    assert_eq!(story.ask().unwrap(), "2");
    // Again, and the online key is enough.
    ours.days(200);
    assert_eq!(expired(story.ask()), "timestamp");
    assert!(!again(&online).unwrap());
    assert_eq!(story.ask().unwrap(), "2");
    // The list of versions ends after a year: its own keys are needed.
    ours.days(91 + 366);
    assert_eq!(expired(again(&online)), "targets");
    assert!(again(&[story.targets.clone(), story.online.clone()]).unwrap());
    assert_eq!(story.ask().unwrap(), "2");
    // The root ends after three: nothing that nobody would believe is signed below it.
    ours.days(3 * 365 + 1);
    assert_eq!(expired(again(&[story.targets.clone(), story.online.clone()])), "root");
    let same = roles(&story.root, &story.targets, &story.online);
    let all = [story.root.clone(), story.targets.clone(), story.online.clone()];
    trust::rotate(&story.store, &story.own(), &same, &all, Validity::default()).unwrap();
    assert_eq!(story.ask().unwrap(), "2");
    assert_eq!(Trusted::kept(&story.host(), None).unwrap().root_version(), 2);
}

#[test]
fn a_host_whose_clock_is_a_year_ahead_believes_nothing_and_forgets_nothing() {
    let (ours, _world) = Ours::begin();
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    ours.days(365);
    assert_eq!(expired(story.ask()), "timestamp");
    assert_eq!(expired(Trusted::kept(&story.host(), None)), "timestamp");
    let new = story.folder.path().join("new host");
    assert_eq!(expired(story.ask_in(&new)), "timestamp");
    // Set right, it needs nobody's help: what it thought then was never kept.
    ours.days(0);
    assert_eq!(Trusted::kept(&story.host(), None).unwrap().read(DOCUMENT, 10).unwrap(), b"1");
    assert_eq!(story.ask().unwrap(), "1");
    assert_eq!(story.ask_in(&new).unwrap(), "1");
}

#[test]
fn a_host_whose_clock_is_a_year_behind_is_told_if_it_ever_knew_better() {
    let (ours, _world) = Ours::begin();
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    let frozen = story.everything();
    ours.days(-365);
    for result in [story.ask().map(drop), Trusted::kept(&story.host(), None).map(drop)] {
        assert!(matches!(result, Err(TrustError::Clock { .. })), "{result:?}");
    }
    // A new host has nothing to compare with; it is told as soon as it has.
    let new = story.folder.path().join("new host");
    assert_eq!(story.ask_in(&new).unwrap(), "1");
    ours.days(0);
    story.publish("2");
    assert_eq!(story.ask_in(&new).unwrap(), "2");
    ours.days(-365);
    let result = story.ask_in(&new);
    assert!(matches!(result, Err(TrustError::Clock { .. })), "{result:?}");
    // A person says that it is right: then numbers still protect.
    Trusted::accept_clock(&new).unwrap();
    story.put_back(&frozen);
    let result = story.ask_in(&new);
    assert!(matches!(result, Err(TrustError::Rollback { .. })), "{result:?}");
}

#[test]
fn a_publisher_whose_clock_went_back_publishes() {
    let (ours, _world) = Ours::begin();
    let story = Story::new();
    ours.days(30);
    story.publish("2");
    ours.days(0);
    story.publish("3");
    assert_eq!(story.ask().unwrap(), "3");
}

#[test]
fn a_host_that_dies_while_it_believes_has_the_old_or_the_new() {
    let (ours, _world) = Ours::begin();
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    let steps = [("trust: written", "1", "2"), ("trust: believed", "3", "3")];
    for (round, (step, kept, new)) in steps.into_iter().enumerate() {
        story.publish(if round == 0 { "2" } else { "3" });
        story.own();
        *ours.deadly.lock().unwrap() = Some(step);
        let died = catch_unwind(AssertUnwindSafe(|| Trusted::refresh(&story.store, &story.host())));
        assert!(died.is_err(), "{step} was not reached");
        *ours.deadly.lock().unwrap() = None;
        let believed = Trusted::kept(&story.host(), None).unwrap();
        // Of the new one only the list: nobody has read the document yet.
        match believed.read(DOCUMENT, 10) {
            Ok(content) => assert_eq!(content, kept.as_bytes(), "{step}"),
            Err(error) => {
                assert!(matches!(error, TrustError::Away { .. }) && kept == "3", "{error:?}");
            }
        }
        assert_eq!(story.ask().unwrap(), new);
    }
}
