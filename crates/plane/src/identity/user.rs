//! What a user shows: `user.ID.SECRET`, and in what is kept also the authority's fingerprint, so that
//! it is shown to nobody but that plane.

use std::fmt;

use super::{Authority, hex, is_hex, unhex};

const ID_DIGITS: usize = 16;

/// A user's token.
#[derive(Clone, PartialEq, Eq)]
pub struct UserToken {
    id: String,
    secret: [u8; 32],
}

impl fmt::Debug for UserToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserToken({})", self.id)
    }
}

impl UserToken {
    /// A new one.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { id: hex(&ambient::random::<{ ID_DIGITS / 2 }>()), secret: ambient::random() }
    }

    /// Reads what was shown.
    pub fn parse(bearer: &str) -> Option<Self> {
        let (id, secret) = bearer.strip_prefix("user.")?.split_once('.')?;
        let secret = unhex(secret)?;
        Self::is_id(id).then(|| Self { id: id.to_owned(), secret })
    }

    /// Whether a text is the id of a token.
    pub fn is_id(text: &str) -> bool {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        text.len() == ID_DIGITS && text.bytes().all(digit)
    }

    /// What names it; no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What is kept of it. Its secret is 32 random bytes, so nobody finds it by trying.
    pub fn hash(&self) -> String {
        hex(&blake3::derive_key("collective plane user token, version 1", &self.secret))
    }

    /// What is shown.
    pub fn bearer(&self) -> String {
        format!("user.{}.{}", self.id, hex(&self.secret))
    }

    /// What its user keeps.
    pub fn text(&self, authority: &Authority) -> String {
        format!("{}.{}", self.bearer(), authority.fingerprint())
    }
}

/// The two parts of what a user keeps: what is shown, and the authority's fingerprint.
pub fn parts(text: &str) -> Option<(String, String)> {
    let (bearer, fingerprint) = text.rsplit_once('.')?;
    let token = UserToken::parse(bearer)?;
    is_hex(fingerprint).then(|| (token.bearer(), fingerprint.to_owned()))
}
