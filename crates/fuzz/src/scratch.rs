//! A folder for targets that read files: one for each thread, removed with it.

use std::path::Path;

use tempfile::TempDir;

thread_local! {
    static FOLDER: TempDir = in_memory().expect("a folder for temporary files");
}

/// In memory where there is such a place: these files live for microseconds.
fn in_memory() -> std::io::Result<TempDir> {
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("collective-fuzz-");
        builder
    };
    builder().tempdir_in("/dev/shm").or_else(|_| builder().tempdir())
}

/// Gives the folder, with whatever the run before left in it.
pub fn with<T>(act: impl FnOnce(&Path) -> T) -> T {
    FOLDER.with(|folder| act(folder.path()))
}
