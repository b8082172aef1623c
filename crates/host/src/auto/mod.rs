//! Checkpoints that are taken by themselves: how often, and which of them stay.
//!
//! | module | says |
//! | --- | --- |
//! | [`model::auto`] | what is said: `every`, `dirtied`, `keep` |
//! | [`Said`] | who says it: the user before the maker, the maker before the host |
//! | [`thin`] | which of many stay |
//! | [`mod@line`] | what taking one, and going back, does to an instance's head |
//!
//! # Structure
//!
//! A checkpoint's record names its parent, and so keeps it for ever. An automatic one must be able to
//! go, so nothing but its head names it: its parent is the last checkpoint that *somebody took*, and
//! the head has a list of the automatic ones since the instance began.
//!
//! ```text
//! C1 ◀────────────────── C2 ◀──────────── C3        taken by somebody: each keeps the one before
//! ▲  ▲  ▲                ▲   ▲
//! a1 a2 a3               a4  a5                     automatic: in the head's list until thinned out
//! ```
//!
//! # Invariants
//!
//! * Everything here is a function of its arguments: no I/O, and no clock is asked.
//! * What somebody took, what `undo` went back to, branches and the origins of forks are never
//!   dropped by what is here ([`crate::store`] drops of them what its user says); nor is what a host may hold unsaved writes on top of.

pub mod line;
pub mod thin;

pub use model::auto::{Auto, Keep, Policy, PolicyError};

/// Who says something about the automatic checkpoints of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Its user, about it alone; goes with it to other hosts.
    pub instance: Option<Auto>,
    /// Its version's maker, who knows what it writes.
    pub maker: Option<Auto>,
    /// The host that runs it, about all.
    pub host: Option<Auto>,
}

impl Said {
    /// What holds.
    pub fn holds(self) -> Option<Auto> {
        self.instance.or(self.maker).or(self.host)
    }

    /// Who said it.
    pub fn by(self) -> &'static str {
        match self {
            Self { instance: Some(_), .. } => "instance",
            Self { maker: Some(_), .. } => "maker",
            Self { host: Some(_), .. } => "host",
            _ => "nobody",
        }
    }
}
