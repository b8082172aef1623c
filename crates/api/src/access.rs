//! Who may do what with a plane: users, projects, roles, tokens.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What somebody may do in a project, or in all of them and with the plane itself.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// All that an operator and an auditor may, and say who may do what.
    Admin,
    /// See and change everybody's instances; everywhere: hosts too.
    Operator,
    /// See the project's instances, make some, and change those.
    User,
    /// See, and read the audit log; change nothing.
    Auditor,
}

/// A new user, or what an old one may do everywhere from now on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserWish {
    /// What this user may do in all projects and with the plane itself; none: nothing.
    #[serde(default)]
    pub everywhere: Option<Role>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserPrint {
    pub name: String,
    pub added_unix_ms: u64,
    pub everywhere: Option<Role>,
    /// Roles by project.
    pub projects: BTreeMap<String, Role>,
    /// The last login by a provider; none: there was none.
    #[serde(default)]
    pub login: Option<crate::UserLogin>,
}

/// A user's role in a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberWish {
    pub role: Role,
}

/// A project: what instances belong to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProjectPrint {
    pub name: String,
    /// None: it has always been there.
    pub added_unix_ms: Option<u64>,
    /// Roles by user, of those that have one in this project.
    pub members: BTreeMap<String, Role>,
    pub instances: u64,
    /// Of those that are to run, as the next.
    pub cpus: u64,
    pub memory_bytes: u64,
    /// What its instances have ever put into the repository.
    #[serde(default)]
    pub stored_bytes: u64,
    pub quota: Quota,
}

/// What the instances of a project may take; none: there is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    #[serde(default)]
    pub instances: Option<u64>,
    /// Of those that are to run, as the next.
    #[serde(default)]
    pub cpus: Option<u64>,
    #[serde(default)]
    pub memory_bytes: Option<u64>,
    /// Once they have put so much into the repository, nothing is made or started any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
}

/// A new token.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenWish {
    /// Whose; none: the caller's own.
    #[serde(default)]
    pub user: Option<String>,
    /// It counts in this project only, and not for the plane itself.
    #[serde(default)]
    pub project: Option<String>,
    /// It allows no more than this role does.
    #[serde(default)]
    pub role: Option<Role>,
    /// It changes nothing.
    #[serde(default)]
    pub read_only: bool,
    /// How long it counts, seconds; none: 90 days. At most 10 years.
    #[serde(default)]
    pub lasts_s: Option<u64>,
}

/// A token, without what is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenPrint {
    pub id: String,
    pub user: String,
    pub project: Option<String>,
    pub role: Option<Role>,
    pub read_only: bool,
    pub made_unix_ms: u64,
    pub ends_unix_ms: u64,
}

/// A token that was made. The plane keeps no copy of what is shown: this is the only time it is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewToken {
    /// What the CLI and other callers keep.
    pub token: String,
    pub about: TokenPrint,
}

/// Who asks, as the plane sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CallerPrint {
    /// `administrator` is who has the plane's own token.
    pub user: String,
    /// The token's id; none: the plane's own.
    pub token: Option<String>,
    pub token_ends_unix_ms: Option<u64>,
    /// What may be done in all projects and with the plane itself: `see`, `own`, `operate`,
    /// `manage`, `audit`.
    pub everywhere: Vec<String>,
    /// The same by project.
    pub projects: BTreeMap<String, Vec<String>>,
}

/// An entry of the audit log: a request that changed something, or was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// From 1, without a gap.
    pub number: u64,
    pub unix_ms: u64,
    /// A user, `administrator`, `host ID`, `join token` or `a stranger`, who was refused a login.
    pub who: String,
    /// The id of the user's token.
    pub token: Option<String>,
    /// The method of the request.
    pub what: String,
    /// Its path.
    pub on: String,
    /// The document that was sent, of a login what the provider said; of a long one `blake3:HASH`.
    pub says: Option<String>,
    /// The project that it was about.
    pub project: Option<String>,
    /// How it ended: an HTTP status.
    pub status: u16,
    /// The request's id, as the answer's `x-request-id` said it.
    pub request: String,
    /// The hash of the entry before; of the first: zeros.
    pub before: String,
    /// The hash of all of the above.
    pub hash: String,
}

/// Where the audit log ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditHead {
    /// The number of the last entry; 0: there is none.
    pub number: u64,
    /// The last entry's hash.
    pub hash: String,
}

/// Some of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditPrint {
    /// In their order; none: there is nothing after what was asked for.
    pub entries: Vec<AuditEntry>,
    /// Ask for what is after this number next.
    pub next: u64,
    pub head: AuditHead,
}
