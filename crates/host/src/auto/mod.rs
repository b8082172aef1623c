//! Checkpoints that are taken by themselves: how often, and which of them stay.
//!
//! | module | says |
//! | --- | --- |
//! | [`policy`] | what a person says: `every`, `keep` |
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
//!   dropped; nor is what a host may hold unsaved writes on top of.

pub mod line;
pub mod policy;
pub mod thin;

pub use policy::{Auto, Keep, Policy, PolicyError};
