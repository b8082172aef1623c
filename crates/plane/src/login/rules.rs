//! Rules of who is let in: pure.
//!
//! A rule is about a subject, a verified e-mail address or a group, as this plane's provider says it; it
//! names a user or gives a role, or both. Whom no rule is about is nobody.
//!
//! **Invariant:** who is a user of a name that an administrator has given is so by a rule that says it.
//! Others get a name that ends with a hash of issuer and subject: nobody chooses to be somebody else.

use api::LoginClaim;
use model::Name;

use super::id_token::Identity;

/// Of a name that somebody likes to be called by.
const CALLED_CHARS_MAX: usize = 40;
/// Of the hash that ends it.
const HASH_DIGITS: usize = 16;

/// Whether a rule is about somebody.
pub fn is_about(claim: &LoginClaim, identity: &Identity) -> bool {
    match claim {
        LoginClaim::Subject(subject) => *subject == identity.subject,
        LoginClaim::Email(email) => {
            identity.email.as_ref().is_some_and(|said| said.eq_ignore_ascii_case(email))
        }
        LoginClaim::Group(group) => identity.groups.contains(group),
    }
}

/// The name of somebody to whom no rule gives one.
pub fn name_of(identity: &Identity) -> Name {
    let mut hasher = blake3::Hasher::new_derive_key("collective plane login name, version 1");
    for part in [&identity.issuer, &identity.subject] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    let hash = hasher.finalize().to_hex();
    let called =
        identity.called.as_deref().unwrap_or_default().split('@').next().unwrap_or_default();
    let called = called.to_ascii_lowercase();
    let fits = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(*c);
    let called: String = called.chars().filter(fits).take(CALLED_CHARS_MAX).collect();
    let called = called.trim_matches(['-', '_', '.']);
    let called = if called.is_empty() { "user" } else { called };
    let text = format!("{called}-{}", &hash.as_str()[..HASH_DIGITS]);
    Name::new(&text).expect("letters, digits and what may follow them")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            issuer: "https://id.example".to_owned(),
            subject: "17".to_owned(),
            email: Some("Anna@example.org".to_owned()),
            groups: vec!["ops".to_owned(), "blue".to_owned()],
            called: Some("Anna".to_owned()),
        }
    }

    #[test]
    fn a_rule_is_about_whom_it_says() {
        let is = |claim: LoginClaim| is_about(&claim, &identity());
        assert!(is(LoginClaim::Subject("17".into())) && is(LoginClaim::Group("ops".into())));
        assert!(is(LoginClaim::Email("anna@example.org".into())));
        for other in ["", "1", "op", "Ops", "ops,blue", "anna@example.or", "Anna"] {
            let others = [LoginClaim::Subject, LoginClaim::Email, LoginClaim::Group];
            assert!(others.into_iter().all(|claim| !is(claim(other.into()))), "{other}");
        }
        let unverified = Identity { email: None, ..identity() };
        assert!(!is_about(&LoginClaim::Email("anna@example.org".into()), &unverified));
    }

    #[test]
    fn a_name_is_of_one_subject_of_one_issuer() {
        let name = name_of(&identity());
        assert!(name.as_str().starts_with("anna-") && name.as_str().len() == 5 + HASH_DIGITS);
        assert_eq!(name, name_of(&Identity { email: None, groups: vec![], ..identity() }));
        let hash =
            |identity: Identity| name_of(&identity).as_str().rsplit_once('-').unwrap().1.to_owned();
        assert_ne!(hash(identity()), hash(Identity { subject: "18".into(), ..identity() }));
        assert_ne!(hash(identity()), hash(Identity { issuer: "https://x".into(), ..identity() }));
        for called in ["", "-.-", "Ünïçödé@x", "administrator", "../../etc", &"x".repeat(300)]
        {
            let name = name_of(&Identity { called: Some(called.into()), ..identity() });
            assert_eq!(name.as_str().rsplit_once('-').unwrap().1, hash(identity()), "{called}");
        }
    }
}
