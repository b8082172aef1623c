//! All routes by all kinds of callers: who is let is agreed on here, and every route has its line.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{InstanceWish, LoginRulePrint, NewToken, PlacedPrint, Role, TokenWish};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::HostId;
use serde::Serialize;

use super::all;
use crate::identity::{Credentials, Peer};
use crate::login::{Provider, Settings};
use crate::serve::Plane;
use crate::serve::ask::Request;

/// Who is let: `A` administrator with the plane's own token; everywhere: `a`dmin, `o`perator, `u`ser,
/// au`d`itor; in the instance's project: `1` admin, `2` operator, `3` its owner, `4` another user,
/// `5` auditor, `6` admin with a token that only reads; `x` an admin of another project; `r` a user
/// without a role; `h` the host that it is about, `g` another host; `j` who has a join token;
/// `-` nobody at all.
const LETS: &[(&str, &str, &str)] = &[
    ("GET", "/v1/hosts", "Aaoud123456x"),
    ("GET", "/v1/hosts/{id}", "Aaoud123456x"),
    ("PATCH", "/v1/hosts/{id}", "Aao"),
    ("DELETE", "/v1/hosts/{id}", "Aa"),
    ("POST", "/v1/hosts/{id}/certificate", "Ahj"),
    ("PUT", "/v1/hosts/{id}/beat", "Ah"),
    ("GET", "/v1/hosts/{id}/peers", "Ah"),
    ("POST", "/v1/hosts/{id}/usage", "Ah"),
    ("POST", "/v1/hosts/{id}/orders", "Ah"),
    ("POST", "/v1/hosts/{id}/done", "Ah"),
    ("GET", "/v1/instances", "Aaoud123456x"),
    ("GET", "/v1/instances/{name}", "Aaoud123456"),
    ("PUT", "/v1/instances/{name}", "Aao123"),
    ("PATCH", "/v1/instances/{name}", "Aao123"),
    ("DELETE", "/v1/instances/{name}", "Aao123"),
    ("GET", "/v1/operations", "Aaoud123456x"),
    ("GET", "/v1/operations/{id}", "Aaoud123456"),
    ("POST", "/v1/operations/{id}/cancel", "Aao123"),
    ("GET", "/v1/plan", "Aaoud"),
    ("GET", "/v1/usage", "Aaoud123456x"),
    ("GET", "/v1/whoami", "Aaoud123456x"),
    ("GET", "/v1/users", "Aad"),
    ("GET", "/v1/users/{name}", "Aad"),
    ("PUT", "/v1/users/{name}", "Aa"),
    ("DELETE", "/v1/users/{name}", "Aa"),
    ("GET", "/v1/projects", "Aaoud123456x"),
    ("GET", "/v1/projects/{project}", "Aaoud123456"),
    ("PUT", "/v1/projects/{project}", "Aa"),
    ("DELETE", "/v1/projects/{project}", "Aa"),
    ("PUT", "/v1/projects/{project}/quota", "Aa"),
    ("PUT", "/v1/projects/{project}/members/{user}", "Aa1"),
    ("DELETE", "/v1/projects/{project}/members/{user}", "Aa1"),
    ("GET", "/v1/audit", "Aad"),
    ("GET", "/v1/projects/{project}/audit", "Aad156"),
    ("GET", "/v1/tokens", "Aaoud123456x"),
    // Of somebody else's.
    ("POST", "/v1/tokens", "Aa"),
    ("DELETE", "/v1/tokens/{id}", "Aa"),
    // The provider of this plane does not answer, and a login without a code is none.
    ("GET", "/v1/login", "Aaoud123456xrhgj-"),
    ("POST", "/v1/login", "Aaoud123456xrhgj-"),
    ("GET", "/v1/login-rules", "Aad"),
    ("POST", "/v1/login-rules", "Aa"),
    ("DELETE", "/v1/login-rules/{id}", "Aa"),
    ("GET", "/v1/backup", "Aa"),
    ("GET", "/v1/events", "Aaoud123456x"),
    ("GET", "/v1/openapi.json", "Aaoud123456xrhgj-"),
    ("GET", "/v1/authority.pem", "Aaoud123456xrhgj-"),
    ("GET", "/metrics", "Aaoud"),
];

const CALLERS: &str = "Aaoud123456xrhgj-";

struct Walk {
    plane: Arc<Plane>,
    /// What each shows.
    shows: BTreeMap<char, String>,
    /// A token of somebody who is none of the callers.
    other: String,
    /// A rule of who may log in.
    rule: String,
}

fn host(n: u8) -> HostId {
    HostId::from_bytes([n; 16])
}

impl Walk {
    fn request(&self, who: char, method: &str, path: &str, body: &impl Serialize) -> Request {
        let peer = match who {
            'h' => Some(Peer { host: host(1), issued_unix_ms: u64::MAX }),
            'g' => Some(Peer { host: host(2), issued_unix_ms: u64::MAX }),
            _ => None,
        };
        let bearer = self.shows.get(&who).map(|token| format!("Bearer {token}"));
        let headers = bearer.into_iter().map(|bearer| ("authorization".to_owned(), bearer));
        Request {
            id: "1".to_owned(),
            query: String::new(),
            method: method.to_owned(),
            path: path.to_owned(),
            headers: headers.collect(),
            peer,
            body: serde_json::to_vec(body).unwrap(),
            from: None,
        }
    }

    #[track_caller]
    fn done(&self, who: char, method: &str, path: &str, body: &impl Serialize) -> Vec<u8> {
        let reply = self.plane.answer(&self.request(who, method, path, body));
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        assert!(reply.status < 300, "{method} {path}: {} {text}", reply.status);
        reply.body
    }

    /// A user with a role in a project or everywhere, and a token of theirs.
    fn add(&mut self, who: char, role: Option<Role>, project: Option<&str>, read_only: bool) {
        let user = format!("user-{who}").to_lowercase() + if who.is_uppercase() { "2" } else { "" };
        let everywhere = role.filter(|_| project.is_none());
        let wish = serde_json::json!({"everywhere": everywhere});
        self.done('A', "PUT", &format!("/v1/users/{user}"), &wish);
        if let (Some(project), Some(role)) = (project, role) {
            let path = format!("/v1/projects/{project}/members/{user}");
            self.done('A', "PUT", &path, &serde_json::json!({"role": role}));
        }
        let wish = TokenWish { user: Some(user), read_only, ..TokenWish::default() };
        let made = self.done('A', "POST", "/v1/tokens", &wish);
        let made: NewToken = serde_json::from_slice(&made).unwrap();
        let Ok(Credentials::User { bearer, .. }) = Credentials::parse(&made.token) else {
            panic!("no token of a user's")
        };
        if who == 'z' {
            self.other = made.about.id;
        }
        self.shows.insert(who, bearer);
    }

    /// What is there before each request.
    fn new(folder: &std::path::Path) -> Self {
        let state = format!("embedded:{}", folder.join("state").display());
        let settings = Settings {
            issuer: "http://127.0.0.1:9".to_owned(),
            client_id: "plane".to_owned(),
            groups_claim: "groups".to_owned(),
        };
        let provider = Provider::new(settings, None).unwrap();
        let (file, lease) = (folder.join("token"), Duration::from_secs(3600));
        let plane = Plane::open_with(&state, &file, lease, Some(provider)).unwrap();
        let shows = [
            ('A', plane.secret.bearer()),
            ('j', plane.secret.join_bearer()),
            ('-', format!("user.{}.{}", "ab".repeat(8), "cd".repeat(32))),
        ];
        let mut walk =
            Self { plane, shows: shows.into(), other: String::new(), rule: String::new() };
        for project in ["blue", "red"] {
            walk.done('A', "PUT", &format!("/v1/projects/{project}"), &());
        }
        let roles = [Role::Admin, Role::Operator, Role::User, Role::Auditor];
        for (who, role) in "aoud".chars().zip(roles) {
            walk.add(who, Some(role), None, false);
        }
        let roles =
            [Role::Admin, Role::Operator, Role::User, Role::User, Role::Auditor, Role::Admin];
        for (who, role) in "123456".chars().zip(roles) {
            walk.add(who, Some(role), Some("blue"), who == '6');
        }
        walk.add('x', Some(Role::Admin), Some("red"), false);
        walk.add('r', None, None, false);
        walk.restore();
        walk
    }

    /// The id of what was asked of the instance last.
    fn operation(&self) -> String {
        let placed = self.done('A', "GET", "/v1/instances/web", &());
        let placed: PlacedPrint = serde_json::from_slice(&placed).unwrap();
        placed.operation.unwrap().id
    }

    /// Puts there what a request may have removed.
    fn restore(&mut self) {
        self.add('z', Some(Role::User), Some("blue"), false);
        let rule = self.done('A', "POST", "/v1/login-rules", &rule());
        self.rule = serde_json::from_slice::<LoginRulePrint>(&rule).unwrap().id;
        self.done('3', "PUT", "/v1/instances/web", &wish());
        self.done('A', "PUT", &format!("/v1/hosts/{}/beat", host(1)), &report());
        let cordon = serde_json::json!({"state": "cordoned"});
        self.done('A', "PATCH", &format!("/v1/hosts/{}", host(1)), &cordon);
    }
}

fn wish() -> InstanceWish {
    InstanceWish::new("ab".repeat(32), 1, 1 << 30)
}

fn rule() -> serde_json::Value {
    serde_json::json!({"who": {"group": "ops"}, "role": "user", "project": "blue"})
}

fn report() -> serde_json::Value {
    serde_json::json!({"name": "h", "cpus": 4, "memory_bytes": 1 << 30})
}

/// A body that fits each route.
fn body(method: &str, path: &str) -> serde_json::Value {
    match (method, path) {
        ("PATCH", "/v1/hosts/{id}") => serde_json::json!({"state": "cordoned"}),
        ("POST", "/v1/hosts/{id}/certificate") => {
            let (_, public) = crate::identity::new_key().unwrap();
            serde_json::json!({"public_key": STANDARD.encode(public)})
        }
        ("PUT", "/v1/hosts/{id}/beat") => report(),
        ("POST", "/v1/hosts/{id}/orders") => serde_json::json!({"known": []}),
        ("POST", "/v1/hosts/{id}/done") => {
            serde_json::json!({"order": "1", "name": "web", "act": "look", "end": "done"})
        }
        ("PUT", "/v1/instances/{name}") => serde_json::to_value(wish()).unwrap(),
        ("PUT", "/v1/projects/{project}/members/{user}") => serde_json::json!({"role": "user"}),
        ("POST", "/v1/login") => serde_json::json!({"port": 1}),
        ("POST", "/v1/login-rules") => rule(),
        ("POST", "/v1/tokens") => serde_json::json!({"user": "user-z"}),
        _ => serde_json::json!({}),
    }
}

#[test]
fn every_route_lets_whom_it_says_and_nobody_else() {
    let mut listed: Vec<_> = LETS.iter().map(|(method, path, _)| (*method, *path)).collect();
    let mut there: Vec<_> = all().map(|route| (route.method, route.path)).collect();
    listed.sort();
    there.sort();
    assert_eq!(listed, there, "every route has its line in the table, once");
    let folder = tempfile::tempdir().unwrap();
    let mut walk = Walk::new(folder.path());
    let mut asked = 0;
    for (method, pattern, lets) in LETS {
        for who in CALLERS.chars() {
            let path = pattern
                .replace("/hosts/{id}", &format!("/hosts/{}", host(1)))
                .replace("/operations/{id}", &format!("/operations/{}", walk.operation()))
                .replace("/login-rules/{id}", &format!("/login-rules/{}", walk.rule))
                .replace("/tokens/{id}", &format!("/tokens/{}", walk.other))
                .replace("{project}", "blue")
                .replace("{user}", "user-z")
                .replace("/users/{name}", "/users/user-z")
                .replace("{name}", "web");
            let request = walk.request(who, method, &path, &body(method, pattern));
            let got = walk.plane.answer(&request).status;
            let case = format!("{method} {pattern} by {who}: {got}");
            match (lets.contains(who), who) {
                // There is a project of that name, and it has an instance.
                (true, _) if *pattern == "/v1/projects/{project}" && *method != "GET" => {
                    assert_eq!(got, 409, "{case}");
                }
                (true, _) if *pattern == "/v1/login" && *method == "GET" => {
                    assert_eq!(got, 503, "{case}");
                }
                (true, _) if *pattern == "/v1/login" => {
                    assert!([400, 429].contains(&got), "{case}");
                }
                // That host has joined already.
                (true, 'j') if *method == "POST" => assert_eq!(got, 409, "{case}"),
                (true, _) => assert!(got < 300, "{case}"),
                (false, '-') => assert_eq!(got, 401, "{case}"),
                (false, _) => assert_eq!(got, 403, "{case}"),
            }
            if (*method == "DELETE" || pattern.ends_with("/cancel")) && got < 300 {
                walk.restore();
            }
            asked += 1;
        }
    }
    assert_eq!(asked, LETS.len() * CALLERS.len());
}
