//! An order that is carried out: how far it is, and whether its plane still wants it.
//!
//! **Invariant:** what its plane does not want any more ends before it goes past the point from which on
//! nothing but its end is left, or is done: between the two nobody is asked ([`Work::goes_past`]).

use std::sync::{Mutex, MutexGuard, PoisonError};

use api::{OrderAct, OrderPrint, OrderUnderWay};
use host::Failure;

/// See the module's documentation.
#[derive(Debug)]
pub struct Work {
    pub order: OrderPrint,
    far: Mutex<Far>,
}

#[derive(Debug, Default)]
struct Far {
    step: Option<String>,
    done_bytes: Option<u64>,
    past: bool,
    called_back: bool,
    /// It does not stand any more.
    gone: bool,
}

impl Work {
    /// A guest that leaves can stay after all, and one that starts need not run.
    pub fn new(order: OrderPrint) -> Self {
        let past = !matches!(order.act, OrderAct::Leave | OrderAct::Start);
        Self { order, far: Mutex::new(Far { past, ..Far::default() }) }
    }

    fn far(&self) -> MutexGuard<'_, Far> {
        self.far.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on to its next step, having stored so much; not, when its plane does not want it any more.
    pub fn goes_on(&self, step: String, stored_bytes: u64) -> Result<(), Failure> {
        self.step(step, stored_bytes, false)
    }

    /// The same for the last step.
    pub fn goes_past(&self, step: String, stored_bytes: u64) -> Result<(), Failure> {
        self.step(step, stored_bytes, true)
    }

    fn step(&self, step: String, stored_bytes: u64, past: bool) -> Result<(), Failure> {
        let mut far = self.far();
        if far.called_back {
            let what = format!("{} stays: its plane has called it back", self.order.name);
            return Err(Failure::new("changed", what, "look at it again"));
        }
        (far.step, far.done_bytes, far.past) = (Some(step), Some(stored_bytes), past);
        Ok(())
    }

    /// Whether its plane does not want it any more, and it is not past that point.
    pub fn is_to_end(&self) -> bool {
        let far = self.far();
        far.called_back && !far.past
    }

    /// It is past that point, whatever its plane wants.
    pub fn passes(&self) {
        self.far().past = true;
    }

    /// These are what its plane wants now.
    pub fn stands_among(&self, orders: &[OrderPrint]) {
        let order = &self.order;
        // Given anew with another id it is the same.
        let same =
            |new: &OrderPrint| (&new.name, new.act, new.at) == (&order.name, order.act, order.at);
        let gone = !orders.iter().any(same);
        let ends = match order.act {
            // It stands no longer as soon as its plane hears that it starts: that is no word about it.
            OrderAct::Start => orders.iter().any(|new| new.called_off && new.id == order.id),
            _ => gone,
        };
        let mut far = self.far();
        far.gone = gone;
        if ends {
            if !far.called_back && !far.past {
                let ends = match order.act {
                    OrderAct::Start => "was called off: it ends before the guest runs",
                    _ => "was called back: it stays when what it does now is done",
                };
                far.step = Some(ends.to_owned());
            }
            far.called_back = true;
        }
    }

    /// For its plane; of a start, with what was fetched for it so far.
    pub fn told(&self, fetched_bytes: impl FnOnce() -> Option<u64>) -> OrderUnderWay {
        let far = self.far();
        let starts = matches!(self.order.act, OrderAct::Start | OrderAct::TakeOver);
        let (step, stored_bytes, past, called_back) =
            (far.step.clone(), far.done_bytes, far.past, far.called_back || far.gone);
        drop(far);
        OrderUnderWay {
            order: self.order.id.clone(),
            name: self.order.name.clone(),
            step,
            done_bytes: if starts { fetched_bytes() } else { stored_bytes },
            past,
            called_back,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(act: OrderAct, at: u64) -> OrderPrint {
        OrderPrint::new(at.to_string(), "web", act, at)
    }

    #[test]
    fn what_is_called_back_ends_before_its_last_step_or_not_at_all() {
        let work = Work::new(order(OrderAct::Leave, 4));
        work.goes_on("one".to_owned(), 0).unwrap();
        // It was only given anew.
        let anew = OrderPrint { id: "9".to_owned(), ..order(OrderAct::Leave, 4) };
        work.stands_among(&[anew]);
        work.goes_on("two".to_owned(), 5).unwrap();
        let told = work.told(|| panic!("nothing is fetched for it"));
        assert_eq!((told.step.as_deref(), told.done_bytes), (Some("two"), Some(5)));
        assert!(!told.past && !told.called_back);
        work.stands_among(&[order(OrderAct::Leave, 5)]);
        let told = work.told(|| None);
        assert!(told.called_back && told.step.unwrap().contains("called back"));
        assert_eq!(work.goes_on("three".to_owned(), 5).unwrap_err().kind, "changed");
        assert_eq!(work.goes_past("last".to_owned(), 5).unwrap_err().kind, "changed");

        // Past that point it is done, whoever calls.
        let work = Work::new(order(OrderAct::Leave, 4));
        work.goes_past("last".to_owned(), 5).unwrap();
        work.stands_among(&[]);
        let told = work.told(|| None);
        assert!(told.past && told.called_back && told.step.as_deref() == Some("last"));
        // So is all that nobody can end in the middle.
        let told = Work::new(order(OrderAct::TakeOver, 4)).told(|| Some(7));
        assert!(told.past && told.done_bytes == Some(7));

        // A start ends as long as its guest has not run.
        let work = Work::new(order(OrderAct::Start, 4));
        let told = work.told(|| Some(7));
        assert!(!told.past && told.done_bytes == Some(7) && !work.is_to_end());
        let off = |id: &str| OrderPrint {
            id: id.to_owned(),
            called_off: true,
            ..order(OrderAct::Start, 4)
        };
        work.stands_among(&[]);
        work.stands_among(&[order(OrderAct::Suspend, 5)]);
        // It is known that it does not stand: its plane need not say so again and again.
        assert!(work.told(|| None).called_back);
        work.stands_among(&[off("9")]);
        assert!(!work.is_to_end(), "another one was called off");
        work.stands_among(&[off("4")]);
        assert!(work.is_to_end());
        assert!(work.told(|| None).step.unwrap().contains("called off"));
        work.passes();
        assert!(!work.is_to_end() && work.told(|| None).past);
    }
}
