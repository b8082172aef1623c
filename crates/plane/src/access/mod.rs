//! Who may do what: pure.
//!
//! ```text
//! role ──▶ rights, everywhere and by project ──┐
//! token's scope ───────────────────────────────┴─▶ what this caller may ◀── what a route demands
//! ```
//!
//! **Invariant:** a token never allows more than its user's roles do now, nor more than its scope.
//! **Invariant:** what may be done with an instance follows from the project and the owner that are
//! kept with it, never from what the caller says they are.

mod rights;

use std::collections::BTreeMap;

use api::Role;
use model::{HostId, Name};

pub use rights::{Right, Rights};

/// The name of who has the plane's own secret. No user is called so.
pub const ADMINISTRATOR: &str = "administrator";
/// The project that is always there.
pub const DEFAULT_PROJECT: &str = "default";

/// What a route asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    Anybody,
    /// The host that it is about.
    Host,
    /// That host, or whoever has a join token.
    Joining,
    /// Any user.
    Member,
    /// This right everywhere: it is about the plane itself.
    Everywhere(Right),
    /// This right in the project that the path names.
    Project(Right),
    /// This right in the project of the instance that the path names.
    Instance(Right),
}

impl Demand {
    /// For people, as the published document says it.
    pub fn words(self) -> String {
        match self {
            Self::Anybody => "nobody's leave".to_owned(),
            Self::Host => "the host that it is about".to_owned(),
            Self::Joining => "the host that it is about, or a join token".to_owned(),
            Self::Member => "any user; what is shown is what that user may see".to_owned(),
            Self::Everywhere(right) => format!("`{}` everywhere", right.as_str()),
            Self::Project(right) => format!("`{}` in the project", right.as_str()),
            Self::Instance(right) => format!("`{}` in the instance's project", right.as_str()),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Who has shown nothing.
    Stranger,
    /// Who has the plane's own secret.
    Administrator,
    /// Who has a join token.
    Joining,
    Host(HostId),
    User(User),
}

/// A user, by a token of theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub name: Name,
    pub token: String,
    pub token_ends_unix_ms: u64,
    /// The token allows less than its user might.
    pub narrowed: bool,
    pub everywhere: Rights,
    pub projects: BTreeMap<Name, Rights>,
}

/// How far a token goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    pub project: Option<Name>,
    pub role: Option<Role>,
    pub read_only: bool,
}

impl User {
    /// The user of a token, by the roles that they have now.
    pub fn new(
        name: Name,
        (token, token_ends_unix_ms): (String, u64),
        scope: &Scope,
        everywhere: &[Role],
        projects: &[(Name, Role)],
    ) -> Self {
        let within = |role: Role| {
            let rights =
                scope.role.map_or(Rights::of(role), |most| Rights::of(role).and(Rights::of(most)));
            if scope.read_only { rights.and(Rights::READING) } else { rights }
        };
        let all = everywhere.iter().fold(Rights::default(), |all, role| all.or(within(*role)));
        let mut by_project: BTreeMap<Name, Rights> = BTreeMap::new();
        for (project, role) in projects {
            let here = by_project.entry(project.clone()).or_insert(all);
            *here = here.or(within(*role));
        }
        if let Some(only) = &scope.project {
            by_project.retain(|project, _| project == only);
            // What is everywhere is in this project too, and counts in no other.
            let here = by_project.entry(only.clone()).or_default();
            *here = here.or(all);
        }
        by_project.retain(|_, rights| *rights != Rights::default());
        let everywhere = if scope.project.is_none() { all } else { Rights::default() };
        let narrowed = *scope != Scope::default();
        Self { name, token, token_ends_unix_ms, narrowed, everywhere, projects: by_project }
    }
}

impl Caller {
    /// As owners, and in what is written down.
    pub fn name(&self) -> String {
        match self {
            Self::Stranger => "a stranger".to_owned(),
            Self::Administrator => ADMINISTRATOR.to_owned(),
            Self::Joining => "join token".to_owned(),
            Self::Host(id) => format!("host {id}"),
            Self::User(user) => user.name.to_string(),
        }
    }

    /// The id of the token that was shown, of a user's.
    pub fn token(&self) -> Option<&str> {
        match self {
            Self::User(user) => Some(&user.token),
            _ => None,
        }
    }

    /// Whether something about the plane itself is allowed.
    pub fn may_everywhere(&self, right: Right) -> bool {
        match self {
            Self::Administrator => true,
            Self::User(user) => user.everywhere.has(right),
            Self::Stranger | Self::Joining | Self::Host(_) => false,
        }
    }

    /// Whether something is allowed in a project.
    pub fn may_in(&self, project: &str, right: Right) -> bool {
        self.may_everywhere(right)
            || match self {
                Self::User(user) => {
                    let found = user.projects.iter().find(|(name, _)| name.as_str() == project);
                    found.is_some_and(|(_, rights)| rights.has(right))
                }
                _ => false,
            }
    }

    /// Whether something is allowed with an instance of a project and an owner.
    pub fn may_with(&self, project: &str, owner: &str, right: Right) -> bool {
        let whose =
            right != Right::Own || self.name() == owner || self.may_in(project, Right::Operate);
        whose && self.may_in(project, right)
    }

    /// Whether this is a user who may do something at all.
    pub fn is_member(&self) -> bool {
        match self {
            Self::Administrator => true,
            Self::User(user) => user.everywhere != Rights::default() || !user.projects.is_empty(),
            Self::Stranger | Self::Joining | Self::Host(_) => false,
        }
    }

    /// Whether a route may be asked. That about an instance is looked at again with its project and
    /// owner, when these are read.
    pub fn meets(&self, demand: Demand, about: &str) -> bool {
        let administrates = *self == Self::Administrator;
        match demand {
            Demand::Anybody => true,
            Demand::Host | Demand::Joining => match self {
                Self::Host(id) => id.to_string() == about,
                Self::Joining => demand == Demand::Joining,
                _ => administrates,
            },
            Demand::Member => self.is_member(),
            Demand::Everywhere(right) => self.may_everywhere(right),
            Demand::Project(right) => self.may_in(about, right),
            Demand::Instance(right) => {
                self.may_everywhere(right)
                    || matches!(self, Self::User(user) if user.projects.values().any(|has| has.has(right)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn user(scope: &Scope, everywhere: Option<Role>, projects: &[(&str, Role)]) -> Caller {
        let projects: Vec<_> =
            projects.iter().map(|(project, role)| (name(project), *role)).collect();
        let everywhere: Vec<_> = everywhere.into_iter().collect();
        let token = ("t".to_owned(), 1);
        Caller::User(User::new(name("anna"), token, scope, &everywhere, &projects))
    }

    #[test]
    fn a_role_counts_in_its_project() {
        let anna = user(&Scope::default(), None, &[("blue", Role::User), ("red", Role::Auditor)]);
        assert!(anna.may_in("blue", Right::Own) && anna.may_in("red", Right::Audit));
        assert!(!anna.may_in("red", Right::Own) && !anna.may_in("green", Right::See));
        assert!(!anna.may_everywhere(Right::See));
        assert!(anna.may_with("blue", "anna", Right::Own));
        assert!(!anna.may_with("blue", "bert", Right::Own));
        assert!(anna.may_with("blue", "bert", Right::See));
        let operator = user(&Scope::default(), None, &[("blue", Role::Operator)]);
        assert!(operator.may_with("blue", "bert", Right::Own));
        assert!(!operator.may_in("blue", Right::Manage));
        // Two roles in one project are what either allows.
        let both = user(&Scope::default(), None, &[("blue", Role::User), ("blue", Role::Auditor)]);
        assert!(both.may_in("blue", Right::Own) && both.may_in("blue", Right::Audit));
        assert!(!both.may_in("blue", Right::Operate));
    }

    #[test]
    fn a_token_allows_no_more_than_its_scope_and_its_user() {
        let projects = [("blue", Role::Admin), ("red", Role::User)];
        let one = Scope { project: Some(name("blue")), ..Scope::default() };
        let token = user(&one, Some(Role::Operator), &projects);
        assert!(token.may_in("blue", Right::Manage) && !token.may_in("red", Right::See));
        assert!(!token.may_everywhere(Right::See), "one project is not the plane");
        // What its user has everywhere is in that project too.
        let token = user(&one, Some(Role::Operator), &[]);
        assert!(token.may_in("blue", Right::Operate) && !token.may_in("red", Right::See));
        let other = Scope { project: Some(name("green")), ..Scope::default() };
        assert!(!user(&other, None, &projects).is_member(), "its user has no role there");

        let small = Scope { role: Some(Role::User), ..Scope::default() };
        let token = user(&small, None, &projects);
        assert!(token.may_in("blue", Right::Own) && !token.may_in("blue", Right::Operate));
        let larger = Scope { role: Some(Role::Admin), ..Scope::default() };
        assert!(!user(&larger, None, &projects).may_in("red", Right::Operate));

        let reading = Scope { read_only: true, ..Scope::default() };
        let token = user(&reading, Some(Role::Admin), &projects);
        for right in Right::ALL {
            let reads = matches!(right, Right::See | Right::Audit);
            assert_eq!(token.may_everywhere(right), reads, "{right:?}");
            assert_eq!(token.may_in("blue", right), reads, "{right:?}");
        }
    }
}
