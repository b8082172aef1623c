//! The suite that every store passes.

use std::sync::{Arc, Barrier};

use bytes::Bytes;
use objects::{ObjectError, Objects, probe};

/// Runs the suite on an empty store.
pub fn check(objects: Arc<dyn Objects>) {
    probe(&*objects).expect("the probe passes");
    absent(&*objects);
    created_once(&*objects);
    read_back(&*objects);
    listed(&*objects);
    deleted(&*objects);
    keys_are_checked(&*objects);
    raced(&objects);
}

fn absent(objects: &dyn Objects) {
    let missing = |r: Result<(), ObjectError>| {
        assert!(matches!(r, Err(ObjectError::NotFound { .. })), "{r:?}")
    };
    missing(objects.get("absent/one", 10).map(drop));
    missing(objects.get_range("absent/one", 0, 10).map(drop));
    missing(objects.head("absent/one").map(drop));
    assert_eq!(objects.list("absent").unwrap(), []);
    assert_eq!(objects.list_names("absent").unwrap(), [""; 0]);
    objects.delete("absent/one").expect("deleting what is absent is no error");
}

fn created_once(objects: &dyn Objects) {
    objects.put_new("once/a", Bytes::from_static(b"first")).unwrap();
    let again = objects.put_new("once/a", Bytes::from_static(b"second"));
    assert!(matches!(again, Err(ObjectError::AlreadyExists { .. })), "{again:?}");
    // The same bytes are no excuse: the caller must learn that the key was taken.
    let same = objects.put_new("once/a", Bytes::from_static(b"first"));
    assert!(matches!(same, Err(ObjectError::AlreadyExists { .. })), "{same:?}");
    assert_eq!(objects.get("once/a", 5).unwrap(), "first");
    objects.put("once/hint", Bytes::from_static(b"1")).unwrap();
    objects.put("once/hint", Bytes::from_static(b"22")).unwrap();
    assert_eq!(objects.get("once/hint", 5).unwrap(), "22");
}

fn read_back(objects: &dyn Objects) {
    let bytes: Bytes = (0..300_000u32).map(|i| ((i * 31) >> 3) as u8).collect();
    objects.put_new("read/big", bytes.clone()).unwrap();
    objects.put_new("read/empty", Bytes::new()).unwrap();
    assert_eq!(objects.get("read/big", 300_000).unwrap(), bytes);
    assert_eq!(objects.get("read/empty", 0).unwrap(), "");
    for (offset, len) in [(0, 1), (4096, 8192), (299_999, 1), (0, 300_000), (7, 0)] {
        let part = objects.get_range("read/big", offset, len).unwrap();
        assert_eq!(part, bytes.slice(offset as usize..(offset + len) as usize));
    }
    for (offset, len) in [(299_999, 2), (300_001, 1), (0, 300_001), (u64::MAX, 1)] {
        let part = objects.get_range("read/big", offset, len);
        assert!(matches!(part, Err(ObjectError::Truncated { .. })), "{offset}+{len}: {part:?}");
    }
    let large = objects.get("read/big", 299_999);
    assert!(matches!(large, Err(ObjectError::TooLarge { .. })), "{large:?}");
    let head = objects.head("read/big").unwrap();
    assert_eq!((head.key.as_str(), head.bytes), ("read/big", 300_000));
}

fn listed(objects: &dyn Objects) {
    for key in ["list/b/2", "list/b/1", "list/a", "list-not/x"] {
        objects.put_new(key, Bytes::from_static(b"abc")).unwrap();
    }
    let keys: Vec<String> = objects.list("list").unwrap().into_iter().map(|o| o.key).collect();
    assert_eq!(keys, ["list/a", "list/b/1", "list/b/2"]);
    assert!(objects.list("list").unwrap().iter().all(|o| o.bytes == 3));
    assert_eq!(objects.list_names("list").unwrap(), ["a", "b"]);
    assert_eq!(objects.list_names("list/b").unwrap(), ["1", "2"]);
    assert!(objects.list("").unwrap().len() >= 4);
    let times: Vec<u64> =
        objects.list("list/b").unwrap().iter().map(|o| o.modified_unix_ms).collect();
    // Some stores round to a second.
    assert!(times[0] + 1000 >= times[1], "the clock of a store goes forward: {times:?}");
    assert_eq!(objects.head("list/b/1").unwrap().modified_unix_ms / 1000, times[0] / 1000);
}

fn deleted(objects: &dyn Objects) {
    objects.put_new("delete/a", Bytes::new()).unwrap();
    objects.delete("delete/a").unwrap();
    objects.delete("delete/a").unwrap();
    assert_eq!(objects.list("delete").unwrap(), []);
    objects.put_new("delete/a", Bytes::new()).unwrap();
}

fn keys_are_checked(objects: &dyn Objects) {
    for bad in ["", "../x", "/etc/passwd", "a//b", "A", "a/../../b"] {
        for result in [
            objects.put_new(bad, Bytes::new()),
            objects.put(bad, Bytes::new()),
            objects.delete(bad),
            objects.get(bad, 1).map(drop),
            objects.head(bad).map(drop),
            objects.get_range(bad, 0, 1).map(drop),
        ] {
            assert!(matches!(result, Err(ObjectError::Invalid { .. })), "{bad}: {result:?}");
        }
    }
}

fn raced(objects: &Arc<dyn Objects>) {
    const WRITERS: usize = 8;
    for round in 0..5 {
        let key = format!("race/{round}");
        let barrier = Arc::new(Barrier::new(WRITERS));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (objects, key) = (Arc::clone(objects), key.clone());
                let barrier = Arc::clone(&barrier);
                std::thread::spawn(move || {
                    let bytes = Bytes::from(vec![writer as u8; 10_000]);
                    barrier.wait();
                    objects.put_new(&key, bytes).is_ok()
                })
            })
            .collect();
        let won: Vec<usize> = writers
            .into_iter()
            .enumerate()
            .filter_map(|(writer, thread)| thread.join().unwrap().then_some(writer))
            .collect();
        assert_eq!(won.len(), 1, "exactly one of {WRITERS} creates {key}: {won:?}");
        assert_eq!(objects.get(&key, 10_000).unwrap(), vec![won[0] as u8; 10_000]);
    }
}
