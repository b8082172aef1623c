//! Who is who between a plane, its hosts and its callers.
//!
//! ```text
//! secret ──▶ authority: signs the certificates of planes and hosts
//!        ├─▶ what an administrator shows
//!        └─▶ join token: what a new host shows, with the authority's fingerprint
//! ```
//!
//! All of it follows from one secret, so that several planes need to share nothing else, and whoever
//! has the secret knows the authority before it says anything. A user's token ([`UserToken`]) is by
//! chance: the plane keeps its hash, and its user the fingerprint with it.
//!
//! **Invariant:** a caller sends nothing to a server that the authority has not certified.
//! **Invariant:** the secret is in no message of an error, and not printed by `Debug`.

mod authority;
mod user;

use std::fmt;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

pub use authority::{
    Authority, CERTIFICATE_LASTS, HostCertificate, PLANE_NAME, Peer, fingerprint, name_in, new_key,
    public_part,
};
pub use user::{UserToken, parts as user_token_parts};

/// Why something is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IdentityError(pub String);

/// What everything else follows from: 32 bytes.
#[derive(Clone)]
pub struct Secret([u8; 32]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        unhex(text)
            .map(Self)
            .ok_or_else(|| IdentityError("a plane's token is 64 hexadecimal digits".to_owned()))
    }

    /// What an administrator shows.
    pub fn bearer(&self) -> String {
        hex(&self.0)
    }

    /// What a new host shows: `join.PROOF.FINGERPRINT`.
    pub fn join_token(&self, authority: &Authority) -> String {
        format!("{}.{}", self.join_bearer(), authority.fingerprint())
    }

    /// The part of it that is shown.
    pub fn join_bearer(&self) -> String {
        format!("join.{}", hex(&self.derive("collective plane join token, version 1")))
    }

    fn derive(&self, purpose: &str) -> [u8; 32] {
        blake3::derive_key(purpose, &self.0)
    }
}

/// What somebody has to show to a plane.
#[derive(Clone)]
pub enum Credentials {
    /// The secret itself.
    Admin(Secret),
    /// A join token: what is shown, and the authority's fingerprint.
    Join { bearer: String, fingerprint: String },
    /// Nothing yet but the fingerprint: who logs in.
    Stranger { fingerprint: String },
    /// A user's token: the same.
    User { bearer: String, fingerprint: String },
    /// A host's certificate and key, and the authority's certificate: PEM.
    Host { certificate: String, key: String, authority: String },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin(_) => "Admin",
            Self::Join { .. } => "Join",
            Self::Stranger { .. } => "Stranger",
            Self::User { .. } => "User",
            Self::Host { .. } => "Host",
        })
    }
}

impl Credentials {
    /// Whether they are for the plane of this authority (PEM).
    pub fn is_for(&self, authority: &str) -> bool {
        let of = |pem: &str| {
            CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|der| fingerprint(&der))
        };
        let own = match self {
            Self::Admin(secret) => Authority::of(secret).ok().map(|own| own.fingerprint()),
            Self::Join { fingerprint, .. }
            | Self::User { fingerprint, .. }
            | Self::Stranger { fingerprint } => Some(fingerprint.clone()),
            Self::Host { authority, .. } => of(authority),
        };
        own.is_some() && own == of(authority)
    }

    /// Reads what `--token` takes.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let text = text.trim();
        if text.starts_with("user.") {
            let wrong = || IdentityError("a user's token that is cut or changed".to_owned());
            let (bearer, fingerprint) = user::parts(text).ok_or_else(wrong)?;
            return Ok(Self::User { bearer, fingerprint });
        }
        match text.strip_prefix("join.").and_then(|rest| rest.split_once('.')) {
            Some((proof, fingerprint)) if is_hex(proof) && is_hex(fingerprint) => Ok(Self::Join {
                bearer: format!("join.{proof}"),
                fingerprint: fingerprint.to_owned(),
            }),
            Some(_) => Err(IdentityError("a join token that is cut or changed".to_owned())),
            None => Secret::parse(text).map(Self::Admin),
        }
    }
}

fn is_hex(text: &str) -> bool {
    unhex(text).is_some()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_or_refused() {
        let secret = Secret::parse(&"ab".repeat(32)).unwrap();
        let authority = Authority::of(&secret).unwrap();
        assert!(matches!(Credentials::parse(&secret.bearer()), Ok(Credentials::Admin(_))));
        let token = secret.join_token(&authority);
        let Ok(Credentials::Join { bearer, fingerprint }) = Credentials::parse(&token) else {
            panic!("{token}")
        };
        assert_eq!((bearer, fingerprint), (secret.join_bearer(), authority.fingerprint()));
        assert!(!token.contains(&secret.bearer()) && !format!("{secret:?}").contains("ab"));
        let own = UserToken::new();
        let kept = own.text(&authority);
        let Ok(Credentials::User { bearer, fingerprint }) = Credentials::parse(&kept) else {
            panic!("{kept}")
        };
        assert_eq!((bearer.as_str(), fingerprint), (&*own.bearer(), authority.fingerprint()));
        assert_eq!(UserToken::parse(&bearer), Some(own.clone()));
        assert!(!bearer.contains(&own.hash()) && !own.hash().contains(own.id()));
        assert!(!format!("{own:?}").contains(&bearer["user.".len() + 17..]));
        let cut = &kept[..kept.len() - 1];
        for wrong in [
            "",
            "x",
            "join.",
            "join.a.b",
            "user.",
            "user.a.b.c",
            cut,
            &token[..token.len() - 1],
            &"g".repeat(64),
        ] {
            assert!(Credentials::parse(wrong).is_err(), "{wrong}");
        }
    }
}
