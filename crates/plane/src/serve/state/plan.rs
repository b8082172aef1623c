//! What would be done now, in words.

use api::{ChoicePrint, PlanPrint};
use model::HostId;

use super::Result;
use crate::planner::{self, Decision};
use crate::serve::Plane;

impl Plane {
    /// See the module's documentation.
    pub(in crate::serve) fn plan(&self) -> Result<PlanPrint> {
        let picture = self.picture()?;
        let plan = planner::plan(&picture.fleet()?);
        let named = |id: HostId| Some(picture.host_name(id));
        let choices = plan.choices.into_iter().map(|choice| {
            let (decision, source, target) = match choice.decision {
                Decision::Place { on } => ("place", None, named(on)),
                Decision::Move { source, on } => ("move", named(source), named(on)),
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
        Ok(PlanPrint { choices: choices.collect(), stay: plan.stay as u64 })
    }
}
