//! The one thread that writes.

use std::collections::{BTreeMap, HashSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redb::{Database, ReadableDatabase, ReadableTable, Table, WriteTransaction};

use super::TOGETHER_MAX;
use super::tables::{self, ENTRIES, HISTORY, HISTORY_MAX, Happened, LEASED, LEASES, META, Place};
use crate::watch::Feed;
use crate::{Batch, Change, Condition, KvError, LeaseId, Outcome, Result, Revision, Txn, Write};

type Reply<T> = SyncSender<Result<T>>;

/// What a caller wants.
pub enum Ask {
    Commit(Txn, Reply<Outcome>),
    Watch { prefix: String, after: Revision, feed: Feed, reply: Reply<()> },
    Grant(Duration, Reply<LeaseId>),
    KeepAlive(LeaseId, Reply<()>),
    Revoke(LeaseId, Reply<()>),
}

struct Lease {
    ttl: Duration,
    ends: Instant,
}

pub struct Writer {
    database: Arc<Database>,
    place: Place,
    revision: u64,
    /// Revisions up to this one are no longer in the history.
    forgotten: u64,
    leases: BTreeMap<LeaseId, Lease>,
    watches: Vec<(String, Feed)>,
    failure: Failure,
}

/// The last thing that went wrong, for those whose answer was dropped.
pub type Failure = Arc<Mutex<Option<KvError>>>;

/// An answer that is given when what it says is durable; dropped, the caller is told what failed.
type Answer = Box<dyn FnOnce()>;

fn later<T: 'static>(reply: Reply<T>, result: Result<T>) -> Answer {
    Box::new(move || {
        let _ = reply.send(result);
    })
}

/// The tables while they are written.
struct Tables<'t> {
    entries: Table<'t, &'static str, (u64, u64, &'static [u8])>,
    history: Table<'t, (u64, u32), Happened<'static>>,
    leases: Table<'t, u64, u64>,
    leased: Table<'t, (u64, &'static str), ()>,
    meta: Table<'t, &'static str, u64>,
}

impl<'t> Tables<'t> {
    fn open(write: &'t WriteTransaction, place: &Place) -> Result<Self> {
        Ok(Self {
            entries: write.open_table(ENTRIES).map_err(|e| place.table(e))?,
            history: write.open_table(HISTORY).map_err(|e| place.table(e))?,
            leases: write.open_table(LEASES).map_err(|e| place.table(e))?,
            leased: write.open_table(LEASED).map_err(|e| place.table(e))?,
            meta: write.open_table(META).map_err(|e| place.table(e))?,
        })
    }
}

impl Writer {
    pub fn begin(database: Arc<Database>, place: Place, failure: Failure) -> Result<Self> {
        let write = database.begin_write().map_err(|e| place.broken(e))?;
        tables::prepare(&write, &place)?;
        let (revision, forgotten, leases) = {
            let tables = Tables::open(&write, &place)?;
            let meta = |name| -> Result<u64> {
                let found = tables.meta.get(name).map_err(|e| place.storage(e))?;
                Ok(found.map_or(0, |v| v.value()))
            };
            let mut leases = BTreeMap::new();
            for found in tables.leases.iter().map_err(|e| place.storage(e))? {
                let (id, ttl) = found.map_err(|e| place.storage(e))?;
                let ttl = Duration::from_millis(ttl.value());
                leases.insert(LeaseId(id.value()), Lease { ttl, ends: ambient::now() + ttl });
            }
            (meta("revision")?, meta("forgotten")?, leases)
        };
        write.commit().map_err(|e| place.broken(e))?;
        Ok(Self { database, place, revision, forgotten, leases, watches: Vec::new(), failure })
    }

    /// Until nobody can ask any more.
    pub fn run(mut self, asks: &Receiver<Ask>) {
        loop {
            let mut together = match self.leases.values().map(|lease| lease.ends).min() {
                Some(ends) => {
                    match asks.recv_timeout(ends.saturating_duration_since(ambient::now())) {
                        Ok(ask) => vec![ask],
                        Err(RecvTimeoutError::Timeout) => Vec::new(),
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
                None => match asks.recv() {
                    Ok(ask) => vec![ask],
                    Err(_) => return,
                },
            };
            together.extend(asks.try_iter().take(TOGETHER_MAX - 1));
            self.serve(together);
        }
    }

    /// Does all of it with one sync, and answers then.
    fn serve(&mut self, asks: Vec<Ask>) {
        // Those that write nothing are served first: a lease that is kept alive in time must not
        // end because a commit came before it in the queue.
        let (writes, others): (Vec<_>, Vec<_>) = asks
            .into_iter()
            .partition(|ask| matches!(ask, Ask::Commit(..) | Ask::Grant(..) | Ask::Revoke(..)));
        for ask in others {
            self.serve_read(ask);
        }
        let now = ambient::now();
        let over: Vec<_> =
            self.leases.iter().filter(|(_, l)| l.ends <= now).map(|(id, _)| *id).collect();
        if writes.is_empty() && over.is_empty() {
            return;
        }
        let mut answers = Vec::new();
        match self.write_all(writes, &over, &mut answers) {
            Ok(batches) => {
                answers.into_iter().for_each(|answer| answer());
                self.tell(&batches);
            }
            Err(error) => {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        }
    }

    fn serve_read(&mut self, ask: Ask) {
        match ask {
            Ask::KeepAlive(id, reply) => {
                let kept = match self.leases.get_mut(&id) {
                    // One that is over is not brought back, also when its keys are still there.
                    Some(lease) if lease.ends > ambient::now() => {
                        lease.ends = ambient::now() + lease.ttl;
                        Ok(())
                    }
                    _ => Err(KvError::LeaseGone),
                };
                let _ = reply.send(kept);
            }
            Ask::Watch { prefix, after, feed, reply } => {
                let _ = reply.send(self.begin_watch(prefix, after, feed));
            }
            _ => {}
        }
    }

    fn begin_watch(&mut self, prefix: String, after: Revision, feed: Feed) -> Result<()> {
        let read = self.database.begin_read().map_err(|e| self.place.broken(e))?;
        let batches = tables::history(&read, &prefix, after, &self.place)?;
        // Those that nobody reads any more would wait for a change of theirs, which may never come.
        self.watches.retain(|(_, feed)| feed.is_read());
        if batches.into_iter().all(|batch| feed.give(Ok(batch))) {
            self.watches.push((prefix, feed));
        }
        Ok(())
    }

    fn tell(&mut self, batches: &[Batch]) {
        self.watches.retain(|(prefix, feed)| {
            batches.iter().all(|batch| {
                let below = |change: &&Change| change.key().starts_with(prefix.as_str());
                let changes: Vec<_> = batch.changes.iter().filter(below).cloned().collect();
                changes.is_empty() || feed.give(Ok(Batch { revision: batch.revision, changes }))
            })
        });
    }

    fn write_all(
        &mut self,
        asks: Vec<Ask>,
        over: &[LeaseId],
        answers: &mut Vec<Answer>,
    ) -> Result<Vec<Batch>> {
        let mut step = Step {
            revision: self.revision,
            forgotten: self.forgotten,
            granted: Vec::new(),
            ended: HashSet::new(),
            batches: Vec::new(),
        };
        let write = self.database.begin_write().map_err(|e| self.place.broken(e))?;
        let result = {
            let mut tables = Tables::open(&write, &self.place)?;
            step.all(asks, over, &self.leases, &mut tables, answers)
        };
        result.map_err(|e| self.place.storage(e))?;
        write.commit().map_err(|e| self.place.unknown(e))?;
        self.revision = step.revision;
        self.forgotten = step.forgotten;
        self.leases.retain(|id, _| !step.ended.contains(id));
        for (id, ttl) in step.granted {
            if !step.ended.contains(&id) {
                self.leases.insert(id, Lease { ttl, ends: ambient::now() + ttl });
            }
        }
        Ok(step.batches)
    }
}

type Stored<T> = std::result::Result<T, redb::StorageError>;

/// What one sync will make durable.
struct Step {
    revision: u64,
    forgotten: u64,
    granted: Vec<(LeaseId, Duration)>,
    ended: HashSet<LeaseId>,
    batches: Vec<Batch>,
}

impl Step {
    fn all(
        &mut self,
        asks: Vec<Ask>,
        over: &[LeaseId],
        leases: &BTreeMap<LeaseId, Lease>,
        tables: &mut Tables<'_>,
        answers: &mut Vec<Answer>,
    ) -> Stored<()> {
        for id in over {
            self.end(*id, tables)?;
        }
        for ask in asks {
            answers.push(match ask {
                Ask::Commit(txn, reply) => later(reply, self.commit(&txn, leases, tables)?),
                Ask::Grant(ttl, reply) => {
                    let id = LeaseId(u64::from_le_bytes(ambient::random()) >> 1 | 1);
                    tables.leases.insert(id.0, ttl.as_millis() as u64)?;
                    self.granted.push((id, ttl));
                    later(reply, Ok(id))
                }
                Ask::Revoke(id, reply) if self.is_lease(id, leases) => {
                    self.end(id, tables)?;
                    later(reply, Ok(()))
                }
                Ask::Revoke(_, reply) => later(reply, Err(KvError::LeaseGone)),
                Ask::KeepAlive(..) | Ask::Watch { .. } => continue,
            });
        }
        self.forget(tables)?;
        tables.meta.insert("revision", self.revision)?;
        tables.meta.insert("forgotten", self.forgotten)?;
        Ok(())
    }

    fn is_lease(&self, id: LeaseId, leases: &BTreeMap<LeaseId, Lease>) -> bool {
        let known = leases.contains_key(&id) || self.granted.iter().any(|(new, _)| *new == id);
        known && !self.ended.contains(&id)
    }

    fn commit(
        &mut self,
        txn: &Txn,
        leases: &BTreeMap<LeaseId, Lease>,
        tables: &mut Tables<'_>,
    ) -> Stored<Result<Outcome>> {
        for (key, condition) in &txn.conditions {
            let found = tables.entries.get(key.as_str())?.map(|found| found.value().0);
            let holds = match condition {
                Condition::Absent => found.is_none(),
                Condition::At(revision) => found == Some(revision.0),
            };
            if !holds {
                return Ok(Ok(Outcome::Refused));
            }
        }
        for (_, write) in &txn.writes {
            if let Write::Put { lease: Some(lease), .. } = write
                && !self.is_lease(*lease, leases)
            {
                return Ok(Err(KvError::LeaseGone));
            }
        }
        self.apply(txn.writes.iter().map(|(key, write)| (key.as_str(), write)), tables)?;
        Ok(Ok(Outcome::Done(Revision(self.revision))))
    }

    /// Ends a lease, and deletes what hangs on it.
    fn end(&mut self, id: LeaseId, tables: &mut Tables<'_>) -> Stored<()> {
        let mut keys = Vec::new();
        for found in tables.leased.range((id.0, "")..(id.0 + 1, ""))? {
            keys.push(found?.0.value().1.to_owned());
        }
        self.apply(keys.iter().map(|key| (key.as_str(), &Write::Delete)), tables)?;
        tables.leases.remove(id.0)?;
        self.ended.insert(id);
        Ok(())
    }

    fn apply<'w>(
        &mut self,
        writes: impl Iterator<Item = (&'w str, &'w Write)>,
        tables: &mut Tables<'_>,
    ) -> Stored<()> {
        let revision = self.revision + 1;
        let mut changes = Vec::new();
        for (key, write) in writes {
            let at = (revision, changes.len() as u32);
            let before = tables.entries.get(key)?.map(|found| found.value().1);
            if let Some(lease) = before.filter(|lease| *lease != 0) {
                tables.leased.remove((lease, key))?;
            }
            match write {
                Write::Put { value, lease } => {
                    let lease = lease.map_or(0, |lease| lease.0);
                    tables.entries.insert(key, (revision, lease, value.as_slice()))?;
                    tables.history.insert(at, (key, lease, Some(value.as_slice())))?;
                    if lease != 0 {
                        tables.leased.insert((lease, key), ())?;
                    }
                    changes.push(Change::Put(tables::entry(key, (revision, lease, value))));
                }
                Write::Delete if before.is_some() => {
                    tables.entries.remove(key)?;
                    tables.history.insert(at, (key, 0, None))?;
                    changes.push(Change::Deleted { key: key.to_owned() });
                }
                Write::Delete => {}
            }
        }
        if !changes.is_empty() {
            self.revision = revision;
            self.batches.push(Batch { revision: Revision(revision), changes });
        }
        Ok(())
    }

    /// Shortens the history to its bound.
    fn forget(&mut self, tables: &mut Tables<'_>) -> Stored<()> {
        let until = self.revision.saturating_sub(HISTORY_MAX);
        if until > self.forgotten {
            tables.history.retain_in((0, 0)..(until + 1, 0), |_, _| false)?;
            self.forgotten = until;
        }
        Ok(())
    }
}
