//! An ID token: what a provider says of somebody, once it is believed. Pure: the time is an argument.
//!
//! The checks are those of OpenID Connect Core 1.0, section 3.1.3.7.

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What signs. None of these can be made with what is public; `none` and shared secrets are not here.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// How far a provider's clock may be from ours.
const SKEW_S: f64 = 60.0;
/// A token that was made longer ago was not made for this login.
const AGE_S_MAX: f64 = 600.0;
const TOKEN_BYTES_MAX: usize = 64 * 1024;
const KEYS_MAX: usize = 64;
const GROUPS_MAX: usize = 1024;
/// OpenID Connect Core 1.0, section 2: a subject has at most 255 ASCII characters.
const TEXT_BYTES_MAX: usize = 255;

/// What a token has to say to be one for this plane and this login.
#[derive(Debug, Clone)]
pub struct Expected<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    pub nonce: &'a str,
    /// The claim that lists groups.
    pub groups_claim: &'a str,
}

/// Somebody, as a provider knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub issuer: String,
    pub subject: String,
    /// Only one that the provider has verified.
    pub email: Option<String>,
    pub groups: Vec<String>,
    /// How they like to be called: nothing follows from it.
    pub called: Option<String>,
}

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdTokenError {
    #[error("it is no signed token")]
    Form,
    #[error("it is signed by an algorithm that does not count")]
    Algorithm,
    #[error("none of the provider's keys has signed it")]
    Signature,
    #[error("another issuer has made it")]
    Issuer,
    #[error("it is for somebody else")]
    Audience,
    #[error("it has ended")]
    Expired,
    #[error("it was not made just now")]
    Age,
    #[error("it was made for another login")]
    Nonce,
    #[error("it names nobody")]
    Subject,
}

/// Believes a token, or not. `keys` is the provider's JWK set.
pub fn verify(
    token: &str,
    keys: &Value,
    expected: &Expected<'_>,
    now_unix_ms: u64,
) -> Result<Identity, IdTokenError> {
    let claims = signed(token, keys)?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    let number = |name: &str| claims.get(name).and_then(Value::as_f64);
    if text("iss") != Some(expected.issuer) {
        return Err(IdTokenError::Issuer);
    }
    let for_us = match claims.get("aud") {
        Some(Value::String(one)) => one == expected.client_id,
        // Of several, who may use it is named.
        Some(Value::Array(many)) => {
            many.iter().any(|one| one.as_str() == Some(expected.client_id))
                && (many.len() == 1 || text("azp").is_some())
        }
        _ => false,
    };
    let used_by = claims.get("azp").is_none_or(|by| by.as_str() == Some(expected.client_id));
    if !for_us || !used_by {
        return Err(IdTokenError::Audience);
    }
    let now_s = now_unix_ms as f64 / 1000.0;
    if !number("exp").is_some_and(|ends| now_s < ends + SKEW_S) {
        return Err(IdTokenError::Expired);
    }
    let made = number("iat").ok_or(IdTokenError::Age)?;
    let begins = number("nbf").unwrap_or(made);
    if made.max(begins) > now_s + SKEW_S || made < now_s - AGE_S_MAX {
        return Err(IdTokenError::Age);
    }
    if text("nonce") != Some(expected.nonce) {
        return Err(IdTokenError::Nonce);
    }
    let short = |text: &&str| !text.is_empty() && text.len() <= TEXT_BYTES_MAX;
    let subject = text("sub").filter(short).ok_or(IdTokenError::Subject)?;
    let is_verified = claims.get("email_verified") == Some(&Value::Bool(true));
    let email = text("email").filter(short).filter(|_| is_verified);
    let groups = match claims.get(expected.groups_claim) {
        Some(Value::Array(groups)) => groups.as_slice(),
        Some(one @ Value::String(_)) => std::slice::from_ref(one),
        _ => &[],
    };
    let groups = groups.iter().filter_map(Value::as_str).filter(short).take(GROUPS_MAX);
    Ok(Identity {
        issuer: expected.issuer.to_owned(),
        subject: subject.to_owned(),
        email: email.map(str::to_owned),
        groups: groups.map(str::to_owned).collect(),
        called: text("preferred_username").or(text("email")).map(str::to_owned),
    })
}

/// The claims of a token that one of the keys has signed.
fn signed(token: &str, keys: &Value) -> Result<Map<String, Value>, IdTokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(IdTokenError::Form);
    }
    let header = match decode_header(token) {
        Ok(header) => header,
        // It says what it is not: `none`, or a word that nobody knows.
        Err(_) if token.split('.').count() == 3 => return Err(IdTokenError::Algorithm),
        Err(_) => return Err(IdTokenError::Form),
    };
    if !ALGORITHMS.contains(&header.alg) {
        return Err(IdTokenError::Algorithm);
    }
    // What the claims say is looked at by who asks.
    let mut only_signature = Validation::new(header.alg);
    only_signature.required_spec_claims.clear();
    only_signature.validate_exp = false;
    only_signature.validate_aud = false;
    let keys = keys["keys"].as_array().map(Vec::as_slice).unwrap_or_default();
    // Keys of a kind that is not known are none.
    let keys = keys.iter().take(KEYS_MAX).filter_map(|key| Jwk::deserialize(key).ok());
    keys.filter(|key| {
        let common = &key.common;
        common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature)
            && (header.kid.is_none() || common.key_id == header.kid)
            && common.key_algorithm.is_none_or(|by| by == KeyAlgorithm::from(header.alg))
    })
    .find_map(|key| {
        let key = DecodingKey::from_jwk(&key).ok()?;
        decode::<Map<String, Value>>(token, &key, &only_signature).ok()
    })
    .map(|believed| believed.claims)
    .ok_or(IdTokenError::Signature)
}
