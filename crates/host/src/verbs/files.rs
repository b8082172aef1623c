//! `cp` and `mount`: the files of a checkpoint, without running it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use api::{CopyPrint, MountPrint};
use export::TreeMount;
use files::{Copied, CopyOptions};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::inside::{self, Inside, Subject};
use crate::{Host, HostDir};

/// Longest answer of a process that mounts, bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 16;

/// What `__mount` is told: one JSON argument without secrets.
#[derive(Serialize, Deserialize)]
struct Order {
    repository: Option<String>,
    subject: String,
    dir: PathBuf,
}

/// What it answers, one line of JSON, before it closes its output.
#[derive(Serialize, Deserialize)]
enum Answer {
    Mounted(MountPrint),
    Failed(api::ErrorBody),
}

impl Host {
    /// Copies a file or a directory out of a checkpoint: `NAME[@CHECKPOINT]:[DISK:]/PATH`.
    /// `progress` is told of each file: its path, and the files and bytes before it.
    pub fn copy(
        &self,
        source: &str,
        destination: &Path,
        replace: bool,
        progress: &mut dyn FnMut(&str, u64, u64),
    ) -> Result<CopyPrint> {
        let hint = "write NAME:/PATH or NAME@CHECKPOINT:/PATH, and where to copy it to";
        let wrong = |detail: String| Failure::new("usage", detail, hint);
        let Some((left, path)) = source.rsplit_once(":/") else {
            return Err(wrong(format!("{source:?} names no file of an instance")));
        };
        let path = format!("/{path}");
        // A label may have a colon in it, a disk's name has none.
        let (subject, disk) = match left.rsplit_once(':') {
            Some((subject, disk)) if model::Name::new(disk).is_ok() => (subject, Some(disk)),
            _ => (left, None),
        };
        let inside = Inside::open(&self.dir, &self.store()?, &Subject::parse(subject)?)?;
        let place = inside.find(disk, &path)?;
        let name = Path::new(&path).file_name();
        let target = match (destination.is_dir(), name) {
            (true, Some(name)) => destination.join(name),
            _ => destination.to_owned(),
        };
        let options = CopyOptions { replace };
        let mut tell = |path: &str, copied: &Copied| progress(path, copied.files, copied.bytes);
        let copied = files::copy_out(&place.system, &place.path, &target, options, &mut tell)
            .map_err(|error| inside::failure(&place.disk, error))?;
        Ok(CopyPrint {
            checkpoint: inside.checkpoint.map(|id| id.to_string()),
            disk: place.disk,
            path: target.display().to_string(),
            files: copied.files,
            bytes: copied.bytes,
            left_out: copied.left_out,
        })
    }

    /// Mounts what `subject` names on `dir`, which is made if need be, and gives the mount.
    fn mount_here(&self, subject: &str, dir: &Path) -> Result<(TreeMount, MountPrint)> {
        let inside = Inside::open(&self.dir, &self.store()?, &Subject::parse(subject)?)?;
        // Looked at first: what is on a dead mount cannot be looked at.
        export::cleanup_stale(dir)?;
        let failed = |error: std::io::Error| Failure::from(error).during(dir.display());
        if !dir.exists() {
            std::fs::create_dir(dir).map_err(failed)?;
        }
        if std::fs::read_dir(dir).map_err(failed)?.next().is_some() {
            // What is in it would be hidden; and if that were this host's own folder, who serves
            // the mount would wait for itself.
            return Err(Failure::new(
                "exists",
                format!("{} is not empty", dir.display()),
                "mount it on an empty directory, or on one that is not there yet",
            ));
        }
        let print = MountPrint {
            checkpoint: inside.checkpoint.map(|id| id.to_string()),
            taken: inside.taken_unix_ms.map(crate::time::rfc3339),
            dir: dir.display().to_string(),
            disks: inside.disks().map(str::to_owned).collect(),
        };
        Ok((TreeMount::mount(dir, Arc::new(inside))?, print))
    }

    /// Shows a checkpoint's disks and files in `dir`, read-only, until that is unmounted. With
    /// `wait`, this process serves the mount and returns when it is gone; else another does.
    pub fn mount(
        &self,
        subject: &str,
        dir: &Path,
        wait: bool,
        tell: &mut dyn FnMut(&MountPrint),
    ) -> Result<()> {
        let dir = std::path::absolute(dir)?;
        if wait {
            let (mount, print) = self.mount_here(subject, &dir)?;
            tell(&print);
            mount.wait();
            return Ok(());
        }
        let repository = self.location.clone();
        let order = Order { repository, subject: subject.to_owned(), dir };
        let order = serde_json::to_string(&order)
            .map_err(|error| Failure::new("internal", error.to_string(), ""))?;
        let mut child = Command::new(super::start::program()?)
            .arg("__mount")
            .arg(self.dir.root())
            .arg(order)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| Failure::from(error).during("cannot start the mount's process"))?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output.take(ANSWER_BYTES_MAX)).read_line(&mut line)?;
        }
        match serde_json::from_str(&line) {
            Ok(Answer::Mounted(print)) => {
                tell(&print);
                Ok(())
            }
            Ok(Answer::Failed(body)) => Err(Failure::from_body(body)),
            Err(_) => {
                Err(Failure::new("internal", "the mount's process ended", "try --foreground"))
            }
        }
    }
}

/// The process that serves a mount: `__mount HOST-DIR ORDER`.
pub fn mount_main(arguments: &[std::ffi::OsString]) -> ExitCode {
    let result = serve(arguments);
    let (answer, mount) = match result {
        Ok((mount, print)) => (Answer::Mounted(print), Some(mount)),
        Err(failure) => (Answer::Failed(failure.body()), None),
    };
    if let Ok(line) = serde_json::to_string(&answer) {
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}");
        let _ = out.flush();
    }
    // Who started this may wait for the end of our output.
    if let Ok(nothing) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&nothing);
    }
    match mount {
        Some(mount) => {
            mount.wait();
            ExitCode::SUCCESS
        }
        None => ExitCode::FAILURE,
    }
}

fn serve(arguments: &[std::ffi::OsString]) -> Result<(TreeMount, MountPrint)> {
    let wrong = || Failure::new("usage", "__mount HOST-DIR ORDER", "");
    let [dir, order] = arguments else { return Err(wrong()) };
    let order: Order =
        order.to_str().and_then(|text| serde_json::from_str(text).ok()).ok_or_else(wrong)?;
    let _ = rustix::process::setsid();
    // It holds the repository's key.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(std::io::Error::from)?;
    let host = Host { dir: HostDir::open(Path::new(dir))?, location: order.repository };
    host.mount_here(&order.subject, &order.dir)
}
