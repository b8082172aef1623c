//! The checks that turn a document into a recipe. Pure: no file is looked at.

mod boot;
mod checkpoints;
mod content;
mod disk;
mod running;

use std::collections::BTreeSet;

use model::{
    Boot, BootKind, DiskSpec, DisplayCard, DisplaySpec, Hardware, NicModel, NicSpec, Profile, Ready,
};
use serde_saphyr::{Location, Spanned};

use crate::RecipeError;
use crate::document::{CardDoc, Document, HardwareDoc, HttpDoc, NicDoc, ProfileDoc, ReadyDoc};
use crate::place::Placed;
use crate::recipe::{DiskContent, Recipe};

const MEMORY_BYTES: std::ops::RangeInclusive<u64> = 16 << 20..=1 << 40;
const VIDEO_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=256 << 20;
const VGA_BYTES: u64 = 16 << 20;
/// Two pictures of 2560x1600, and what else is drawn.
const VIRTIO_BYTES: u64 = 64 << 20;
const NICS_MAX: usize = 8;
const PORTS_MAX: usize = 64;

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
    check.count(&document.nics, NICS_MAX, "nics")?;

    let (mut disks, mut contents) = check.disks(&document.disks)?;
    let nics: Vec<NicSpec> =
        document.nics.iter().map(|nic| check.nic(nic)).collect::<Checked<_>>()?;
    let (boot, kernel, initrd) = check.boot(&document.boot, &disks, &contents)?;
    check.kernel_modules(&document.disks, kernel.as_ref())?;
    let ready = check.ready(&document.ready, &nics)?;
    let vendor_data = document.vendor_data.as_ref().map(|file| check.relative(file)).transpose()?;
    let variables = check.variables(&document.boot.value)?;
    let auto = document.checkpoints.as_ref().map(|doc| check.checkpoints(doc)).transpose()?;
    let running = check.running(&document, &ready, &mut contents)?;
    if let Some(tpm) = document.hardware.tpm.as_ref().filter(|tpm| tpm.value) {
        if boot.kind == BootKind::Kernel {
            // QEMU places it by a fixed size of those tables, which a TPM's log exceeds.
            return Err(check.wrong(
                tpm,
                "with `mode: kernel` the initial RAM disk would lie over the tables that tell of a TPM",
                "use `mode: uefi` or `mode: bios`",
            ));
        }
        disks.push(DiskSpec::tpm());
        contents.push(DiskContent::Empty);
    }
    let hardware = check.hardware(&document.hardware, boot, disks, nics)?;
    if let Some(secure) = document.boot.value.secure_boot.as_ref().filter(|secure| secure.value)
        && hardware.profile != Profile::Q35
    {
        let hint = "remove `profile: light`, or `secure_boot`";
        return Err(check.wrong(secure, "secure boot needs the board q35", hint));
    }
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
        vendor_data,
        variables,
        auto,
        running,
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
                let (card, default) = match display.card {
                    CardDoc::Vga => (DisplayCard::Vga, VGA_BYTES),
                    CardDoc::Virtio => (DisplayCard::Virtio, VIRTIO_BYTES),
                };
                let video_bytes = match &display.video_memory {
                    None => default,
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
                Some(DisplaySpec { video_bytes, card })
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
        let ports = nic.value.ports.iter().map(|port| port.value).collect();
        Ok(NicSpec { network, ports, model: NicModel::Virtio })
    }

    fn ready(&self, ready: &Spanned<ReadyDoc>, nics: &[NicSpec]) -> Checked<Ready> {
        match &ready.value {
            ReadyDoc::Started => Ok(Ready::Started),
            ReadyDoc::Agent => Ok(Ready::Agent),
            ReadyDoc::Port(port) | ReadyDoc::Http(HttpDoc { port, .. })
                if !nics.iter().any(|nic| nic.ports.contains(port)) =>
            {
                Err(self.wrong(
                    ready,
                    format!("no network card offers port {port}"),
                    "add it to the `ports` of one of `nics`",
                ))
            }
            ReadyDoc::Port(port) => Ok(Ready::Port(*port)),
            ReadyDoc::Http(HttpDoc { port, path }) => {
                if Ready::is_path(path) {
                    Ok(Ready::Http { port: *port, path: path.clone() })
                } else {
                    Err(self.wrong(
                        ready,
                        "the path must begin with a slash and be 1 to 1024 printable bytes",
                        "for example `ready: {http: {port: 80, path: /}}`; write %20 for a space",
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
}
