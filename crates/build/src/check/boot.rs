//! How it starts: firmware or kernel, and the initial RAM disk.

use model::{Boot, BootKind, DiskSpec};
use serde_saphyr::Spanned;

use super::{Check, Checked, placed};
use crate::document::{BootDoc, BootModeDoc, InitrdDoc, KernelDoc};
use crate::place::{Placed, RelativePath};
use crate::recipe::{DiskContent, InitrdPlan, InitrdSource, KernelSource};

const CMDLINE_CHARS_MAX: usize = 2000;
const MODULES_MAX: usize = 256;
const PROGRAMS_MAX: usize = 256;

impl Check<'_> {
    pub(super) fn boot(
        &self,
        boot: &Spanned<BootDoc>,
        disks: &[DiskSpec],
        contents: &[DiskContent],
    ) -> Checked<(Boot, Option<KernelSource>, Option<InitrdSource>)> {
        let doc = &boot.value;
        let secure_boot = doc.secure_boot.as_ref().is_some_and(|secure| secure.value);
        if let Some(secure) = doc.secure_boot.as_ref().filter(|_| secure_boot)
            && doc.mode != BootModeDoc::Uefi
        {
            let hint = "use `mode: uefi`, or remove it";
            return Err(self.wrong(secure, "only UEFI has secure boot", hint));
        }
        let firmware = match doc.mode {
            BootModeDoc::Bios => Some((BootKind::Bios, "bios")),
            BootModeDoc::Uefi => Some((BootKind::Uefi, "uefi")),
            BootModeDoc::Kernel => None,
        };
        if let Some((kind, mode)) = firmware {
            let hint = "use `mode: kernel`, or remove it";
            let wrong = format!("with `mode: {mode}` the disk brings its own kernel");
            if let Some(kernel) = &doc.kernel {
                return Err(self.wrong(kernel, &wrong, hint));
            }
            if let Some(initrd) = &doc.initrd {
                return Err(self.wrong(initrd, &wrong, hint));
            }
            if let Some(cmdline) = &doc.cmdline {
                return Err(self.wrong(cmdline, &wrong, hint));
            }
            if !matches!(contents.first(), Some(DiskContent::Image(_))) {
                return Err(self.wrong(
                    boot,
                    format!("with `mode: {mode}` the first disk must be a bootable `image`"),
                    "list such a disk first; a disk made by `debian` starts with `mode: kernel`",
                ));
            }
            let boot = Boot { kind, cmdline: String::new(), secure_boot };
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
        Ok((Boot { kind: BootKind::Kernel, cmdline, secure_boot: false }, Some(kernel), initrd))
    }

    pub(super) fn variables(&self, boot: &BootDoc) -> Checked<Option<Placed<RelativePath>>> {
        let Some(file) = &boot.variables else { return Ok(None) };
        if boot.mode != BootModeDoc::Uefi {
            return Err(self.wrong(
                file,
                "only UEFI has variables",
                "use `mode: uefi`, or remove it",
            ));
        }
        self.relative(file).map(Some)
    }

    fn kernel(&self, kernel: &Spanned<KernelDoc>) -> Checked<KernelSource> {
        let doc = &kernel.value;
        match (&doc.package, &doc.suite, &doc.path, &doc.file) {
            (Some(package), Some(suite), None, None) => Ok(KernelSource::Package {
                package: self.package(package)?,
                suite: self.suite(suite)?,
            }),
            (Some(package), Some(suite), Some(path), None) => Ok(KernelSource::Inside {
                package: self.package(package)?,
                suite: self.suite(suite)?,
                path: placed(path, self.guest_path(path)?),
            }),
            (None, None, None, Some(file)) => Ok(KernelSource::File(self.relative(file)?)),
            (None, None, Some(path), _) => {
                let hint =
                    "add `package` and `suite`, or name a file of the recipe's folder by `file`";
                Err(self.wrong(path, "`path` is a file in a `package`", hint))
            }
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
            (None, KernelSource::Package { suite, .. } | KernelSource::Inside { suite, .. }) => {
                suite.clone()
            }
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
        self.count(&doc.modules, MODULES_MAX, "modules")?;
        self.count(&doc.programs, PROGRAMS_MAX, "programs")?;
        if let (Some(module), KernelSource::File(_) | KernelSource::Inside { .. }) =
            (doc.modules.first(), kernel)
        {
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
