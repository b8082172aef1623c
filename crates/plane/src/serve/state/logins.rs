//! Logins by a provider, and the rules of who is let in.
//!
//! A user who came by a login has the roles of the rules that were about them then, as long as these
//! rules are there and a token of a login counts; and what else an administrator gave them.
//!
//! **Invariant:** a login makes a user and a token, and its entry in the audit log, by one commit.
//! **Invariant:** a rule is of one issuer: with another provider it is about nobody.

use api::{LoginPrint, LoginRulePrint, LoginRuleWish, LoginWish, NewToken, Role, UserLogin};
use kv::{Condition, Entry, Txn};
use model::Name;
use serde::{Deserialize, Serialize};

use super::users::UserRecord;
use super::{Result, TRIES, json, name, read};
use crate::access::{Caller, Scope, User};
use crate::identity::UserToken;
use crate::login::id_token::Identity;
use crate::login::{Provider, ProviderError, rules, shown};
use crate::serve::ask::Ask;
use crate::serve::state::tokens::{TokenRecord, about};
use crate::serve::{Plane, Refused};

/// `login-rules/ID`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleRecord {
    pub issuer: String,
    pub wish: LoginRuleWish,
    /// Which one of the user's name.
    pub user_id: Option<String>,
    pub made_unix_ms: u64,
}

/// How long a token of a login counts of which nothing is said, and at most: whom the provider lets in
/// no longer has that long.
const LASTS_S: u64 = 12 * 3600;
const LASTS_S_MAX: u64 = 24 * 3600;
const RULES_MAX: usize = 1024;
/// Rules about one person: each is read with each request.
const RULES_OF_ONE_MAX: usize = 64;
const CLAIM_BYTES_MAX: usize = 255;
/// Groups that the audit log names.
const GROUPS_SAID_MAX: usize = 16;

/// Everywhere, and by project: several may be in one.
type Roles = (Vec<Role>, Vec<(Name, Role)>);

impl Plane {
    fn provider(&self) -> Result<&Provider> {
        let hint = "an administrator starts it with --oidc-issuer and --oidc-client-id";
        let none = || Refused::new(404, "not_found", "nobody logs in to this plane", hint);
        self.login.as_ref().ok_or_else(none)
    }

    /// Where people log in.
    pub(in crate::serve) fn login_at(&self) -> Result<LoginPrint> {
        self.provider()?.print().map_err(no_provider)
    }

    /// Ends a login with a token.
    pub(in crate::serve) fn log_in(&self, ask: &Ask<'_>, wish: &LoginWish) -> Result<NewToken> {
        let provider = self.provider()?;
        let entered = self.gate.enter(ask.request.from)?;
        let done = self.let_in(ask, wish, provider);
        if let Err(refused) = &done {
            entered.refused();
            // What could not be decided is no refusal: it can be tried again.
            if (400..500).contains(&refused.status) && ask.says.borrow().is_some() {
                self.note(ask, refused.status)?;
            }
        }
        done
    }

    fn let_in(&self, ask: &Ask<'_>, wish: &LoginWish, provider: &Provider) -> Result<NewToken> {
        let header = ask.header("authorization").and_then(|value| value.strip_prefix("Login "));
        let hint = "send `Authorization: Login CODE.VERIFIER`";
        let none = || Refused::new(400, "usage", "there is no code of a provider's", hint);
        let (code, verifier) = header.and_then(shown).ok_or_else(none)?;
        let lasts_s = wish.lasts_s.unwrap_or(LASTS_S);
        if lasts_s == 0 || lasts_s > LASTS_S_MAX {
            let detail = "a token of a login counts for at most 24 hours, and at least a second";
            return Err(Refused::wrong(detail));
        }
        let project = wish.project.as_deref().map(name).transpose()?;
        *ask.says.borrow_mut() = Some("a code of the provider's".to_owned());
        let identity = provider.identity(code, verifier, wish.port).map_err(|error| {
            *ask.says.borrow_mut() = Some(error.to_string());
            no_provider(error)
        })?;
        let scope = Scope { project, role: wish.role, read_only: wish.read_only };
        self.let_identity_in(ask, &identity, &scope, lasts_s)
    }

    /// Gives somebody who is who they say a token.
    fn let_identity_in(
        &self,
        ask: &Ask<'_>,
        identity: &Identity,
        scope: &Scope,
        lasts_s: u64,
    ) -> Result<NewToken> {
        for _ in 0..TRIES {
            let rules = self.rules_about(identity)?;
            *ask.says.borrow_mut() = Some(says(identity, &rules));
            let (at, mut record, user) = self.who_is(identity, &rules)?;
            let now = ambient::unix_ms();
            let ends_unix_ms = now + lasts_s * 1000;
            let before = record.login.as_ref().map_or(0, |login| login.ends_unix_ms);
            record.login = Some(UserLogin {
                issuer: identity.issuer.clone(),
                subject: identity.subject.clone(),
                rules: rules.into_iter().map(|(id, _)| id).collect(),
                ends_unix_ms: ends_unix_ms.max(before),
            });
            let shown = UserToken::new();
            let (everywhere, projects) = self.roles_of(&record)?;
            let token = (shown.id().to_owned(), ends_unix_ms);
            let caller = User::new(user.clone(), token, scope, &everywhere, &projects);
            let caller = Caller::User(caller);
            if !caller.is_member() {
                let hint =
                    "an administrator gives one: `collective login-rule add`, `project grant`";
                let detail = format!("{user} has no role here");
                return Err(Refused::new(403, "permission", detail, hint));
            }
            self.make_room_for_token(user.as_str(), now)?;
            let kept = TokenRecord {
                user: user.to_string(),
                user_id: record.id.clone(),
                hash: shown.hash(),
                project: scope.project.as_ref().map(Name::to_string),
                role: scope.role,
                read_only: scope.read_only,
                made_unix_ms: now,
                ends_unix_ms,
            };
            let key = format!("users/{user}");
            let txn = Txn::create(&format!("tokens/{}", shown.id()), json(&kept))
                .when(&key, at.map_or(Condition::Absent, |entry| Condition::At(entry.revision)))
                .put(&key, json(&record));
            // It is this user's from here on.
            let own = Ask::new(ask.request, &caller, Vec::new());
            *own.says.borrow_mut() = ask.says.borrow().clone();
            if self.commit(&own, txn)?.is_done() {
                let about = about(shown.id(), kept);
                return Ok(NewToken { token: shown.text(&self.authority), about });
            }
        }
        Err(Refused::changed("the list of users"))
    }

    /// The user that somebody is, who may be a new one.
    fn who_is(
        &self,
        identity: &Identity,
        rules: &[(String, RuleRecord)],
    ) -> Result<(Option<Entry>, UserRecord, Name)> {
        let refused =
            |status, kind, detail: String, hint| Err(Refused::new(status, kind, detail, hint));
        if rules.is_empty() {
            let hint = "an administrator says who is: `collective login-rule add`";
            let detail = format!("the provider's {:?} is nobody here", identity.subject);
            return refused(403, "permission", detail, hint);
        }
        let mut named: Vec<&String> =
            rules.iter().filter_map(|(_, rule)| rule.wish.user.as_ref()).collect();
        named.sort();
        named.dedup();
        match named.as_slice() {
            [] => {
                let user = rules::name_of(identity);
                let Some(entry) = self.kv.get(&format!("users/{user}"))? else {
                    return Ok((None, UserRecord::new(None), user));
                };
                let record: UserRecord = read(&entry)?;
                let is_same = record.login.as_ref().is_some_and(|login| {
                    (&login.issuer, &login.subject) == (&identity.issuer, &identity.subject)
                });
                if !is_same {
                    let hint =
                        "`collective login-rule add --subject SUBJECT --user USER` names another";
                    return refused(409, "exists", format!("{user} is somebody else"), hint);
                }
                Ok((Some(entry), record, user))
            }
            [one] => {
                let user = name(one)?;
                let (entry, record) = self.user_record(&user)?;
                Ok((Some(entry), record, user))
            }
            _ => {
                let hint = "`collective login-rule list` shows the rules: remove one";
                refused(409, "state", "rules name two users for one person".to_owned(), hint)
            }
        }
    }

    /// The rules about somebody that count.
    fn rules_about(&self, identity: &Identity) -> Result<Vec<(String, RuleRecord)>> {
        let mut found = Vec::new();
        for (id, rule) in self.rules()? {
            if rule.issuer != identity.issuer || !rules::is_about(&rule.wish.who, identity) {
                continue;
            }
            // Of a user who was removed; another one of that name is another one.
            if let (Some(user), Some(user_id)) = (&rule.wish.user, &rule.user_id) {
                match self.user_record(&name(user)?) {
                    Ok((_, record)) if record.id == *user_id => {}
                    Err(refused) if refused.status != 404 => return Err(refused),
                    _ => continue,
                }
            }
            found.push((id, rule));
        }
        if found.len() > RULES_OF_ONE_MAX {
            let detail = format!("{} rules are about one person", found.len());
            return Err(Refused::new(409, "state", detail, "`collective login-rule remove` some"));
        }
        Ok(found)
    }

    fn rules(&self) -> Result<Vec<(String, RuleRecord)>> {
        let entries = self.kv.list("login-rules/")?.entries;
        entries
            .iter()
            .map(|entry| Ok((entry.key["login-rules/".len()..].to_owned(), read(entry)?)))
            .collect()
    }

    /// What a user may do now: what was given to them, and what the rules of their login give.
    pub(super) fn roles_of(&self, record: &UserRecord) -> Result<Roles> {
        let mut everywhere: Vec<Role> = record.everywhere.into_iter().collect();
        let own = record.projects.iter().map(|(project, role)| Ok((name(project)?, *role)));
        let mut projects: Vec<(Name, Role)> = own.collect::<Result<_>>()?;
        let counts = record.login.iter().filter(|login| login.ends_unix_ms > ambient::unix_ms());
        for id in counts.flat_map(|login| &login.rules) {
            let Some(entry) = self.kv.get(&format!("login-rules/{id}"))? else { continue };
            let rule: RuleRecord = read(&entry)?;
            match (rule.wish.role, rule.wish.project) {
                (Some(role), Some(project)) => projects.push((name(&project)?, role)),
                (Some(role), None) => everywhere.push(role),
                (None, _) => {}
            }
        }
        Ok((everywhere, projects))
    }

    pub(in crate::serve) fn login_rules(&self) -> Result<Vec<LoginRulePrint>> {
        let mut rules: Vec<_> =
            self.rules()?.into_iter().map(|(id, rule)| print(id, rule)).collect();
        rules.sort_by(|a, b| (a.made_unix_ms, &a.id).cmp(&(b.made_unix_ms, &b.id)));
        Ok(rules)
    }

    /// Adds a rule; one that is there already is that one.
    pub(in crate::serve) fn add_rule(
        &self,
        ask: &Ask<'_>,
        wish: LoginRuleWish,
    ) -> Result<LoginRulePrint> {
        let issuer = self.provider()?.issuer().to_owned();
        let (api::LoginClaim::Subject(value)
        | api::LoginClaim::Email(value)
        | api::LoginClaim::Group(value)) = &wish.who;
        if value.is_empty() || value.len() > CLAIM_BYTES_MAX || value.chars().any(char::is_control)
        {
            return Err(Refused::wrong("a claim has 1 to 255 bytes, and no control characters"));
        }
        if let Some(project) = &wish.project {
            ask.in_project(project);
            self.project_record(&name(project)?)?;
        }
        let user = wish.user.as_deref().map(name).transpose()?;
        let user = user.map(|user| self.user_record(&user)).transpose()?;
        let wrong = match &wish {
            LoginRuleWish { who: api::LoginClaim::Group(_), user: Some(_), .. } => {
                Some("a group is not one user")
            }
            LoginRuleWish { project: Some(_), role: None, .. } => Some("a project without a role"),
            LoginRuleWish { user: None, role: None, .. } => Some("a rule names a user or a role"),
            _ => None,
        };
        if let Some(wrong) = wrong {
            return Err(Refused::wrong(wrong));
        }
        let user_id = user.map(|(_, record)| record.id);
        let rules = self.rules()?;
        let same = |rule: &RuleRecord| {
            rule.wish == wish && rule.issuer == issuer && rule.user_id == user_id
        };
        if let Some((id, rule)) = rules.iter().find(|(_, rule)| same(rule)) {
            return Ok(print(id.clone(), rule.clone()));
        }
        if rules.len() >= RULES_MAX {
            let hint = "`collective login-rule remove` takes some away";
            return Err(Refused::new(409, "state", format!("there are {RULES_MAX} rules"), hint));
        }
        let id = super::users::new_id();
        let record = RuleRecord { issuer, wish, user_id, made_unix_ms: ambient::unix_ms() };
        let made = print(id.clone(), record.clone());
        *ask.answer.borrow_mut() = String::from_utf8(json(&made)).ok();
        let txn = Txn::create(&format!("login-rules/{id}"), json(&record));
        if !self.commit(ask, txn)?.is_done() {
            return Err(Refused::changed("the list of rules"));
        }
        Ok(made)
    }

    /// Takes a rule away; what it gave counts no longer.
    pub(in crate::serve) fn remove_rule(&self, ask: &Ask<'_>, id: &str) -> Result<()> {
        let none = || Refused::not_found(&format!("rule {id}"));
        if !UserToken::is_id(id) {
            return Err(none());
        }
        let entry = self.kv.get(&format!("login-rules/{id}"))?.ok_or_else(none)?;
        if let Some(project) = read::<RuleRecord>(&entry)?.wish.project {
            ask.in_project(&project);
        }
        match self.commit(ask, Txn::remove(&entry.key, entry.revision))?.is_done() {
            true => Ok(()),
            false => Err(none()),
        }
    }

    /// Takes all rules about a project away that is not there.
    pub(super) fn strip_rules(&self, project: &Name) -> Result<()> {
        for entry in self.kv.list("login-rules/")?.entries {
            if read::<RuleRecord>(&entry)?.wish.project.as_deref() == Some(project.as_str()) {
                self.kv.commit(&Txn::remove(&entry.key, entry.revision))?;
            }
        }
        Ok(())
    }
}

/// Who came, as it is written down.
fn says(identity: &Identity, rules: &[(String, RuleRecord)]) -> String {
    let rules: Vec<&String> = rules.iter().map(|(id, _)| id).collect();
    let groups: Vec<_> = identity.groups.iter().take(GROUPS_SAID_MAX).collect();
    serde_json::json!({
        "issuer": identity.issuer,
        "subject": identity.subject,
        "email": identity.email,
        "groups": groups,
        "rules": rules,
    })
    .to_string()
}

fn no_provider(error: ProviderError) -> Refused {
    let (status, kind, hint) = match &error {
        ProviderError::Silent { .. } | ProviderError::Settings(_) => {
            (503, "unavailable", "try again later; tokens that are there count meanwhile")
        }
        ProviderError::Refused(_) => {
            (401, "permission", "log in again; is the plane's client secret the provider's?")
        }
        ProviderError::Token(_) => {
            (401, "permission", "log in again; are the plane's issuer, client id and clock right?")
        }
    };
    Refused::new(status, kind, error.to_string(), hint)
}

fn print(id: String, rule: RuleRecord) -> LoginRulePrint {
    let LoginRuleWish { who, user, role, project } = rule.wish;
    let (issuer, made_unix_ms) = (rule.issuer, rule.made_unix_ms);
    LoginRulePrint { id, issuer, who, user, role, project, made_unix_ms }
}
