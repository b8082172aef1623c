//! Orders: what hosts are to do, and what they say came of it.

use std::time::Duration;

use api::{CamePrint, OrderAct, OrderEnd, OrderPrint, OrderReport, OrdersKnown, Trouble};
use kv::{Condition, Entry, Txn};
use model::{HostId, Name};

use super::begun::is_to_be_called_back;
use super::{
    LeftRecord, Result, SeenRecord, TRIES, TakenBackRecord, TroubleRecord, WayRecord, json, name,
    read,
};
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
        self.carries_out(id, known)?;
        loop {
            let listing = self.kv.list(&prefix)?;
            let orders: Vec<(Entry, OrderPrint)> = listing
                .entries
                .into_iter()
                .map(|entry| read(&entry).map(|order| (entry, order)))
                .collect::<Result<_>>()?;
            let news = orders.iter().any(|(_, order)| !known.known.contains(&order.id))
                || known.under_way.iter().any(|work| is_to_be_called_back(&orders, work));
            let left = ends.saturating_duration_since(ambient::now());
            if news || left.is_zero() {
                if self.begin_orders(id, known, &orders)? {
                    return Ok(orders.into_iter().map(|(_, order)| order).collect());
                }
                // One of them was withdrawn at this moment.
                continue;
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
    /// that, be it a newer one, or had this one, or holds it.
    pub(in crate::serve) fn order_ended(&self, id: HostId, report: &OrderReport) -> Result<()> {
        let name = name(&report.name)?;
        self.note_end(id, &name, report)?;
        // After what came of it: who sees that nobody works on an instance sees that too.
        self.ended(id, name.as_str(), &report.order)
    }

    fn note_end(&self, id: HostId, name: &Name, report: &OrderReport) -> Result<()> {
        let key = format!("orders/{id}/{name}");
        let standing = self.kv.get(&key)?;
        let holds = self
            .seen(name.as_str())?
            .is_some_and(|(_, seen)| seen.head.holder.as_deref() == Some(&id.to_string()));
        let wish = format!("instances/{name}");
        let Some(wished) = self.kv.get(&wish)? else { return Ok(()) };
        let begun = self.has_begun(id, name, &report.order)?;
        if standing.is_none() && !begun && !holds {
            return self.left_already(id, name.as_str(), report);
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
        // By itself: the order may be replaced at the same moment, and its cost counts all the same.
        self.note_way(id, name.as_str(), report)?;
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

    /// A host that does not hold it any more and has no order says what it cost to let it go, when its
    /// head was heard of before: once, for the order that it had.
    fn left_already(&self, id: HostId, name: &str, report: &OrderReport) -> Result<()> {
        let (_, way) = self.way(name)?;
        let known = way.taken_back.is_some_and(|taken| {
            taken.host == id.to_string() && taken.order == report.order && way.left.is_none()
        });
        if known { self.note_way(id, name, report) } else { Ok(()) }
    }

    /// An order to let it go is taken back, since its head says that it was done.
    pub(in crate::serve) fn take_back(&self, id: HostId, order: &OrderPrint) -> Result<()> {
        if !matches!(order.act, OrderAct::Suspend | OrderAct::Leave) {
            return Ok(());
        }
        let (host, order_id, unix_ms) = (id.to_string(), order.id.clone(), ambient::unix_ms());
        let taken = TakenBackRecord { host, order: order_id, unix_ms };
        self.change_way(&order.name, |way| {
            // It has been said meanwhile.
            let said = way
                .left
                .as_ref()
                .is_some_and(|left| left.host == taken.host && left.generation > order.at);
            (!said).then(|| WayRecord {
                left: None,
                taken_back: Some(taken.clone()),
                arrived: None,
                ..way
            })
        })
    }

    fn note_way(&self, id: HostId, name: &str, report: &OrderReport) -> Result<()> {
        self.change_way(name, |way| way_of(id, way, report, ambient::unix_ms()))
    }

    fn way(&self, name: &str) -> Result<(Condition, WayRecord)> {
        let entry = self.kv.get(&format!("ways/{name}"))?;
        let at = entry.as_ref().map_or(Condition::Absent, |entry| Condition::At(entry.revision));
        Ok((at, entry.as_ref().map(read).transpose()?.unwrap_or_default()))
    }

    /// Changes what is known of its way, as long as it is wished.
    fn change_way(
        &self,
        name: &str,
        change: impl Fn(WayRecord) -> Option<WayRecord>,
    ) -> Result<()> {
        let (wish, key) = (format!("instances/{name}"), format!("ways/{name}"));
        for _ in 0..TRIES {
            let Some(wished) = self.kv.get(&wish)? else { return Ok(()) };
            let (at, way) = self.way(name)?;
            let Some(way) = change(way) else { return Ok(()) };
            let stands = Txn::new().when(&wish, Condition::At(wished.revision)).when(&key, at);
            if self.kv.commit(&stands.put(&key, json(&way)))?.is_done() {
                break;
            }
        }
        Ok(())
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

/// How it is on its way to another host, or has come, when that follows from a report.
fn way_of(id: HostId, way: WayRecord, report: &OrderReport, unix_ms: u64) -> Option<WayRecord> {
    let (OrderEnd::Done, Some(head), Some(cost)) = (report.end, &report.head, report.cost) else {
        return None;
    };
    let here = LeftRecord { host: id.to_string(), generation: head.generation, unix_ms, cost };
    let (left, arrived, since) = match report.act {
        OrderAct::Suspend | OrderAct::Leave => {
            let since = way.taken_back.as_ref().map_or(unix_ms, |taken| taken.unix_ms.min(unix_ms));
            (Some(here), way.arrived.clone(), since)
        }
        OrderAct::Start => {
            let since = way.left.as_ref().map_or(unix_ms, |left| left.unix_ms);
            (way.left.clone(), Some(here), since)
        }
        _ => return None,
    };
    // Whatever was done with it between is another story.
    let fit = left.as_ref().zip(arrived.as_ref()).filter(|(left, arrived)| {
        left.generation.checked_add(1) == Some(arrived.generation) && left.host != arrived.host
    });
    let Some((from, to)) = fit else {
        let (left, arrived) = match report.act {
            OrderAct::Start => (way.left.clone(), arrived.filter(|_| way.taken_back.is_some())),
            _ => (left, None),
        };
        let next = WayRecord { left, arrived, ..way.clone() };
        return (next != way).then_some(next);
    };
    let bytes = [to.cost.fetched_bytes, to.cost.peer_bytes];
    let came = CamePrint {
        from: from.host.clone(),
        to: to.host.clone(),
        generation: to.generation,
        pause_ms: from.cost.stood_ms.saturating_add(to.unix_ms.saturating_sub(since)),
        moved_bytes: bytes.into_iter().fold(from.cost.stored_bytes, u64::saturating_add),
        peer_bytes: to.cost.peer_bytes,
    };
    Some(WayRecord { came: Some(came), came_unix_ms: to.unix_ms, ..WayRecord::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{HeadSeen, OrderCost};

    fn id(byte: u8) -> HostId {
        HostId::from_bytes([byte; 16])
    }

    fn said(act: OrderAct, generation: u64) -> OrderReport {
        let head = HeadSeen {
            name: "t1".to_owned(),
            generation,
            holder: None,
            state: "suspended".to_owned(),
            checkpoint_unix_ms: None,
            offered_by: None,
        };
        let cost = match act {
            OrderAct::Start => OrderCost { fetched_bytes: 5, peer_bytes: 7, ..Default::default() },
            _ => OrderCost { stood_ms: 40, stored_bytes: 100, ..Default::default() },
        };
        OrderReport {
            order: "9".to_owned(),
            name: "t1".to_owned(),
            act,
            end: OrderEnd::Done,
            head: Some(head),
            cost: Some(cost),
            trouble: None,
        }
    }

    #[test]
    fn what_a_move_cost_is_known_in_whatever_order_hosts_say_it() {
        let (leaves, starts) = (said(OrderAct::Leave, 4), said(OrderAct::Start, 5));
        let came = |way: &WayRecord| way.came.clone().map(|came| (came.pause_ms, came.moved_bytes));
        // As a rule: let go, heard of at 1000; come, heard of at 1300.
        let way = way_of(id(1), WayRecord::default(), &leaves, 1000).unwrap();
        assert_eq!(came(&way), None);
        let way = way_of(id(2), way, &starts, 1300).unwrap();
        assert_eq!(came(&way), Some((340, 112)));
        assert_eq!((&way.left, &way.arrived), (&None, &None));
        // Its head was heard of at 1000, and so the order taken back; it has come before its first host
        // says a word.
        let taken =
            TakenBackRecord { host: id(1).to_string(), order: "9".to_owned(), unix_ms: 1000 };
        let way = WayRecord { taken_back: Some(taken), ..WayRecord::default() };
        let way = way_of(id(2), way, &starts, 1300).unwrap();
        assert_eq!(came(&way), None);
        let way = way_of(id(1), way, &leaves, 2000).unwrap();
        assert_eq!(came(&way), Some((340, 112)));
        // A start that nobody has left for says nothing, and neither does one of another story.
        assert_eq!(way_of(id(2), WayRecord::default(), &starts, 1300), None);
        let way = way_of(id(1), WayRecord::default(), &leaves, 1000).unwrap();
        assert_eq!(way_of(id(2), way.clone(), &said(OrderAct::Start, 7), 1300), None);
        assert_eq!(way_of(id(1), way, &starts, 1300), None, "it came back to where it was");
    }
}
