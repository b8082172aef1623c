//! Users, and what they may do.
//!
//! **Invariant:** a user who was removed and one who is added later under the same name are two: tokens
//! of the first are worth nothing to the second.

use std::collections::BTreeMap;

use api::{CallerPrint, Role, UserLogin, UserPrint, UserWish};
use kv::{Condition, Entry, Txn};
use model::Name;
use serde::{Deserialize, Serialize};

use super::{Result, TRIES, json, read};
use crate::access::{ADMINISTRATOR, Caller, Right};
use crate::serve::ask::Ask;
use crate::serve::{Plane, Refused};

/// `users/NAME`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserRecord {
    /// Another one for each that has this name.
    pub id: String,
    pub added_unix_ms: u64,
    pub everywhere: Option<Role>,
    #[serde(default)]
    pub projects: BTreeMap<String, Role>,
    #[serde(default)]
    pub login: Option<UserLogin>,
}

impl UserRecord {
    /// One who has just been added.
    pub fn new(everywhere: Option<Role>) -> Self {
        let (id, added_unix_ms) = (new_id(), ambient::unix_ms());
        Self { id, added_unix_ms, everywhere, projects: BTreeMap::new(), login: None }
    }
}

/// Names something for good.
pub fn new_id() -> String {
    ambient::random::<8>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Projects in which one user may have a role.
const PROJECTS_MAX: usize = 4096;

impl Plane {
    pub(in crate::serve) fn users(&self) -> Result<Vec<UserPrint>> {
        let entries = self.kv.list("users/")?.entries;
        entries.iter().map(|entry| Ok(print(entry, read(entry)?))).collect()
    }

    pub(in crate::serve) fn user(&self, user: &Name) -> Result<UserPrint> {
        let (entry, record) = self.user_record(user)?;
        Ok(print(&entry, record))
    }

    pub(super) fn user_record(&self, user: &Name) -> Result<(Entry, UserRecord)> {
        let entry = self.kv.get(&format!("users/{user}"))?;
        let entry = entry.ok_or_else(|| Refused::not_found(&format!("user {user}")))?;
        let record = read(&entry)?;
        Ok((entry, record))
    }

    /// Adds a user, or says anew what one may do everywhere.
    pub(in crate::serve) fn put_user(
        &self,
        ask: &Ask<'_>,
        user: &Name,
        wish: &UserWish,
    ) -> Result<()> {
        if user.as_str() == ADMINISTRATOR {
            let hint = "that is who has the plane's own token; choose another name";
            return Err(Refused::new(409, "exists", format!("no user is called {user}"), hint));
        }
        let key = format!("users/{user}");
        let none = ask.header("if-none-match") == Some("*");
        for _ in 0..TRIES {
            let txn = match self.kv.get(&key)? {
                Some(_) if none => {
                    let detail = format!("there is a user {user} already");
                    let hint = "`collective user list` shows all";
                    return Err(Refused::new(409, "exists", detail, hint));
                }
                Some(entry) => {
                    let old: UserRecord = read(&entry)?;
                    let new = UserRecord { everywhere: wish.everywhere, ..old };
                    Txn::replace(&key, entry.revision, json(&new))
                }
                None => Txn::create(&key, json(&UserRecord::new(wish.everywhere))),
            };
            if self.commit(ask, txn)?.is_done() {
                return Ok(());
            }
        }
        Err(Refused::changed(&format!("user {user}")))
    }

    /// Removes a user. Their tokens are worth nothing from then on.
    pub(in crate::serve) fn remove_user(&self, ask: &Ask<'_>, user: &Name) -> Result<()> {
        for _ in 0..TRIES {
            let (entry, record) = self.user_record(user)?;
            if self.commit(ask, Txn::remove(&entry.key, entry.revision))?.is_done() {
                return self.sweep_tokens(&record.id);
            }
        }
        Err(Refused::changed(&format!("user {user}")))
    }

    /// Gives a user a role in a project, or takes it away.
    pub(in crate::serve) fn put_member(
        &self,
        ask: &Ask<'_>,
        project: &Name,
        user: &Name,
        role: Option<Role>,
    ) -> Result<()> {
        for _ in 0..TRIES {
            let (here, _) = self.project_record(project)?;
            let (entry, mut record) = self.user_record(user)?;
            match role {
                Some(role) => drop(record.projects.insert(project.to_string(), role)),
                None => {
                    let had = record.projects.remove(project.as_str());
                    had.ok_or_else(|| Refused::not_found(&format!("role of {user} in {project}")))?;
                }
            }
            if record.projects.len() > PROJECTS_MAX {
                let detail = format!("{user} has a role in {PROJECTS_MAX} projects");
                return Err(Refused::new(409, "state", detail, "give a role everywhere"));
            }
            let txn = Txn::replace(&entry.key, entry.revision, json(&record));
            // One that was removed meanwhile does not come back with this user in it.
            let condition = here.map_or(Condition::Absent, Condition::At);
            if self.commit(ask, txn.when(&format!("projects/{project}"), condition))?.is_done() {
                return Ok(());
            }
        }
        Err(Refused::changed(&format!("user {user}")))
    }

    /// Who asks, for who asks.
    pub(in crate::serve) fn whoami(&self, caller: &Caller) -> CallerPrint {
        let words = |has: &dyn Fn(Right) -> bool| {
            let rights = Right::ALL.into_iter().filter(|right| has(*right));
            rights.map(|right| right.as_str().to_owned()).collect::<Vec<_>>()
        };
        let (token, projects) = match caller {
            Caller::User(user) => (Some(user), Some(&user.projects)),
            _ => (None, None),
        };
        let projects = projects.into_iter().flatten();
        CallerPrint {
            user: caller.name(),
            token: token.map(|user| user.token.clone()),
            token_ends_unix_ms: token.map(|user| user.token_ends_unix_ms),
            everywhere: words(&|right| caller.may_everywhere(right)),
            projects: projects.map(|(name, rights)| (name.to_string(), rights.words())).collect(),
        }
    }
}

fn print(entry: &Entry, record: UserRecord) -> UserPrint {
    UserPrint {
        name: entry.key["users/".len()..].to_owned(),
        added_unix_ms: record.added_unix_ms,
        everywhere: record.everywhere,
        projects: record.projects,
        login: record.login,
    }
}
