//! Logging in to a plane by a real provider.

mod provider;

use std::path::Path;
use std::time::Duration;

use api::{
    AuditPrint, CallerPrint, LoginClaim, LoginPrint, LoginRulePrint, LoginRuleWish, LoginWish,
    NewToken, Role, UserPrint,
};
use plane::client::{Client, ClientError};
use plane::identity::{Credentials, Secret};
use plane::login::{Attempt, Provider, Settings, redirect_uri};
use plane::serve::{Plane, Server};
use provider::{ASTRAY, Browser, CLIENT, PUBLIC, SECRET};
use serde_json::json;

const NONE: Option<&()> = None;
/// Nobody listens there: what a browser is told is enough.
const PORT: u16 = 1;

struct Serving {
    _server: Server,
    admin: Client,
    url: String,
    fingerprint: String,
}

fn serve(folder: &Path, issuer: &str, client_id: &str, secret: Option<&str>) -> Serving {
    let folder = folder.join(format!("{client_id}-{}", secret.map_or(0, str::len)));
    std::fs::create_dir(&folder).unwrap();
    let state = format!("embedded:{}", folder.join("state").display());
    let (file, secret_file) = (folder.join("token"), folder.join("secret"));
    if let Some(secret) = secret {
        std::fs::write(&secret_file, secret).unwrap();
    }
    let settings = Settings {
        issuer: issuer.to_owned(),
        client_id: client_id.to_owned(),
        groups_claim: "groups".to_owned(),
    };
    let login = Provider::new(settings, secret.map(|_| secret_file.as_path())).unwrap();
    let plane = Plane::open_with(&state, &file, Duration::from_secs(60), Some(login)).unwrap();
    let fingerprint = plane.fingerprint();
    let server = Server::start(plane, "127.0.0.1:0".parse().unwrap()).unwrap();
    let secret = Secret::parse(std::fs::read_to_string(file).unwrap().trim()).unwrap();
    let url = format!("https://{}", server.address());
    let admin = Client::new(&url, Credentials::Admin(secret)).unwrap();
    Serving { _server: server, admin, url, fingerprint }
}

impl Serving {
    fn by(&self, credentials: Credentials) -> Client {
        Client::new(&self.url, credentials).unwrap()
    }

    fn stranger(&self) -> Client {
        self.by(Credentials::Stranger { fingerprint: self.fingerprint.clone() })
    }

    /// Lets somebody log in at the provider; what is to be shown to the plane.
    fn code(&self, browser: &Browser, account: &str) -> String {
        let at: LoginPrint = self.stranger().get("/v1/login").unwrap();
        let attempt = Attempt::new();
        let sent_back = browser.log_in(&attempt.url(&at, PORT).unwrap(), account);
        let target = sent_back.strip_prefix(&format!("http://127.0.0.1:{PORT}")).unwrap();
        attempt.read(target, &at.issuer).unwrap()
    }

    fn show(&self, shown: &str, wish: &LoginWish) -> Result<NewToken, ClientError> {
        let answer =
            self.stranger().send("POST", "/v1/login", &[("Authorization", shown)], Some(wish))?;
        Ok(serde_json::from_slice(&answer.body).unwrap())
    }

    fn rule(&self, who: LoginClaim, user: Option<&str>, role: Option<(Role, &str)>) -> String {
        let wish = LoginRuleWish {
            who,
            user: user.map(str::to_owned),
            role: role.map(|(role, _)| role),
            project: role.map(|(_, project)| project.to_owned()),
        };
        let made: LoginRulePrint = self.admin.post("/v1/login-rules", &wish).unwrap();
        made.id
    }

    fn whoami(&self, token: &NewToken) -> Result<CallerPrint, ClientError> {
        self.by(Credentials::parse(&token.token).unwrap()).get("/v1/whoami")
    }

    fn audit(&self) -> Vec<api::AuditEntry> {
        self.admin.get::<AuditPrint>("/v1/audit").unwrap().entries
    }
}

fn wish() -> LoginWish {
    LoginWish { port: PORT, project: None, role: None, read_only: false, lasts_s: None }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(got: Result<T, ClientError>, status: u16, says: &str) {
    match got {
        Err(ClientError::Refused(problem)) => {
            assert_eq!(problem.status, status, "{problem:?}");
            assert!(problem.detail.contains(says), "{problem:?}");
            assert!(!problem.hint.is_empty(), "{problem:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn whoever_a_rule_is_about_logs_in_by_a_real_provider_and_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut real =
        provider::Provider::start(&[("anna", &["ops", "blue"]), ("bert", &["ops"]), ("eve", &[])]);
    real.send_back_to(&redirect_uri(PORT));
    let serving = serve(folder.path(), &real.issuer, CLIENT, Some(SECRET));
    let [anna, eve] = ["anna", "eve"].map(|name| Browser::new(folder.path(), name));

    // Nobody by default; that is written down, with who it was, and without what was shown.
    let code = serving.code(&eve, "eve");
    refused(serving.show(&code, &wish()), 403, "is nobody here");
    let log = serving.audit();
    let entry = log.last().unwrap();
    assert_eq!(
        (entry.who.as_str(), entry.on.as_str(), entry.status),
        ("a stranger", "/v1/login", 403)
    );
    assert!(entry.says.as_ref().unwrap().contains("\"subject\":\"eve\""), "{entry:?}");
    // That provider does not say that it has verified an address: a rule about it is about nobody.
    serving.rule(LoginClaim::Email("eve@example.org".into()), None, Some((Role::Admin, "default")));
    let code = serving.code(&Browser::new(folder.path(), "eve2"), "eve");
    refused(serving.show(&code, &wish()), 403, "is nobody here");

    // By a group: a user of one's own, with what the group may do.
    serving.admin.send("PUT", "/v1/projects/blue", &[], Some(&json!({}))).unwrap();
    let ops = serving.rule(LoginClaim::Group("ops".into()), None, Some((Role::User, "default")));
    serving.rule(LoginClaim::Group("blue".into()), None, Some((Role::Operator, "blue")));
    let code = serving.code(&anna, "anna");
    let token = serving.show(&code, &wish()).unwrap();
    let who = serving.whoami(&token).unwrap();
    assert!(who.user.starts_with("anna-") && who.everywhere.is_empty(), "{who:?}");
    assert_eq!(who.projects["blue"], ["see", "own", "operate"]);
    assert_eq!(who.projects["default"], ["see", "own"]);
    let lasts_ms = token.about.ends_unix_ms - token.about.made_unix_ms;
    assert_eq!(lasts_ms, 12 * 3_600_000);
    let entry = serving.audit().into_iter().next_back().unwrap();
    assert_eq!((&entry.who, entry.token.as_ref()), (&who.user, Some(&token.about.id)));
    assert!(entry.says.unwrap().contains(&ops));
    // A code counts once.
    refused(serving.show(&code, &wish()), 401, "does not take the code");
    // What it brings back again is the same user, in another browser too.
    let again = serving.code(&Browser::new(folder.path(), "anna2"), "anna");
    let narrow = LoginWish {
        project: Some("blue".to_owned()),
        read_only: true,
        lasts_s: Some(60),
        ..wish()
    };
    let narrow = serving.show(&again, &narrow).unwrap();
    let seen = serving.whoami(&narrow).unwrap();
    assert_eq!(seen.user, who.user);
    assert_eq!((seen.projects.len(), &seen.projects["blue"]), (1, &vec!["see".to_owned()]));
    assert_eq!(narrow.about.ends_unix_ms - narrow.about.made_unix_ms, 60_000);
    let long = LoginWish { lasts_s: Some(24 * 3600 + 1), ..wish() };
    refused(serving.show("Login x.y", &long), 400, "");

    // A rule that goes takes along what it gave, at once; so does a project.
    serving.admin.send("DELETE", &format!("/v1/login-rules/{ops}"), &[], NONE).unwrap();
    assert_eq!(serving.whoami(&token).unwrap().projects.len(), 1);
    serving.admin.send("DELETE", "/v1/projects/blue", &[], NONE).unwrap();
    refused(serving.whoami(&token), 403, "any user");
    serving.admin.send("PUT", "/v1/projects/blue", &[], Some(&json!({}))).unwrap();
    refused(serving.whoami(&token), 403, "any user");

    // By a subject: the user that an administrator says, with what that one may do already.
    serving.admin.send("PUT", "/v1/users/berta", &[], Some(&json!({}))).unwrap();
    let member = json!({"role": "auditor"});
    serving.admin.send("PUT", "/v1/projects/blue/members/berta", &[], Some(&member)).unwrap();
    serving.rule(LoginClaim::Subject("bert".into()), Some("berta"), None);
    let code = serving.code(&Browser::new(folder.path(), "bert2"), "bert");
    let token = serving.show(&code, &wish()).unwrap();
    let who = serving.whoami(&token).unwrap();
    assert_eq!(
        (who.user.as_str(), &who.projects["blue"][..]),
        ("berta", &["see".to_owned(), "audit".to_owned()][..])
    );
    let user: UserPrint = serving.admin.get("/v1/users/berta").unwrap();
    assert_eq!(user.login.unwrap().subject, "bert");
    // One who was removed does not come back by a rule about another one of that name.
    serving.admin.send("DELETE", "/v1/users/berta", &[], NONE).unwrap();
    serving
        .admin
        .send("PUT", "/v1/users/berta", &[], Some(&json!({"everywhere": "admin"})))
        .unwrap();
    let code = serving.code(&Browser::new(folder.path(), "bert3"), "bert");
    refused(serving.show(&code, &wish()), 403, "is nobody here");

    // And with its own verifier only. (Canaille mistakes one that it keeps for the next: so this is last.)
    let other = serving.code(&Browser::new(folder.path(), "bert4"), "bert");
    let (stolen, _) = other.rsplit_once('.').unwrap();
    let (_, verifier) = code.rsplit_once('.').unwrap();
    refused(serving.show(&format!("{stolen}.{verifier}"), &wish()), 401, "does not take the code");

    // What was shown is in no log and no state.
    let (secret, code) = (code.rsplit_once('.').unwrap().1, stolen.strip_prefix("Login ").unwrap());
    let copy = serving.admin.send("GET", "/v1/backup", &[], NONE).unwrap().body;
    let kept = plane::backup::read(&copy).unwrap();
    assert!(kept.iter().any(|(key, _)| *key == format!("tokens/{}", narrow.about.id)));
    let kept: Vec<_> =
        kept.iter().map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect();
    assert!(kept.iter().any(|value| value.contains("\"who\":\"a stranger\"")));
    for shown in [secret, code, SECRET] {
        assert!(!kept.iter().any(|value| value.contains(shown)), "{shown}");
    }
}

#[test]
fn a_login_is_for_this_plane_and_by_its_client() {
    let folder = tempfile::tempdir().unwrap();
    let mut real = provider::Provider::start(&[("anna", &["ops"])]);
    real.send_back_to(&redirect_uri(PORT));
    let log_in = |client_id: &str, secret: Option<&str>| {
        let serving = serve(folder.path(), &real.issuer, client_id, secret);
        serving.rule(LoginClaim::Group("ops".into()), None, Some((Role::User, "default")));
        let name = format!("{client_id}-{}", secret.map_or(0, str::len));
        let code = serving.code(&Browser::new(folder.path(), &name), "anna");
        serving.show(&code, &wish())
    };
    // A client without a secret, by the verifier alone.
    assert!(log_in(PUBLIC, None).unwrap().about.user.starts_with("anna-"));
    refused(log_in(ASTRAY, Some(SECRET)), 401, "it is for somebody else");
    refused(log_in(CLIENT, Some("wrong")), 401, "invalid_client");
    refused(log_in(CLIENT, None), 401, "invalid_client");

    // Another issuer than it calls itself; and one that is not there.
    let other = format!("{}/", real.issuer);
    let serving = serve(folder.path(), &other, "other", None);
    refused(serving.stranger().get::<LoginPrint>("/v1/login"), 503, "it calls itself");
    drop(real);
    let serving = serve(folder.path(), &other, "gone", None);
    refused(serving.stranger().get::<LoginPrint>("/v1/login"), 503, "does not answer");
}
