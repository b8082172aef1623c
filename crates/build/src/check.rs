//! The checks that turn a document into a recipe. Pure: no file is looked at.

use std::collections::BTreeSet;

use model::{
    Boot, BootKind, DiskRole, DiskSpec, DisplaySpec, Hardware, NicSpec, PAGE_BYTES, Profile, Ready,
    ResetPolicy,
};
use serde_saphyr::{Location, Spanned};

use crate::RecipeError;
use crate::document::{
    AtStopDoc, BootDoc, BootModeDoc, DebianDoc, DiskDoc, Document, FileDoc, HardwareDoc, InitrdDoc,
    KernelDoc, NicDoc, ProfileDoc, ReadyDoc, RoleDoc,
};
use crate::place::{GuestPath, Placed, RelativePath};
use crate::recipe::{
    DebianPlan, DiskContent, FileContent, FileEntry, InitrdPlan, InitrdSource, KernelSource, Recipe,
};

const MEMORY_BYTES: std::ops::RangeInclusive<u64> = 16 << 20..=1 << 40;
const DISK_BYTES_MAX: u64 = 64 << 40;
const EXT4_BYTES_MIN: u64 = 16 << 20;
const VIDEO_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=256 << 20;
const VIDEO_BYTES_DEFAULT: u64 = 16 << 20;
const DISKS_MAX: usize = 16;
const NICS_MAX: usize = 8;
const PORTS_MAX: usize = 64;
const PACKAGES_MAX: usize = 512;
const FILES_MAX: usize = 1000;
const COMMANDS_MAX: usize = 256;
const CMDLINE_CHARS_MAX: usize = 2000;

type Checked<T> = Result<T, RecipeError>;

/// Makes errors with the place of the value that is wrong.
struct Check<'a> {
    origin: &'a str,
}

pub(crate) fn recipe(document: Document, origin: &str) -> Checked<Recipe> {
    let check = Check { origin };
    let name = model::Name::new(&document.name.value)
        .map_err(|e| check.wrong(&document.name, e.to_string(), "for example: name: web"))?;
    let version = check.one_line(&document.version, 64)?;
    if document.description.len() > 4000 {
        return Err(check.wrong(
            &document.name,
            "the description is too long",
            "4000 bytes at most",
        ));
    }
    check.count(&document.disks, DISKS_MAX, "disks")?;
    check.count(&document.nics, NICS_MAX, "nics")?;

    let mut disks = Vec::new();
    let mut contents = Vec::new();
    let mut names = BTreeSet::new();
    for disk in &document.disks {
        let (spec, content) = check.disk(disk)?;
        if !names.insert(spec.name.clone()) {
            return Err(check.wrong(
                &disk.value.name,
                format!("two disks are called {:?}", spec.name),
                "give each disk a name of its own",
            ));
        }
        disks.push(spec);
        contents.push(content);
    }
    let nics: Vec<NicSpec> =
        document.nics.iter().map(|nic| check.nic(nic)).collect::<Checked<_>>()?;
    let (boot, kernel, initrd) = check.boot(&document.boot, &disks, &contents)?;
    let ready = check.ready(&document.ready, &nics)?;
    let hardware = check.hardware(&document.hardware, boot, disks, nics)?;
    Ok(Recipe {
        origin: origin.to_owned(),
        name,
        version,
        description: document.description,
        hardware,
        ready,
        kernel,
        initrd,
        contents,
    })
}

fn placed<T, U>(spanned: &Spanned<T>, value: U) -> Placed<U> {
    let at: Location = spanned.referenced;
    Placed { value, line: at.line().max(1), column: at.column().max(1) }
}

impl Check<'_> {
    fn wrong<T>(&self, at: &Spanned<T>, message: impl Into<String>, hint: &str) -> RecipeError {
        placed(at, ()).error(self.origin, message.into(), hint)
    }

    fn count<T>(&self, list: &[Spanned<T>], max: usize, what: &str) -> Checked<()> {
        match list.get(max) {
            Some(extra) => Err(self.wrong(extra, format!("more than {max} {what}"), "remove some")),
            None => Ok(()),
        }
    }

    fn one_line(&self, text: &Spanned<String>, chars_max: usize) -> Checked<String> {
        let value = &text.value;
        if value.is_empty() || value.chars().count() > chars_max || value.contains(char::is_control)
        {
            return Err(self.wrong(
                text,
                format!("{value:?} must be one line of 1 to {chars_max} characters"),
                "shorten it, and write it on one line",
            ));
        }
        Ok(value.clone())
    }

    fn size(&self, text: &Spanned<String>, unit: u64, unit_name: &str) -> Checked<u64> {
        let hint = "write a whole number with a unit, for example 512MiB or 4GiB";
        let bytes =
            model::parse_bytes(&text.value).map_err(|e| self.wrong(text, e.to_string(), hint))?;
        if bytes == 0 || !bytes.is_multiple_of(unit) {
            let message = format!("{:?} must be a multiple of {unit_name}, above zero", text.value);
            return Err(self.wrong(text, message, hint));
        }
        Ok(bytes)
    }

    fn hardware(
        &self,
        doc: &HardwareDoc,
        boot: Boot,
        disks: Vec<DiskSpec>,
        nics: Vec<NicSpec>,
    ) -> Checked<Hardware> {
        if !(1..=64).contains(&doc.cpus.value) {
            let message = format!("{} CPUs are not possible", doc.cpus.value);
            return Err(self.wrong(&doc.cpus, message, "use 1 to 64"));
        }
        let memory_bytes = self.size(&doc.memory, 1 << 20, "1MiB")?;
        if !MEMORY_BYTES.contains(&memory_bytes) {
            let message = format!("{} of memory are not possible", doc.memory.value);
            return Err(self.wrong(&doc.memory, message, "use 16MiB to 1TiB"));
        }
        let display = match &doc.display {
            None => None,
            Some(display) => {
                let video_bytes = match &display.video_memory {
                    None => VIDEO_BYTES_DEFAULT,
                    Some(text) => {
                        let bytes = self.size(text, 1 << 20, "1MiB")?;
                        if !VIDEO_BYTES.contains(&bytes) {
                            let message =
                                format!("{} of video memory are not possible", text.value);
                            return Err(self.wrong(text, message, "use 1MiB to 256MiB"));
                        }
                        bytes
                    }
                };
                Some(DisplaySpec { video_bytes })
            }
        };
        let profile = match doc.profile {
            ProfileDoc::Q35 => Profile::Q35,
            ProfileDoc::Light => Profile::Light,
        };
        Ok(Hardware { profile, cpus: doc.cpus.value, memory_bytes, boot, disks, nics, display })
    }

    fn nic(&self, nic: &Spanned<NicDoc>) -> Checked<NicSpec> {
        let network = match &nic.value.network {
            None => "user".to_owned(),
            Some(name) => {
                let hint = "`user` is the network through the host";
                model::Name::new(&name.value)
                    .map_err(|e| self.wrong(name, e.to_string(), hint))?
                    .to_string()
            }
        };
        self.count(&nic.value.ports, PORTS_MAX, "ports")?;
        let mut seen = BTreeSet::new();
        for port in &nic.value.ports {
            if port.value == 0 || !seen.insert(port.value) {
                let message = format!("port {} is not possible here", port.value);
                return Err(self.wrong(port, message, "name each port from 1 to 65535 once"));
            }
        }
        Ok(NicSpec { network, ports: nic.value.ports.iter().map(|port| port.value).collect() })
    }

    fn ready(&self, ready: &Spanned<ReadyDoc>, nics: &[NicSpec]) -> Checked<Ready> {
        match &ready.value {
            ReadyDoc::Started => Ok(Ready::Started),
            ReadyDoc::Agent => Ok(Ready::Agent),
            ReadyDoc::Port(port) => {
                if nics.iter().any(|nic| nic.ports.contains(port)) {
                    Ok(Ready::Port(*port))
                } else {
                    Err(self.wrong(
                        ready,
                        format!("no network card offers port {port}"),
                        "add it to the `ports` of one of `nics`",
                    ))
                }
            }
            ReadyDoc::Console(text) => {
                if text.is_empty() || text.len() > 256 || text.contains(char::is_control) {
                    Err(self.wrong(
                        ready,
                        "the console text must be 1 to 256 bytes on one line",
                        "use a part of the line that does not change from start to start",
                    ))
                } else {
                    Ok(Ready::Console(text.clone()))
                }
            }
        }
    }

    fn disk(&self, disk: &Spanned<DiskDoc>) -> Checked<(DiskSpec, DiskContent)> {
        let doc = &disk.value;
        let name = self.disk_name(&doc.name)?;
        let role = match doc.role {
            RoleDoc::System => DiskRole::System,
            RoleDoc::Data => DiskRole::Data,
            RoleDoc::Scratch => DiskRole::Scratch,
        };
        let reset = self.reset(doc)?;
        let label = match &doc.label {
            None => name.chars().take(16).collect(),
            Some(label) if label.value.len() <= 16 => self.one_line(label, 16)?,
            Some(label) => {
                return Err(self.wrong(label, "a label has at most 16 bytes", "shorten it"));
            }
        };
        let size_bytes = match &doc.size {
            None if doc.image.is_some() => 0,
            None => {
                let message = format!("disk {name:?} has no size");
                return Err(self.wrong(disk, message, "add for example: size: 1GiB"));
            }
            Some(text) => {
                let bytes = self.size(text, PAGE_BYTES as u64, "4KiB")?;
                if bytes > DISK_BYTES_MAX {
                    return Err(self.wrong(text, "the disk is too large", "use at most 64TiB"));
                }
                let formatted = doc.format.is_some() || doc.debian.is_some();
                if formatted && bytes < EXT4_BYTES_MIN {
                    let message = "the disk is too small for a file system";
                    return Err(self.wrong(text, message, "use at least 16MiB"));
                }
                bytes
            }
        };
        let content = match (&doc.image, &doc.debian, &doc.format) {
            (None, None, None) => DiskContent::Empty,
            (None, None, Some(_)) => DiskContent::Ext4 { label: label.clone() },
            (Some(image), None, None) => DiskContent::Image(self.relative(image)?),
            (None, Some(debian), None) => DiskContent::Debian(self.debian(&debian.value, &label)?),
            (Some(_), Some(debian), _) => {
                return Err(self.wrong(
                    debian,
                    "a disk has either an image or a Debian system, not both",
                    "keep one of `image` and `debian`",
                ));
            }
            (_, _, Some(format)) => {
                return Err(self.wrong(
                    format,
                    "`format` is for disks without other content",
                    "remove `format`: `image` and `debian` bring their own file system",
                ));
            }
        };
        if let (Some(label), DiskContent::Empty | DiskContent::Image(_)) = (&doc.label, &content) {
            let hint = "add `format: ext4`, or remove `label`";
            return Err(self.wrong(label, "there is no file system to give a label to", hint));
        }
        if role == DiskRole::Scratch
            && matches!(content, DiskContent::Image(_) | DiskContent::Debian(_))
        {
            return Err(self.wrong(
                disk,
                format!("disk {name:?} is scratch, so its content would be lost at the first stop"),
                "use `role: system`, or leave the disk empty",
            ));
        }
        Ok((DiskSpec { name, role, reset, size_bytes }, content))
    }

    fn disk_name(&self, name: &Spanned<String>) -> Checked<String> {
        let text = &name.value;
        let good = (1..=32).contains(&text.len())
            && !text.starts_with('-')
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if good {
            Ok(text.clone())
        } else {
            let message = format!("{text:?} is not a disk name");
            Err(self.wrong(name, message, "use 1 to 32 of a-z, 0-9 and '-', not starting with '-'"))
        }
    }

    fn reset(&self, doc: &DiskDoc) -> Checked<ResetPolicy> {
        match (&doc.at_stop, doc.role) {
            (None, RoleDoc::Data) => Ok(ResetPolicy::Keep),
            (None, _) => Ok(ResetPolicy::Reset),
            (Some(at_stop), RoleDoc::System) => Ok(match at_stop.value {
                AtStopDoc::Reset => ResetPolicy::Reset,
                AtStopDoc::Keep => ResetPolicy::Keep,
            }),
            (Some(at_stop), _) => Err(self.wrong(
                at_stop,
                "`at_stop` is for system disks",
                "remove it: data disks are always kept, scratch disks never",
            )),
        }
    }

    fn debian(&self, doc: &DebianDoc, label: &str) -> Checked<DebianPlan> {
        self.count(&doc.commands, COMMANDS_MAX, "commands")?;
        for command in &doc.commands {
            if command.value.trim().is_empty() || command.value.contains('\0') {
                return Err(self.wrong(command, "an empty command", "remove it"));
            }
        }
        Ok(DebianPlan {
            suite: self.suite(&doc.suite)?,
            packages: self.packages(&doc.packages)?,
            files: self.files(&doc.files)?,
            commands: doc.commands.iter().map(|c| placed(c, c.value.clone())).collect(),
            label: label.to_owned(),
        })
    }

    fn suite(&self, suite: &Spanned<String>) -> Checked<String> {
        let text = &suite.value;
        let good = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && text.as_bytes()[0].is_ascii_lowercase();
        if good {
            Ok(text.clone())
        } else {
            Err(self.wrong(suite, format!("{text:?} is not a suite"), "for example: bookworm"))
        }
    }

    fn package(&self, package: &Spanned<String>) -> Checked<String> {
        let text = &package.value;
        let good = (2..=128).contains(&text.len())
            && text.as_bytes()[0].is_ascii_alphanumeric()
            // apt reads a trailing minus as "remove".
            && !text.ends_with('-')
            && text.bytes().all(|b| {
                b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b)
            });
        if good {
            Ok(text.clone())
        } else {
            let message = format!("{text:?} is not the name of a Debian package");
            Err(self.wrong(package, message, "use the package's name alone, without a version"))
        }
    }

    fn packages(&self, list: &[Spanned<String>]) -> Checked<Vec<String>> {
        self.count(list, PACKAGES_MAX, "packages")?;
        list.iter().map(|package| self.package(package)).collect()
    }

    fn files(&self, list: &[Spanned<FileDoc>]) -> Checked<Vec<FileEntry>> {
        self.count(list, FILES_MAX, "files")?;
        let mut seen = BTreeSet::new();
        let mut files = Vec::new();
        for file in list {
            let path = self.guest_path(&file.value.path)?;
            if !seen.insert(path.clone()) {
                let message = format!("{:?} is listed twice", path.as_str());
                return Err(self.wrong(&file.value.path, message, "keep one of them"));
            }
            let content = match (&file.value.from, &file.value.content) {
                (Some(from), None) => FileContent::From(self.relative(from)?),
                (None, Some(text)) => FileContent::Text(text.clone()),
                _ => {
                    let message = "a file needs exactly one of `from` and `content`";
                    let hint = "`from` copies a file of the recipe's folder, `content` is the text";
                    return Err(self.wrong(file, message, hint));
                }
            };
            let mode = match &file.value.mode {
                None => None,
                Some(mode) => Some(self.mode(mode)?),
            };
            files.push(FileEntry { path, content, mode });
        }
        Ok(files)
    }

    fn mode(&self, mode: &Spanned<String>) -> Checked<u32> {
        let text = &mode.value;
        let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        u32::from_str_radix(text, 8).ok().filter(|_| digits).ok_or_else(|| {
            self.wrong(mode, format!("{text:?} is not a file mode"), "for example: mode: \"0755\"")
        })
    }

    fn guest_path(&self, path: &Spanned<String>) -> Checked<GuestPath> {
        GuestPath::new(&path.value).ok_or_else(|| {
            let message = format!("{:?} is not a path in the guest", path.value);
            self.wrong(
                path,
                message,
                "write it absolute and without . or .., for example /etc/motd",
            )
        })
    }

    fn relative(&self, path: &Spanned<String>) -> Checked<Placed<RelativePath>> {
        match RelativePath::new(&path.value) {
            Some(relative) => Ok(placed(path, relative)),
            None => Err(self.wrong(
                path,
                format!("{:?} leaves the recipe's folder", path.value),
                "copy the file into the recipe's folder and name it relative to that",
            )),
        }
    }

    fn boot(
        &self,
        boot: &Spanned<BootDoc>,
        disks: &[DiskSpec],
        contents: &[DiskContent],
    ) -> Checked<(Boot, Option<KernelSource>, Option<InitrdSource>)> {
        let doc = &boot.value;
        if doc.mode == BootModeDoc::Bios {
            let hint = "use `mode: kernel`, or remove it";
            let wrong = "with `mode: bios` the disk brings its own kernel";
            if let Some(kernel) = &doc.kernel {
                return Err(self.wrong(kernel, wrong, hint));
            }
            if let Some(initrd) = &doc.initrd {
                return Err(self.wrong(initrd, wrong, hint));
            }
            if let Some(cmdline) = &doc.cmdline {
                return Err(self.wrong(cmdline, wrong, hint));
            }
            if !matches!(contents.first(), Some(DiskContent::Image(_))) {
                return Err(self.wrong(
                    boot,
                    "with `mode: bios` the first disk must be a bootable `image`",
                    "list such a disk first; a disk made by `debian` starts with `mode: kernel`",
                ));
            }
            let boot = Boot { kind: BootKind::Bios, cmdline: String::new() };
            return Ok((boot, None, None));
        }
        let Some(kernel) = &doc.kernel else {
            let hint =
                "add for example: kernel: {package: linux-image-cloud-amd64, suite: bookworm}";
            return Err(self.wrong(boot, "`mode: kernel` needs a kernel", hint));
        };
        let kernel = self.kernel(kernel)?;
        let initrd = match &doc.initrd {
            None => None,
            Some(initrd) => Some(self.initrd(initrd, &kernel, disks, contents)?),
        };
        let cmdline = match &doc.cmdline {
            None => String::new(),
            Some(text) if text.value.is_empty() => String::new(),
            Some(text) => self.one_line(text, CMDLINE_CHARS_MAX)?,
        };
        Ok((Boot { kind: BootKind::Kernel, cmdline }, Some(kernel), initrd))
    }

    fn kernel(&self, kernel: &Spanned<KernelDoc>) -> Checked<KernelSource> {
        match (&kernel.value.package, &kernel.value.suite, &kernel.value.file) {
            (Some(package), Some(suite), None) => Ok(KernelSource::Package {
                package: self.package(package)?,
                suite: self.suite(suite)?,
            }),
            (None, None, Some(file)) => Ok(KernelSource::File(self.relative(file)?)),
            _ => Err(self.wrong(
                kernel,
                "a kernel is either a `package` of a `suite`, or a `file`",
                "for example: kernel: {package: linux-image-cloud-amd64, suite: bookworm}",
            )),
        }
    }

    fn initrd(
        &self,
        initrd: &Spanned<InitrdDoc>,
        kernel: &KernelSource,
        disks: &[DiskSpec],
        contents: &[DiskContent],
    ) -> Checked<InitrdSource> {
        let doc = &initrd.value;
        if let Some(file) = &doc.file {
            let made = doc.suite.is_some()
                || doc.root.is_some()
                || !(doc.modules.is_empty()
                    && doc.packages.is_empty()
                    && doc.programs.is_empty()
                    && doc.files.is_empty());
            if made {
                let hint = "keep `file` alone, or describe the initrd without it";
                return Err(self.wrong(initrd, "`file` excludes the other fields", hint));
            }
            return Ok(InitrdSource::File(self.relative(file)?));
        }
        let suite = match (&doc.suite, kernel) {
            (Some(suite), _) => self.suite(suite)?,
            (None, KernelSource::Package { suite, .. }) => suite.clone(),
            (None, KernelSource::File(_)) => {
                let hint = "add for example: suite: bookworm";
                return Err(self.wrong(initrd, "busybox needs a suite to come from", hint));
            }
        };
        let root_disk = match &doc.root {
            None => None,
            Some(root) => {
                let index = disks.iter().position(|disk| disk.name == root.value);
                match index.map(|index| (index, &contents[index])) {
                    Some((index, DiskContent::Debian(_) | DiskContent::Image(_))) => Some(index),
                    Some(_) => {
                        let message = format!("disk {:?} has no system to start", root.value);
                        let hint = "name a disk that has `debian` or `image`";
                        return Err(self.wrong(root, message, hint));
                    }
                    None => {
                        let message = format!("there is no disk {:?}", root.value);
                        return Err(self.wrong(root, message, "name one of `disks`"));
                    }
                }
            }
        };
        self.count(&doc.modules, 256, "modules")?;
        self.count(&doc.programs, 256, "programs")?;
        if let (Some(module), KernelSource::File(_)) = (doc.modules.first(), kernel) {
            let message = "modules come from a kernel package, and the kernel is a file";
            return Err(self.wrong(module, message, "build the drivers into that kernel"));
        }
        let mut modules = Vec::new();
        for module in &doc.modules {
            let text = &module.value;
            let good = (1..=64).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
                && !text.starts_with('-');
            if !good {
                let message = format!("{text:?} is not a module name");
                return Err(self.wrong(module, message, "for example: virtio_net"));
            }
            modules.push(placed(module, text.clone()));
        }
        let mut programs = Vec::new();
        for program in &doc.programs {
            programs.push(placed(program, self.guest_path(program)?));
        }
        Ok(InitrdSource::Made(InitrdPlan {
            suite,
            root_disk,
            modules,
            packages: self.packages(&doc.packages)?,
            programs,
            files: self.files(&doc.files)?,
        }))
    }
}
