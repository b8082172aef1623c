//! What somebody may try who has the maker's web server, one of its keys, or the line to it: each is
//! met by a maker that publishes and a host that believes. The table is in docs/threat-model.md.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use objects::{Memory, Objects};
use support::{DOCUMENT, Story, forge, roles};
use trust::key::Key;
use trust::{Change, Roles, TrustError, Trusted, Validity};

#[test]
fn what_a_maker_says_is_believed_and_nothing_unsigned() {
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    story.publish("2");
    assert_eq!(story.ask().unwrap(), "2");
    let trusted = Trusted::refresh(&story.store, &story.host()).unwrap();
    assert_eq!(trusted.names(), [DOCUMENT]);
    assert!(matches!(trusted.read("other.json", 10), Err(TrustError::NoDocument { .. })));
    assert!(matches!(trusted.read("../x", 10), Err(TrustError::NoDocument { .. })));
    assert!(matches!(trusted.read(DOCUMENT, 0), Err(TrustError::Format { .. })));
    // Another fingerprint is another maker.
    let other = Trusted::begin(&story.store, &"0".repeat(64), &story.folder.path().join("other"));
    let Err(TrustError::OtherRoot { found, .. }) = other else { panic!("{other:?}") };
    assert_eq!(found, story.fingerprint);
}

#[test]
fn an_old_state_is_refused() {
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    let old = story.everything();
    story.publish("2");
    assert_eq!(story.ask().unwrap(), "2");
    let new = story.everything();
    story.put_back(&old);
    assert!(matches!(story.ask(), Err(TrustError::Rollback { .. })), "{:?}", story.ask());
    // And it has not forgotten what it knew.
    story.put_back(&new);
    assert_eq!(story.ask().unwrap(), "2");
}

#[test]
fn a_frozen_state_is_noticed_when_its_time_is_over() {
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    let short = Validity { fresh: 0, ..Validity::default() };
    let keys = [story.targets.clone(), story.online.clone()];
    story.publish_for("2", &keys, short).unwrap();
    // It ends at the second in which it was signed.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let frozen = story.ask();
    assert!(
        matches!(&frozen, Err(TrustError::Expired { role, .. }) if role == "timestamp"),
        "{frozen:?}"
    );
}

#[test]
fn parts_of_two_states_do_not_fit_together() {
    let story = Story::new();
    let first = story.everything();
    story.publish("2");
    story.publish("3");
    let last = story.everything();
    let of = |everything: &[(String, Bytes)], key: &str| {
        everything.iter().find(|(name, _)| name == key).unwrap().1.clone()
    };
    assert_eq!(story.ask().unwrap(), "3");
    // The newest snapshot is said to be another one of the maker's own.
    let snapshot = last.iter().filter(|(key, _)| key.ends_with("snapshot.json")).count();
    let name = |number: usize| format!("signed/{number}.snapshot.json");
    story.serve(&name(snapshot)[7..], of(&last, &name(snapshot - 1)));
    assert!(matches!(story.ask(), Err(TrustError::Mixed { .. })), "{:?}", story.ask());
    story.put_back(&last);
    let targets = |number: usize| format!("signed/{number}.targets.json");
    story.serve(&targets(snapshot)[7..], of(&first, &targets(2)));
    assert!(matches!(story.ask(), Err(TrustError::Mixed { .. })), "{:?}", story.ask());
    story.put_back(&last);
    assert_eq!(story.ask().unwrap(), "3");
}

#[test]
fn who_has_the_web_server_changes_nothing() {
    let story = Story::new();
    let whole = story.everything();
    for (key, bytes) in &whole {
        if !key.starts_with("signed/") || key.ends_with("1.root.json") {
            continue;
        }
        // What nothing current names may be anything.
        let old = ["signed/1.snapshot.json", "signed/1.targets.json"].contains(&key.as_str());
        let mut flipped = bytes.to_vec();
        let at = flipped.len() / 2;
        flipped[at] ^= 1;
        let changes: [(&str, Vec<u8>); 4] = [
            ("a flipped bit", flipped),
            ("cut off", bytes[..bytes.len() / 2].to_vec()),
            ("nothing", Vec::new()),
            ("more", [&bytes[..], b" more"].concat()),
        ];
        for (what, changed) in changes {
            // White space after JSON says nothing else.
            story.store.replace(key, changed.into()).unwrap();
            let fresh = story.folder.path().join("fresh");
            let _ = std::fs::remove_dir_all(&fresh);
            let read = Trusted::begin(&story.store, &story.fingerprint, &fresh)
                .and_then(|trusted| trusted.read(DOCUMENT, 1 << 20));
            match read {
                Ok(content) => assert!(old && content == b"1", "{what}: {key} was believed"),
                Err(error) => {
                    let kind = matches!(
                        error,
                        TrustError::Mixed { .. }
                            | TrustError::Forged { .. }
                            | TrustError::Format { .. }
                    );
                    assert!(kind, "{what}: {key}: {error:?}");
                }
            }
        }
        story.put_back(&whole);
    }
}

#[test]
fn a_stolen_online_key_signs_no_version() {
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    let thief = [story.online.clone()];
    let refused = story.publish_for("evil", &thief, Validity::default());
    assert!(matches!(refused, Err(TrustError::Key { .. })), "{refused:?}");
    // Signed all the same, by a key of the thief's own, below a timestamp of the stolen one.
    let own = Key::generate().unwrap();
    let forger = Story { folder: tempfile::tempdir().unwrap(), ..Story::new() };
    let fake = roles(&story.root, &own, &story.online);
    let store: Arc<dyn Objects> = Arc::new(Memory::new());
    let keys = [story.root.clone(), own.clone(), story.online.clone()];
    let print = trust::start(&store, &fake, &keys, Validity::default()).unwrap();
    let forger =
        Story { store, fingerprint: print, targets: own, online: story.online.clone(), ..forger };
    for content in ["evil", "evil 2", "evil 3"] {
        forger.publish(content);
    }
    let honest_root = story.get("1.root.json");
    story.put_back(&forger.everything());
    story.serve("1.root.json", honest_root);
    let forged = story.ask();
    assert!(matches!(forged, Err(TrustError::Forged { .. })), "{forged:?}");
}

#[test]
fn three_rotations_are_followed_and_a_key_rotated_out_counts_for_nothing() {
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    let old_targets = story.targets.clone();
    let mut story = story;
    for _ in 0..3 {
        let [root, targets, online] = [(); 3].map(|()| Key::generate().unwrap());
        let keys = [story.root.clone(), root.clone(), targets.clone(), online.clone()];
        trust::rotate(
            &story.store,
            &story.own(),
            &roles(&root, &targets, &online),
            &keys,
            Validity::default(),
        )
        .unwrap();
        story = Story { root, targets, online, ..story };
    }
    // The host was away for all three.
    assert_eq!(story.ask().unwrap(), "1");
    story.publish("after");
    assert_eq!(story.ask().unwrap(), "after");
    assert_eq!(Trusted::kept(&story.host(), None).unwrap().root_version(), 4);
    let refused = story.publish_for(
        "evil",
        &[old_targets.clone(), story.online.clone()],
        Validity::default(),
    );
    assert!(matches!(refused, Err(TrustError::Key { .. })), "{refused:?}");
    // Signed all the same, by whoever has the old key, below what the maker itself says is current.
    let honest = story.everything();
    for host in [story.host(), story.folder.path().join("new host")] {
        forge(&story, "evil", std::slice::from_ref(&old_targets));
        let forged = story.ask_in(&host);
        assert!(matches!(forged, Err(TrustError::Forged { .. })), "{forged:?}");
        story.put_back(&honest);
        assert_eq!(story.ask_in(&host).unwrap(), "after");
    }
    // A root that the old keys alone did not agree to.
    let thief = Key::generate().unwrap();
    let refused = trust::rotate(
        &story.store,
        &story.own(),
        &Roles::single(thief.public().unwrap()),
        &[thief],
        Validity::default(),
    );
    assert!(matches!(refused, Err(TrustError::Key { .. })), "{refused:?}");
}

#[test]
fn a_threshold_needs_so_many_people() {
    let story = Story::new();
    let people: Vec<Key> = (0..3).map(|_| Key::generate().unwrap()).collect();
    let public = people.iter().map(|key| key.public().unwrap()).collect();
    let online = (vec![story.online.public().unwrap()], 1);
    let root = (vec![story.root.public().unwrap()], 1);
    let roles = Roles { root, targets: (public, 2), online };
    let keys: Vec<Key> =
        people.iter().take(2).chain([&story.root, &story.online]).cloned().collect();
    trust::rotate(&story.store, &story.own(), &roles, &keys, Validity::default()).unwrap();
    let one = [people[2].clone(), story.online.clone()];
    let refused = story.publish_for("2", &one, Validity::default());
    assert!(matches!(refused, Err(TrustError::Key { .. })), "{refused:?}");
    assert_eq!(story.ask().unwrap(), "1");
    // Signed all the same by one of them, and by one of them and somebody else, and served to a host.
    let stranger = Key::generate().unwrap();
    let honest = story.everything();
    for few in [vec![people[2].clone()], vec![people[2].clone(), stranger]] {
        forge(&story, "2", &few);
        let forged = story.ask();
        assert!(matches!(forged, Err(TrustError::Forged { .. })), "{forged:?}");
        story.put_back(&honest);
    }
    forge(&story, "forged by enough", &people[..2]);
    assert_eq!(story.ask().unwrap(), "forged by enough", "else the above shows nothing");
    story.put_back(&honest);
    let _ = std::fs::remove_dir_all(story.host());
    let two = [people[2].clone(), people[0].clone(), story.online.clone()];
    story.publish_for("2", &two, Validity::default()).unwrap();
    assert_eq!(story.ask().unwrap(), "2");
    let too_many = Roles { targets: (Vec::new(), 1), ..roles };
    assert!(
        trust::rotate(&story.store, &story.own(), &too_many, &keys, Validity::default()).is_err()
    );
}

#[test]
fn what_was_believed_is_there_when_the_maker_is_away() {
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    let kept = Trusted::kept(&story.host(), Some("away".to_owned())).unwrap();
    assert_eq!(kept.read(DOCUMENT, 10).unwrap(), b"1");
    assert!(!kept.freshness().asked);
    assert!(kept.freshness().asked_unix_ms > 0);
    assert!(kept.freshness().expires_unix_ms > kept.freshness().asked_unix_ms);
    // The maker is gone for good: a refresh says so, and leaves what was there.
    for (key, _) in story.everything() {
        story.store.delete(&key).unwrap();
    }
    assert!(story.ask().is_err());
    let kept = Trusted::kept(&story.host(), None).unwrap();
    assert_eq!(kept.read(DOCUMENT, 10).unwrap(), b"1");
}

#[test]
fn two_publishers_at_once_are_told() {
    let story = Story::new();
    let seen_by_both = story.own();
    story.publish("2");
    let put = Change::Put(b"mine".to_vec());
    let changes = BTreeMap::from([(DOCUMENT.to_owned(), put)]);
    let keys = [story.targets.clone(), story.online.clone()];
    let second = trust::change(&story.store, &seen_by_both, &changes, &keys, Validity::default());
    assert!(matches!(second, Err(TrustError::Conflict { .. })), "{second:?}");
    assert_eq!(story.ask().unwrap(), "2");
}

#[test]
fn a_clock_that_went_back_is_said_and_a_person_may_accept_it() {
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    let known = story.host().join("state/latest_known_time.json");
    std::fs::write(&known, "\"2099-01-01T00:00:00Z\"").unwrap();
    let refused = story.ask();
    assert!(matches!(refused, Err(TrustError::Clock { .. })), "{refused:?}");
    Trusted::accept_clock(&story.host()).unwrap();
    assert_eq!(story.ask().unwrap(), "1");
}
