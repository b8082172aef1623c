//! Projects: what instances belong to. One called `default` is always there.

use std::collections::BTreeMap;

use api::{ProjectPrint, Quota, Role};
use kv::{Condition, Revision, Txn};
use model::Name;
use serde::{Deserialize, Serialize};

use super::users::UserRecord;
use super::{Result, TRIES, json, name, read};
use crate::access::{Caller, DEFAULT_PROJECT, Right};
use crate::serve::ask::Ask;
use crate::serve::{Plane, Refused};

/// `projects/NAME`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProjectRecord {
    pub added_unix_ms: Option<u64>,
    #[serde(default)]
    pub quota: Quota,
}

/// To whom a new instance belongs: a project that is there, in which its owner may make some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Belongs {
    pub project: String,
    pub owner: String,
}

impl Default for Belongs {
    /// Of instances that were wished for before there were projects.
    fn default() -> Self {
        let (project, owner) = (DEFAULT_PROJECT, crate::access::ADMINISTRATOR);
        Self { project: project.to_owned(), owner: owner.to_owned() }
    }
}

impl Plane {
    /// The projects in which the caller may see something.
    pub(in crate::serve) fn projects(&self, caller: &Caller) -> Result<Vec<ProjectPrint>> {
        let mut names = vec![name(DEFAULT_PROJECT)?];
        for entry in self.kv.list("projects/")?.entries {
            names.push(name(&entry.key["projects/".len()..])?);
        }
        names.sort();
        names.dedup();
        let members = self.members()?;
        let seen = names.iter().filter(|name| caller.may_in(name.as_str(), Right::See));
        seen.map(|name| self.print_project(name, &members)).collect()
    }

    pub(in crate::serve) fn project(&self, project: &Name) -> Result<ProjectPrint> {
        self.print_project(project, &self.members()?)
    }

    fn print_project(
        &self,
        project: &Name,
        members: &BTreeMap<String, BTreeMap<String, Role>>,
    ) -> Result<ProjectPrint> {
        let (_, record) = self.project_record(project)?;
        let (_, used) = self.usage(project)?;
        Ok(ProjectPrint {
            name: project.to_string(),
            added_unix_ms: record.added_unix_ms,
            members: members.get(project.as_str()).cloned().unwrap_or_default(),
            instances: used.instances,
            cpus: used.cpus,
            memory_bytes: used.memory_bytes,
            stored_bytes: self.stored(project)?,
            quota: record.quota,
        })
    }

    /// Roles by project and user.
    fn members(&self) -> Result<BTreeMap<String, BTreeMap<String, Role>>> {
        let mut members: BTreeMap<String, BTreeMap<String, Role>> = BTreeMap::new();
        for user in self.users()? {
            for (project, role) in user.projects {
                members.entry(project).or_default().insert(user.name.clone(), role);
            }
        }
        Ok(members)
    }

    /// Its revision is none when nothing was ever said of it: the one that is always there.
    pub(super) fn project_record(
        &self,
        project: &Name,
    ) -> Result<(Option<Revision>, ProjectRecord)> {
        match self.kv.get(&format!("projects/{project}"))? {
            Some(entry) => Ok((Some(entry.revision), read(&entry)?)),
            None if project.as_str() == DEFAULT_PROJECT => {
                Ok((None, ProjectRecord { added_unix_ms: None, quota: Quota::default() }))
            }
            None => Err(Refused::not_found(&format!("project {project}"))),
        }
    }

    pub(in crate::serve) fn add_project(&self, ask: &Ask<'_>, project: &Name) -> Result<()> {
        ask.in_project(project.as_str());
        let exists = || {
            let detail = format!("there is a project {project} already");
            Err(Refused::new(409, "exists", detail, "`collective project list` shows all"))
        };
        if project.as_str() == DEFAULT_PROJECT {
            return exists();
        }
        // Roles in one that had this name before are none in this one.
        self.strip(project)?;
        let (added_unix_ms, quota) = (Some(ambient::unix_ms()), Quota::default());
        let record = ProjectRecord { added_unix_ms, quota };
        let txn = Txn::create(&format!("projects/{project}"), json(&record));
        if self.commit(ask, txn)?.is_done() { Ok(()) } else { exists() }
    }

    /// Says what a project's instances may take. What they take already they keep.
    pub(in crate::serve) fn put_quota(
        &self,
        ask: &Ask<'_>,
        project: &Name,
        quota: Quota,
    ) -> Result<()> {
        let key = format!("projects/{project}");
        for _ in 0..TRIES {
            let (at, record) = self.project_record(project)?;
            let new = json(&ProjectRecord { quota, ..record });
            let txn = match at {
                Some(revision) => Txn::replace(&key, revision, new),
                None => Txn::create(&key, new),
            };
            if self.commit(ask, txn)?.is_done() {
                return Ok(());
            }
        }
        Err(Refused::changed(&format!("project {project}")))
    }

    /// Removes a project that has no instances.
    pub(in crate::serve) fn remove_project(&self, ask: &Ask<'_>, project: &Name) -> Result<()> {
        ask.in_project(project.as_str());
        if project.as_str() == DEFAULT_PROJECT {
            let hint = "give nobody a role in it";
            return Err(Refused::new(409, "state", "the project default is always there", hint));
        }
        for _ in 0..TRIES {
            let (Some(revision), _) = self.project_record(project)? else { break };
            let (entry, used) = self.usage(project)?;
            if used.instances > 0 {
                let detail = format!("{} instances belong to {project}", used.instances);
                let hint = "`collective ps` lists them; `DELETE /v1/instances/NAME` wishes for one no longer";
                return Err(Refused::new(409, "state", detail, hint));
            }
            // Whoever makes one in it meanwhile changes what is counted.
            let counted = entry.map_or(Condition::Absent, |entry| Condition::At(entry.revision));
            let usage = format!("usage/{project}");
            let txn = Txn::remove(&format!("projects/{project}"), revision);
            if self.commit(ask, txn.when(&usage, counted).delete(&usage))?.is_done() {
                return self.strip(project);
            }
        }
        Err(Refused::changed(&format!("project {project}")))
    }

    /// Takes all roles in a project away that is not there.
    fn strip(&self, project: &Name) -> Result<()> {
        self.strip_rules(project)?;
        for entry in self.kv.list("users/")?.entries {
            let mut record: UserRecord = read(&entry)?;
            let is_gone = match self.project_record(project) {
                Ok(_) => false,
                Err(refused) if refused.status == 404 => true,
                Err(refused) => return Err(refused),
            };
            if is_gone
                && record.projects.remove(project.as_str()).is_some()
                && !self
                    .kv
                    .commit(&Txn::replace(&entry.key, entry.revision, json(&record)))?
                    .is_done()
            {
                return Err(Refused::changed(&entry.key));
            }
        }
        Ok(())
    }

    /// Where a new instance of this caller's belongs.
    pub(super) fn belongs(&self, caller: &Caller, project: Option<&str>) -> Result<Belongs> {
        let owner = caller.name();
        let own = |project: &str| caller.may_in(project, Right::Own);
        let project = match (project, caller) {
            (Some(project), _) => name(project)?.to_string(),
            (None, Caller::User(user)) if !own(DEFAULT_PROJECT) => {
                let mut may = user.projects.keys().filter(|project| own(project.as_str()));
                match (may.next(), may.next()) {
                    (Some(only), None) => only.to_string(),
                    _ => {
                        let detail = "it has to be said which project it belongs to";
                        return Err(Refused::new(400, "usage", detail, "`--project PROJECT`"));
                    }
                }
            }
            (None, _) => DEFAULT_PROJECT.to_owned(),
        };
        if !own(&project) {
            let detail = format!("{owner} may make nothing in project {project}");
            return Err(Refused::new(403, "permission", detail, "`collective whoami` says where"));
        }
        Ok(Belongs { project, owner })
    }
}
