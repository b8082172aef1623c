//! From one repository to another one: what is there is not brought again.

mod common;

use std::sync::Arc;

use common::{init, publish, verify};
use model::ManifestId;
use objects::{Memory, Objects};
use repository::{CopyHints, Repository, Target};

fn empty() -> Repository {
    init(&(Arc::new(Memory::new()) as Arc<dyn Objects>), 1_000)
}

/// Of a manifest that the other repository keeps, pages are counted and not looked up; of any other, each is.
#[test]
fn what_the_other_repository_keeps_whole_is_copied_without_looking() {
    let from = empty();
    let (kept, new) =
        (publish(&from, "a", 0..3000).unwrap(), publish(&from, "b", 2000..5000).unwrap());
    let to = empty();
    let copy = |roots: &[ManifestId], whole: &[ManifestId]| {
        let mut writer = to.writer().unwrap();
        let whole = whole.iter().map(|id| (*id).into()).collect();
        let hints = CopyHints { whole, ..CopyHints::default() };
        let roots: Vec<_> = roots.iter().map(|id| Target::Manifest(*id)).collect();
        let copied = repository::copy(&from, &mut writer, &hints, &roots, &mut |_| {}).unwrap();
        (copied, writer.finish().unwrap())
    };
    let bytes = |pages: u64| pages * model::PAGE_BYTES as u64;
    let (copied, _) = copy(&[kept], &[]);
    assert_eq!((copied.new_bytes >= bytes(3000), copied.reused_bytes), (true, 0), "{copied:?}");
    let (again, finished) = copy(&[kept], &[kept]);
    assert_eq!((again.new_bytes, again.reused_bytes), (0, bytes(3000)), "{again:?}");
    assert_eq!((finished.reused_bytes, finished.stored_bytes), (bytes(3000), 0), "{finished:?}");
    // What is beside it is looked at, page by page, in whatever order.
    for roots in [[kept, new], [new, kept]] {
        let (copied, _) = copy(&roots, &[kept]);
        assert!(copied.reused_bytes >= bytes(3000), "{copied:?}");
    }
    verify(&to, kept, 0..3000);
    verify(&to, new, 2000..5000);
    // And it is what the hint says that is believed.
    let other = empty();
    let mut writer = other.writer().unwrap();
    let hints = CopyHints { whole: [kept.into()].into(), ..CopyHints::default() };
    let roots = [Target::Manifest(kept)];
    let copied = repository::copy(&from, &mut writer, &hints, &roots, &mut |_| {}).unwrap();
    assert!(copied.new_bytes < bytes(100) && copied.reused_bytes == bytes(3000), "{copied:?}");
}
