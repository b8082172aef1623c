//! What hosts have begun of their orders, and how far they are.
//!
//! `begun/ID/NAME` is written before a host has an order, and goes when the host says what came of it, or
//! asks for orders and does not know that one any more. `progress/NAME` is what is shown of it.
//!
//! **Invariant:** an order that was withdrawn is given to nobody who had not got it before.

use std::collections::BTreeSet;

use api::{OrderAct, OrderPrint, OrderUnderWay, OrdersKnown};
use kv::{Condition, Entry, Txn};
use model::{HostId, Name};
use serde::{Deserialize, Serialize};

use super::{Result, host_id, json, name, read};
use crate::serve::Plane;

/// What the state keeps of progress: nothing that happens only there is a reason to steer.
pub const PROGRESS: &str = "progress/";
/// Orders that are written down in one commit.
const TOGETHER_MAX: usize = 16;
/// Of what a host says that it does.
const STEP_CHARS_MAX: usize = 200;

/// `begun/ID/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BegunRecord {
    /// The order's id.
    pub order: String,
    pub act: OrderAct,
}

/// `progress/NAME`: of the order that was begun last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressRecord {
    pub host: String,
    pub order: String,
    pub step: Option<String>,
    pub done_bytes: Option<u64>,
    /// It does not end before it is done any more.
    pub past: bool,
}

/// The instances with which something is to be done, or is.
#[derive(Debug, Default)]
pub struct Busy {
    /// An order about it stands.
    ordered: BTreeSet<String>,
    /// A host that lives has begun one.
    begun: BTreeSet<String>,
}

impl Busy {
    pub fn with(&self, of: &Name) -> bool {
        self.ordered.contains(of.as_str()) || self.is_begun(of)
    }

    /// A host works on it.
    pub fn is_begun(&self, of: &Name) -> bool {
        self.begun.contains(of.as_str())
    }
}

impl Plane {
    /// Who looks at anything else afterwards sees what came of all other orders.
    pub(in crate::serve) fn busy(&self) -> Result<Busy> {
        let mut busy = Busy::default();
        for entry in self.kv.list("orders/")?.entries {
            busy.ordered.extend(entry.key.rsplit('/').next().map(str::to_owned));
        }
        let alive = self.alive()?;
        for entry in self.kv.list("begun/")?.entries {
            if let Some((host, of)) = parts(&entry.key)
                && alive.contains(&host)
            {
                busy.begun.insert(of.to_owned());
            }
        }
        Ok(busy)
    }

    /// Whether a host has begun this order, as far as it has said.
    pub(super) fn has_begun(&self, id: HostId, of: &Name, order: &str) -> Result<bool> {
        let begun = self.kv.get(&format!("begun/{id}/{of}"))?;
        let begun: Option<BegunRecord> = begun.as_ref().map(read).transpose()?;
        Ok(begun.is_some_and(|begun| begun.order == order))
    }

    /// The orders that stand about an instance.
    pub(super) fn orders_of(&self, of: &Name) -> Result<Vec<(HostId, Entry)>> {
        let entries = self.kv.list("orders/")?.entries;
        let found = entries.into_iter().filter_map(|entry| {
            let (host, _) = parts(&entry.key).filter(|(_, name)| *name == of.as_str())?;
            Some((host, entry))
        });
        Ok(found.collect())
    }

    /// Whether an order does not end before it is done any more, as far as its host has said.
    pub(super) fn is_past(&self, of: &Name, order: &str) -> Result<bool> {
        let progress = self.kv.get(&format!("{PROGRESS}{of}"))?;
        let progress: Option<ProgressRecord> = progress.as_ref().map(read).transpose()?;
        Ok(progress.is_some_and(|progress| progress.order == order && progress.past))
    }

    /// Writes down that a host has begun what it does not know yet; not, when any of it does not stand any
    /// more.
    pub(super) fn begin_orders(
        &self,
        id: HostId,
        known: &OrdersKnown,
        orders: &[(Entry, OrderPrint)],
    ) -> Result<bool> {
        let news = orders
            .iter()
            .filter(|(_, order)| order.act != OrderAct::Look && !order.called_off)
            .filter(|(_, order)| !known.known.contains(&order.id));
        let news: Vec<_> = news.collect();
        for some in news.chunks(TOGETHER_MAX) {
            let mut txn = Txn::new();
            for (entry, order) in some {
                let of = &order.name;
                let begun = BegunRecord { order: order.id.clone(), act: order.act };
                let progress = ProgressRecord {
                    host: id.to_string(),
                    order: order.id.clone(),
                    step: None,
                    done_bytes: None,
                    past: false,
                };
                txn = txn
                    .when(&entry.key, Condition::At(entry.revision))
                    .put(&format!("begun/{id}/{of}"), json(&begun))
                    .put(&format!("{PROGRESS}{of}"), json(&progress));
            }
            if !self.kv.commit(&txn)?.is_done() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A host says which orders it carries out, and how far they are: what it had begun beside these has
    /// ended, or it has not got it.
    pub(super) fn carries_out(&self, id: HostId, known: &OrdersKnown) -> Result<()> {
        for entry in self.kv.list(&format!("begun/{id}/"))?.entries {
            let begun: BegunRecord = read(&entry)?;
            if let Some((_, of)) = parts(&entry.key)
                && !known.known.contains(&begun.order)
            {
                self.ended(id, of, &begun.order)?;
            }
        }
        for work in &known.under_way {
            let key = format!("{PROGRESS}{}", name(&work.name)?);
            let Some(entry) = self.kv.get(&key)? else { continue };
            let old: ProgressRecord = read(&entry)?;
            if old.order != work.order || old.host != id.to_string() {
                continue;
            }
            let new = ProgressRecord {
                step: work.step.as_ref().map(|step| step.chars().take(STEP_CHARS_MAX).collect()),
                done_bytes: work.done_bytes,
                past: work.past,
                ..old.clone()
            };
            if new != old {
                // What was replaced meanwhile is another order's.
                self.kv.commit(&Txn::replace(&key, entry.revision, json(&new)))?;
            }
        }
        Ok(())
    }

    /// A host carries an order out no longer.
    pub(super) fn ended(&self, id: HostId, of: &str, order: &str) -> Result<()> {
        let key = format!("{PROGRESS}{of}");
        if let Some(entry) = self.kv.get(&key)?
            && read::<ProgressRecord>(&entry)?.order == order
        {
            self.kv.commit(&Txn::remove(&key, entry.revision))?;
        }
        let key = format!("begun/{id}/{of}");
        if let Some(entry) = self.kv.get(&key)?
            && read::<BegunRecord>(&entry)?.order == order
        {
            self.kv.commit(&Txn::remove(&key, entry.revision))?;
        }
        Ok(())
    }
}

/// Whether a host carries out what does not stand any more, and has not been told.
pub fn is_to_be_called_back(orders: &[(Entry, OrderPrint)], work: &OrderUnderWay) -> bool {
    let stands = |order: &OrderPrint| order.id == work.order && !order.called_off;
    !work.called_back && !orders.iter().any(|(_, order)| stands(order))
}

/// The host and the instance of a key.
pub(super) fn parts(key: &str) -> Option<(HostId, &str)> {
    let (_, rest) = key.split_once('/')?;
    let (host, of) = rest.split_once('/')?;
    Some((host_id(host).ok()?, of))
}
