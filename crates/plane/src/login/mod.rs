//! Logging in by an OpenID Connect provider: the authorization code grant with PKCE, whose code comes
//! back to the loopback address of the computer where the person is (RFC 8252).
//!
//! ```text
//! CLI: attempt ──URL──▶ browser ──▶ provider ──code──▶ 127.0.0.1, the attempt
//!                                     ▲ │                          │ code, verifier
//!                        code, secret │ │ ID token                 ▼
//!                                     └─┴────────────────────── plane ──▶ rules ──▶ a token of ours
//! ```
//!
//! The plane is the provider's client, so a secret and the ID token stay with it, and it keeps nothing
//! of a login that is under way: the nonce follows from the verifier ([`nonce`]), so whoever brings a
//! code also shows that the ID token was asked for by the same login. Any plane can end what another
//! one began.
//!
//! Signatures are `jsonwebtoken`'s (with the cryptography that TLS is here by; three small crates). What
//! the claims must say is some comparisons, and made here, so that they are by the plane's clock.
//! (`openidconnect` would bring a second implementation of RSA and of the curves, and a hundred crates.)
//!
//! **Invariant:** nothing that a provider says counts before its signature, its issuer, its audience, its
//! time and its nonce do ([`id_token`]).
//! **Invariant:** who is let in, and what they may do, is in rules of an administrator ([`rules`]); there
//! are none by default.
//! **Invariant:** a provider is asked by `https`, or on the loopback address; what comes from it is bounded
//! and has a deadline.

mod attempt;
pub mod id_token;
mod provider;
pub mod rules;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

pub use attempt::{Attempt, AttemptError, PATH, redirect_uri};
pub use provider::{Provider, ProviderError, Settings};

/// Of a code, and of a verifier.
pub const CODE_BYTES_MAX: usize = 8 * 1024;
const VERIFIER_BYTES: std::ops::RangeInclusive<usize> = 43..=128;

/// What a login asks a provider to put into its ID token.
pub fn nonce(verifier: &str) -> String {
    let nonce = blake3::derive_key("collective plane login nonce, version 1", verifier.as_bytes());
    URL_SAFE_NO_PAD.encode(nonce)
}

/// Reads what is in the header after `Login `: the code and the verifier (RFC 7636, section 4.1).
pub fn shown(text: &str) -> Option<(&str, &str)> {
    let (code, verifier) = text.rsplit_once('.')?;
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~".contains(&byte);
    let is_verifier = VERIFIER_BYTES.contains(&verifier.len()) && verifier.bytes().all(unreserved);
    let is_code = (1..=CODE_BYTES_MAX).contains(&code.len());
    (is_code && is_verifier).then_some((code, verifier))
}
