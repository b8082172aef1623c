//! `config`: what this host is told for all its instances.

use api::ConfigPrint;
use model::Updates;

use crate::Host;
use crate::auto::{Auto, Keep};
use crate::failure::{Failure, Result};

impl Host {
    /// What this host was told.
    pub fn config(&self) -> ConfigPrint {
        ConfigPrint {
            repository: self.dir.repository().map(str::to_owned),
            sources: self.dir.sources().to_vec(),
            cache_bytes_max: self.dir.cache_bytes_max(),
            scrub: if self.dir.scrubs() { "on" } else { "off" }.to_owned(),
            auto: self.dir.auto().unwrap_or(Auto::Off).to_string(),
            keep: self.dir.keep().map_or_else(|| "all".to_owned(), |keep| keep.to_string()),
            updates: self.dir.updates().map_or_else(|| "off".to_owned(), |u| u.to_string()),
        }
    }

    /// Sets one thing; instances that run now go on as they were started.
    pub fn configure(&mut self, key: &str, value: &str) -> Result<ConfigPrint> {
        let wrong = |expected: &str| {
            let message = format!("{key} cannot be {value:?}");
            Err(Failure::new("usage", message, format!("it is {expected}")))
        };
        match (key, value) {
            ("scrub", "on" | "off") => self.dir.configure_scrub(value == "on")?,
            ("scrub", _) => return wrong("`on` or `off`"),
            ("cache-size", _) => match model::parse_bytes(value) {
                Ok(bytes) if bytes >= CACHE_BYTES_MIN => self.dir.configure_cache(bytes)?,
                _ => return wrong("a size like 8GiB, at least 16MiB"),
            },
            ("auto", _) => match Auto::parse(value) {
                Ok(auto) => self.dir.configure_auto(auto)?,
                Err(error) => {
                    return wrong(&format!(
                        "`off`, or like 5m or 5m,last=6,hourly=24,daily=7 ({error})"
                    ));
                }
            },
            ("keep", "all") => self.dir.configure_keep(None)?,
            ("keep", _) => match Keep::parse(value) {
                Ok(keep) => self.dir.configure_keep(Some(keep))?,
                Err(error) => {
                    return wrong(&format!("`all`, or like last=20,daily=14,weekly=8 ({error})"));
                }
            },
            ("updates", _) => match Updates::parse(value) {
                Ok(updates) => self.dir.configure_updates(updates)?,
                Err(error) => {
                    return wrong(&format!(
                        "`off`, or like 6h or 6h,rate=1MiB,window=02:00-05:00 ({error})"
                    ));
                }
            },
            _ => {
                return Err(Failure::new(
                    "usage",
                    format!("there is nothing called {key} to set"),
                    "it is `auto`, `keep`, `updates`, `scrub` or `cache-size`; for the rest see `collective repo use` and `repo source`",
                ));
            }
        }
        Ok(self.config())
    }
}

/// A smaller cache would hold no instance's working set.
const CACHE_BYTES_MIN: u64 = 16 << 20;
