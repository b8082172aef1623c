//! Golden bytes: what was once written must be read for ever, and written the same.
//!
//! `COLLECTIVE_BLESS=1 cargo test -p volume --test golden` makes files that are not there yet. It
//! never overwrites one: a format that changes gets a new version, a new feature or a new file.
//! (The state file's golden test is beside its encoder.)

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use volume::{Cache, Folder, Keeps, Overlay, OverlayId, PageState, Recorded, Trace};

const PAGE: usize = 4096;
const ID: OverlayId =
    OverlayId { volume: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], number: 7 };

fn golden_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn golden(name: &str, bytes: &[u8]) -> Vec<u8> {
    let path = golden_path(name);
    if !path.exists() && std::env::var_os("COLLECTIVE_BLESS").is_some() {
        fs::write(&path, bytes).unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(golden == bytes, "{name} is no longer written as it was");
    golden
}

fn page(fill: u8) -> Vec<u8> {
    (0..PAGE).map(|i| fill ^ (i / 16) as u8 | 1).collect()
}

/// Two batches: a zero range with two runs of slots, then a page that moved and one that went.
fn write(overlay: &Overlay) {
    overlay.discard(100, 1 << 30);
    overlay.write(3, &[page(1), page(2)].concat()).unwrap();
    overlay.write(120, &page(3)).unwrap();
    overlay.flush().unwrap();
    overlay.write(3, &page(4)).unwrap();
    overlay.discard(4, 1);
    overlay.flush().unwrap();
}

fn check(overlay: &Overlay) {
    let mut bytes = vec![0; 2 * PAGE];
    let mut found = [false; 2];
    overlay.read(3, &mut bytes, &mut found).unwrap();
    assert!(found == [true; 2] && bytes == [page(4), vec![0; PAGE]].concat());
    overlay.read(120, &mut bytes[..PAGE], &mut [false]).unwrap();
    assert!(bytes[..PAGE] == page(3));
    let states = [2, 3, 4, 99, 100, 120, 100 + (1 << 30)].map(|page| overlay.state(page));
    use PageState::{Absent, Data, Zero};
    assert_eq!(states, [Absent, Data, Zero, Absent, Zero, Data, Absent]);
}

#[test]
fn an_overlay_is_written_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let overlay =
        Overlay::create(Arc::new(Folder::open(dir.path(), Keeps::Always).unwrap()), "t", ID)
            .unwrap();
    write(&overlay);
    check(&overlay);
    golden("journal-v1.bin", &fs::read(dir.path().join("7.journal")).unwrap());
    golden("data-v1.bin", &fs::read(dir.path().join("7.data")).unwrap());
}

#[test]
fn an_old_overlay_is_read() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(golden_path("journal-v1.bin"), dir.path().join("7.journal")).unwrap();
    fs::copy(golden_path("data-v1.bin"), dir.path().join("7.data")).unwrap();
    let overlay =
        Overlay::open(Arc::new(Folder::open(dir.path(), Keeps::Always).unwrap()), "t", ID).unwrap();
    check(&overlay);
}

#[test]
fn the_index_of_a_cache_begins_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    Cache::open(dir.path(), 1 << 30).unwrap();
    let index = fs::read(dir.path().join("index")).unwrap();
    assert_eq!(index.len(), 4096 + (1 << 18) * 2 / 42 * 2048);
    golden("cache-index-v1.bin", &index[..4096]);
}

#[test]
fn a_trace_is_written_as_ever() {
    let names = || ["ram", "system", "data"].map(str::to_owned).to_vec();
    let old = Trace::of(names(), [(0, 70_000), (1, 0), (1, 1), (2, 4000)]);
    let new = [(0, 256), (0, 257), (1, 1), (0, 3), (1, 2), (1, 3), (0, 1 << 40)];
    let trace = old.merged(&Trace::of(names(), new), Recorded::Whole);
    let bytes = golden("trace-v1.bin", &trace.encode());
    assert_eq!(Trace::decode(&bytes), Ok(trace));
}
