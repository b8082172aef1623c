//! A door for the fuzzers (crate `fuzz`): what reads packages' files and programs' output, as
//! functions of bytes. Nothing else goes through it.

use crate::{apt, initrd, kernel};

/// A kernel as a package has it.
pub fn kernel(bytes: &[u8]) {
    kernel::try_unpack(bytes);
}

/// What a system says is installed, a package's file name, and the dynamic loader's list.
pub fn listings(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut used = apt::Used::default();
    used.add_installed(&text);
    let _ = used.into_list();
    apt::try_file_name(&text);
    assert!(initrd::libraries(&text).all(|path| path.starts_with('/')));
}
