//! What would be done now, in words.

use api::{ChoicePrint, OverloadPrint, PlanPrint};
use model::HostId;

use super::Result;
use crate::planner::{self, Decision, Relief, rebalance};
use crate::serve::Plane;

impl Plane {
    /// See the module's documentation.
    pub(in crate::serve) fn plan(&self) -> Result<PlanPrint> {
        let picture = self.picture()?;
        let fleet = picture.fleet()?;
        let plan = planner::plan(&fleet);
        let relief = if self.relieves() { rebalance(&fleet, &plan) } else { Relief::default() };
        let named = |id: HostId| Some(picture.host_name(id));
        let stay = (plan.stay - relief.choices.len()) as u64;
        let choices = plan.choices.into_iter().chain(relief.choices).map(|choice| {
            let (decision, source, target) = match choice.decision {
                Decision::Place { on } => ("place", None, named(on)),
                Decision::Move { source, on } => ("move", named(source), named(on)),
                Decision::Relieve { source, on } => ("relieve", named(source), named(on)),
                Decision::Rescue { source, on } => ("rescue", named(source), named(on)),
                Decision::Nowhere { source } => ("nowhere", source.and_then(named), None),
            };
            ChoicePrint {
                instance: choice.instance.to_string(),
                decision: decision.to_owned(),
                source,
                target,
                why: choice.why.reasons().to_vec(),
            }
        });
        let choices = choices.collect();
        let overloaded = relief.overloaded.into_iter();
        let overloaded = overloaded
            .map(|over| OverloadPrint { host: picture.host_name(over.host), why: over.why });
        Ok(PlanPrint { choices, stay, overloaded: overloaded.collect() })
    }
}
