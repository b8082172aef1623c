//! What a host keeps of what it believed: whole, verified, and there for whoever asks nobody.

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use objects::{Memory, Objects};
use support::{DOCUMENT, Meanwhile, Story};
use trust::{TrustError, Trusted};

#[test]
fn a_document_that_is_wrong_is_not_kept() {
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    story.publish("2");
    let honest = story.everything();
    let document = honest.iter().filter(|(key, _)| key.contains("/targets/"));
    for (key, _) in document {
        story.store.replace(key, "something else".into()).unwrap();
    }
    assert!(matches!(story.ask(), Err(TrustError::Mixed { .. })), "{:?}", story.ask());
    story.put_back(&honest);
    assert_eq!(story.ask().unwrap(), "2", "what was wrong once is not wrong for ever");
}

#[test]
fn a_kept_document_that_is_damaged_is_fetched_again() {
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    let kept = || Trusted::kept(&story.host(), None).unwrap().read(DOCUMENT, 10);
    for damage in [&b""[..], b"2", b"1 and more"] {
        let files = fs::read_dir(story.host().join("documents")).unwrap();
        let files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        fs::write(&files[0], damage).unwrap();
        // Away: it is not there. Never: it is this.
        assert!(matches!(kept(), Err(TrustError::Away { .. })), "{:?}", kept());
        assert_eq!(story.ask().unwrap(), "1");
        assert_eq!(kept().unwrap(), b"1");
    }
}

#[test]
fn documents_that_are_signed_no_more_go_after_a_day() {
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    story.publish("2");
    assert_eq!(story.ask().unwrap(), "2");
    let documents = story.host().join("documents");
    let count = || fs::read_dir(&documents).unwrap().count();
    assert_eq!(count(), 2, "somebody may read what was believed a moment ago");
    for entry in fs::read_dir(&documents).unwrap().map(Result::unwrap) {
        let long_ago = entry.metadata().unwrap().modified().unwrap() - Duration::from_secs(90_000);
        fs::File::options()
            .append(true)
            .open(entry.path())
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
    }
    assert_eq!(story.ask().unwrap(), "2");
    assert_eq!(count(), 1);
    assert_eq!(Trusted::kept(&story.host(), None).unwrap().read(DOCUMENT, 10).unwrap(), b"2");
}

#[test]
fn what_was_believed_and_cannot_be_read_is_said_and_not_forgotten() {
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    let old = story.everything();
    story.publish("2");
    assert_eq!(story.ask().unwrap(), "2");
    let new = story.everything();
    let state = story.host().join("state");
    let files = ["root", "timestamp", "snapshot", "targets", "latest_known_time"];
    for name in files.map(|name| format!("{name}.json")).iter().map(String::as_str).chain(["asked"])
    {
        let file = state.join(name);
        let whole = fs::read(&file).unwrap();
        let flipped = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        };
        let half = whole[..whole.len() / 2].to_vec();
        let damages = [Vec::new(), half, flipped(0), flipped(whole.len() / 2)];
        for (which, damage) in damages.iter().enumerate() {
            let a_number_still = name == "asked" && which != 0;
            let a_date_still = name == "latest_known_time.json" && which == 3;
            if a_number_still || a_date_still {
                continue;
            }
            fs::write(&file, damage).unwrap();
            // An old copy is no way back, and nor is the new one: a person looks first.
            for served in [&old, &new] {
                story.put_back(served);
                let told = story.ask();
                assert!(
                    matches!(told, Err(TrustError::Damaged { .. })),
                    "{name} {which}: {told:?}"
                );
            }
            let told = Trusted::kept(&story.host(), None);
            assert!(matches!(told, Err(TrustError::Damaged { .. })), "{name} {which}: {told:?}");
        }
        if name == "latest_known_time.json" {
            Trusted::accept_clock(&story.host()).unwrap();
            assert_eq!(story.ask().unwrap(), "2", "a person said that the clock is right");
        }
        fs::write(&file, &whole).unwrap();
        assert_eq!(story.ask().unwrap(), "2", "{name} was put back");
    }
    for name in ["root.json", "timestamp.json", "snapshot.json", "targets.json"] {
        let whole = fs::read(state.join(name)).unwrap();
        fs::remove_file(state.join(name)).unwrap();
        let told = story.ask();
        assert!(matches!(told, Err(TrustError::Damaged { .. })), "{name}: {told:?}");
        fs::write(state.join(name), whole).unwrap();
    }
    assert_eq!(story.ask().unwrap(), "2");
}

#[test]
fn who_only_reads_writes_nothing() {
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    let all = || {
        let mut all = Vec::new();
        for folder in ["", "state", "documents"].map(|name| story.host().join(name)) {
            for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
                let meta = entry.metadata().unwrap();
                all.push((entry.path(), meta.modified().unwrap(), meta.len()));
            }
        }
        all.sort();
        all
    };
    let before = all();
    std::thread::sleep(Duration::from_millis(20));
    let kept = Trusted::kept(&story.host(), None).unwrap();
    assert_eq!(kept.read(DOCUMENT, 10).unwrap(), b"1");
    assert_eq!(all(), before);
}

/// A server that does not answer holds up whoever asks it, and nobody else.
#[test]
fn what_was_believed_is_there_while_somebody_asks_in_vain() {
    let disk: Arc<dyn Objects> = Arc::new(Memory::new());
    let story = Story::over(disk.clone());
    assert_eq!(story.ask().unwrap(), "1");
    let (asking, asked) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let silent: Arc<dyn Objects> =
        Arc::new(Meanwhile::new(disk, "signed/timestamp.json", move || {
            asking.send(()).unwrap();
            let _ = wait.recv();
        }));
    let host = story.host();
    let asks = std::thread::spawn(move || Trusted::refresh(&silent, &host).map(drop));
    asked.recv().unwrap();
    let (done, got) = mpsc::channel();
    let host = story.host();
    std::thread::spawn(move || {
        let kept = Trusted::kept(&host, None).and_then(|kept| kept.read(DOCUMENT, 10));
        let _ = done.send(kept);
    });
    let kept = got.recv_timeout(Duration::from_secs(20));
    go_on.send(()).unwrap();
    assert_eq!(kept.expect("it waits for who asks").unwrap(), b"1");
    asks.join().unwrap().unwrap();
}

#[test]
fn what_was_believed_is_whole_while_it_is_replaced() {
    let story = Story::new();
    assert_eq!(story.ask().unwrap(), "1");
    let host = story.host();
    std::thread::scope(|scope| {
        let reads = scope.spawn(|| {
            let mut last = 0;
            while last < 30 {
                let kept = Trusted::kept(&host, None).unwrap();
                let asked = kept.freshness().asked_unix_ms;
                assert!(asked > 0);
                // Of the newest nobody may have read the document yet.
                if let Ok(content) = kept.read(DOCUMENT, 10) {
                    last = String::from_utf8(content).unwrap().parse().unwrap();
                }
            }
        });
        for content in 2..=30 {
            story.publish(&content.to_string());
            story.ask().unwrap();
        }
        reads.join().unwrap();
    });
}

/// How long a slow server is listened to follows from how much is asked of it.
#[test]
fn nothing_is_asked_for_that_is_longer_than_it_should_be() {
    let story = Story::new();
    let seen = Arc::new(Meanwhile::new(story.store.clone(), "nothing", || {}));
    let store: Arc<dyn Objects> = seen.clone();
    Trusted::begin(&store, &story.fingerprint, &story.host()).unwrap().read(DOCUMENT, 9).unwrap();
    let asked = seen.asked.lock().unwrap();
    assert!(asked.iter().any(|(key, _)| key.ends_with(".targets.json")), "{asked:?}");
    for (key, bytes_max) in asked.iter() {
        let exact = key.ends_with(".targets.json") || key.contains("/targets/");
        let most = if exact { story.store.head(key).unwrap().bytes } else { 256 << 10 };
        assert!(*bytes_max <= most, "{key}: {bytes_max}");
    }
}

/// Web servers that have a page for every address, and worse ones.
#[test]
fn roots_that_are_none_end_the_row() {
    let story = Story::new();
    let large = vec![b' '; 300 << 10];
    for junk in [b"<html>not found</html>".to_vec(), large, story.get("1.root.json").to_vec()] {
        for number in 2..6 {
            story.serve(&format!("{number}.root.json"), junk.clone());
        }
        assert_eq!(trust::fingerprints(&*story.store).unwrap(), [story.fingerprint.as_str()]);
    }
    let page: Arc<dyn Objects> = Arc::new(Memory::new());
    page.put_new("signed/1.root.json", "<html>hello</html>".into()).unwrap();
    let none = trust::fingerprints(&*page);
    assert!(matches!(none, Err(TrustError::NotSigned { .. })), "{none:?}");
}
