//! `repo ...`: making, checking and cleaning repositories, and their keys.

use std::time::Duration;

use api::{CheckPrint, RepairPrint, RepoInitPrint, RepoStatsPrint};

use crate::Host;
use crate::failure::Result;
use crate::store::{self, KeyPlace, Store};

impl Host {
    /// Makes a repository. It becomes this host's repository when none is configured; says so.
    pub fn repo_init(
        &self,
        location: &str,
        key: KeyPlace,
        grace: Option<Duration>,
    ) -> Result<(RepoInitPrint, bool)> {
        let location = store::absolute_location(location)?;
        let made = Store::init(&self.dir, &location, key, grace)?;
        let configured = self.dir.repository().is_none();
        if configured {
            self.dir.clone().configure_repository(&location)?;
        }
        Ok((made, configured))
    }

    /// Configures the repository of this host, after opening it.
    pub fn use_repository(&self, location: &str) -> Result<String> {
        let location = store::absolute_location(location)?;
        Store::open(&self.dir, &location)?;
        self.dir.clone().configure_repository(&location)?;
        Ok(location)
    }

    /// Adds or removes a source of chunks; gives all of them.
    pub fn source(&self, location: &str, present: bool) -> Result<Vec<String>> {
        let location = store::absolute_location(location)?;
        let mut dir = self.dir.clone();
        dir.configure_source(&location, present)?;
        if present {
            // Opened with the others: what is wrong with it is said now.
            let host = Self { dir: dir.clone(), location: self.location.clone() };
            if let Err(failure) = host.store() {
                dir.configure_source(&location, false)?;
                return Err(failure);
            }
        }
        Ok(dir.sources().to_vec())
    }

    /// Checks that all that is named is there and whole.
    pub fn repo_check(
        &self,
        read_data: bool,
        progress: &mut dyn FnMut(&str),
    ) -> Result<CheckPrint> {
        self.store()?.check(read_data, progress)
    }

    /// Checks everything, every byte, and mends what is damaged or missing from `from`, this host's
    /// cache, its sources and makers.
    pub fn repo_mend(&self, from: &[String], progress: &mut dyn FnMut(&str)) -> Result<CheckPrint> {
        let from: Result<Vec<String>> =
            from.iter().map(|place| store::absolute_location(place)).collect();
        Store::mend(&self.dir, &self.location_here(), &from?, progress)
    }

    fn location_here(&self) -> String {
        match self.location.as_deref().or(self.dir.repository()) {
            Some(location) => location.to_owned(),
            None => self.dir.root().join("repository").to_string_lossy().into_owned(),
        }
    }

    /// Puts back what is damaged, from a copy of the repository.
    pub fn repo_repair(&self, copy: &str, progress: &mut dyn FnMut(&str)) -> Result<RepairPrint> {
        let copy = store::absolute_location(copy)?;
        Store::repair(&self.dir, &self.location_here(), &copy, progress)
    }

    /// What it holds.
    pub fn repo_stats(&self) -> Result<RepoStatsPrint> {
        self.store()?.stats()
    }

    /// The repository's key as text.
    pub fn key_export(&self) -> Result<String> {
        self.store()?.key_export(&self.dir)
    }

    /// Takes the key of the repository; gives the repository's id.
    pub fn key_import(&self, text: &str) -> Result<String> {
        let location = self.location.as_deref().or(self.dir.repository());
        store::key_import(&self.dir, location, text)
    }
}
