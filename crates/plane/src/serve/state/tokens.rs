//! Tokens: made, listed, taken back.
//!
//! **Invariant:** what is shown is not kept: only its hash is, and that with the user, the scope and
//! the end. It is in no message and no log.

use api::{NewToken, Role, TokenPrint, TokenWish};
use kv::{Entry, Txn};
use model::Name;
use serde::{Deserialize, Serialize};

use super::{Result, json, name, read};
use crate::access::{Caller, Right, Scope, User};
use crate::identity::UserToken;
use crate::serve::ask::Ask;
use crate::serve::{Plane, Refused, token};

/// `tokens/ID`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// The name of its user, and which one of that name.
    pub user: String,
    pub user_id: String,
    /// Of the part that is secret.
    pub hash: String,
    pub project: Option<String>,
    pub role: Option<Role>,
    pub read_only: bool,
    pub made_unix_ms: u64,
    pub ends_unix_ms: u64,
}

/// How long a token counts of which nothing is said, and at most.
const LASTS_S: u64 = 90 * 86_400;
const LASTS_S_MAX: u64 = 3653 * 86_400;
/// Tokens of one user.
const TOKENS_MAX: usize = 256;

impl Plane {
    /// Whose token this is; none: nobody's, or it counts no longer.
    pub(in crate::serve) fn user_of(&self, shown: &UserToken) -> Result<Option<Caller>> {
        let Some(entry) = self.kv.get(&format!("tokens/{}", shown.id()))? else { return Ok(None) };
        let record: TokenRecord = read(&entry)?;
        let same = token::is_same(&record.hash, &shown.hash());
        if !same || record.ends_unix_ms <= ambient::unix_ms() {
            return Ok(None);
        }
        let user = name(&record.user)?;
        let Some(found) = self.kv.get(&format!("users/{user}"))? else { return Ok(None) };
        let known: super::users::UserRecord = read(&found)?;
        if known.id != record.user_id {
            return Ok(None);
        }
        let scope = Scope {
            project: record.project.as_deref().map(name).transpose()?,
            role: record.role,
            read_only: record.read_only,
        };
        let token = (shown.id().to_owned(), record.ends_unix_ms);
        let (everywhere, projects) = self.roles_of(&known)?;
        let user = User::new(user, token, &scope, &everywhere, &projects);
        Ok(Some(Caller::User(user)))
    }

    /// Those of the caller's; everybody's for who may read that.
    pub(in crate::serve) fn tokens(&self, caller: &Caller) -> Result<Vec<TokenPrint>> {
        let all = caller.may_everywhere(Right::Audit);
        let mut tokens = Vec::new();
        for entry in self.kv.list("tokens/")?.entries {
            let record: TokenRecord = read(&entry)?;
            if all || record.user == caller.name() {
                tokens.push(print(&entry, record));
            }
        }
        tokens.sort_by(|a, b| (&a.user, a.made_unix_ms).cmp(&(&b.user, b.made_unix_ms)));
        Ok(tokens)
    }

    /// Makes a token.
    pub(in crate::serve) fn make_token(&self, ask: &Ask<'_>, wish: &TokenWish) -> Result<NewToken> {
        let now = ambient::unix_ms();
        let lasts_s = wish.lasts_s.unwrap_or(LASTS_S);
        if lasts_s == 0 || lasts_s > LASTS_S_MAX {
            return Err(Refused::wrong(
                "a token counts for at most ten years, and at least a second",
            ));
        }
        let mut ends_unix_ms = now + lasts_s * 1000;
        let user = match &wish.user {
            Some(user) => name(user)?,
            None => self.own_name(ask.caller)?,
        };
        let manages = ask.caller.may_everywhere(Right::Manage)
            && !matches!(ask.caller, Caller::User(own) if own.narrowed);
        if !manages {
            let refused = |detail: &str, hint| Err(Refused::new(403, "permission", detail, hint));
            match ask.caller {
                Caller::User(own) if own.name == user && !own.narrowed => {
                    // A token that was stolen does not outlive itself by its children.
                    ends_unix_ms = ends_unix_ms.min(own.token_ends_unix_ms);
                }
                Caller::User(own) if own.name == user => {
                    let hint = "make it with one that has no scope";
                    return refused("a token with a scope makes no tokens", hint);
                }
                _ => return refused("a token for somebody else", "only admins make those"),
            }
        }
        let (_, known) = self.user_record(&user)?;
        let project = wish.project.as_deref().map(name).transpose()?;
        if let Some(project) = &project {
            self.project_record(project)?;
        }
        self.make_room_for_token(user.as_str(), now)?;
        let shown = UserToken::new();
        let record = TokenRecord {
            user: user.to_string(),
            user_id: known.id,
            hash: shown.hash(),
            project: project.map(|project| project.to_string()),
            role: wish.role,
            read_only: wish.read_only,
            made_unix_ms: now,
            ends_unix_ms,
        };
        // Who asks twice is not told twice: nobody keeps the token but its user.
        let about = about(shown.id(), record.clone());
        let again = NewToken { token: String::new(), about };
        *ask.answer.borrow_mut() = String::from_utf8(json(&again)).ok();
        let txn = Txn::create(&format!("tokens/{}", shown.id()), json(&record));
        if !self.commit(ask, txn)?.is_done() {
            return Err(Refused::changed("the list of tokens"));
        }
        Ok(NewToken { token: shown.text(&self.authority), about: again.about })
    }

    /// Whether a user may have one more token.
    pub(super) fn make_room_for_token(&self, user: &str, now_unix_ms: u64) -> Result<()> {
        let mut theirs = 0;
        for entry in self.kv.list("tokens/")?.entries {
            let old: TokenRecord = read(&entry)?;
            if old.ends_unix_ms <= now_unix_ms {
                // What counts no longer goes, when somebody comes by.
                self.kv.commit(&Txn::remove(&entry.key, entry.revision))?;
            } else if old.user == user {
                theirs += 1;
            }
        }
        if theirs >= TOKENS_MAX {
            let detail = format!("{user} has {TOKENS_MAX} tokens");
            return Err(Refused::new(409, "state", detail, "`collective token revoke` ends some"));
        }
        Ok(())
    }

    fn own_name(&self, caller: &Caller) -> Result<Name> {
        match caller {
            Caller::User(user) => Ok(user.name.clone()),
            _ => {
                let hint = "`--user USER`; the plane's own token is in its file";
                Err(Refused::new(400, "usage", "it has to be said whose token it is", hint))
            }
        }
    }

    /// Takes a token back.
    pub(in crate::serve) fn revoke_token(&self, ask: &Ask<'_>, id: &str) -> Result<()> {
        let none = || Refused::not_found(&format!("token {id}"));
        if !UserToken::is_id(id) {
            return Err(none());
        }
        let entry = self.kv.get(&format!("tokens/{id}"))?.ok_or_else(none)?;
        let record: TokenRecord = read(&entry)?;
        let may = match ask.caller {
            // One that is narrowed ends itself, and no other.
            Caller::User(own) if own.narrowed => own.token == id,
            caller => record.user == caller.name() || caller.may_everywhere(Right::Manage),
        };
        if !may {
            let hint = "only its user, by a token without a scope, and admins take a token back";
            return Err(Refused::new(403, "permission", "it is somebody else's", hint));
        }
        if !self.commit(ask, Txn::remove(&entry.key, entry.revision))?.is_done() {
            return Err(none());
        }
        Ok(())
    }

    /// Removes what is left of a user's.
    pub(super) fn sweep_tokens(&self, user_id: &str) -> Result<()> {
        for entry in self.kv.list("tokens/")?.entries {
            if read::<TokenRecord>(&entry)?.user_id == user_id {
                self.kv.commit(&Txn::remove(&entry.key, entry.revision))?;
            }
        }
        Ok(())
    }
}

fn print(entry: &Entry, record: TokenRecord) -> TokenPrint {
    about(&entry.key["tokens/".len()..], record)
}

pub fn about(id: &str, record: TokenRecord) -> TokenPrint {
    TokenPrint {
        id: id.to_owned(),
        user: record.user,
        project: record.project,
        role: record.role,
        read_only: record.read_only,
        made_unix_ms: record.made_unix_ms,
        ends_unix_ms: record.ends_unix_ms,
    }
}
