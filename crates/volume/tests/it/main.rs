//! Volumes against a plain array of bytes, against crashes, and against everything that fails.

mod cache;
mod concurrent;
mod crash;
mod damage;
mod fork;
mod full;
mod model;
mod sources;
mod support;
mod trace;
