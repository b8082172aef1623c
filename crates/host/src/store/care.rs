//! Looking after a repository: checking, repairing, collecting what nothing needs, counting.

use std::sync::Arc;

use api::{CheckPrint, GcPrint, RepairPrint, RepoStatsPrint};
use objects::Objects;

use super::{Store, open_objects, open_with_keys};
use crate::dir::HostDir;
use crate::failure::Result;

impl Store {
    /// Checks everything that is named.
    pub fn check(&self, read_data: bool, progress: &mut dyn FnMut(&str)) -> Result<CheckPrint> {
        let report = self.repository.check(read_data, &mut at_step(progress))?;
        let mut problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        let more = report.problem_count.saturating_sub(problems.len() as u64);
        if more > 0 {
            problems.push(format!("and {more} more"));
        }
        Ok(CheckPrint {
            ok: problems.is_empty(),
            chunks: report.chunks,
            objects: report.packs,
            read_bytes: report.verified_bytes,
            problems,
            mended: Vec::new(),
            fetched_bytes: 0,
        })
    }

    /// Puts back what is damaged in a repository, from a copy of it. The repository itself need not
    /// open.
    pub fn repair(
        host: &HostDir,
        location: &str,
        copy: &str,
        progress: &mut dyn FnMut(&str),
    ) -> Result<RepairPrint> {
        let here: Arc<dyn Objects> = open_objects(host, location)?;
        let from: Arc<dyn Objects> = open_objects(host, copy)?;
        let opened = open_with_keys(host, from.clone(), Vec::new());
        let key = opened.map_err(|failure| failure.during(format!("copy {copy}")))?.key().cloned();
        let report = repository::repair(&here, &from, key, &mut at_step(progress))?;
        Ok(RepairPrint {
            ok: report.left.is_empty(),
            objects: report.objects,
            read_bytes: report.read_bytes,
            repaired: report.repaired,
            problems: report.left.iter().map(ToString::to_string).collect(),
        })
    }

    /// Deletes what nothing has named for the repository's grace age.
    pub fn gc(&self) -> Result<GcPrint> {
        // A head that is newer than this program hides what it names: then traces stay.
        let _ = self.drop_traces();
        // Nothing reads an older generation of a head: what it alone names can go, a grace age after
        // it was superseded.
        let options = repository::GcOptions { keep_generations: 1, ..Default::default() };
        let done = self.repository.gc(options)?;
        Ok(GcPrint {
            live_chunks: done.live_chunks,
            condemned_packs: done.condemned_packs,
            condemned_bytes: done.condemned_bytes,
            deleted_packs: done.removed_packs,
            repacked_packs: done.repacked_packs,
            freed_bytes: done.removed_bytes,
            grace_s: self.repository.grace_ms() / 1000,
            ..GcPrint::default()
        })
    }

    /// What it holds.
    pub fn stats(&self) -> Result<RepoStatsPrint> {
        let stats = self.repository.stats()?;
        Ok(RepoStatsPrint {
            logical_bytes: stats.logical_bytes,
            stored_bytes: stats.stored_bytes,
            chunks: stats.chunks,
            objects: stats.objects,
        })
    }
}

/// Says where a long work is, once for each step and at its end.
pub(super) fn at_step<'a>(
    progress: &'a mut dyn FnMut(&str),
) -> impl FnMut(repository::CheckProgress) + use<'a> {
    let mut last = "";
    move |at| {
        if at.step != last || (at.total > 0 && at.done == at.total) {
            progress(&format!("{}: {} of {}", at.step, at.done, at.total));
            last = at.step;
        }
    }
}
