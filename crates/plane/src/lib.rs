//! The service plane: what decides where instances run, and what has to be done for it.
//!
//! ```text
//! fleet (hosts, instances) ──planner──▶ plan: which instance where, and why
//! wanted, seen ─────────────reconcile─▶ the one next act
//! ```
//!
//! Around that is a service ([`serve`]): a state in a `kv` store, and HTTP in front of it.
//!
//! **Invariant:** deciding is pure: no I/O, no clock, no chance; the same input gives the same plan.
//! **Invariant:** what may run an instance is its head in the repository, and nothing here. The plane
//! keeps wishes and sights; without it no computer is lost, only nobody moves any.
//! **Invariant:** never touches a volume, a chunk or a machine: hosts do.

pub mod access;
pub mod audit;
pub mod backup;
pub mod client;
pub mod figures;
pub mod fleet;
#[doc(hidden)]
pub mod fuzz;
pub mod identity;
pub mod login;
pub mod meter;
pub mod planner;
pub mod reconcile;
pub mod serve;
