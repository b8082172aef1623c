//! A door for the fuzzers (crate `fuzz`): what is made of the numbers and names that the kernel
//! passes on from whoever uses a mount. Nothing else goes through it.

use crate::bounds;
use crate::tree::Nodes;

/// Three numbers of a request: where, how long, and the size of the file.
pub fn range(offset: u64, length: u64, size: u64) {
    let read = bounds::read_len(offset, length as u32, size) as u64;
    assert!(read <= length && (read == 0 || offset + read <= size));
    if !bounds::inside(offset, length, size) {
        return;
    }
    let cut = bounds::cut(offset, length, size);
    assert_eq!(cut.head.0, offset);
    assert_eq!(cut.head.0 + cut.head.1, cut.pages.0);
    assert_eq!(cut.pages.0 + cut.pages.1, cut.tail.0);
    assert_eq!(cut.tail.0 + cut.tail.1, offset + length);
    assert!(cut.head.1 < crate::PAGE && cut.tail.1 < crate::PAGE);
}

/// Look-ups of names below earlier answers, and numbers that are forgotten: what a number leads to
/// is the path that it was given for.
pub fn names(bytes: &[u8]) {
    let mut nodes = Nodes::new();
    let mut given: Vec<(u64, Vec<u8>)> = vec![(1, b"/".to_vec())];
    for piece in bytes.split(|byte| *byte == 0) {
        let Some((&what, name)) = piece.split_first() else { continue };
        let (number, path) = given[usize::from(what >> 1) % given.len()].clone();
        if what & 1 == 0 {
            let path = crate::tree::join(&path, name);
            given.push((nodes.remember(path.clone()), path));
        } else {
            nodes.forget(number, name.len() as u64);
        }
        for (number, path) in &given {
            assert!(nodes.path(*number).is_none_or(|known| known == path.as_slice()));
        }
        given.truncate(64);
    }
    nodes.forget(u64::MAX, u64::MAX);
    assert_eq!(nodes.path(1), Some(&b"/"[..]));
}
