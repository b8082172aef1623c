//! Hosts, a repository, guests and everything that goes wrong, in one process, from one number.
//!
//! What runs is the real code: `repository`, `volume` and all that `host` decides. Simulated are the
//! object store (`store`), local disks and power cuts (`disk`), the guest (`machine`), and time,
//! chance and whose turn it is (`world`). What must hold is in `check`; what hosts do in `life`.
//!
//! **Invariant:** the same seed gives the same trace, request by request.
//! **Invariant:** no part of the product; no crate depends on it.

mod chance;
mod check;
pub mod disk;
mod doors;
pub mod full;
pub mod kill;
mod life;
mod machine;
mod market;
pub mod meet;
mod store;
mod truth;
mod world;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use chance::Chance;
use life::Run;
use world::{Crashed, World};

/// How a run went.
#[derive(Debug, Clone)]
pub struct Report {
    pub seed: u64,
    pub steps: u64,
    /// How far the virtual clock came.
    pub virtual_ms: u64,
    /// Of all steps in their order.
    pub trace: u64,
    pub faults: BTreeMap<String, u64>,
    /// Verbs that hosts began.
    pub verbs: BTreeMap<String, u64>,
    /// What must never be, and was.
    pub violation: Option<String>,
    /// The last events, or all.
    pub events: Vec<String>,
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Some verbs of each host.
    Short,
    /// As many as it takes until the virtual clock has come so far.
    Hours(u64),
}

/// Dying hosts unwind; that is no news.
pub fn hush() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.payload().is::<Crashed>() {
            before(info);
        }
    }));
}

/// One run; with `tell`, its report has every event.
pub fn run(seed: u64, extent: Extent, tell: bool) -> Report {
    let mut chance = Chance::new(seed ^ 0xfeed);
    let hosts = 2 + chance.below(2) as usize;
    let world = World::new(seed, hosts);
    world.state().keeps_all = tell;
    let _simulated = ambient::simulated::simulate(world.clone());
    world.act_for(0);
    let run = Run::new(world.clone(), hosts);
    {
        let mut state = world.state();
        state.faulty = [0, 10, 40, 90][chance.below(4) as usize];
        state.switching = [20, 100, 300][chance.below(3) as usize];
    }
    let actions = 8 + chance.below(16);
    world.begin(hosts);
    std::thread::scope(|scope| {
        for at in 0..hosts {
            let (run, world) = (&run, &world);
            let mut chance = Chance::new(seed.wrapping_mul(31) ^ at as u64);
            scope.spawn(move || {
                world.enter(at);
                let lived = std::panic::catch_unwind(AssertUnwindSafe(|| {
                    let mut done = 0;
                    let goes_on = |done: u64| match extent {
                        Extent::Short => done < actions,
                        Extent::Hours(hours) => world.state().now_ms < hours * 3_600_000,
                    };
                    while goes_on(done) && !world.failed() {
                        run.act(at, &mut chance);
                        done += 1;
                    }
                }));
                if lived.is_err() {
                    world.violation("a host's thread panicked outside of its verbs");
                }
                world.leave(at);
            });
        }
    });
    if !world.failed() {
        run.settle();
    }
    report(seed, &world)
}

fn report(seed: u64, world: &Arc<World>) -> Report {
    let state = world.state();
    Report {
        seed,
        steps: state.steps,
        virtual_ms: state.now_ms,
        trace: state.hash,
        faults: state.faults.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        verbs: state.verbs.clone(),
        violation: state.violation.clone(),
        events: state.events.iter().cloned().collect(),
    }
}
