//! Certificates that were taken back, also in a file beside the token's: when the state is lost, the
//! next one begins with them.
//!
//! The file has a line for each host: its id, and since when, Unix time in ms. It is replaced as a
//! whole. Each plane keeps its own, from the state; so all but those that no plane has seen come back.
//! *On a crash* after a host was removed and before the file was written it is in the state, and comes
//! into the file with the next look.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::PoisonError;

use kv::{Condition, Txn};

use super::{Result, host_id, json, read};
use crate::serve::{Plane, Refused};

/// By hosts' ids.
pub type Revocations = BTreeMap<String, u64>;

/// What a file says; nothing when there is none.
pub fn read_file(path: &Path) -> io::Result<Revocations> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Revocations::new()),
        text => text?,
    };
    let line = |line: &str| {
        let (id, since) = line.split_once(' ')?;
        Some((host_id(id).ok()?.to_string(), since.parse().ok()?))
    };
    let lines = text.lines().map(|text| {
        let wrong =
            || io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no line of it"));
        line(text).ok_or_else(wrong)
    });
    lines.collect()
}

fn write_file(path: &Path, revoked: &Revocations) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    for (id, since) in revoked {
        writeln!(file, "{id} {since}")?;
    }
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

impl Plane {
    /// Brings state and file together: what either knows both know.
    pub(in crate::serve) fn keep_revocations(&self) -> Result<()> {
        let mut kept = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stated = Revocations::new();
        for entry in self.kv.list("revoked/")?.entries {
            stated.insert(entry.key["revoked/".len()..].to_owned(), read(&entry)?);
        }
        for (id, since) in kept.iter() {
            if stated.get(id).is_none_or(|stated| stated < since) {
                let key = format!("revoked/{id}");
                let now = self.kv.get(&key)?;
                let at = now.map_or(Condition::Absent, |entry| Condition::At(entry.revision));
                self.kv.commit(&Txn::new().when(&key, at).put(&key, json(since)))?;
                stated.insert(id.clone(), *since);
            }
        }
        if *kept != stated {
            write_file(&self.revoked_file, &stated).map_err(|error| {
                let detail = format!("{}: {error}", self.revoked_file.display());
                Refused::new(500, "io", detail, "may the plane write there?")
            })?;
            *kept = stated;
        }
        Ok(())
    }
}
