//! Volumes against a plain array of bytes, against crashes, and against everything that fails.

mod cache;
mod concurrent;
mod crash;
mod failures;
mod fork;
mod model;
mod support;
