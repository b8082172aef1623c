//! Several writes at once, if several conditions hold.

use crate::{KvError, LeaseId, Result, Revision, TXN_OPERATIONS_MAX, VALUE_BYTES_MAX, check_key};

/// What must hold of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// There is no such key.
    Absent,
    /// Its last change was this one.
    At(Revision),
}

/// What is done to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    Put { value: Vec<u8>, lease: Option<LeaseId> },
    Delete,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It happened, as this revision.
    Done(Revision),
    /// A condition did not hold, and nothing happened.
    Refused,
}

impl Outcome {
    /// Whether it happened.
    pub fn is_done(self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// See the module's documentation. Each key is written at most once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    pub(crate) conditions: Vec<(String, Condition)>,
    pub(crate) writes: Vec<(String, Write)>,
}

impl Txn {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a key; refused when it is there.
    pub fn create(key: &str, value: impl Into<Vec<u8>>) -> Self {
        Self::new().when(key, Condition::Absent).put(key, value)
    }

    /// Replaces what was read at `revision`; refused when it has changed.
    pub fn replace(key: &str, revision: Revision, value: impl Into<Vec<u8>>) -> Self {
        Self::new().when(key, Condition::At(revision)).put(key, value)
    }

    /// Removes what was read at `revision`; refused when it has changed.
    pub fn remove(key: &str, revision: Revision) -> Self {
        Self::new().when(key, Condition::At(revision)).delete(key)
    }

    /// And only if this holds.
    pub fn when(mut self, key: &str, condition: Condition) -> Self {
        self.conditions.push((key.to_owned(), condition));
        self
    }

    /// Also puts this.
    pub fn put(self, key: &str, value: impl Into<Vec<u8>>) -> Self {
        self.write(key, Write::Put { value: value.into(), lease: None })
    }

    /// Also puts this, for as long as the lease lasts.
    pub fn put_leased(self, key: &str, value: impl Into<Vec<u8>>, lease: LeaseId) -> Self {
        self.write(key, Write::Put { value: value.into(), lease: Some(lease) })
    }

    /// Also deletes this, if it is there.
    pub fn delete(self, key: &str) -> Self {
        self.write(key, Write::Delete)
    }

    fn write(mut self, key: &str, write: Write) -> Self {
        self.writes.push((key.to_owned(), write));
        self
    }

    /// Whether a store can take it.
    pub(crate) fn check(&self) -> Result<()> {
        let invalid = |detail: String| Err(KvError::Invalid { detail });
        if self.writes.len() > TXN_OPERATIONS_MAX || self.conditions.len() > TXN_OPERATIONS_MAX {
            return invalid(format!("more than {TXN_OPERATIONS_MAX} keys in one commit"));
        }
        for (key, _) in &self.conditions {
            check_key(key)?;
        }
        let mut keys: Vec<_> = self.writes.iter().map(|(key, _)| key).collect();
        keys.sort();
        if let Some(pair) = keys.windows(2).find(|pair| pair[0] == pair[1]) {
            return invalid(format!("two writes of {:?} in one commit", pair[0]));
        }
        for (key, write) in &self.writes {
            check_key(key)?;
            match write {
                Write::Put { value, .. } if value.len() > VALUE_BYTES_MAX => {
                    return invalid(format!("a value of {} bytes under {key:?}", value.len()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether it can happen only once, however often it is sent: one of its conditions is about a
    /// key that it changes itself.
    pub(crate) fn at_most_once(&self) -> bool {
        self.writes.iter().any(|(key, _)| self.conditions.iter().any(|(on, _)| on == key))
    }
}
