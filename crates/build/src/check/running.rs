//! `state: running`: what has to be right so that many can start from one memory.

use model::Ready;

use super::{Check, Checked};
use crate::document::{Document, StateDoc};
use crate::place::GuestPath;
use crate::recipe::{DiskContent, FileContent, FileEntry};

/// The program in the guest that makes an instance somebody of its own.
const FRESH_IDENTITY: &str = "/etc/collective/fresh-identity";
/// What Debian systems get when their recipe brings none.
const FOR_DEBIAN: &str = include_str!("fresh-identity.sh");

impl Check<'_> {
    /// Whether instances start from memory. Debian systems then get what makes their identity anew.
    pub(super) fn running(
        &self,
        document: &Document,
        ready: &Ready,
        contents: &mut [DiskContent],
    ) -> Checked<bool> {
        let Some(state) = &document.state else { return Ok(false) };
        if state.value == StateDoc::Stopped {
            return Ok(false);
        }
        if *ready == Ready::Started {
            return Err(self.wrong(
                &document.ready,
                "`state: running` needs to know when it is ready; `started` is before it has booted",
                "use `agent`, `port` or `console`",
            ));
        }
        if let Some(tpm) = document.hardware.tpm.as_ref().filter(|tpm| tpm.value) {
            return Err(self.wrong(
                tpm,
                "a TPM's secrets would be the same in every instance that starts from one memory",
                "leave out `state: running`: each instance then has a TPM of its own",
            ));
        }
        if let Some(vendor_data) = &document.vendor_data {
            return Err(self.wrong(
                vendor_data,
                "`vendor_data` is on a CD of each instance's own, which a memory cannot know",
                "leave out `state: running`, or configure it with `files` and `commands`",
            ));
        }
        for content in contents {
            if let DiskContent::Debian(plan) = content {
                let path = GuestPath::new(FRESH_IDENTITY).expect("it is a path in a guest");
                if plan.files.iter().all(|file| file.path != path) {
                    let content = FileContent::Text(FOR_DEBIAN.to_owned());
                    plan.files.push(FileEntry { path, content, mode: Some(0o755) });
                }
            }
        }
        Ok(true)
    }
}
