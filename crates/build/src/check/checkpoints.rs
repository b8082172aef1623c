//! `checkpoints`: what the maker says about those that are taken by themselves.

use model::auto::{Auto, Keep, Policy, PolicyError, parse_dirtied, parse_every};
use serde_saphyr::Spanned;

use super::{Check, Checked};
use crate::RecipeError;
use crate::document::CheckpointsDoc;

impl Check<'_> {
    /// What they are unless a user says otherwise.
    pub(super) fn checkpoints(&self, document: &CheckpointsDoc) -> Checked<Auto> {
        let CheckpointsDoc { every, dirtied, keep } = document;
        let every_s = parse_every(&every.value).map_err(|e| self.no_policy(every, &e))?;
        let dirtied_bytes = match dirtied {
            Some(text) => Some(parse_dirtied(&text.value).map_err(|e| self.no_policy(text, &e))?),
            None => None,
        };
        let keep = match keep {
            Some(said) => {
                let keep = &said.value;
                let (last, hourly) = (keep.last, keep.hourly);
                let keep = Keep { last, hourly, daily: keep.daily, weekly: keep.weekly };
                keep.checked().map_err(|e| self.no_policy(said, &e))?
            }
            None => Keep::default(),
        };
        Ok(Auto::On(Policy { every_s, dirtied_bytes, keep }))
    }

    fn no_policy<T>(&self, at: &Spanned<T>, error: &PolicyError) -> RecipeError {
        let hint = match error {
            PolicyError::Every(_) => "write for example 30s, 5m, 2h or 1d (at most 31d)",
            PolicyError::Dirtied(_) => "write whole MiB, for example 256MiB",
            PolicyError::Keep(_) | PolicyError::TooMany(_) => {
                "write for example keep: {last: 6, hourly: 24, daily: 7, weekly: 4}"
            }
        };
        self.wrong(at, error.to_string(), hint)
    }
}
