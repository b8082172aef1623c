//! How long the planner takes for 1,000 hosts and 10,000 instances: `scripts/bench-plane`.

#[path = "../tests/fleets/mod.rs"]
mod fleets;

use plane::fleet::HostState;
use plane::planner::{Decision, plan};

fn main() {
    let mut fleet = fleets::large(1000, 10_000);
    let begun = ambient::processor_time();
    let placed = plan(&fleet);
    let all = ambient::processor_time() - begun;
    for choice in &placed.choices {
        let name = &choice.instance;
        let instance = fleet.instances.iter_mut().find(|instance| instance.name == *name);
        if let (Some(instance), Decision::Place { on }) = (instance, &choice.decision) {
            instance.at = Some(*on);
        }
    }
    let begun = ambient::processor_time();
    let steady = plan(&fleet).choices.len();
    let quiet = ambient::processor_time() - begun;
    fleet.hosts[17].state = HostState::Gone;
    let begun = ambient::processor_time();
    let moved = plan(&fleet).choices.len();
    let death = ambient::processor_time() - begun;
    println!(
        "{{\"placed\":{},\"looks\":{},\"place_all_ms\":{},\"steady\":{steady},\"steady_ms\":{},\
         \"moved\":{moved},\"host_death_ms\":{}}}",
        placed.choices.len(),
        placed.looks,
        all.as_millis(),
        quiet.as_millis(),
        death.as_millis(),
    );
}
