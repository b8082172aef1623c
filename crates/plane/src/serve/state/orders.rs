//! Orders: what hosts are to do, and what they say came of it.

use std::time::Duration;

use api::{CamePrint, OrderAct, OrderEnd, OrderPrint, OrderReport, OrdersKnown, Trouble};
use kv::{Condition, Txn};
use model::HostId;

use super::{LeftRecord, Result, SeenRecord, TroubleRecord, WayRecord, json, name, read};
use crate::serve::Plane;

/// The longest that a host is let wait for an order.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// What failed is tried again at least so often.
const AGAIN_MS_MAX: u64 = 60_000;
/// And what was refused.
const REFUSED_MS_MAX: u64 = 1_000;

impl Plane {
    /// What a host is to do; waits for an order that it does not know.
    pub(in crate::serve) fn orders(
        &self,
        id: HostId,
        known: &OrdersKnown,
    ) -> Result<Vec<OrderPrint>> {
        let prefix = format!("orders/{id}/");
        let ends = ambient::now() + Duration::from_millis(known.wait_ms).min(WAIT_MAX);
        let mut watch = None;
        loop {
            let listing = self.kv.list(&prefix)?;
            let orders: Vec<OrderPrint> =
                listing.entries.iter().map(read).collect::<Result<_>>()?;
            let news = orders.iter().any(|order| !known.known.contains(&order.id));
            let left = ends.saturating_duration_since(ambient::now());
            if news || left.is_zero() {
                return Ok(orders);
            }
            if watch.is_none() {
                watch = Some(self.kv.watch(&prefix, listing.revision)?);
            }
            // One that broke is begun anew; what it would have said is in the list.
            if watch.as_ref().is_some_and(|watch| watch.next(left).is_err()) {
                watch = None;
            }
        }
    }

    /// A host says what came of an order. What it says of an instance counts when it has an order about
    /// that, be it a newer one, or holds it.
    pub(in crate::serve) fn order_ended(&self, id: HostId, report: &OrderReport) -> Result<()> {
        let name = name(&report.name)?;
        let key = format!("orders/{id}/{name}");
        let standing = self.kv.get(&key)?;
        let holds = self
            .seen(name.as_str())?
            .is_some_and(|(_, seen)| seen.head.holder.as_deref() == Some(&id.to_string()));
        let wish = format!("instances/{name}");
        let Some(wished) = self.kv.get(&wish)? else { return Ok(()) };
        if standing.is_none() && !holds {
            return Ok(());
        }
        let head = report.head.as_ref().filter(|head| head.name == report.name);
        if let Some(head) = head {
            self.sight(SeenRecord { head: head.clone(), looked: true, was_none: false })?;
        }
        let trouble = format!("trouble/{name}");
        let mut txn = Txn::new();
        if let Some(entry) = &standing
            && (report.end != OrderEnd::Done || read::<OrderPrint>(entry)?.id == report.order)
        {
            txn = txn.when(&key, Condition::At(entry.revision)).delete(&key);
        }
        if let Some(way) = self.way_of(id, name.as_str(), report)? {
            // By itself: the order may be replaced at the same moment, and its cost counts all the same.
            let there = Txn::new().when(&wish, Condition::At(wished.revision));
            self.kv.commit(&there.put(&format!("ways/{name}"), json(&way)))?;
        }
        let txn = match (report.end, &report.trouble, head) {
            (OrderEnd::Done, _, Some(head)) if report.act == OrderAct::Stop => {
                // It rests because it was told to: whoever wants it to run now wants that.
                let key = format!("since/{name}");
                let entry = self.kv.get(&key)?;
                let since: u64 = entry.as_ref().map(read).transpose()?.unwrap_or_default();
                let seen = entry.map_or(Condition::Absent, |entry| Condition::At(entry.revision));
                txn.when(&key, seen)
                    .when(&wish, Condition::At(wished.revision))
                    .put(&key, json(&since.max(head.generation)))
                    .delete(&trouble)
            }
            (OrderEnd::Done, _, _) => txn.delete(&trouble),
            (_, why, _) => txn.put(&trouble, json(&self.again(&trouble, why.as_ref())?)),
        };
        // When something was replaced meanwhile, that stands.
        self.kv.commit(&txn)?;
        Ok(())
    }

    /// How it is on its way to another host, or has come, when that follows from a report.
    fn way_of(&self, id: HostId, name: &str, report: &OrderReport) -> Result<Option<WayRecord>> {
        let (OrderEnd::Done, Some(head), Some(cost)) = (report.end, &report.head, report.cost)
        else {
            return Ok(None);
        };
        let (host, unix_ms) = (id.to_string(), ambient::unix_ms());
        let entry = self.kv.get(&format!("ways/{name}"))?;
        let way: WayRecord = entry.as_ref().map(read).transpose()?.unwrap_or_default();
        Ok(match report.act {
            OrderAct::Suspend | OrderAct::Leave => {
                let left = LeftRecord { host, generation: head.generation, unix_ms, cost };
                Some(WayRecord { left: Some(left), ..way })
            }
            // Whatever was done with it between is another story.
            OrderAct::Start => way
                .left
                .filter(|left| {
                    left.generation.checked_add(1) == Some(head.generation) && left.host != host
                })
                .map(|left| {
                    let came = CamePrint {
                        from: left.host,
                        to: host,
                        generation: head.generation,
                        pause_ms: left
                            .cost
                            .stood_ms
                            .saturating_add(unix_ms.saturating_sub(left.unix_ms)),
                        moved_bytes: [cost.fetched_bytes, cost.peer_bytes]
                            .into_iter()
                            .fold(left.cost.stored_bytes, u64::saturating_add),
                        peer_bytes: cost.peer_bytes,
                    };
                    WayRecord { left: None, came: Some(came), came_unix_ms: unix_ms }
                }),
            _ => None,
        })
    }

    /// What failed is tried again, each time later.
    fn again(&self, key: &str, trouble: Option<&Trouble>) -> Result<TroubleRecord> {
        let before: Option<TroubleRecord> = self.kv.get(key)?.as_ref().map(read).transpose()?;
        let tries = before.map_or(1, |before| before.tries.saturating_add(1));
        // One that was refused has a reason that is gone as a rule.
        let (first_ms, most_ms) =
            if trouble.is_some() { (1000, AGAIN_MS_MAX) } else { (20, REFUSED_MS_MAX) };
        let wait_ms = 1u64.checked_shl(tries).unwrap_or(u64::MAX).saturating_mul(first_ms);
        let again_unix_ms = ambient::unix_ms() + wait_ms.min(most_ms);
        Ok(TroubleRecord { trouble: trouble.cloned(), tries, again_unix_ms })
    }
}
