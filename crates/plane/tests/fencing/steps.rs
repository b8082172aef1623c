//! What each step does.

use model::{Generation, InstanceState};
use plane::reconcile::{Act, Holder, Restart, Seen, Wanted, WantedState, decide};

use crate::world::{
    Copy, Head, Known, Order, Parcel, Protocol, Rule, Step, View, Works, World, id,
};

impl Protocol {
    pub fn step(&self, world: &mut World, step: Step) {
        match step {
            Step::Work(host) => {
                if let Some(copy) = running(world, host)
                    && world.works < self.works_max
                {
                    let work = 1 << world.works;
                    world.machines[host].copy = Some(Copy { data: copy.data | work, ..copy });
                    world.works += 1;
                }
            }
            Step::Store(host) => self.store(world, host),
            Step::Beat(host) => beat(world, host),
            Step::OwnEnd(host) => {
                let machine = &mut world.machines[host];
                machine.lease = false;
                if self.has(Rule::PauseWhenTheLeaseEnds) {
                    machine.copy.iter_mut().for_each(|copy| copy.paused = true);
                }
            }
            Step::End(host) => {
                if world.known[host] == Known::Lives
                    && (self.clocks_are_wrong || !world.machines[host].lease)
                {
                    world.known[host] = Known::Gone;
                }
            }
            Step::GoOn(host) => self.go_on(world, host),
            Step::Crash(host) => {
                if world.machines[host].up && world.crashes < self.crashes_max {
                    world.crashes += 1;
                    let machine = &mut world.machines[host];
                    (machine.up, machine.lease) = (false, false);
                    if let Some(copy) = machine.copy.take() {
                        machine.rest = Some(Copy { paused: false, ..copy });
                    }
                }
            }
            Step::Boot(host) => world.machines[host].up = true,
            Step::Found(host) => {
                let newest = world.newest();
                let rest = world.machines[host].rest.clone().filter(|rest| rest.at != newest);
                if world.machines[host].up
                    && let Some(rest) = rest
                    && rest.parcel.is_none_or(|parcel| world.gives(parcel))
                {
                    world.machines[host].rest = None;
                    self.branch(world, rest.data);
                }
            }
            Step::Look => {
                world.view = Some(View { at: world.newest(), known: world.known });
            }
            Step::Decide => self.decide(world),
            Step::Deliver(order) => self.deliver(world, order, true),
            Step::DeliverAlone(order) => self.deliver(world, order, false),
            Step::Land(host) => self.land(world, host),
            Step::SeeTo(host) => self.see_to(world, host),
            Step::Wish => {
                if world.wishes < self.wishes_max {
                    world.wishes += 1;
                    world.wanted = 1 - world.wanted;
                }
            }
            Step::Lose => {
                if world.losses < self.losses_max {
                    world.losses += 1;
                    world.known = [Known::Never; 2];
                    world.view = None;
                }
            }
        }
    }

    /// Creates the head's next generation, if the newest is the one that the writer knows.
    fn advance(&self, world: &mut World, at: usize, head: Head) -> Option<usize> {
        if world.newest() != at && self.has(Rule::AdvanceOnlyFromTheNewest) {
            return None;
        }
        world.heads.push(head);
        Some(world.newest())
    }

    fn branch(&self, world: &mut World, data: Works) {
        if self.has(Rule::KeepWhatIsFencedAsABranch) {
            world.branches.insert(data);
            world.uploaded |= data;
        }
    }

    /// A copy whose host was fenced out: its work is kept, and it ends.
    fn fenced(&self, world: &mut World, host: usize) {
        let Some(copy) = world.machines[host].copy.take() else { return };
        if copy.parcel.is_none_or(|parcel| world.gives(parcel)) {
            self.branch(world, copy.data);
        } else {
            // It cannot be stored yet: it stays where it is.
            world.machines[host].rest = Some(copy);
        }
    }

    fn store(&self, world: &mut World, host: usize) {
        let Some(copy) = running(world, host) else { return };
        if world.newest() == copy.at && world.heads[copy.at].data == copy.data {
            return;
        }
        if copy.parcel.is_some() && self.has(Rule::StoreOnlyWhatHasLanded) {
            return;
        }
        let head = Head { holder: Some(host), data: copy.data, parcel: None };
        match self.advance(world, copy.at, head) {
            Some(at) => {
                world.acknowledged |= copy.data;
                // What it wrote itself.
                world.uploaded |= copy.data & !copy.parcel.map_or(0, |parcel| parcel.data);
                world.machines[host].copy = Some(Copy { at, ..copy });
            }
            None => self.fenced(world, host),
        }
    }

    /// A copy has what it came with put into the repository, and its head says so.
    fn land(&self, world: &mut World, host: usize) {
        let machine = &world.machines[host];
        let Some(copy) = machine.copy.clone().filter(|_| machine.up) else { return };
        let Some(parcel) = copy.parcel.filter(|parcel| world.gives(*parcel)) else { return };
        world.uploaded |= parcel.data;
        let head = Head { holder: Some(host), data: parcel.data, parcel: None };
        match self.advance(world, copy.at, head) {
            Some(at) => {
                world.machines[host].copy = Some(Copy { at, parcel: None, ..copy });
                world.seen.landed = true;
            }
            None => self.fenced(world, host),
        }
    }

    /// What a guest left here is stored when nobody takes it, and kept until the repository has it.
    fn see_to(&self, world: &mut World, host: usize) {
        let machine = &world.machines[host];
        let Some(data) = machine.parcel.filter(|_| machine.up) else { return };
        let newest = world.newest();
        let head = world.heads[newest].clone();
        if head.parcel == Some(Parcel { source: host, data }) {
            if head.is_offered() {
                world.uploaded |= data;
                let head = Head { holder: None, data, parcel: None };
                self.advance(world, newest, head);
            } else if self.has(Rule::KeepWhatIsOnItsWay) {
                return;
            }
        } else if data & !world.stored() != 0 {
            self.branch(world, data);
        }
        world.machines[host].parcel = None;
    }

    fn go_on(&self, world: &mut World, host: usize) {
        let machine = &world.machines[host];
        let Some(copy) = machine.copy.clone().filter(|copy| copy.paused) else { return };
        if !machine.up || !machine.lease {
            return;
        }
        let head = world.heads[world.newest()].clone();
        let at = if self.has(Rule::ClaimAgainAfterAPause) {
            self.advance(world, copy.at, Head { holder: Some(host), ..head })
        } else {
            Some(copy.at).filter(|at| *at == world.newest())
        };
        match at {
            Some(at) => {
                world.machines[host].copy = Some(Copy { at, paused: false, ..copy });
                world.seen.went_on = true;
            }
            None => self.fenced(world, host),
        }
    }

    fn decide(&self, world: &mut World) {
        let Some(view) = world.view.take() else { return };
        let (at, known) = if self.has(Rule::LookAtTheHeadFirst) {
            (view.at, world.known)
        } else {
            (world.newest(), view.known)
        };
        let holder = world.heads[at].holder.map(|host| {
            let copy = world.machines[host].copy.as_ref();
            let says = copy.map(|copy| match copy.paused {
                true => InstanceState::Paused,
                false => InstanceState::Running,
            });
            let holder = match known[host] {
                Known::Lives => Holder::Lives { says },
                Known::Gone => Holder::Gone,
                Known::Never if self.has(Rule::LeaveUnknownHostsAlone) => Holder::Unknown,
                Known::Never => Holder::Gone,
            };
            (id(host), holder)
        });
        // It runs nowhere, and who let it go can give it.
        let offered = world.heads[at].is_offered();
        let holder = holder.filter(|(_, known)| !offered || !matches!(known, Holder::Lives { .. }));
        let wanted = |on: usize| Wanted {
            state: WantedState::Running,
            on: Some(id(on)),
            restart: Restart::OnFailure,
        };
        let lives = |host: usize| known[host] == Known::Lives;
        let seen =
            |on: usize| Seen { generation: Generation(at as u64), holder, target_lives: lives(on) };
        let mut act = decide(&wanted(world.wanted), &seen(world.wanted));
        let other = 1 - world.wanted;
        if act == Act::FindPlace && lives(other) {
            act = decide(&wanted(other), &seen(other));
        }
        let number = |host| (0..2).find(|n| id(*n) == host).unwrap();
        let order = match act {
            Act::Start { on, .. } => Order::Start { on: number(on), at },
            Act::TakeOver { on, .. } => Order::TakeOver { on: number(on), at },
            Act::Suspend { on, .. } => {
                // Its host does the one or the other.
                world.orders.insert(Order::Part { on: number(on), at });
                Order::Suspend { on: number(on), at }
            }
            Act::Nothing | Act::Wait(_) | Act::FindPlace | Act::Stop { .. } => return,
        };
        world.orders.insert(order);
    }

    fn deliver(&self, world: &mut World, order: Order, reached: bool) {
        let newest = world.newest();
        let fits = |at: usize| at == newest || !self.has(Rule::RefuseOrdersOfOtherGenerations);
        match order {
            Order::Suspend { on, at } => {
                let machine = &world.machines[on];
                let Some(copy) = machine.copy.clone().filter(|_| machine.up && fits(at)) else {
                    return;
                };
                if copy.parcel.is_some() {
                    return;
                }
                let head = Head { holder: None, data: copy.data, parcel: None };
                match self.advance(world, copy.at, head) {
                    Some(_) => {
                        world.acknowledged |= copy.data;
                        world.uploaded |= copy.data;
                        world.machines[on].copy = None;
                    }
                    None => self.fenced(world, on),
                }
            }
            Order::Part { on, at } => {
                let Some(copy) = running(world, on).filter(|_| fits(at)) else { return };
                if copy.parcel.is_some() || world.machines[on].parcel.is_some() {
                    return;
                }
                let parcel = Parcel { source: on, data: copy.data };
                let data = world.heads[copy.at].data;
                let head = Head { holder: Some(on), data, parcel: Some(parcel) };
                match self.advance(world, copy.at, head) {
                    Some(_) => {
                        let machine = &mut world.machines[on];
                        (machine.copy, machine.parcel) = (None, Some(copy.data));
                    }
                    None => self.fenced(world, on),
                }
            }
            Order::Start { on, at } | Order::TakeOver { on, at } => {
                let machine = &world.machines[on];
                let leased = machine.lease || !self.has(Rule::StartOnlyWithALease);
                if !machine.up || !leased || machine.copy.is_some() || !fits(at) {
                    return;
                }
                let before = world.heads[newest].clone();
                let takes = matches!(order, Order::TakeOver { .. });
                let elsewhere = before.holder.is_some_and(|holder| holder != on);
                if elsewhere && !takes && !before.is_offered() {
                    return;
                }
                let (head, data) = match before.parcel {
                    // What lies here goes into the repository first.
                    Some(parcel) if parcel.source == on => {
                        if machine.parcel != Some(parcel.data) {
                            return;
                        }
                        world.uploaded |= parcel.data;
                        let data = parcel.data;
                        (Head { holder: Some(on), data, parcel: None }, data)
                    }
                    Some(parcel) if reached && world.gives(parcel) => {
                        (Head { holder: Some(on), ..before }, parcel.data)
                    }
                    // Without it only who takes over from who is gone.
                    Some(_) if takes => {
                        let data = before.data;
                        (Head { holder: Some(on), data, parcel: None }, data)
                    }
                    Some(_) => return,
                    None => (Head { holder: Some(on), ..before }, before.data),
                };
                let parcel = head.parcel;
                let Some(at) = self.advance(world, newest, head) else { return };
                let machine = &mut world.machines[on];
                let rest = machine.rest.take_if(|rest| rest.at == newest);
                let data = rest.map_or(data, |rest| rest.data);
                machine.copy = Some(Copy { at, data, paused: false, parcel });
                world.seen.taken_over |= takes;
            }
        }
    }
}

fn running(world: &World, host: usize) -> Option<Copy> {
    let machine = &world.machines[host];
    machine.copy.clone().filter(|copy| machine.up && !copy.paused)
}

/// A beat arrives. A host whose lease had ended learns it by this: it pauses before it goes on.
fn beat(world: &mut World, host: usize) {
    if !world.machines[host].up {
        return;
    }
    if world.known[host] != Known::Lives {
        let copy = &mut world.machines[host].copy;
        copy.iter_mut().for_each(|copy| copy.paused = true);
    }
    world.known[host] = Known::Lives;
    world.machines[host].lease = true;
}
