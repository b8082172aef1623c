//! `user`, `project`, `token`, `whoami`: who may do what where a plane decides.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use api::{
    CallerPrint, MemberWish, ProjectPrint, Quota, Role, TokenPrint, TokenWish, UserPrint, UserWish,
};
use host::Failure;
use model::format_bytes;
use plane::client::AnyPlane;
use serde::Serialize;

use super::planes::{client, not_answered};
use super::{new_name, not_written};
use crate::cli::{At, Global, NewToken, Projects, Role as RoleWord, Tokens, Users};
use crate::print;

pub fn role(word: RoleWord) -> Role {
    match word {
        RoleWord::Admin => Role::Admin,
        RoleWord::Operator => Role::Operator,
        RoleWord::User => Role::User,
        RoleWord::Auditor => Role::Auditor,
    }
}

pub fn word(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Operator => "operator",
        Role::User => "user",
        Role::Auditor => "auditor",
    }
}

/// Changes something.
pub fn send(
    client: &AnyPlane,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    document: Option<&impl Serialize>,
) -> Result<(), Failure> {
    client.change(method, path, headers, document).map(drop).map_err(not_answered)
}

pub const NONE: Option<&()> = None;

/// Says that something is done, and shows it.
fn shown<T: Serialize + serde::de::DeserializeOwned>(
    global: &Global,
    client: &AnyPlane,
    path: &str,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let document: T = client.get(path).map_err(not_answered)?;
    print::result(global, &document, text);
    Ok(())
}

pub fn users(global: &Global, verb: &Users) -> Result<(), Failure> {
    match verb {
        Users::Add { name, role: word, at } => {
            let name = new_name(name)?;
            let client = client(global, at)?;
            let wish = UserWish { everywhere: word.map(role) };
            let path = format!("/v1/users/{name}");
            send(&client, "PUT", &path, &[("If-None-Match", "*")], Some(&wish))?;
            shown::<UserPrint>(global, &client, &path, || {
                format!("{name} is a user; `collective token create --user {name}` lets {name} in")
            })
        }
        Users::List(at) => {
            let users: Vec<UserPrint> =
                client(global, at)?.get("/v1/users").map_err(not_answered)?;
            print::result(global, &users, || {
                if global.quiet {
                    return users
                        .iter()
                        .map(|user| user.name.as_str())
                        .collect::<Vec<_>>()
                        .join("\n");
                }
                let rows = users.iter().map(|user| {
                    let everywhere = user.everywhere.map_or("", word).to_owned();
                    vec![user.name.clone(), everywhere, by_name(&user.projects)]
                });
                print::table(&["NAME", "EVERYWHERE", "PROJECTS"], rows)
            });
            Ok(())
        }
        Users::Remove { name, at } => {
            let name = super::name(name)?;
            let client = client(global, at)?;
            let path = format!("/v1/users/{name}");
            let user: UserPrint = client.get(&path).map_err(not_answered)?;
            send(&client, "DELETE", &path, &[], NONE)?;
            print::result(global, &user, || format!("{name} is removed"));
            Ok(())
        }
    }
}

fn by_name<'a>(roles: impl IntoIterator<Item = (&'a String, &'a Role)>) -> String {
    let words = roles.into_iter().map(|(name, role)| format!("{name}={}", word(*role)));
    words.collect::<Vec<_>>().join(" ")
}

pub fn projects(global: &Global, verb: &Projects) -> Result<(), Failure> {
    match verb {
        Projects::Add(one) => {
            let name = new_name(&one.name)?;
            let client = client(global, &one.at)?;
            let path = format!("/v1/projects/{name}");
            send(&client, "PUT", &path, &[], NONE)?;
            shown::<ProjectPrint>(global, &client, &path, || {
                format!(
                    "{name} is a project; `collective project grant {name} USER ROLE` lets somebody in"
                )
            })
        }
        Projects::List(at) => {
            let projects: Vec<ProjectPrint> =
                client(global, at)?.get("/v1/projects").map_err(not_answered)?;
            print::result(global, &projects, || {
                if global.quiet {
                    return projects.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join("\n");
                }
                let rows = projects.iter().map(|project| {
                    let members = by_name(&project.members);
                    vec![project.name.clone(), project.instances.to_string(), members]
                });
                print::table(&["NAME", "INSTANCES", "MEMBERS"], rows)
            });
            Ok(())
        }
        Projects::Remove(one) => {
            let name = super::name(&one.name)?;
            let client = client(global, &one.at)?;
            let path = format!("/v1/projects/{name}");
            let project: ProjectPrint = client.get(&path).map_err(not_answered)?;
            send(&client, "DELETE", &path, &[], NONE)?;
            print::result(global, &project, || format!("{name} is removed"));
            Ok(())
        }
        Projects::Quota { name, instances, cpus, memory, stored, unlimited, at } => {
            let bytes = |text: &Option<String>| {
                let bytes = text.as_deref().map(model::parse_bytes).transpose();
                bytes.map_err(|error| Failure::new("usage", error.to_string(), "for example 8GiB"))
            };
            let (memory_bytes, stored_bytes) = (bytes(memory)?, bytes(stored)?);
            let new = Quota { instances: *instances, cpus: *cpus, memory_bytes, stored_bytes };
            let said = *unlimited || new != Quota::default();
            quota(global, &client(global, at)?, &super::name(name)?, said.then_some(new))
        }
        Projects::Grant { project, user, role: as_role, at } => {
            member(global, at, (project, user), Some(role(*as_role)))
        }
        Projects::Withdraw { project, user, at } => member(global, at, (project, user), None),
    }
}

fn quota(
    global: &Global,
    client: &AnyPlane,
    project: &model::Name,
    new: Option<Quota>,
) -> Result<(), Failure> {
    let path = format!("/v1/projects/{project}");
    if let Some(new) = &new {
        send(client, "PUT", &format!("{path}/quota"), &[], Some(new))?;
    }
    let shown: ProjectPrint = client.get(&path).map_err(not_answered)?;
    print::result(global, &shown, || {
        let count = |number: u64| number.to_string();
        let of = |used: String, most: Option<String>| match most {
            Some(most) => format!("{used} of {most}"),
            None => format!("{used}, no bound"),
        };
        let quota = &shown.quota;
        let memory = quota.memory_bytes.map(format_bytes);
        let stored = quota.stored_bytes.map(format_bytes);
        format!(
            "instances  {}\ncpus       {}\nmemory     {}\nstored     {}",
            of(count(shown.instances), quota.instances.map(count)),
            of(count(shown.cpus), quota.cpus.map(count)),
            of(format_bytes(shown.memory_bytes), memory),
            of(format_bytes(shown.stored_bytes), stored),
        )
    });
    Ok(())
}

fn member(
    global: &Global,
    at: &At,
    (project, user): (&str, &str),
    role: Option<Role>,
) -> Result<(), Failure> {
    let (project, user) = (super::name(project)?, super::name(user)?);
    let client = client(global, at)?;
    let path = format!("/v1/projects/{project}/members/{user}");
    match role {
        Some(role) => send(&client, "PUT", &path, &[], Some(&MemberWish { role }))?,
        None => send(&client, "DELETE", &path, &[], NONE)?,
    }
    shown::<ProjectPrint>(global, &client, &format!("/v1/projects/{project}"), || match role {
        Some(role) => format!("{user} is {} in {project}", word(role)),
        None => format!("{user} has no role in {project}"),
    })
}

pub fn tokens(global: &Global, verb: &Tokens) -> Result<(), Failure> {
    match verb {
        Tokens::Create(new) => create(global, new),
        Tokens::List(at) => {
            let tokens: Vec<TokenPrint> =
                client(global, at)?.get("/v1/tokens").map_err(not_answered)?;
            print::result(global, &tokens, || {
                if global.quiet {
                    return tokens.iter().map(|t| t.id.as_str()).collect::<Vec<_>>().join("\n");
                }
                let rows = tokens.iter().map(|token| {
                    vec![token.id.clone(), token.user.clone(), scope(token), left(token)]
                });
                print::table(&["ID", "USER", "SCOPE", "ENDS"], rows)
            });
            Ok(())
        }
        Tokens::Revoke { id, at } => {
            let client = client(global, at)?;
            send(&client, "DELETE", &format!("/v1/tokens/{id}"), &[], NONE)?;
            let document = serde_json::json!({"id": id});
            print::result(global, &document, || format!("token {id} counts no longer"));
            Ok(())
        }
    }
}

fn create(global: &Global, new: &NewToken) -> Result<(), Failure> {
    let lasts_s = seconds(&new.expires)?;
    let wish = TokenWish {
        user: new.user.clone(),
        project: new.project.clone(),
        role: new.role.map(role),
        read_only: new.read_only,
        lasts_s: Some(lasts_s),
    };
    let client = client(global, &new.at)?;
    // The file first: a token that nobody could keep would only lie about.
    let file =
        new.output.as_deref().map(|path| Ok::<_, Failure>((path, file(path)?))).transpose()?;
    let made = make(&client, &wish).inspect_err(|_| {
        if let Some((path, _)) = &file {
            let _ = std::fs::remove_file(path);
        }
    })?;
    match file {
        Some((path, mut file)) => {
            let written = writeln!(file, "{}", made.token).and_then(|()| file.sync_all());
            written.map_err(|error| not_written(path, error))?;
            print::result(global, &made.about, || {
                format!("token {} of {} is in {}", made.about.id, made.about.user, path.display())
            });
        }
        None => print::result(global, &made, || made.token.clone()),
    }
    Ok(())
}

/// Makes a token. It is said once: when that answer was lost, nobody has it; it is taken back, and another
/// one is made.
fn make(client: &AnyPlane, wish: &TokenWish) -> Result<api::NewToken, Failure> {
    for _ in 0..MAKES_MAX {
        let made: api::NewToken = client.make("/v1/tokens", wish).map_err(not_answered)?;
        if !made.token.is_empty() {
            return Ok(made);
        }
        send(client, "DELETE", &format!("/v1/tokens/{}", made.about.id), &[], NONE)?;
    }
    let message = "answers of the plane are lost again and again";
    Err(Failure::new("unavailable", message, "try it again; no token was left behind"))
}

/// How often a token is made that nobody has heard of.
const MAKES_MAX: usize = 3;

/// A file that its owner reads, and that was not there.
fn file(path: &Path) -> Result<std::fs::File, Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.map_err(|error| not_written(path, error))
}

/// `12h`, `30d` as seconds.
pub fn seconds(text: &str) -> Result<u64, Failure> {
    let wrong =
        || Failure::new("usage", format!("{text:?} is no time"), "for example --expires 30d");
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let each = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    count.checked_mul(each).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

fn scope(token: &TokenPrint) -> String {
    let project = token.project.as_ref().map(|project| format!("project {project}"));
    let role = token.role.map(|role| word(role).to_owned());
    let reads = token.read_only.then(|| "read-only".to_owned());
    [project, role, reads].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn left(token: &TokenPrint) -> String {
    let left_s = token.ends_unix_ms.saturating_sub(ambient::unix_ms()) / 1000;
    match left_s {
        0 => "has ended".to_owned(),
        1..3600 => format!("in {} min", left_s.div_ceil(60)),
        3600..172_800 => format!("in {} h", left_s / 3600),
        _ => format!("in {} days", left_s / 86_400),
    }
}

pub fn whoami(global: &Global, at: &At) -> Result<(), Failure> {
    let caller: CallerPrint = client(global, at)?.get("/v1/whoami").map_err(not_answered)?;
    print::result(global, &caller, || {
        let mut text = caller.user.clone();
        if !caller.everywhere.is_empty() {
            text.push_str(&format!("\neverywhere: {}", caller.everywhere.join(", ")));
        }
        for (project, rights) in &caller.projects {
            text.push_str(&format!("\nin {project}: {}", rights.join(", ")));
        }
        text
    });
    Ok(())
}
