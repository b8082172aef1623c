//! `cp` and `mount`.

use std::time::Duration;

use host::Failure;
use model::format_bytes;

use super::open;
use crate::cli::{Cp, Global, Mount};
use crate::print;

/// How often a long copy says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(2);

pub fn cp(global: &Global, verb: &Cp) -> Result<(), Failure> {
    let mut told = ambient::now();
    let mut tell = |path: &str, files: u64, bytes: u64| {
        if told.elapsed() >= TELL_EVERY {
            told = ambient::now();
            print::note(global, &format!("{files} files, {}: {path}", format_bytes(bytes)));
        }
    };
    let done = open(global)?.copy(&verb.source, &verb.destination, verb.force, &mut tell)?;
    print::result(global, &done, || {
        let from = match &done.checkpoint {
            Some(id) => format!("checkpoint {}", &id[..12]),
            None => "its version: it has no checkpoint yet".to_owned(),
        };
        let left_out = match done.left_out {
            0 => String::new(),
            count => format!("\nleft out: {count} devices, pipes or sockets"),
        };
        format!(
            "copied {} ({} {}, {}) from disk {} of {from}{left_out}",
            done.path,
            done.files,
            if done.files == 1 { "file" } else { "files" },
            format_bytes(done.bytes),
            done.disk,
        )
    });
    Ok(())
}

pub fn mount(global: &Global, verb: &Mount) -> Result<(), Failure> {
    open(global)?.mount(&verb.subject, &verb.onto, verb.foreground, &mut |done| {
        print::result(global, done, || {
            let what = match (&done.checkpoint, &done.taken) {
                (Some(id), Some(taken)) => format!("checkpoint {} of {taken}", &id[..12]),
                _ => "its version (it has no checkpoint yet)".to_owned(),
            };
            let disks = done.disks.join(", ");
            format!("{what} is at {}: {disks}\nend it with: umount {}", done.dir, done.dir)
        });
    })
}
