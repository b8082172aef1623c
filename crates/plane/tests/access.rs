//! Users, projects and tokens, behind the socket.

use std::path::Path;
use std::time::Duration;

use api::{
    BeatReply, CallerPrint, HeadSeen, HostReport, InstanceChange, InstanceWish, MeterReply,
    MeterReport, NewToken, OrderAct, OrderEnd, OrderPrint, OrderReport, OrdersKnown, PlacedPrint,
    ProjectPrint, Role, RunPrint, StateWish, TokenPrint, TokenWish, UsagePrint,
};
use plane::client::{Client, ClientError};
use plane::identity::{Credentials, Secret};
use plane::serve::{Bounds, Plane, Server};
use serde::Serialize;
use serde_json::json;

const NONE: Option<&()> = None;

struct Serving {
    server: Server,
    admin: Client,
}

fn serve(folder: &Path) -> Serving {
    serve_within(folder, Bounds::default())
}

fn serve_within(folder: &Path, bounds: Bounds) -> Serving {
    let state = format!("embedded:{}", folder.join("state").display());
    let file = folder.join("token");
    let plane = Plane::open(&state, &file, Duration::from_secs(60)).unwrap();
    let server = Server::start_within(plane, "127.0.0.1:0".parse().unwrap(), bounds).unwrap();
    let secret = Secret::parse(std::fs::read_to_string(file).unwrap().trim()).unwrap();
    let url = format!("https://{}", server.address());
    let admin = Client::new(&url, Credentials::Admin(secret)).unwrap();
    Serving { server, admin }
}

impl Serving {
    fn by(&self, token: &str) -> Client {
        let url = format!("https://{}", self.server.address());
        Client::new(&url, Credentials::parse(token).unwrap()).unwrap()
    }

    fn send(&self, method: &str, path: &str, document: &impl Serialize) {
        self.admin.send(method, path, &[], Some(document)).unwrap();
    }

    fn add(&self, user: &str, roles: &[(&str, Role)]) {
        self.send("PUT", &format!("/v1/users/{user}"), &json!({}));
        for (project, role) in roles {
            let path = format!("/v1/projects/{project}/members/{user}");
            self.send("PUT", &path, &json!({"role": role}));
        }
    }

    fn token(&self, user: &str) -> NewToken {
        let wish = TokenWish { user: Some(user.to_owned()), ..TokenWish::default() };
        self.admin.post("/v1/tokens", &wish).unwrap()
    }
}

fn wish() -> InstanceWish {
    InstanceWish::new("ab".repeat(32), 2, 1 << 30)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(got: Result<T, ClientError>, status: u16) {
    match got {
        Err(ClientError::Refused(problem)) => {
            assert_eq!(problem.status, status, "{problem:?}");
            assert!(!problem.hint.is_empty(), "{problem:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_ends_by_time_by_being_taken_back_and_with_its_user() {
    let folder = tempfile::tempdir().unwrap();
    let serving = serve(folder.path());
    serving.add("anna", &[("default", Role::User)]);
    let whoami = |client: &Client| client.get::<CallerPrint>("/v1/whoami");
    let short =
        TokenWish { user: Some("anna".to_owned()), lasts_s: Some(1), ..TokenWish::default() };
    let short: NewToken = serving.admin.post("/v1/tokens", &short).unwrap();
    let (short, first, second) =
        (serving.by(&short.token), serving.token("anna"), serving.token("anna"));
    assert_eq!(whoami(&short).unwrap().user, "anna");
    let (one, two) = (serving.by(&first.token), serving.by(&second.token));
    // What a user makes lasts no longer than what it was made by.
    let child: NewToken =
        one.post("/v1/tokens", &json!({"read_only": true, "lasts_s": 300 * 86_400})).unwrap();
    assert_eq!(child.about.ends_unix_ms, first.about.ends_unix_ms);
    let child = serving.by(&child.token);
    refused(child.post::<NewToken>("/v1/tokens", &json!({})), 403);
    let path = format!("/v1/tokens/{}", second.about.id);
    refused(child.send("DELETE", &path, &[], NONE), 403);
    assert_eq!(child.get::<Vec<TokenPrint>>("/v1/tokens").unwrap().len(), 4);

    one.send("DELETE", &path, &[], NONE).unwrap();
    refused(whoami(&two), 401);
    std::thread::sleep(Duration::from_millis(1100));
    refused(whoami(&short), 401);
    assert_eq!(whoami(&one).unwrap().user, "anna");

    // Another one of that name is another one.
    serving.admin.send("DELETE", "/v1/users/anna", &[], NONE).unwrap();
    refused(whoami(&one), 401);
    serving.add("anna", &[("default", Role::User)]);
    refused(whoami(&one), 401);
    assert_eq!(serving.admin.get::<Vec<TokenPrint>>("/v1/tokens").unwrap(), []);
    // The right id with a wrong secret is nobody.
    let own = serving.token("anna").token;
    let parts: Vec<_> = own.split('.').collect();
    let forged = format!("user.{}.{}.{}", parts[1], "ab".repeat(32), parts[3]);
    refused(whoami(&serving.by(&forged)), 401);
}

#[test]
fn an_instance_belongs_to_a_project_and_an_owner() {
    let folder = tempfile::tempdir().unwrap();
    let serving = serve(folder.path());
    for project in ["blue", "red"] {
        serving.send("PUT", &format!("/v1/projects/{project}"), &json!({}));
    }
    serving.add("anna", &[("blue", Role::User)]);
    serving.add("bert", &[("blue", Role::User), ("red", Role::User)]);
    let [anna, bert] = ["anna", "bert"].map(|user| serving.by(&serving.token(user).token));
    anna.send("PUT", "/v1/instances/web", &[], Some(&wish())).unwrap();
    let placed: PlacedPrint = bert.get("/v1/instances/web").unwrap();
    assert_eq!((placed.project.as_str(), placed.owner.as_str()), ("blue", "anna"));

    // Bert sees it and does not change it; where his own belongs he has to say.
    let stop = InstanceChange { state: Some(StateWish::Stopped), ..Default::default() };
    refused(bert.send("PATCH", "/v1/instances/web", &[], Some(&stop)), 403);
    refused(bert.send("PUT", "/v1/instances/web", &[], Some(&wish())), 403);
    refused(bert.send("DELETE", "/v1/instances/web", &[], NONE), 403);
    refused(bert.send("PUT", "/v1/instances/db", &[], Some(&wish())), 400);
    let in_red = InstanceWish { project: Some("red".to_owned()), ..wish() };
    refused(anna.send("PUT", "/v1/instances/db", &[], Some(&in_red)), 403);
    bert.send("PUT", "/v1/instances/db", &[], Some(&in_red)).unwrap();
    refused(anna.get::<PlacedPrint>("/v1/instances/db"), 403);
    let names = |client: &Client| -> Vec<String> {
        let seen: Vec<PlacedPrint> = client.get("/v1/instances").unwrap();
        seen.into_iter().map(|placed| placed.name).collect()
    };
    assert_eq!((names(&anna), names(&bert)), (vec!["web".into()], vec!["db".into(), "web".into()]));
    // It does not go elsewhere, whoever says so.
    refused(serving.admin.send("PUT", "/v1/instances/web", &[], Some(&in_red)), 409);
    serving.send("PUT", "/v1/instances/web", &wish());
    let placed: PlacedPrint = anna.get("/v1/instances/web").unwrap();
    assert_eq!((placed.project.as_str(), placed.owner.as_str()), ("blue", "anna"));

    // A project with instances stays; roles in one that is removed do not come back with its name.
    refused(serving.admin.send("DELETE", "/v1/projects/red", &[], NONE), 409);
    bert.send("DELETE", "/v1/instances/db", &[], NONE).unwrap();
    serving.admin.send("DELETE", "/v1/projects/red", &[], NONE).unwrap();
    serving.send("PUT", "/v1/projects/red", &json!({}));
    refused(bert.get::<ProjectPrint>("/v1/projects/red"), 403);
}

#[test]
fn strangers_that_come_in_numbers_keep_nobody_else_out() {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpSocket;
    let folder = tempfile::tempdir().unwrap();
    let time = Duration::from_secs(2);
    let bounds = Bounds { known: 4, strangers: 16, of_one_peer: 5, time };
    let serving = serve_within(folder.path(), bounds);
    let hosts = |client: &Client| client.get::<Vec<api::HostPrint>>("/v1/hosts");
    let there = serving.by(&serving_token(&serving));
    hosts(&there).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let begun = std::time::Instant::now();
    let mut flood: Vec<_> = (0..40)
        .map(|_| {
            runtime.block_on(async {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
                socket.connect(serving.server.address()).await.unwrap()
            })
        })
        .collect();
    // Whether each is closed within a time.
    let mut closed = |within: Duration| -> usize {
        let ended = flood.iter_mut().map(|socket| {
            runtime.block_on(async { tokio::time::timeout(within, socket.read(&mut [0])).await })
        });
        ended.filter(|ended| matches!(ended, Ok(Ok(0) | Err(_)))).count()
    };
    assert_eq!(closed(Duration::from_millis(20)), 35, "all but five of one peer");
    // Who was there is served, and who comes now.
    hosts(&there).unwrap();
    hosts(&serving.by(&serving_token(&serving))).unwrap();
    assert!(begun.elapsed() < time, "as many strangers as may be there were there");
    // A stranger that says nothing is let go when its time is over.
    assert_eq!(closed(2 * time), 40);
    assert!(begun.elapsed() < 3 * time);
    hosts(&there).unwrap();
}

fn serving_token(serving: &Serving) -> String {
    serving.add("anna", &[("default", Role::User)]);
    serving.token("anna").token
}

#[test]
fn a_request_that_is_sent_twice_is_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let serving = serve(folder.path());
    let admin = &serving.admin;
    let key = |key: &'static str| [("Idempotency-Key", key), ("If-None-Match", "*")];
    let put = |path: &str, key: &[(&str, &str)], wish: &InstanceWish| {
        admin.send("PUT", path, key, Some(wish)).map(|answer| (answer.status, answer.etag))
    };
    let first = put("/v1/instances/web", &key("1"), &wish()).unwrap();
    // Without the key it is there already; with it that was this request's own doing.
    refused(put("/v1/instances/web", &key("1")[1..], &wish()), 412);
    assert_eq!(put("/v1/instances/web", &key("1"), &wish()).unwrap(), first);
    let other = InstanceWish { cpus: 3, ..wish() };
    refused(put("/v1/instances/web", &key("1"), &other), 422);
    refused(put("/v1/instances/db", &key("1"), &wish()), 422);
    refused(put("/v1/instances/db", &key(""), &wish()), 400);
    // What was refused may be tried again, and somebody else's key is another one.
    let wrong = InstanceWish { needs: vec!["magic".to_owned()], ..wish() };
    refused(put("/v1/instances/db", &key("2"), &wrong), 400);
    put("/v1/instances/db", &key("2"), &wish()).unwrap();
    let anna = serving.by(&serving_token(&serving));
    anna.send("PUT", "/v1/instances/mine", &key("1"), Some(&wish())).unwrap();

    // All at once, to be done once: a token is made once and said once.
    let made: Vec<NewToken> = std::thread::scope(|scope| {
        let ask = || {
            let wish = TokenWish { user: Some("anna".to_owned()), ..TokenWish::default() };
            let key = [("Idempotency-Key", "token")];
            let answer = serving.by(&serving_admin(folder.path())).send(
                "POST",
                "/v1/tokens",
                &key,
                Some(&wish),
            );
            serde_json::from_slice(&answer.unwrap().body).unwrap()
        };
        let asks: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        asks.into_iter().map(|ask| ask.join().unwrap()).collect()
    });
    assert!(made.iter().all(|token| token.about == made[0].about));
    assert_eq!(made.iter().filter(|token| !token.token.is_empty()).count(), 1);
    assert_eq!(admin.get::<Vec<TokenPrint>>("/v1/tokens").unwrap().len(), 2);
    let log: api::AuditPrint = admin.get("/v1/audit").unwrap();
    let made = log.entries.iter().filter(|entry| entry.on == "/v1/tokens").count();
    assert_eq!(made, 2, "and written down once");
}

fn serving_admin(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("token")).unwrap()
}

#[test]
fn what_happens_is_said_to_whom_it_concerns_and_nothing_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let serving = serve(folder.path());
    serving.send("PUT", "/v1/projects/blue", &json!({}));
    serving.add("anna", &[("blue", Role::User)]);
    let token = serving.token("anna");
    let anna = serving.by(&token.token);
    // What a caller hears up to an event of this name, and its id.
    let hear = |client: &Client, after: Option<u64>, last: &str| {
        let mut seen = Vec::new();
        let mut at = 0;
        let heard = client.events(after, |id, document| {
            let Some(document) = document else { return true };
            let event: api::EventPrint = serde_json::from_str(document).unwrap();
            if event.event == "operation" {
                return true;
            }
            at = id;
            let ends = event.name == last;
            seen.push((event.name, event.removed));
            !ends
        });
        heard.unwrap();
        (seen, at)
    };
    let now = || {
        let mut begins = 0;
        let here = anna.events(None, |id, document| {
            begins = id;
            document.is_some()
        });
        here.unwrap();
        begins
    };
    let begins = now();
    let put = |name: &str, project: &str| {
        let wish = InstanceWish { project: Some(project.to_owned()), ..wish() };
        serving.send("PUT", &format!("/v1/instances/{name}"), &wish);
    };
    for (name, project) in [("one", "blue"), ("hidden", "default"), ("two", "blue")] {
        put(name, project);
    }
    serving.admin.send("DELETE", "/v1/instances/hidden", &[], NONE).unwrap();
    // What steering says of them comes too: until it has, more is to be heard of them.
    for name in ["one", "two"] {
        let path = format!("/v1/instances/{name}");
        while serving.admin.get::<PlacedPrint>(&path).unwrap().next.is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let names = |seen: &[(String, bool)]| -> Vec<String> {
        let mut names: Vec<_> = seen.iter().map(|(name, _)| name.clone()).collect();
        names.dedup();
        names
    };
    let at = now();
    let (seen, _) = hear(&anna, Some(begins), "two");
    assert_eq!(names(&seen), ["one", "two"], "of her own project");
    let (seen, _) = hear(&serving.admin, Some(begins), "two");
    assert!(names(&seen).contains(&"hidden".to_owned()), "{seen:?}");
    // From there on nothing comes twice, and what comes later comes.
    put("three", "blue");
    let (seen, at) = hear(&anna, Some(at), "three");
    assert!(!names(&seen).contains(&"one".to_owned()), "{seen:?}");
    // It is heard while it happens; and who may hear it no longer does not.
    let listens = serving.by(&token.token);
    let (ended, removed) = std::thread::scope(|scope| {
        let listener = scope.spawn(move || {
            let mut removed = false;
            let ended = listens.events(Some(at), |_, document| {
                removed |= document.is_some_and(|document| {
                    let event: api::EventPrint = serde_json::from_str(document).unwrap();
                    (event.name.as_str(), event.removed) == ("three", true)
                });
                true
            });
            (ended, removed)
        });
        std::thread::sleep(Duration::from_millis(300));
        serving.admin.send("DELETE", "/v1/instances/three", &[], NONE).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        serving.admin.send("DELETE", "/v1/users/anna", &[], NONE).unwrap();
        listener.join().unwrap()
    });
    assert!(ended.is_ok() && removed, "{ended:?}");
    refused(anna.events(None, |_, _| false), 401);
}

/// A host that looks at what it is told to, and finds heads in these states; says what it was ordered
/// beyond that.
fn look(serving: &Serving, heads: &[(&str, &str)]) -> Vec<(String, OrderAct)> {
    let path = format!("/v1/hosts/{}", "01".repeat(16));
    let report = HostReport {
        name: "h".to_owned(),
        labels: Default::default(),
        cpus: 8,
        memory_bytes: 64 << 30,
        kvm: false,
        cache_bytes: 0,
        cached: Default::default(),
        needed: Default::default(),
        instances: Vec::new(),
        peer: None,
        load: None,
    };
    let mut ordered = Vec::new();
    let ends = std::time::Instant::now() + Duration::from_secs(4);
    while std::time::Instant::now() < ends {
        let _: BeatReply = serving.admin.put(&format!("{path}/beat"), &report).unwrap();
        let asked = OrdersKnown { wait_ms: 100, ..Default::default() };
        let orders: Vec<OrderPrint> =
            serving.admin.post(&format!("{path}/orders"), &asked).unwrap();
        for order in orders {
            let state = heads.iter().find(|(name, _)| *name == order.name).unwrap().1;
            if order.act != OrderAct::Look {
                ordered.push((order.name.clone(), order.act));
            }
            let head = HeadSeen {
                name: order.name.clone(),
                generation: 5,
                holder: None,
                state: state.to_owned(),
                checkpoint_unix_ms: None,
                offered_by: None,
            };
            let end = if order.act == OrderAct::Look { OrderEnd::Done } else { OrderEnd::Refused };
            let done = OrderReport {
                order: order.id,
                name: order.name,
                act: order.act,
                end,
                trouble: None,
                head: Some(head),
                cost: None,
            };
            serving.send("POST", &format!("{path}/done"), &done);
        }
    }
    ordered.dedup();
    ordered
}

#[test]
fn a_user_gets_new_computers_and_none_that_others_have_in_the_repository() {
    let folder = tempfile::tempdir().unwrap();
    let serving = serve(folder.path());
    serving.add("anna", &[("default", Role::User)]);
    let anna = serving.by(&serving.token("anna").token);
    let wish = InstanceWish { appliance: Some("tiny".to_owned()), ..wish() };
    for name in ["theirs", "new"] {
        anna.send("PUT", &format!("/v1/instances/{name}"), &[], Some(&wish)).unwrap();
    }
    let heads = [("theirs", "suspended"), ("new", "none"), ("operated", "suspended")];
    let ordered = look(&serving, &heads);
    assert!(
        ordered.iter().all(|(name, act)| name == "new" && *act == OrderAct::Start),
        "{ordered:?}"
    );
    assert!(!ordered.is_empty());
    let theirs: PlacedPrint = anna.get("/v1/instances/theirs").unwrap();
    assert!(theirs.next.is_some_and(|next| next.contains("choose another name")));
    // To stop or suspend it is not hers either.
    let rest = InstanceChange { state: Some(StateWish::Stopped), ..Default::default() };
    anna.send("PATCH", "/v1/instances/theirs", &[], Some(&rest)).unwrap();
    // Who operates everywhere brings one under the plane.
    serving.send("PUT", "/v1/instances/operated", &wish);
    let ordered = look(&serving, &heads);
    assert!(ordered.iter().any(|(name, _)| name == "operated"), "{ordered:?}");
    assert!(ordered.iter().all(|(name, _)| name != "theirs"), "{ordered:?}");
}

fn run(id: &str, name: &str, appliance: &str, seconds: u64) -> RunPrint {
    RunPrint {
        run: id.to_owned(),
        name: name.to_owned(),
        appliance: appliance.to_owned(),
        ended: false,
        running_ms: seconds * 1000,
        cpu_ms: seconds * 500,
        memory_mib_s: seconds * 1024,
        fetched_bytes: 1000,
        peer_bytes: 24,
        stored_bytes: seconds,
    }
}

#[test]
fn what_is_used_is_counted_once_and_told_to_whom_it_concerns() {
    let folder = tempfile::tempdir().unwrap();
    let serving = serve(folder.path());
    for project in ["blue", "red"] {
        serving.send("PUT", &format!("/v1/projects/{project}"), &json!({}));
    }
    serving.add("anna", &[("blue", Role::User)]);
    serving.add("bert", &[("blue", Role::User), ("red", Role::User)]);
    serving.add("otto", &[("blue", Role::Operator)]);
    serving.add("dora", &[("red", Role::Auditor)]);
    let [anna, bert, otto, dora] =
        ["anna", "bert", "otto", "dora"].map(|user| serving.by(&serving.token(user).token));
    anna.send("PUT", "/v1/instances/web", &[], Some(&wish())).unwrap();
    for (name, project) in [("db", "blue"), ("old", "red"), ("far", "red")] {
        let wish = InstanceWish { project: Some(project.to_owned()), ..wish() };
        bert.send("PUT", &format!("/v1/instances/{name}"), &[], Some(&wish)).unwrap();
    }
    // Hosts say what they hold, and what that has used.
    let host = |n: u8| format!("{n:02x}").repeat(16);
    let hold = |n: u8, names: &[&str]| {
        let seen = |name: &&str| json!({"name": name, "state": "running", "generation": 1, "managed": true});
        let instances: Vec<_> = names.iter().map(seen).collect();
        let report =
            json!({"name": "h", "cpus": 4, "memory_bytes": 1 << 30, "instances": instances});
        serving.send("PUT", &format!("/v1/hosts/{}/beat", host(n)), &report);
    };
    hold(1, &["web", "db", "old"]);
    let say = |n: u8, number: u64, runs: &[RunPrint]| -> MeterReply {
        let report = MeterReport { number, runs: runs.to_vec() };
        serving.admin.post(&format!("/v1/hosts/{}/usage", host(n)), &report).unwrap()
    };
    let runs = [
        run("1", "web", "acme/web", 7200),
        run("2", "db", "tiny", 3600),
        run("3", "old", "acme/db", 60),
        // Nobody wishes for it; and what another host has is not this one's to say.
        run("4", "by-hand", "acme/web", 999),
        run("5", "far", "acme/web", 999),
    ];
    assert_eq!(say(1, 0, &runs), MeterReply { number: 1, counted: true });
    assert_eq!(say(1, 0, &runs), MeterReply { number: 1, counted: false });
    assert_eq!(say(1, 1, &runs), MeterReply { number: 2, counted: true });
    // The session goes to another host: another start.
    hold(2, &["web"]);
    let ended = RunPrint { ended: true, ..runs[0].clone() };
    say(1, 2, &[ended, runs[1].clone(), runs[2].clone()]);
    assert!(say(2, 0, &[run("6", "web", "acme/web", 300)]).counted);

    let by = |client: &Client, query: &str| -> Vec<(String, f64)> {
        let used: Vec<UsagePrint> = client.get(&format!("/v1/usage{query}")).unwrap();
        used.into_iter().map(|used| (used.name, used.running_seconds)).collect()
    };
    let rows = |rows: &[(&str, f64)]| -> Vec<(String, f64)> {
        rows.iter().map(|(name, seconds)| ((*name).to_owned(), *seconds)).collect()
    };
    let admin = &serving.admin;
    assert_eq!(by(admin, ""), rows(&[("blue", 11_100.0), ("red", 60.0)]));
    assert_eq!(by(admin, "?by=user"), rows(&[("anna", 7500.0), ("bert", 3660.0)]));
    let appliances = [("acme/db", 60.0), ("acme/web", 7500.0), ("tiny", 3600.0)];
    assert_eq!(by(admin, "?by=appliance"), rows(&appliances));
    assert_eq!(by(admin, "?by=maker"), rows(&[("-", 3600.0), ("acme", 7560.0)]));
    // All of what is in a project is for who operates or audits it; others know their own.
    assert_eq!(by(&anna, "?by=user"), rows(&[("anna", 7500.0)]));
    assert_eq!(by(&bert, "?by=project"), rows(&[("blue", 3600.0), ("red", 60.0)]));
    assert_eq!(by(&otto, "?by=user"), rows(&[("anna", 7500.0), ("bert", 3600.0)]));
    assert_eq!(by(&dora, "?by=user"), rows(&[("bert", 60.0)]));
    let scoped = TokenWish {
        user: Some("bert".to_owned()),
        project: Some("red".to_owned()),
        ..TokenWish::default()
    };
    let scoped: NewToken = admin.post("/v1/tokens", &scoped).unwrap();
    assert_eq!(by(&serving.by(&scoped.token), "?by=project"), rows(&[("red", 60.0)]));

    let used: Vec<UsagePrint> = admin.get("/v1/usage?by=maker").unwrap();
    let acme = &used[1];
    assert_eq!((acme.cpu_seconds, acme.memory_gib_hours), (3780.0, 2.1));
    assert_eq!((acme.fetched_bytes, acme.peer_bytes, acme.stored_bytes), (3072, 72, 7560));
    // On the day of today, which may have changed since.
    let days = by(admin, "?by=day");
    assert_eq!(days.iter().map(|(_, seconds)| seconds).sum::<f64>(), 11_160.0);
    let (first, last) = (&days[0].0, &days[days.len() - 1].0);
    assert_eq!(by(admin, &format!("?by=day&since={first}&until={last}")), days);
    assert_eq!(by(admin, "?until=2026-01-01"), []);
    assert_eq!(by(admin, "?since=9999-12-31"), []);
    for wrong in ["?by=host", "?since=today", "?until=2026-02-30"] {
        refused(admin.get::<Vec<UsagePrint>>(&format!("/v1/usage{wrong}")), 400);
    }

    let figures = admin.send("GET", "/metrics", &[], NONE).unwrap().body;
    let figures = String::from_utf8(figures).unwrap();
    let labels = "{project=\"blue\",user=\"anna\",appliance=\"acme/web\",maker=\"acme\"}";
    for line in [
        "# TYPE collective_usage_running_seconds counter".to_owned(),
        format!("collective_usage_running_seconds_total{labels} 7500.000"),
        format!("collective_usage_cpu_seconds_total{labels} 3750.000"),
        format!("collective_usage_memory_byte_seconds_total{labels} {}", 7500u64 << 30),
        format!("collective_usage_fetched_bytes_total{labels} 2048"),
        format!("collective_usage_stored_bytes_total{labels} 7500"),
        "collective_chunk_fetch_bytes_total{source=\"peer\"} 96".to_owned(),
        "collective_chunk_fetch_bytes_total{source=\"repository\"} 4000".to_owned(),
    ] {
        assert!(figures.lines().any(|found| found == line), "{line}\n{figures}");
    }
    // Who is no host says nothing; what cannot be is refused.
    refused(anna.post::<MeterReply>(&format!("/v1/hosts/{}/usage", host(1)), &json!({})), 403);
    let too_much = RunPrint { cpu_ms: u64::MAX, ..run("7", "web", "acme/web", 1) };
    let report = MeterReport { number: 3, runs: vec![too_much] };
    refused(admin.post::<MeterReply>(&format!("/v1/hosts/{}/usage", host(1)), &report), 400);
}
