//! Makers' signatures: what a maker says of its versions, signed, and how a host comes to believe it.
//!
//! The metadata is that of TUF (The Update Framework, <https://theupdateframework.io>), by the
//! library `tough`: a *root* says whose keys count for what and how many of them must sign; *targets*
//! lists signed documents; *snapshot* and *timestamp* keep them together and fresh. What the
//! documents say is not known here: they are bytes with a name.
//!
//! | module | does |
//! | --- | --- |
//! | [`key`] | keys of people: made, kept in files (encrypted) or behind a command, signing |
//! | [`sign`](publish) | a maker's side: documents in, signed metadata out, visible in one step |
//! | [`delegates`](Delegate) | people who sign a part of the names with keys of their own |
//! | [`mirror`](mirror()) | what is signed to another place, as it is |
//! | [`verify`](Trusted) | a host's side: from a root that it trusts to documents that it may believe |
//!
//! # Invariants
//!
//! * Nothing is believed that does not follow from the root that a person trusted: signatures,
//!   thresholds, versions that only grow, dates.
//! * What a host has believed once is kept, so that nobody can take it back to something older; it is
//!   replaced as a whole.
//! * A maker's state changes at one object, `signed/timestamp.json`, and after all that it names.
//! * No private key is printed, logged or kept in memory for longer than it signs.
//!
//! # Crash
//!
//! A publisher that dies leaves objects that no timestamp names. A host that dies while it verifies
//! has what it had before.
//!
//! `docs/format/signed.md` says what lies where.

#![warn(missing_docs)]

mod clock;
mod delegates;
mod documents;
mod error;
pub mod key;
mod mirror;
mod publish;
mod roles;
mod roots;
mod state;
mod store;
mod verify;

pub use delegates::{Delegate, delegate, revoke};
pub use error::TrustError;
pub use mirror::{Mirrored, may_mirror, mirror};
pub use publish::{Change, Validity, change, is_begun, rotate, sign_again, start};
pub use roles::Roles;
pub use roots::fingerprints;
pub use verify::{Freshness, Trusted};

/// The result of everything here.
pub type Result<T> = std::result::Result<T, TrustError>;

/// Runs what `tough` does, which is asynchronous, to its end on this thread.
fn wait<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| TrustError::Io { what: "a runtime".to_owned(), error })?;
    Ok(runtime.block_on(future))
}
