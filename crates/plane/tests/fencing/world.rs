//! One instance, two hosts, a repository and a plane, small enough to explore.

use std::collections::BTreeSet;

use model::HostId;
use stateright::{Model, Property};

pub const HOSTS: usize = 2;

/// A rule of the protocol that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    AdvanceOnlyFromTheNewest,
    PauseWhenTheLeaseEnds,
    RefuseOrdersOfOtherGenerations,
    ClaimAgainAfterAPause,
    StartOnlyWithALease,
    LookAtTheHeadFirst,
    LeaveUnknownHostsAlone,
    KeepWhatIsFencedAsABranch,
    StoreOnlyWhatHasLanded,
    KeepWhatIsOnItsWay,
}

/// How far it is explored, and what is taken away from it.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    pub without: Option<Rule>,
    /// The plane's clock ends leases that their hosts still count on.
    pub clocks_are_wrong: bool,
    /// Whether it is looked at that only one copy lives.
    pub only_one_may_live: bool,
    /// Whether what happened is remembered, to see that it can happen.
    pub remembers: bool,
    pub generations_max: usize,
    pub works_max: u8,
    pub crashes_max: u8,
    pub wishes_max: u8,
    pub losses_max: u8,
}

impl Protocol {
    /// Enough to break what can be broken.
    pub fn small() -> Self {
        Self {
            without: None,
            clocks_are_wrong: false,
            only_one_may_live: true,
            remembers: false,
            generations_max: 4,
            works_max: 1,
            crashes_max: 1,
            wishes_max: 1,
            losses_max: 1,
        }
    }

    pub fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }
}

/// Pieces of work, a bit each.
pub type Works = u8;

/// What a guest left on a host when it went on before the repository had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Parcel {
    pub source: usize,
    pub data: Works,
}

/// One generation of the head.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Head {
    pub holder: Option<usize>,
    pub data: Works,
    pub parcel: Option<Parcel>,
}

impl Head {
    /// Let go by its holder, and taken by nobody yet.
    pub fn is_offered(&self) -> bool {
        self.parcel.is_some_and(|parcel| self.holder == Some(parcel.source))
    }
}

/// A guest on a host, or what a crash left of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Copy {
    /// The generation that its host wrote last.
    pub at: usize,
    pub data: Works,
    pub paused: bool,
    /// What of it only its source has.
    pub parcel: Option<Parcel>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Machine {
    pub up: bool,
    /// What the host itself believes: it counts from when it sent its last beat.
    pub lease: bool,
    pub copy: Option<Copy>,
    pub rest: Option<Copy>,
    /// What a guest left on its disk.
    pub parcel: Option<Works>,
}

/// What the plane knows of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Known {
    Never,
    Lives,
    Gone,
}

/// An order on its way. It may arrive late, and more than once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Order {
    Start {
        on: usize,
        at: usize,
    },
    TakeOver {
        on: usize,
        at: usize,
    },
    Suspend {
        on: usize,
        at: usize,
    },
    /// Suspend, before the repository has all.
    Part {
        on: usize,
        at: usize,
    },
}

/// What the plane looked at first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct View {
    pub at: usize,
    pub known: [Known; HOSTS],
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The repository: the head's generations, which are never overwritten.
    pub heads: Vec<Head>,
    pub branches: BTreeSet<Works>,
    /// Whose chunks are there, whatever names them.
    pub uploaded: Works,
    pub machines: [Machine; HOSTS],
    pub known: [Known; HOSTS],
    pub view: Option<View>,
    pub wanted: usize,
    pub orders: BTreeSet<Order>,
    /// Pieces of work done so far, and those that somebody was told to be safe.
    pub works: u8,
    pub acknowledged: Works,
    pub crashes: u8,
    pub wishes: u8,
    pub losses: u8,
    pub seen: Seen,
}

/// What has happened at least once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Seen {
    pub taken_over: bool,
    pub went_on: bool,
    pub landed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The guest does something.
    Work(usize),
    /// A checkpoint.
    Store(usize),
    Beat(usize),
    /// The host's own clock says that its lease is over.
    OwnEnd(usize),
    /// The plane's store says so.
    End(usize),
    /// A paused copy wants to go on.
    GoOn(usize),
    Crash(usize),
    Boot(usize),
    /// A host finds what a crash left, and a head that has moved.
    Found(usize),
    Look,
    Decide,
    Deliver(Order),
    /// The same, while hosts do not reach each other.
    DeliverAlone(Order),
    /// What it came with is stored.
    Land(usize),
    /// What was left on this host is looked after.
    SeeTo(usize),
    /// The user wants it elsewhere.
    Wish,
    /// The plane's state is lost.
    Lose,
}

pub fn id(host: usize) -> HostId {
    HostId::from_bytes([host as u8; 16])
}

impl World {
    pub fn newest(&self) -> usize {
        self.heads.len() - 1
    }

    pub fn live(&self) -> usize {
        let lives = |m: &&Machine| m.up && m.copy.as_ref().is_some_and(|copy| !copy.paused);
        self.machines.iter().filter(lives).count()
    }

    /// What is in the repository: on the line, and on branches.
    pub fn stored(&self) -> Works {
        let named = self.heads[self.newest()].data;
        self.branches.iter().fold(named, |all, branch| all | branch) & self.uploaded
    }

    /// Whether what is in a parcel can be had.
    pub fn gives(&self, parcel: Parcel) -> bool {
        let source = &self.machines[parcel.source];
        (source.up && source.parcel == Some(parcel.data)) || parcel.data & !self.uploaded == 0
    }

    /// Orders and views of a past head do nothing, ever: generations only grow. (Without
    /// the rules that say so they might, and are kept.)
    fn forget_what_cannot_matter(&mut self) {
        let newest = self.newest();
        self.orders.retain(|order| {
            let (Order::Start { at, .. }
            | Order::TakeOver { at, .. }
            | Order::Suspend { at, .. }
            | Order::Part { at, .. }) = order;
            *at == newest
        });
        self.view.take_if(|view| view.at != newest);
        self.view.iter_mut().for_each(|view| view.known = [Known::Never; HOSTS]);
        // Of the line only the newest generation is ever read.
        let nothing = Head { holder: None, data: 0, parcel: None };
        self.heads[..newest].iter_mut().for_each(|head| *head = nothing.clone());
    }

    fn anywhere(&self) -> Works {
        let copies = self.machines.iter().flat_map(|m| m.copy.iter().chain(&m.rest));
        // Of what is in a parcel a copy has what it has touched; count on none of it.
        let own = |copy: &Copy| copy.data & !copy.parcel.map_or(0, |parcel| parcel.data);
        let parcels = self.machines.iter().filter_map(|m| m.parcel);
        let all = copies.map(own).chain(parcels);
        all.fold(self.stored(), |all, some| all | some)
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let machine = Machine { up: true, ..Machine::default() };
        vec![World {
            heads: vec![Head { holder: None, data: 0, parcel: None }],
            branches: BTreeSet::new(),
            uploaded: 0,
            machines: [machine.clone(), machine],
            known: [Known::Never; HOSTS],
            view: None,
            wanted: 0,
            orders: BTreeSet::new(),
            works: 0,
            acknowledged: 0,
            crashes: 0,
            wishes: 0,
            losses: 0,
            seen: Seen::default(),
        }]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        for host in 0..HOSTS {
            steps.extend([
                Step::Work(host),
                Step::Store(host),
                Step::Beat(host),
                Step::OwnEnd(host),
                Step::End(host),
                Step::GoOn(host),
                Step::Crash(host),
                Step::Boot(host),
                Step::Found(host),
                Step::Land(host),
                Step::SeeTo(host),
            ]);
        }
        steps.extend([Step::Look, Step::Decide, Step::Wish, Step::Lose]);
        steps.extend(world.orders.iter().map(|order| Step::Deliver(*order)));
        if world.heads[world.newest()].parcel.is_some() {
            steps.extend(world.orders.iter().map(|order| Step::DeliverAlone(*order)));
        }
    }

    fn next_state(&self, before: &World, step: Step) -> Option<World> {
        let mut world = before.clone();
        self.step(&mut world, step);
        if !self.remembers {
            world.seen = Seen::default();
        }
        if self.has(Rule::RefuseOrdersOfOtherGenerations) && self.has(Rule::LookAtTheHeadFirst) {
            world.forget_what_cannot_matter();
        }
        (world != *before).then_some(world)
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.newest() <= self.generations_max
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("acknowledged_is_kept", |_, w: &World| {
                w.acknowledged & !w.stored() == 0
            }),
            Property::always("work_is_never_dropped", |_, w: &World| {
                ((1 << w.works) - 1) & !w.anywhere() == 0
            }),
        ];
        if self.only_one_may_live {
            properties.push(Property::always("one_live_copy", |_, w: &World| w.live() <= 1));
        }
        if self.remembers {
            properties.extend([
                Property::sometimes("it_is_taken_over", |_, w: &World| w.seen.taken_over),
                Property::sometimes("it_goes_on_after_a_pause", |_, w: &World| w.seen.went_on),
                Property::sometimes("it_comes_back_as_a_branch", |_, w: &World| {
                    !w.branches.is_empty()
                }),
                Property::sometimes("it_moves", |_, w: &World| {
                    w.wishes > 0 && w.machines[1].copy.is_some() && !w.seen.taken_over
                }),
                Property::sometimes("it_goes_on_before_all_is_stored", |_, w: &World| {
                    let on = w.machines[1].copy.as_ref().filter(|copy| !copy.paused);
                    let came = on.and_then(|copy| copy.parcel);
                    came.is_some_and(|parcel| parcel.data & !w.uploaded != 0)
                }),
                Property::sometimes("what_it_came_with_lands", |_, w: &World| w.seen.landed),
                Property::sometimes("all_work_is_on_the_line", |_, w: &World| {
                    w.works == 1 && w.heads[w.newest()].data == 1 && w.wishes > 0
                }),
            ]);
        }
        properties
    }
}
