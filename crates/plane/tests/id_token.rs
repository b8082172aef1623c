//! ID tokens that are believed, and those that are not.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use plane::login::id_token::{Expected, IdTokenError, Identity, verify};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};

const NOW_S: u64 = 1_800_000_000;

struct Key {
    key: EncodingKey,
    algorithm: Algorithm,
}

impl Key {
    fn new(algorithm: Algorithm) -> Self {
        let key = match algorithm {
            Algorithm::ES256 => {
                let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
                EncodingKey::from_ec_der(&pair.serialize_der())
            }
            // RFC 8410, section 7.
            _ => {
                let before = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];
                EncodingKey::from_ed_der(&[&before[..], &[7; 32]].concat())
            }
        };
        Self { key, algorithm }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some("k".to_owned()), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.key).unwrap()
    }

    /// What a provider publishes of it.
    fn public(&self) -> Value {
        let mut key =
            serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap())
                .unwrap();
        key["kid"] = "k".into();
        key
    }
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example",
        "aud": "plane",
        "exp": NOW_S + 300,
        "iat": NOW_S - 2,
        "nonce": "n",
        "sub": "17",
        "email": "anna@example.org",
        "email_verified": true,
        "groups": ["ops", 7, "blue"],
        "preferred_username": "anna",
    })
}

fn believe(token: &str, keys: &[Value]) -> Result<Identity, IdTokenError> {
    let expected = Expected {
        issuer: "https://id.example",
        client_id: "plane",
        nonce: "n",
        groups_claim: "groups",
    };
    verify(token, &json!({"keys": keys}), &expected, NOW_S * 1000)
}

/// What becomes of a token whose claims are changed by this.
fn changed(changes: Value) -> Result<Identity, IdTokenError> {
    let key = Key::new(Algorithm::ES256);
    let mut claims = claims();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    believe(&key.sign(&claims), &[key.public()])
}

#[test]
fn an_id_token_says_who_somebody_is() {
    let anna = Identity {
        issuer: "https://id.example".to_owned(),
        subject: "17".to_owned(),
        email: Some("anna@example.org".to_owned()),
        groups: vec!["ops".to_owned(), "blue".to_owned()],
        called: Some("anna".to_owned()),
    };
    for algorithm in [Algorithm::ES256, Algorithm::EdDSA] {
        let key = Key::new(algorithm);
        // Among keys of others, and of kinds that nobody knows.
        let keys = [json!({"kty": "new", "kid": "k"}), json!(7), key.public()];
        assert_eq!(believe(&key.sign(&claims()), &keys), Ok(anna.clone()), "{algorithm:?}");
    }
    assert_eq!(changed(json!({"aud": ["plane"]})), Ok(anna.clone()));
    assert_eq!(changed(json!({"aud": ["plane", "x"], "azp": "plane"})), Ok(anna.clone()));
    assert_eq!(changed(json!({"exp": NOW_S - 59, "iat": NOW_S + 59})), Ok(anna.clone()));
    // An address that is not verified is none.
    for unverified in [json!(null), json!(false), json!("true"), json!(1)] {
        let seen = changed(json!({"email_verified": unverified})).unwrap();
        assert_eq!(seen, Identity { email: None, ..anna.clone() });
    }
    assert_eq!(changed(json!({"groups": "ops"})).unwrap().groups, ["ops"]);
    for none in [json!(null), json!({"ops": true}), json!(["", "x".repeat(256)])] {
        assert!(changed(json!({"groups": none})).unwrap().groups.is_empty());
    }
}

#[test]
fn an_id_token_that_is_for_somebody_else_old_or_of_another_login_is_not_believed() {
    for (changes, expected) in [
        (json!({"iss": "https://id.example/"}), IdTokenError::Issuer),
        (json!({"iss": null}), IdTokenError::Issuer),
        (json!({"aud": "other"}), IdTokenError::Audience),
        (json!({"aud": ["other"]}), IdTokenError::Audience),
        (json!({"aud": []}), IdTokenError::Audience),
        (json!({"aud": null}), IdTokenError::Audience),
        (json!({"aud": ["plane", "other"]}), IdTokenError::Audience),
        (json!({"azp": "other"}), IdTokenError::Audience),
        (json!({"exp": NOW_S - 61}), IdTokenError::Expired),
        (json!({"exp": null}), IdTokenError::Expired),
        (json!({"exp": "2100"}), IdTokenError::Expired),
        (json!({"iat": NOW_S - 601}), IdTokenError::Age),
        (json!({"iat": NOW_S + 61}), IdTokenError::Age),
        (json!({"iat": null}), IdTokenError::Age),
        (json!({"nbf": NOW_S + 61}), IdTokenError::Age),
        (json!({"nonce": "m"}), IdTokenError::Nonce),
        (json!({"nonce": null}), IdTokenError::Nonce),
        (json!({"sub": null}), IdTokenError::Subject),
        (json!({"sub": ""}), IdTokenError::Subject),
        (json!({"sub": 17}), IdTokenError::Subject),
        (json!({"sub": "x".repeat(256)}), IdTokenError::Subject),
    ] {
        assert_eq!(changed(changes.clone()), Err(expected), "{changes}");
    }
}

#[test]
fn an_id_token_that_the_provider_has_not_signed_is_not_believed() {
    let (key, other) = (Key::new(Algorithm::ES256), Key::new(Algorithm::ES256));
    let keys = [key.public()];
    let token = key.sign(&claims());
    // By another key that calls itself the same.
    assert_eq!(believe(&other.sign(&claims()), &keys), Err(IdTokenError::Signature));
    assert_eq!(believe(&token, &[]), Err(IdTokenError::Signature));
    // With other claims, and the signature of these.
    let parts: Vec<_> = token.split('.').collect();
    let mut admin = claims();
    admin["sub"] = "admin".into();
    let admin = URL_SAFE_NO_PAD.encode(admin.to_string());
    let forged = format!("{}.{admin}.{}", parts[0], parts[2]);
    assert_eq!(believe(&forged, &keys), Err(IdTokenError::Signature));
    // By no algorithm, whatever it is called; and by one whose secret is what everybody reads.
    for none in ["none", "None", "NONE", "", "RS257"] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": none, "kid": "k"}).to_string());
        for signature in ["", parts[2]] {
            let forged = format!("{header}.{}.{signature}", parts[1]);
            assert_eq!(believe(&forged, &keys), Err(IdTokenError::Algorithm), "{none}");
        }
    }
    let public = serde_json::to_vec(&keys[0]).unwrap();
    let secret = Key { key: EncodingKey::from_secret(&public), algorithm: Algorithm::HS256 };
    let shared = json!({"kty": "oct", "kid": "k", "k": URL_SAFE_NO_PAD.encode(&public)});
    let forged = secret.sign(&claims());
    assert_eq!(believe(&forged, &[keys[0].clone(), shared]), Err(IdTokenError::Algorithm));
    // By a key that is for something else.
    for (name, value) in [("use", "enc"), ("alg", "ES384"), ("kid", "l")] {
        let mut key = key.public();
        key[name] = value.into();
        assert_eq!(believe(&token, &[key]), Err(IdTokenError::Signature), "{name}");
    }
    for none in ["", "a", "a.b", "a.b.c.d"] {
        assert_eq!(believe(none, &keys), Err(IdTokenError::Form), "{none}");
    }
    assert_eq!(believe(&format!("{token}{}", "x".repeat(1 << 16)), &keys), Err(IdTokenError::Form));
}
