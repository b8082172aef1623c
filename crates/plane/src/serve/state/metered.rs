//! What was used, in the state: the arithmetic is [`crate::meter`]'s.
//!
//! **Invariant:** what is added and what it was counted from are one commit: a plane that dies has added
//! a report, a part of it that it will not add again, or nothing.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use api::{MeterReply, MeterReport, RunPrint};
use kv::{Condition, Txn};
use model::{HostId, Name};
use time::{Date, OffsetDateTime};

use super::{HostRecord, InstanceRecord, Result, SeenRecord, TRIES, json, read};
use crate::meter::{self, Account, Counters, Ledger, Taken};
use crate::serve::{Plane, Refused};

/// Keys that begin so are about what was used.
pub const METERED: &str = "metered/";
/// To whom one commit adds, each with two writes and two conditions.
const TOGETHER_MAX: usize = 20;

/// What was used on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// `YYYY-MM-DD`, in UTC.
    pub day: String,
    pub by: Account,
    pub counters: Counters,
}

impl Plane {
    /// A host says what its instances have used. It counts on the day on which it is heard.
    pub(in crate::serve) fn meter(&self, id: HostId, report: &MeterReport) -> Result<MeterReply> {
        meter::check(report).map_err(Refused::wrong)?;
        // Of one plane's hosts each waits for the one before: they add to the same sums.
        let _turn = self.metering.lock().unwrap_or_else(PoisonError::into_inner);
        let key = format!("metered/host/{id}");
        let mut tries = 0;
        while tries < TRIES {
            let entry = self.kv.get(&key)?;
            let ledger: Ledger = entry.as_ref().map(read).transpose()?.unwrap_or_default();
            let said = self.said_by(id)?;
            let taken = ledger.with(report, TOGETHER_MAX, |run| self.whose(id, &said, run))?;
            let Some(Taken { ledger: new, added, all }) = taken else {
                return Ok(MeterReply { number: ledger.number(), counted: false });
            };
            let seen = entry.map_or(Condition::Absent, |entry| Condition::At(entry.revision));
            let mut txn = Txn::new().when(&key, seen).put(&key, json(&new));
            let today = day(ambient::unix_ms());
            for (Account { project, user, appliance }, more) in added {
                let account = format!("{project}/{user}/{appliance}");
                for sum in [format!("metered/day/{today}/{account}"), format!("{ALL}{account}")] {
                    let entry = self.kv.get(&sum)?;
                    let before: Counters =
                        entry.as_ref().map(read).transpose()?.unwrap_or_default();
                    let seen =
                        entry.map_or(Condition::Absent, |entry| Condition::At(entry.revision));
                    txn = txn.when(&sum, seen).put(&sum, json(&before.and(more)));
                }
            }
            match self.kv.commit(&txn)?.is_done() {
                true if all => return Ok(MeterReply { number: new.number(), counted: true }),
                // The next part of it.
                true => tries = 0,
                // Another plane adds to the same.
                false => tries += 1,
            }
        }
        Err(Refused::changed("what was used"))
    }

    /// The instances that a host said it holds.
    fn said_by(&self, id: HostId) -> Result<Vec<String>> {
        let Some(entry) = self.kv.get(&format!("hosts/{id}"))? else { return Ok(Vec::new()) };
        let record: HostRecord = read(&entry)?;
        Ok(record.report.instances.into_iter().map(|seen| seen.name).collect())
    }

    /// To whom a start on a host is counted, when that host holds the instance, held it last, or has an
    /// order about it.
    fn whose(&self, id: HostId, said: &[String], run: &RunPrint) -> Result<Option<Account>> {
        let name = &run.name;
        let Some(entry) = self.kv.get(&format!("instances/{name}"))? else { return Ok(None) };
        let record: InstanceRecord = read(&entry)?;
        let holds = |seen: SeenRecord| seen.head.holder.as_deref() == Some(&id.to_string());
        let its = said.contains(name)
            || self.seen(name)?.is_some_and(|(_, seen)| holds(seen))
            || self.kv.get(&format!("orders/{id}/{name}"))?.is_some();
        let (project, user) = (record.belongs.project, record.belongs.owner);
        Ok(its.then(|| Account { project, user, appliance: run.appliance.clone() }))
    }

    /// What was used on days from one to another, both included.
    pub(in crate::serve) fn used(&self, since: &str, until: &str) -> Result<Vec<Used>> {
        // What both begin with narrows what is read.
        let same = since.bytes().zip(until.bytes()).take_while(|(a, b)| a == b).count();
        let prefix = format!("{DAYS}{}", &since[..same]);
        let mut used = Vec::new();
        for entry in self.kv.list(&prefix)?.entries {
            let Some((day, account)) = entry.key[DAYS.len()..].split_once('/') else { continue };
            if (since..=until).contains(&day)
                && let Some(by) = account_of(account)
            {
                used.push(Used { day: day.to_owned(), by, counters: read(&entry)? });
            }
        }
        Ok(used)
    }

    /// What a project's instances have put into the repository, as far as hosts have said.
    pub(super) fn stored(&self, project: &Name) -> Result<u64> {
        let entries = self.kv.list(&format!("{ALL}{project}/"))?.entries;
        let mut each = entries.iter().map(|entry| Ok(read::<Counters>(entry)?.stored_bytes));
        each.try_fold(0, |sum: u64, bytes: Result<u64>| Ok(sum.saturating_add(bytes?)))
    }

    /// What was used in all.
    pub(in crate::serve) fn used_in_all(&self) -> Result<BTreeMap<Account, Counters>> {
        let entries = self.kv.list(ALL)?.entries;
        let each =
            entries.iter().filter_map(|entry| Some((account_of(&entry.key[ALL.len()..])?, entry)));
        each.map(|(by, entry)| Ok((by, read(entry)?))).collect()
    }
}

const DAYS: &str = "metered/day/";
const ALL: &str = "metered/all/";

/// The last day that there is.
const LAST: &str = "9999-12-31";

fn account_of(text: &str) -> Option<Account> {
    let mut parts = text.splitn(3, '/').map(str::to_owned);
    Some(Account { project: parts.next()?, user: parts.next()?, appliance: parts.next()? })
}

/// The day of an instant, in UTC.
pub fn day(unix_ms: u64) -> String {
    let at = OffsetDateTime::from_unix_timestamp((unix_ms / 1000) as i64);
    at.map_or_else(|_| LAST.to_owned(), |at| written(at.date()))
}

fn written(date: Date) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

/// A day as people write it.
pub fn parse_day(text: &str) -> Result<String> {
    let wrong = || Refused::wrong(format!("{text:?} is no day: write 2026-11-28"));
    let parts: Vec<u16> = text.split('-').map_while(|part| part.parse().ok()).collect();
    let [year, month, day] = parts[..] else { return Err(wrong()) };
    let month = u8::try_from(month).ok().and_then(|month| time::Month::try_from(month).ok());
    let date = month.and_then(|month| {
        Date::from_calendar_date(i32::from(year), month, u8::try_from(day).ok()?).ok()
    });
    date.filter(|date| written(*date) == text).map(written).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_read_and_written_alike() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(1_795_823_999_999), "2026-11-27");
        assert_eq!(day(1_795_824_000_000), "2026-11-28");
        assert_eq!(parse_day("2028-02-29").unwrap(), "2028-02-29");
        for wrong in ["2026-02-29", "2026-2-01", "2026-13-01", "today", "", "2026-01-01-01"] {
            assert_eq!(parse_day(wrong).unwrap_err().status, 400, "{wrong}");
        }
    }
}
