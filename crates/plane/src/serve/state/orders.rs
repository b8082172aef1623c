//! Orders: what hosts are to do, and what they say came of it.

use std::time::Duration;

use api::{OrderEnd, OrderPrint, OrderReport, OrdersKnown, Trouble};
use kv::Txn;
use model::HostId;

use super::{Result, SeenRecord, TroubleRecord, json, name, read};
use crate::serve::Plane;

/// The longest that a host is let wait for an order.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// What failed is tried again at least so often, seconds.
const AGAIN_S_MAX: u64 = 60;

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

    /// A host says what came of an order.
    pub(in crate::serve) fn order_ended(&self, id: HostId, report: &OrderReport) -> Result<()> {
        let name = name(&report.name)?;
        if let Some(head) = &report.head {
            self.sight(SeenRecord { head: head.clone(), looked: true })?;
        }
        let key = format!("orders/{id}/{name}");
        let Some(entry) = self.kv.get(&key)? else { return Ok(()) };
        if read::<OrderPrint>(&entry)?.id != report.order {
            return Ok(());
        }
        let trouble = format!("trouble/{name}");
        let txn = Txn::remove(&key, entry.revision);
        let txn = match (report.end, &report.trouble) {
            (OrderEnd::Failed, Some(why)) => txn.put(&trouble, json(&self.again(&trouble, why)?)),
            (OrderEnd::Done, _) => txn.delete(&trouble),
            _ => txn,
        };
        // When it was replaced meanwhile, the new one stands.
        self.kv.commit(&txn)?;
        Ok(())
    }

    /// What failed is tried again, each time later.
    fn again(&self, key: &str, trouble: &Trouble) -> Result<TroubleRecord> {
        let before: Option<TroubleRecord> = self.kv.get(key)?.as_ref().map(read).transpose()?;
        let tries = before.map_or(1, |before| before.tries.saturating_add(1));
        let wait_s = 1u64.checked_shl(tries).unwrap_or(u64::MAX).min(AGAIN_S_MAX);
        let again_unix_ms = ambient::unix_ms() + wait_s * 1000;
        Ok(TroubleRecord { trouble: trouble.clone(), tries, again_unix_ms })
    }
}
