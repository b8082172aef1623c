//! Publishers who are interrupted, forget a key, or sleep: at every write of what they do. Nobody is
//! locked out by it, and the same command done again comes to its end.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use objects::{Faults, Memory, Objects};
use support::{DOCUMENT, Meanwhile, Story, roles};
use trust::key::Key;
use trust::{Change, Roles, TrustError, Trusted, Validity};

/// Longer than a publisher that is silent counts as alive, milliseconds.
const LONG_MS: u64 = 16 * 60 * 1000;

fn of(store: Memory) -> Arc<dyn Objects> {
    Arc::new(store)
}

/// The same maker with another store, and folders of its own.
fn elsewhere(story: &Story, store: Arc<dyn Objects>) -> Story {
    Story {
        folder: tempfile::tempdir().unwrap(),
        store,
        root: story.root.clone(),
        targets: story.targets.clone(),
        online: story.online.clone(),
        fingerprint: story.fingerprint.clone(),
    }
}

#[test]
fn a_rotation_that_is_interrupted_at_any_write_is_brought_to_its_end() {
    let disk = Arc::new(Memory::new());
    let before = Story::over(disk.clone());
    let [root, targets, online] = [(); 3].map(|()| Key::generate().unwrap());
    let wanted = roles(&root, &targets, &online);
    let keys = [before.root.clone(), root.clone(), targets.clone(), online.clone()];
    let (mut locked_out, mut ended) = (0, false);
    for write in 0..20 {
        let disk = Arc::new(disk.image());
        let story = elsewhere(&before, disk.clone());
        assert_eq!(story.ask().unwrap(), "1");
        let faults = Arc::new(Faults::new(disk.clone()));
        let rotating: Arc<dyn Objects> = faults.clone();
        let own = story.own();
        faults.crash_at_write(write);
        let died = trust::rotate(&rotating, &own, &wanted, &keys, Validity::default());
        if died.is_ok() {
            ended = true;
            break;
        }
        // A user sees what was there before; or, between two writes, that something is not right.
        match story.ask() {
            Ok(content) => assert_eq!(content, "1"),
            Err(error) => {
                assert!(matches!(error, TrustError::Forged { .. }), "{write}: {error:?}");
                locked_out += 1;
            }
        }
        disk.advance_ms(LONG_MS);
        // The same command again; another one that signs; and from another computer.
        for (how, folder) in [("rotate", story.maker()), ("publish", story.maker())]
            .into_iter()
            .chain([("rotate", story.folder.path().join("another computer"))])
        {
            let store = of(disk.image());
            let after = Story {
                root: root.clone(),
                targets: targets.clone(),
                online: online.clone(),
                ..elsewhere(&story, store.clone())
            };
            let host = copy_of(&story.host(), after.folder.path());
            let own = Trusted::to_publish(&store, &copy_of(&folder, after.folder.path())).unwrap();
            assert_eq!(own.read(DOCUMENT, 10).unwrap(), b"1");
            let begun = own.root_version() == 2;
            if how == "rotate" || !begun {
                trust::rotate(&store, &own, &wanted, &keys, Validity::default()).unwrap();
            } else {
                let put = Change::Put(b"2".to_vec());
                let changes = BTreeMap::from([(DOCUMENT.to_owned(), put)]);
                let keys = [targets.clone(), online.clone()];
                trust::change(&store, &own, &changes, &keys, Validity::default()).unwrap();
            }
            let content = after.ask_in(&host).unwrap();
            assert_eq!(content, if how == "publish" && begun { "2" } else { "1" }, "{write} {how}");
            let believed = Trusted::kept(&host, None).unwrap();
            assert_eq!(believed.root_version(), 2, "{write} {how}: one rotation");
            after.publish("3");
            assert_eq!(after.ask_in(&host).unwrap(), "3");
        }
    }
    assert!(ended, "there were more writes than were tried");
    assert_eq!(locked_out, 1, "users see a rotation between its last two writes alone");
}

/// A folder as another process finds it; nothing where there is none.
fn copy_of(folder: &Path, to: &Path) -> std::path::PathBuf {
    let copy = to.join(folder.file_name().unwrap());
    if folder.exists() {
        let done = std::process::Command::new("cp").arg("-a").arg(folder).arg(&copy).status();
        assert!(done.unwrap().success());
    }
    copy
}

#[test]
fn who_forgot_a_key_has_changed_nothing() {
    let story = Story::new();
    let [root, targets, online] = [(); 3].map(|()| Key::generate().unwrap());
    let wanted = roles(&root, &targets, &online);
    let all = [story.root.clone(), root, targets, online];
    let before = story.everything();
    for forgotten in 0..all.len() {
        let mut keys = all.to_vec();
        keys.remove(forgotten);
        let refused =
            trust::rotate(&story.store, &story.own(), &wanted, &keys, Validity::default());
        assert!(matches!(refused, Err(TrustError::Key { .. })), "{refused:?}");
        assert_eq!(story.everything(), before);
    }
    for keys in [[story.targets.clone()], [story.online.clone()]] {
        let refused = story.publish_for("2", &keys, Validity::default());
        assert!(matches!(refused, Err(TrustError::Key { .. })), "{refused:?}");
        assert_eq!(story.everything(), before);
    }
}

#[test]
fn a_beginning_that_is_interrupted_at_any_write_is_brought_to_its_end() {
    let key = Key::generate().unwrap();
    let other = Key::generate().unwrap();
    let begin = |store: &Arc<dyn Objects>, key: &Key| {
        let roles = Roles::single(key.public().unwrap());
        trust::start(store, &roles, std::slice::from_ref(key), Validity::default())
    };
    let mut ended = false;
    for write in 0..20 {
        let disk = Arc::new(Memory::new());
        let faults = Arc::new(Faults::new(disk.clone()));
        faults.crash_at_write(write);
        let dying: Arc<dyn Objects> = faults;
        if begin(&dying, &key).is_ok() {
            ended = true;
            break;
        }
        disk.advance_ms(LONG_MS);
        let root = disk.get("signed/1.root.json", 1 << 20).ok();
        let store: Arc<dyn Objects> = disk;
        assert!(!trust::is_begun(&*store).unwrap());
        if root.is_some() {
            // Whose root it is goes on, and nobody else.
            let refused = begin(&store, &other);
            assert!(matches!(refused, Err(TrustError::Key { .. })), "{refused:?}");
        }
        let fingerprint = begin(&store, &key).unwrap();
        if let Some(root) = root {
            assert_eq!(store.get("signed/1.root.json", 1 << 20).unwrap(), root);
        }
        let story = Story {
            folder: tempfile::tempdir().unwrap(),
            store,
            root: key.clone(),
            targets: key.clone(),
            online: key.clone(),
            fingerprint,
        };
        story.publish("1");
        assert_eq!(story.ask().unwrap(), "1");
        let again = begin(&story.store, &key);
        assert!(matches!(again, Err(TrustError::Conflict { .. })), "{again:?}");
    }
    assert!(ended, "there were more writes than were tried");
}

#[test]
fn a_timestamp_that_is_lost_is_no_beginning() {
    let story = Story::new();
    story.store.delete("signed/timestamp.json").unwrap();
    let all = [story.root.clone(), story.targets.clone(), story.online.clone()];
    let roles = roles(&story.root, &story.targets, &story.online);
    let refused = trust::start(&story.store, &roles, &all, Validity::default());
    assert!(matches!(refused, Err(TrustError::Mixed { .. })), "{refused:?}");
}

#[test]
fn a_publisher_who_slept_writes_over_nothing_newer() {
    let disk = Arc::new(Memory::new());
    let story = Arc::new(Story::over(disk.clone()));
    let own = story.own();
    // It has its number, and sleeps; another one takes it for dead, and publishes.
    let (other, clock) = (story.clone(), disk.clone());
    let sleeping: Arc<dyn Objects> =
        Arc::new(Meanwhile::new(disk.clone(), "signed/3.snapshot.json", move || {
            clock.advance_ms(LONG_MS);
            other.publish("the other's");
        }));
    let put = Change::Put(b"the sleeper's".to_vec());
    let changes = BTreeMap::from([(DOCUMENT.to_owned(), put)]);
    let keys = [story.targets.clone(), story.online.clone()];
    let late = trust::change(&sleeping, &own, &changes, &keys, Validity::default());
    assert!(matches!(late, Err(TrustError::Conflict { .. })), "{late:?}");
    assert_eq!(story.ask().unwrap(), "the other's");
    story.publish("after");
    assert_eq!(story.ask().unwrap(), "after");
}

#[test]
fn the_online_key_alone_keeps_things_current_and_its_numbers_are_nobody_elses() {
    let disk = Arc::new(Memory::new());
    let story = Story::over(disk.clone());
    assert_eq!(story.ask().unwrap(), "1");
    let online = [story.online.clone()];
    let again = |keys: &[Key]| {
        trust::sign_again(&story.store, &story.own(), keys, Validity::default()).unwrap()
    };
    let targets = story.get("2.targets.json");
    assert!(!again(&online), "not the versions");
    assert_eq!(story.ask().unwrap(), "1");
    assert_eq!(story.get("2.targets.json"), targets);
    assert!(again(&[story.targets.clone(), story.online.clone()]), "all");
    assert_eq!(story.ask().unwrap(), "1");
    // Somebody claimed a number, sleeps, and wakes when others have gone on with the list as it was.
    let own = story.own();
    let faults = Arc::new(Faults::new(disk.clone()));
    faults.crash_at_write(2);
    let put = Change::Put(b"the sleeper's".to_vec());
    let changes = BTreeMap::from([(DOCUMENT.to_owned(), put)]);
    let keys = [story.targets.clone(), story.online.clone()];
    let dying: Arc<dyn Objects> = faults;
    assert!(trust::change(&dying, &own, &changes, &keys, Validity::default()).is_err());
    disk.advance_ms(LONG_MS);
    assert!(!again(&online));
    story.publish("after");
    let current = story.everything();
    let last = current.iter().filter(|(key, _)| key.ends_with(".snapshot.json")).count();
    let claimed = format!("signed/{}.targets.json", last - 2);
    disk.replace(&claimed, Bytes::from_static(b"the sleeper's, at last")).unwrap();
    assert_eq!(story.ask().unwrap(), "after", "nobody reads {claimed}");
}
