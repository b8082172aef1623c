//! Steering: again and again, what has to be done next is written down as orders.
//!
//! ```text
//! picture ──planner──▶ where ──reconcile──▶ one step for each instance ──▶ orders/, places/
//!    ▲                                                                        │
//!    └──────────── something has changed, or a second has passed ◀────────────┘
//! ```
//!
//! **Invariant:** an order that stands is not given again; one that no longer fits is taken back.
//! What a host does with one that it has already is decided by the head ([`crate::reconcile`]); of one that
//! was taken back it is told, and lets a guest stay that has not left yet. A start that it has begun ends only
//! when somebody has called it off: that is written into the order.
//! **Invariant:** no order is given for a wish that has changed since it was looked at.
//! **Invariant:** one plane steers, by a lease; while two believe they do, orders are only given twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use api::{InstanceWish, OrderAct, OrderPrint, StateWish};
use kv::{LeaseId, Revision, Txn};
use model::{HostId, Name};

use super::followed::followed;
use super::state::{LOADS, METERED, OperationRecord, PROGRESS, Picture, PlaceRecord, Step, json};
use super::{Plane, Refused};
use crate::planner;

/// Without a change, it is looked at so often: leases end and times come.
const LOOK: Duration = Duration::from_secs(1);
/// Changes that come together are looked at together.
const TOGETHER: Duration = Duration::from_millis(20);
/// How long it is not steered after the plane that did has died.
const TERM: Duration = Duration::from_secs(5);
/// How often it is looked for what nobody needs any more.
const SWEEP: Duration = Duration::from_secs(600);
/// Writes of one commit.
const TOGETHER_MAX: usize = 40;
/// Ends of operations in one commit; each is some writes.
const ENDS_MAX: usize = 10;

/// A plane that steers, until this is dropped.
#[derive(Debug)]
pub struct Steering {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Steering {
    pub fn begin(plane: Arc<Plane>) -> std::io::Result<Self> {
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let thread = ambient::spawn("steering".to_owned(), move || {
            let mut term = None;
            while !ends.load(Ordering::Relaxed) {
                // What does not work now is tried again; callers hear of it by their own requests.
                // Counted in `/metrics`.
                if plane.steer_once(&mut term, &ends).is_err() {
                    plane.stumbled.fetch_add(1, Ordering::Relaxed);
                    term = None;
                    ambient::sleep(LOOK);
                }
            }
            if let Some(lease) = term {
                let _ = plane.kv.revoke(lease);
            }
        })?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Adds a write to others, with what must hold for it.
type Write = Box<dyn Fn(Txn) -> Txn>;

/// Writes that are committed some at a time; each that may be is, when one of them may not.
struct Writes<'a> {
    plane: &'a Plane,
    some: Vec<Write>,
    most: usize,
}

impl Writes<'_> {
    fn add(&mut self, add: impl Fn(Txn) -> Txn + 'static) -> Result<(), Refused> {
        self.some.push(Box::new(add));
        if self.some.len() == self.most { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Refused> {
        let some = std::mem::take(&mut self.some);
        let all = some.iter().fold(Txn::new(), |txn, add| add(txn));
        if some.is_empty() || self.plane.kv.commit(&all)?.is_done() {
            return Ok(());
        }
        for add in some {
            // What was decided by a wish that has changed is decided anew.
            self.plane.kv.commit(&add(Txn::new()))?;
        }
        Ok(())
    }
}

impl Plane {
    pub(super) fn steer_once(
        &self,
        term: &mut Option<LeaseId>,
        over: &AtomicBool,
    ) -> Result<(), Refused> {
        self.keep_revocations()?;
        let revision = self.kv.list("steering")?.revision;
        if self.has_the_helm(term)? {
            self.steer()?;
            self.sweep()?;
        }
        self.until_changed(revision, over)
    }

    /// Now and then, what nobody needs any more goes.
    fn sweep(&self) -> Result<(), Refused> {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if swept.is_none_or(|swept| swept.elapsed() > SWEEP) {
            self.sweep_answers()?;
            self.sweep_gone()?;
            self.sweep_operations()?;
            *swept = Some(ambient::now());
        }
        Ok(())
    }

    /// Whether this plane is the one that steers.
    fn has_the_helm(&self, term: &mut Option<LeaseId>) -> Result<bool, Refused> {
        if let Some(lease) = *term
            && self.kv.keep_alive(lease).is_ok()
        {
            return Ok(true);
        }
        *term = None;
        if self.kv.get("steering")?.is_some() {
            return Ok(false);
        }
        let lease = self.kv.grant(TERM)?;
        let txn = Txn::new().when("steering", kv::Condition::Absent);
        if self.kv.commit(&txn.put_leased("steering", "", lease))?.is_done() {
            *term = Some(lease);
            return Ok(true);
        }
        self.kv.revoke(lease)?;
        Ok(false)
    }

    fn until_changed(&self, after: Revision, over: &AtomicBool) -> Result<(), Refused> {
        let watch = self.kv.watch("", after)?;
        let ends = ambient::now() + LOOK;
        while !over.load(Ordering::Relaxed) {
            let left = ends.saturating_duration_since(ambient::now());
            let batch = watch.next(left.min(Duration::from_millis(100)))?;
            // What was used, how busy hosts are and how far, is said all the time: the next look is early
            // enough.
            let steers = |batch: kv::Batch| {
                let passing =
                    |key: &str| [METERED, LOADS, PROGRESS].iter().any(|said| key.starts_with(said));
                batch.changes.iter().any(|change| !passing(change.key()))
            };
            if left.is_zero() || batch.is_some_and(steers) {
                break;
            }
        }
        ambient::sleep(TOGETHER);
        Ok(())
    }

    /// Gives the orders that are to be given now.
    pub(super) fn steer(&self) -> Result<(), Refused> {
        // Before anything else is looked at.
        let busy = self.busy()?;
        let mut picture = self.picture()?;
        let fleet = picture.fleet()?;
        let plan = planner::plan(&fleet);
        if self.relieves() {
            self.begin_relief(&mut picture, &planner::rebalance(&fleet, &plan))?;
        }
        let mut writes = Writes { plane: self, some: Vec::new(), most: TOGETHER_MAX };
        let mut ends = Writes { plane: self, some: Vec::new(), most: ENDS_MAX };
        let mut standing = picture.orders.clone();
        for (name, step, on) in picture.steps(&plan) {
            if busy.is_begun(&name) && picture.called_off(&name).is_some() {
                // What comes of it is seen when its host has ended.
                standing.retain(|(of, _), _| *of != name);
                continue;
            }
            let wished = &picture.wishes[&name];
            let record = &wished.1;
            if record.at.is_none()
                && let Some(seen) = picture.seen.get(&name)
                && !picture.since.contains_key(&name)
            {
                // The first head that was seen of it is the one that it was wished at. It is not
                // written into the wish: that is its user's, and its revision is what they have seen.
                let since = json(&seen.head.generation);
                let txn = Txn::create(&format!("since/{name}"), since);
                let stands = kv::Condition::At(wished.0);
                self.kv.commit(&txn.when(&format!("instances/{name}"), stands))?;
            }
            if let Some(live) = picture.operations.get(&name)
                && !busy.with(&name)
                && let Some(end) = picture.end(&name, &live.1, &step)
            {
                ends.add(self.end_operation(&name, live, wished.0, end)?)?;
                if matches!(step, Step::Removed | Step::Stopped) {
                    // Before the wish is another one.
                    ends.flush()?;
                }
            }
            let waits = picture
                .trouble
                .get(&name)
                .is_some_and(|trouble| trouble.again_unix_ms > picture.now_unix_ms);
            let mut trace = picture.places.get(&name).and_then(|place| place.traceparent.clone());
            let next = match step {
                Step::Rest(why) => why,
                Step::Stays(why) => Some(why),
                Step::Removed => {
                    self.remove_wish(None, &name, wished)?;
                    continue;
                }
                Step::Stopped => {
                    let wish = InstanceWish { state: StateWish::Stopped, ..record.wish.clone() };
                    self.settle(&name, wished, &wish)?;
                    continue;
                }
                Step::Order { to, act, at } => {
                    let old = standing.remove(&(name.clone(), to));
                    let asked = picture.operations.get(&name).map(|(_, operation)| operation);
                    let target = on.filter(|_| act == OrderAct::Leave);
                    let order = OrderPrint {
                        target: target.map(|target| target.to_string()),
                        ..order(&name, act, at, &record.wish, asked)
                    };
                    let what = |order: &OrderPrint| {
                        (order.act, order.at, order.cpus, order.memory_bytes, order.called_off)
                    };
                    let stands = old.as_ref().is_some_and(|old| what(old) == what(&order));
                    if !stands && !waits {
                        let order = match asked {
                            Some(_) => order,
                            None => followed(order, to, &mut trace),
                        };
                        let (key, order) = (format!("orders/{to}/{name}"), json(&order));
                        let (wish, at) = (format!("instances/{name}"), wished.0);
                        // Not when something else is wished by now: it may have been called off.
                        writes.add(move |txn| {
                            txn.when(&wish, kv::Condition::At(at)).put(&key, order.clone())
                        })?;
                    }
                    Some(words(&picture, &name, to, act))
                }
            };
            let wish = &record.wish;
            let once = wish.on.is_some() || wish.take_over || wish.take_over_anyway;
            // Who is called back has to be there when the host has heard of it.
            let asked = picture.operations.contains_key(&name);
            if once && !asked && next.is_none() && wish.state == StateWish::Running {
                // It has been done: where it is it stays, until something new is wished.
                let (on, take_over) = (None, false);
                let wish = InstanceWish { on, take_over, take_over_anyway: false, ..wish.clone() };
                self.settle(&name, wished, &wish)?;
            }
            let traceparent = trace.filter(|_| next.is_some());
            let place = PlaceRecord { on: on.map(|on| on.to_string()), next, traceparent };
            if picture.places.get(&name).cloned().unwrap_or_default() != place {
                let (key, place) = (format!("places/{name}"), json(&place));
                writes.add(move |txn| txn.put(&key, place.clone()))?;
            }
        }
        for ((name, host), order) in standing {
            self.take_back(host, &order)?;
            let (key, wish) = (format!("orders/{host}/{name}"), format!("instances/{name}"));
            let wished = picture.wishes.get(&name).map(|(at, _)| kv::Condition::At(*at));
            // Not when it has been called off meanwhile: its host has to hear of that.
            writes.add(move |txn| {
                txn.when(&wish, wished.unwrap_or(kv::Condition::Absent)).delete(&key)
            })?;
        }
        // What is left of those that nobody wants anything of any more.
        let wished = |name: &&Name| !picture.wishes.contains_key(*name);
        let seen = picture.seen.keys().filter(wished).map(|name| format!("seen/{name}"));
        let places = picture.places.keys().filter(wished).map(|name| format!("places/{name}"));
        let since = picture.since.keys().filter(wished).map(|name| format!("since/{name}"));
        let trouble = picture.trouble.keys().filter(wished).map(|name| format!("trouble/{name}"));
        for key in seen.chain(places).chain(since).chain(trouble) {
            writes.add(move |txn| txn.delete(&key))?;
        }
        ends.flush()?;
        self.unreadable.store(picture.unreadable, Ordering::Relaxed);
        writes.flush()
    }
}

fn order(
    name: &Name,
    act: OrderAct,
    at: u64,
    wish: &InstanceWish,
    asked: Option<&OperationRecord>,
) -> OrderPrint {
    let id: [u8; 8] = ambient::random();
    OrderPrint {
        appliance: wish.appliance.clone(),
        ports: wish.ports.clone(),
        network: wish.network.clone(),
        cpus: Some(wish.cpus),
        memory_bytes: Some(wish.memory_bytes),
        traceparent: asked.and_then(|asked| asked.traceparent.clone()),
        ..OrderPrint::new(u64::from_le_bytes(id).to_string(), name.as_str(), act, at)
    }
}

fn words(picture: &Picture, of: &Name, to: HostId, act: OrderAct) -> String {
    let host = picture.host_name(to);
    let what = match act {
        OrderAct::Start => format!("starts on {host}"),
        OrderAct::TakeOver => format!("is taken over by {host}"),
        OrderAct::Suspend => format!("is suspended on {host}"),
        OrderAct::Leave => format!("leaves {host}"),
        OrderAct::Stop => format!("is stopped on {host}"),
        OrderAct::Look => format!("{host} looks at it"),
        OrderAct::Unknown => format!("{host} does what a newer plane wants"),
    };
    match picture.on_its_way(of) {
        Some((_, why)) => format!("{what}: {}", why.join("; ")),
        None => what,
    }
}
