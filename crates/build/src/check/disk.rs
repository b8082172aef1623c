//! Disks: names, sizes, roles, and which contents go together.

use std::collections::BTreeSet;

use model::{DiskBus, DiskRole, DiskSpec, Media, PAGE_BYTES, ResetPolicy};
use serde_saphyr::Spanned;

use super::{Check, Checked, placed};
use crate::document::{AtStopDoc, DebianDoc, DiskDoc, RoleDoc};
use crate::recipe::{DebianPlan, DiskContent, KernelSource};

const DISK_BYTES_MAX: u64 = 64 << 40;
const EXT4_BYTES_MIN: u64 = 16 << 20;
const DISKS_MAX: usize = 16;
const COMMANDS_MAX: usize = 256;

impl Check<'_> {
    pub(super) fn disks(
        &self,
        list: &[Spanned<DiskDoc>],
    ) -> Checked<(Vec<DiskSpec>, Vec<DiskContent>)> {
        self.count(list, DISKS_MAX, "disks")?;
        let mut specs = Vec::new();
        let mut contents = Vec::new();
        let mut names = BTreeSet::new();
        for disk in list {
            let (spec, content) = self.disk(disk)?;
            if !names.insert(spec.name.clone()) {
                return Err(self.wrong(
                    &disk.value.name,
                    format!("two disks are called {:?}", spec.name),
                    "give each disk a name of its own",
                ));
            }
            specs.push(spec);
            contents.push(content);
        }
        Ok((specs, contents))
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
        let (bus, media) = (DiskBus::Virtio, Media::Disk);
        Ok((DiskSpec { name, role, reset, size_bytes, bus, media }, content))
    }

    fn disk_name(&self, name: &Spanned<String>) -> Checked<String> {
        let text = &name.value;
        let good = (1..=32).contains(&text.len())
            && !text.starts_with('-')
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if text == "uefi-vars" {
            let message = "UEFI's variables have this name";
            return Err(self.wrong(name, message, "choose another name"));
        }
        if text == DiskSpec::TPM {
            let message = "the virtual TPM's volume has this name";
            return Err(self.wrong(name, message, "choose another name"));
        }
        if text == "ram" {
            let message = "the computer's memory has this name";
            return Err(self.wrong(name, message, "choose another name"));
        }
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
            kernel_modules: doc.kernel_modules.as_ref().is_some_and(|wanted| wanted.value),
            commands: doc.commands.iter().map(|c| placed(c, c.value.clone())).collect(),
            label: label.to_owned(),
        })
    }

    pub(super) fn kernel_modules(
        &self,
        disks: &[Spanned<DiskDoc>],
        kernel: Option<&KernelSource>,
    ) -> Checked<()> {
        if matches!(kernel, Some(KernelSource::Package { .. })) {
            return Ok(());
        }
        for disk in disks {
            if let Some(debian) = &disk.value.debian
                && let Some(wanted) = &debian.value.kernel_modules
                && wanted.value
            {
                let message = "modules come from a kernel package, and there is none";
                return Err(self.wrong(wanted, message, "use boot.kernel.package, or remove this"));
            }
        }
        Ok(())
    }
}
