//! Logging in to a plane by an OpenID Connect provider.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Role;

/// Where people log in, as whoever begins a login has to know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoginPrint {
    pub issuer: String,
    pub client_id: String,
    /// Where a browser goes.
    pub authorization_endpoint: String,
    /// What the provider is asked for: words with spaces between them.
    pub scope: String,
}

/// The end of a login. The provider's code and the secret that the login began with (RFC 7636) are in a
/// header: `Authorization: Login CODE.VERIFIER`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginWish {
    /// The port of 127.0.0.1 to which the browser was sent back.
    pub port: u16,
    /// The token counts in this project only, and not for the plane itself.
    #[serde(default)]
    pub project: Option<String>,
    /// It allows no more than this role does.
    #[serde(default)]
    pub role: Option<Role>,
    /// It changes nothing.
    #[serde(default)]
    pub read_only: bool,
    /// How long it counts, seconds; none: 12 hours. At most 24 hours.
    #[serde(default)]
    pub lasts_s: Option<u64>,
}

/// What a provider says of somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum LoginClaim {
    /// This is the subject: the provider's own word for one account.
    Subject(String),
    /// This is the e-mail address, and the provider has verified it.
    Email(String),
    /// This is one of the groups.
    Group(String),
}

/// A rule of who is let in by the provider, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRuleWish {
    pub who: LoginClaim,
    /// They are this user, who has been added; not of a group.
    #[serde(default)]
    pub user: Option<String>,
    /// They may do this while a token of a login counts.
    #[serde(default)]
    pub role: Option<Role>,
    /// In this project; none: everywhere.
    #[serde(default)]
    pub project: Option<String>,
}

/// A rule that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LoginRulePrint {
    pub id: String,
    /// The provider whose word it is about.
    pub issuer: String,
    pub who: LoginClaim,
    pub user: Option<String>,
    pub role: Option<Role>,
    pub project: Option<String>,
    pub made_unix_ms: u64,
}

/// How a user came in last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserLogin {
    pub issuer: String,
    pub subject: String,
    /// The ids of the rules that were about them then.
    pub rules: Vec<String>,
    /// Until when these give what they say.
    pub ends_unix_ms: u64,
}
