//! The converter: `qemu-img` in a jail, on private copies in a folder of its own.
//!
//! When we are root it runs as a user of its own, whom the folder is given to; else as the caller.
//! Either way it reaches, by landlock, its inputs and its output, and nothing else.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use import::{Format, qemu_img};
use model::{PAGE_BYTES, format_bytes};
use rustix::fs::SeekFrom as DataSeek;
use rustix::process::Signal;
use vmm::{Confined, Ended, Identity, Launcher, Limits};

use crate::dir::free_bytes;
use crate::failure::{Failure, Result};

/// First of the users that converters run as when we are root, apart from those of QEMU.
const UID_FIRST: u32 = 1_920_000_000;
/// Address space of a converter: it maps its libraries and some buffers.
const MEMORY_BYTES_MAX: u64 = 2 << 30;
/// Threads of a converter.
const TASKS_MAX: u64 = 64;
/// How long it may look at a header.
const LOOK: Duration = Duration::from_secs(60);
/// How long any conversion may take, and how long it may take for each [`PER_SECOND`] more.
const CONVERT_MIN: Duration = Duration::from_secs(300);
/// What even a slow disk writes in a second, bytes.
const PER_SECOND: u64 = 16 << 20;
/// How long a conversion may take at most.
const CONVERT_MAX: Duration = Duration::from_secs(6 * 3600);
/// What a conversion leaves free on the disk, bytes.
const FREE_BYTES_MIN: u64 = 512 << 20;
/// Bytes that are copied before the free space is looked at again.
const STREAM_BYTES: u64 = 64 << 20;
/// Beyond the content, what a format's own tables may take, bytes; and one part in 16.
const TABLES_BYTES_MAX: u64 = 64 << 20;

/// A folder that converters work in.
pub struct Converter {
    folder: PathBuf,
    program: PathBuf,
    identity: Option<Identity>,
}

impl Converter {
    /// Gives the folder to the converter's user.
    pub fn new(folder: &Path) -> Result<Self> {
        let identity = rustix::process::geteuid().is_root().then(|| {
            let [a, b, c] = ambient::random();
            let id = UID_FIRST + u32::from_be_bytes([0, a, b, c]);
            Identity { uid: id, gid: id }
        });
        let converter =
            Self { folder: folder.to_owned(), program: vmm::find_qemu_img()?, identity };
        converter.give(folder)?;
        Ok(converter)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn give(&self, path: &Path) -> Result<()> {
        match self.identity {
            Some(Identity { uid, gid }) => Ok(chown(path, Some(uid), Some(gid))?),
            None => Ok(()),
        }
    }

    /// A new file in the folder, of the converter's.
    pub fn create(&self, name: &str, mode: u32) -> Result<File> {
        let path = self.folder.join(name);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        self.give(&path)?;
        Ok(file)
    }

    /// Copies a foreign file into the folder, holes as holes.
    pub fn bring(&self, source: &mut File, name: &str) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        let metadata = source.metadata()?;
        self.require_space(metadata.blocks().saturating_mul(512).min(metadata.len()))?;
        let mut target = self.create(name, 0o400)?;
        target.set_len(metadata.len())?;
        let mut offset = 0;
        while let Some(start) = crate::ingest::next_data(source, offset)? {
            let end = match rustix::fs::seek(&*source, DataSeek::Hole(start)) {
                Ok(end) => end,
                Err(_) => metadata.len(),
            };
            source.seek(SeekFrom::Start(start))?;
            target.seek(SeekFrom::Start(start))?;
            // The same file system shares the blocks, where it can.
            std::io::copy(&mut source.take(end - start), &mut target)?;
            offset = end.max(start + 1);
        }
        Ok(())
    }

    /// Copies exactly `bytes` of what a reader gives into the folder.
    pub fn bring_stream(&self, source: &mut dyn Read, bytes: u64, name: &str) -> Result<()> {
        self.require_space(bytes)?;
        let mut target = self.create(name, 0o400)?;
        let mut copied = 0;
        while copied < bytes {
            some_space(&self.folder)?;
            let step =
                std::io::copy(&mut source.take(STREAM_BYTES.min(bytes - copied)), &mut target)
                    .map_err(|error| match error.raw_os_error() {
                        // Of the reader: what it unpacks is broken.
                        None => Failure::new("import", error.to_string(), "get it again"),
                        Some(_) => error.into(),
                    })?;
            if step == 0 {
                return Err(Failure::new(
                    "import",
                    format!("it ends after {copied} of {bytes} bytes"),
                    "it was cut off on its way: get it again",
                ));
            }
            copied += step;
        }
        Ok(())
    }

    /// A new file with this content.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        Ok(self.create(name, 0o400)?.write_all(content)?)
    }

    /// Refuses to begin what would fill the disk.
    pub fn require_space(&self, bytes: u64) -> Result<()> {
        let free = free_bytes(&self.folder)?;
        if free >= bytes.saturating_add(FREE_BYTES_MIN) {
            return Ok(());
        }
        Err(full(format!("{} are needed and {} free", format_bytes(bytes), format_bytes(free))))
    }

    /// Converts files of the folder, the first of which leads to the others, to a sparse raw file
    /// that is as long as whole pages are. Gives its length.
    pub fn to_raw(&self, format: Format, inputs: &[&str], output: &str) -> Result<u64> {
        let first = inputs.first().copied().unwrap_or_default();
        let limits = Limits { file_bytes: Some(0), ..self.limits(LOOK) };
        let said = self.run(qemu_img::info(format, first), inputs, None, limits, LOOK)?;
        let said = succeeded(said)?;
        let size = qemu_img::read_info(&said.output, format, inputs)?;
        let length = size.next_multiple_of(PAGE_BYTES as u64);
        self.create(output, 0o600)?.set_len(length)?;
        let deadline = conversion_time(size);
        if let Some(check) = qemu_img::check(format, first) {
            let limits = Limits { file_bytes: Some(0), ..self.limits(deadline) };
            let ended = self.run(check, inputs, None, limits, deadline)?;
            if !qemu_img::is_whole(ended.status.code()) {
                return Err(failed("it is damaged, or cut off", &ended));
            }
        }
        let limits = Limits { file_bytes: Some(length), ..self.limits(deadline) };
        let arguments = qemu_img::to_raw(format, first, output);
        succeeded(self.run(arguments, inputs, Some(output), limits, deadline)?)?;
        Ok(length)
    }

    /// Converts a raw file of the folder for others.
    pub fn raw_to(&self, input: &str, output: &str, target: qemu_img::Target) -> Result<()> {
        let size = std::fs::metadata(self.folder.join(input))?.len();
        self.create(output, 0o600)?;
        let deadline = conversion_time(size);
        let file_bytes = Some(size.saturating_add(size / 16).saturating_add(TABLES_BYTES_MAX));
        let limits = Limits { file_bytes, ..self.limits(deadline) };
        let arguments = qemu_img::from_raw(input, output, target);
        succeeded(self.run(arguments, &[input], Some(output), limits, deadline)?).map(drop)
    }

    fn limits(&self, time: Duration) -> Limits {
        Limits {
            memory_bytes: Some(MEMORY_BYTES_MAX),
            file_bytes: None,
            // It has several threads.
            cpu_s: Some(time.as_secs() * 2),
            tasks: self.identity.map(|_| TASKS_MAX),
        }
    }

    fn run(
        &self,
        arguments: Vec<std::ffi::OsString>,
        inputs: &[&str],
        output: Option<&str>,
        limits: Limits,
        deadline: Duration,
    ) -> Result<Ended> {
        let confined = Confined {
            launcher: Launcher::this_binary(),
            identity: self.identity,
            program: self.program.clone(),
            arguments,
            cwd: self.folder.clone(),
            readable: inputs.iter().map(|name| self.folder.join(name)).collect(),
            writable: output.iter().map(|name| self.folder.join(name)).collect(),
            limits,
            deadline,
            output_bytes_max: qemu_img::INFO_BYTES_MAX as u64 + 1,
        };
        let ended = confined
            .run(|| some_space(&self.folder))
            .map_err(|error| match error {
                vmm::VmmError::Timeout { .. } => Failure::new(
                    "import",
                    format!("it took longer than {} s to convert", deadline.as_secs()),
                    "a file that takes so long was made to: convert it yourself, and import --format raw",
                ),
                other => other.into(),
            })??;
        Ok(ended)
    }
}

fn succeeded(ended: Ended) -> Result<Ended> {
    if ended.status.success() {
        Ok(ended)
    } else {
        Err(failed("qemu-img cannot convert it", &ended))
    }
}

fn failed(what: &str, ended: &Ended) -> Failure {
    let is = |signal: Signal| ended.status.signal() == Some(signal.as_raw());
    let said: String = ended.messages.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    let why = match ended.status.signal() {
        Some(_) if is(Signal::XFSZ) => "it wrote more than the disk has".to_owned(),
        Some(_) if is(Signal::XCPU) => "it took too much CPU time".to_owned(),
        Some(signal) => format!("it was ended by signal {signal}"),
        None => last.trim_start_matches("qemu-img: ").chars().take(400).collect(),
    };
    Failure::new(
        "import",
        format!("{what}: {why}"),
        "get the file again; `qemu-img check FILE` says whether it is whole",
    )
}

fn conversion_time(bytes: u64) -> Duration {
    (CONVERT_MIN + Duration::from_secs(bytes / PER_SECOND)).min(CONVERT_MAX)
}

/// Refuses to go on where the disk is nearly full.
pub fn some_space(folder: &Path) -> Result<()> {
    match free_bytes(folder)? {
        free if free < FREE_BYTES_MIN => Err(full(format!("{} are left", format_bytes(free)))),
        _ => Ok(()),
    }
}

fn full(detail: String) -> Failure {
    Failure::new(
        "no_space",
        format!("there is not enough space to convert it: {detail}"),
        "free some, or move COLLECTIVE_DIR to a larger disk",
    )
}
