//! Says to the plane what instances here have used.
//!
//! On a thread and a connection of its own: what becomes of it keeps no beat and no order waiting.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use api::{MeterReply, MeterReport, RunPrint};
use host::Failure;
use plane::client::Client;
use plane::meter::RUNS_MAX;

use crate::{Agent, PAUSE_MIN};

/// How often, while nothing ends.
const PACE: Duration = Duration::from_secs(10);
/// How often it is looked whether something has.
const LOOK: Duration = Duration::from_secs(1);

/// What was said last, and what is said next.
#[derive(Default)]
struct Said {
    number: u64,
    runs: Vec<RunPrint>,
}

impl Agent<'_> {
    pub fn meter(&self) {
        let mut said = Said::default();
        let (mut looked, mut last) = (None, None);
        let over =
            |since: Option<ambient::Instant>, pace| since.is_none_or(|it| it.elapsed() >= pace);
        while !self.over.load(Ordering::Relaxed) {
            // What cannot be read now is not gone: the plane would count it anew when it can.
            if over(looked, LOOK)
                && let Ok(metered) = self.host.metered()
            {
                // Before the plane has counted it and it is gone.
                self.figures.metered(&metered);
                let runs: Vec<_> = metered.into_iter().map(|metered| metered.run).collect();
                if over(last, PACE) || runs.iter().any(|run| run.ended) {
                    // What fails is said with the next: nothing is forgotten before it is counted.
                    let _ = self.client().twin().map(|twin| self.say_usage(&twin, runs, &mut said));
                    last = Some(ambient::now());
                }
                looked = Some(ambient::now());
            }
            ambient::sleep(PAUSE_MIN);
        }
    }

    fn say_usage(
        &self,
        client: &Client,
        mut runs: Vec<RunPrint>,
        said: &mut Said,
    ) -> Result<(), Failure> {
        // The oldest are said until they have been counted; the others come after them.
        runs.truncate(RUNS_MAX);
        if runs == said.runs {
            return Ok(());
        }
        let path = format!("/v1/hosts/{}/usage", self.host.id());
        // With another number when the plane says so.
        for _ in 0..2 {
            let report = MeterReport { number: said.number, runs: runs.clone() };
            let Ok(reply) = client.post::<MeterReply>(&path, &report) else { return Ok(()) };
            said.number = reply.number;
            if reply.counted {
                let ended = runs.iter().filter(|run| run.ended);
                let ended: HashSet<String> = ended.map(|run| run.run.clone()).collect();
                said.runs = runs;
                return self.host.forget_metered(&ended);
            }
        }
        Ok(())
    }
}
