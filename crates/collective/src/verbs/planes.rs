//! `plane`, `host ...`, `plan`: the verbs about many hosts.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent::Heard;
use api::{HostChange, HostPrint, HostWish, PlanPrint};
use host::{Failure, Host, HostDir};
use model::format_bytes;
use plane::backup::BackupError;
use plane::client::{self, AnyPlane, Client, ClientError};
use plane::identity::{Authority, Credentials, IdentityError};
use plane::login;
use plane::serve::{RestoreError, ServeError, Server};

use super::kept_planes::KeptPlanes;
use super::open;
use crate::cli::{
    At, Global, Hosts, Known, OneHost, Plan, Plane, PlaneVerb, Planes, Provider, State, Token, Up,
};
use crate::notify::{READY, WATCHDOG, notify, watchdog};
use crate::print;

const TOKEN_FILE: &str = "plane.token";

pub fn plane(global: &Global, verb: &Planes) -> Result<(), Failure> {
    match &verb.verb {
        Some(PlaneVerb::Backup { file, at }) => return backup(global, file, at),
        Some(PlaneVerb::Restore { file, state }) => return restore(global, file, state),
        None => {}
    }
    let serving = Serving::start(global, &verb.serve)?;
    notify(READY);
    let client = || {
        let token = std::fs::read_to_string(&serving.token_file).ok()?;
        Client::new(&serving.url, Credentials::parse(token.trim()).ok()?).ok()
    };
    loop {
        match watchdog() {
            // Who counts on it hears that it is alive when it answers.
            Some(within) => {
                let answers = |client: Client| {
                    client.send("GET", "/v1/openapi.json", &[], None::<&()>).is_ok()
                };
                if client().is_some_and(answers) {
                    notify(WATCHDOG);
                }
                ambient::sleep(within / 3);
            }
            None => std::thread::park(),
        }
    }
}

fn backup(global: &Global, file: &Path, at: &At) -> Result<(), Failure> {
    let answer = client(global, at)?.send("GET", "/v1/backup", &[], None::<&()>);
    let answer = answer.map_err(not_answered)?;
    // What came is whole, or it is not kept.
    let entries = plane::backup::read(&answer.body)
        .map_err(|error| Failure::new("damaged", error.to_string(), "try it again"))?;
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut opened| {
        opened.write_all(&answer.body)?;
        opened.sync_all()
    });
    written.map_err(|error| super::not_written(file, error))?;
    let document = serde_json::json!({"entries": entries.len(), "bytes": answer.body.len()});
    print::result(global, &document, || {
        let bytes = format_bytes(answer.body.len() as u64);
        format!(
            "{} entries ({bytes}) are in {}; keep the plane's token file with it",
            entries.len(),
            file.display()
        )
    });
    Ok(())
}

fn restore(global: &Global, file: &Path, state: &State) -> Result<(), Failure> {
    let location = location(global, state);
    let state = location.text.clone();
    let bytes = std::fs::read(file)
        .map_err(|error| Failure::from(error).during(format!("cannot read {}", file.display())))?;
    let entries = plane::serve::restore(location, &bytes).map_err(|error| {
        let (kind, hint) = match &error {
            RestoreError::Backup(BackupError::Newer(_)) => ("format", "use the newer program"),
            RestoreError::Backup(_) => ("damaged", "use another copy: nothing was written"),
            RestoreError::NotEmpty => {
                ("state", "name an empty one with --state; nothing was written")
            }
            RestoreError::Another => {
                ("state", "restore that one again, or name an empty state with --state")
            }
            RestoreError::Contended => ("state", "let them finish; one is enough"),
            RestoreError::State(kv::KvError::InUse { .. }) => ("state", "end the plane first"),
            RestoreError::State(error) => (kind_of_state(error), error.hint()),
        };
        Failure::new(kind, error.to_string(), hint)
    })?;
    let document = serde_json::json!({"entries": entries, "state": state});
    print::result(global, &document, || {
        format!(
            "{entries} entries are in {state}; start `collective plane` with the token file of then"
        )
    });
    Ok(())
}

fn location(global: &Global, said: &State) -> kv::Location {
    let text = said.state.clone().unwrap_or_else(|| {
        let folder = global.dir.clone().unwrap_or_else(HostDir::default_path);
        format!("embedded:{}", folder.join("plane-state").display())
    });
    let (cacert, cert, key) = (&said.etcd_cacert, &said.etcd_cert, &said.etcd_key);
    let tls = kv::Tls { cacert: cacert.clone(), cert: cert.clone(), key: key.clone() };
    kv::Location { text, tls }
}

/// The kind of what a state has to say.
fn kind_of_state(error: &kv::KvError) -> &'static str {
    match error {
        kv::KvError::Invalid { .. } | kv::KvError::Unusable { .. } => "usage",
        kv::KvError::InUse { .. } => "state",
        kv::KvError::Unavailable { .. } | kv::KvError::Unknown { .. } => "unavailable",
        kv::KvError::NoSpace { .. } => "no_space",
        kv::KvError::Denied { .. }
        | kv::KvError::Untrusted { .. }
        | kv::KvError::Stranger { .. } => "permission",
        kv::KvError::Newer { .. } => "format",
        kv::KvError::Broken { .. } => "damaged",
        kv::KvError::LeaseGone | kv::KvError::WatchEnded { .. } => "io",
    }
}

pub fn up(global: &Global, verb: &Up) -> Result<(), Failure> {
    let known_as = known_as(&verb.known)?;
    let host: Host = open(global)?;
    let serving = Serving::start(global, &verb.plane)?;
    let token = std::fs::read_to_string(&serving.token_file)?;
    let wrong = |error: IdentityError| Failure::new("key", error.to_string(), "");
    let token = Credentials::parse(&token).map_err(wrong)?;
    take_part(global, &host, &serving.url, Some(token), &known_as)
}

/// A plane that is served, and has said so.
struct Serving {
    _server: Server,
    url: String,
    token_file: PathBuf,
}

impl Serving {
    fn start(global: &Global, verb: &Plane) -> Result<Self, Failure> {
        let folder = global.dir.clone().unwrap_or_else(HostDir::default_path);
        let state = location(global, &verb.state);
        let token_file = verb.token_file.clone().unwrap_or_else(|| folder.join(TOKEN_FILE));
        let lease = Duration::from_secs(verb.lease);
        let login = provider(&verb.provider)?;
        let people = login.is_some();
        let plane = plane::serve::Plane::open_with(state, &token_file, lease, login);
        let plane = plane.map_err(not_served)?;
        plane.relieve(!verb.no_rebalance);
        if let Some(url) = &verb.url {
            plane.is_at(url).map_err(not_answered)?;
        }
        let fingerprint = plane.fingerprint();
        let server = Server::start(plane, verb.listen).map_err(not_served)?;
        let url = format!("https://{}", server.address());
        let document = serde_json::json!(
            {"url": url, "token_file": token_file, "fingerprint": fingerprint}
        );
        print::result(global, &document, || {
            let file = token_file.display();
            let mut text = format!("a plane at {url}; callers need the token in {file}");
            if people {
                text.push_str(&format!(
                    "\npeople: collective login --plane {url} --fingerprint {fingerprint}"
                ));
            }
            text
        });
        Ok(Self { _server: server, url, token_file })
    }
}

/// Who says who people are.
fn provider(said: &Provider) -> Result<Option<login::Provider>, Failure> {
    let (Some(issuer), Some(client_id)) = (&said.oidc_issuer, &said.oidc_client_id) else {
        return Ok(None);
    };
    let settings = login::Settings {
        issuer: issuer.clone(),
        client_id: client_id.clone(),
        groups_claim: said.oidc_groups_claim.clone(),
    };
    let provider = login::Provider::new(settings, said.oidc_client_secret_file.as_deref());
    let wrong = |error: login::ProviderError| {
        Failure::new("usage", error.to_string(), "for example --oidc-issuer https://id.example")
    };
    provider.map(Some).map_err(wrong)
}

fn not_served(error: ServeError) -> Failure {
    let kind = match &error {
        ServeError::State(error) => kind_of_state(error),
        ServeError::Identity(_) => "key",
        ServeError::Io { .. } => "io",
    };
    let hint = error.hint();
    Failure::new(kind, error.to_string(), hint)
}

pub fn hosts(global: &Global, verb: Hosts) -> Result<(), Failure> {
    match verb {
        Hosts::Join { url, token, known } => join(global, &url, &token, &known),
        Hosts::Leave => {
            let host: Host = open(global)?;
            host.leave_plane()?;
            let document = serde_json::json!({"id": host.id().to_string()});
            print::result(global, &document, || {
                "no plane has a say on this host any more; `collective host remove` tells the plane"
                    .to_owned()
            });
            Ok(())
        }
        Hosts::Suspend { within } => super::shutdown::suspend(global, Duration::from_secs(within)),
        Hosts::Token(token) => join_token(global, &token),
        Hosts::List(at) => list(global, &at),
        Hosts::Cordon(one) => wish(global, &one, HostWish::Cordoned, None),
        Hosts::Uncordon(one) => wish(global, &one, HostWish::Ready, None),
        Hosts::Drain { one, within } => wish(global, &one, HostWish::Draining, Some(within)),
        Hosts::Remove(one) => {
            let client = client(global, &one.at)?;
            let host = find(&client, &one.host)?;
            let path = format!("/v1/hosts/{}", host.id);
            client.change("DELETE", &path, &[], None::<&()>).map_err(not_answered)?;
            print::result(global, &host, || format!("{} is forgotten", host.name));
            Ok(())
        }
    }
}

/// Reads labels.
fn labels(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let label = |text: &String| match text.split_once('=').filter(|(key, _)| !key.is_empty()) {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => {
            let hint = "for example --label site=home";
            Err(Failure::new("usage", format!("{text:?} is no label"), hint))
        }
    };
    texts.iter().map(label).collect()
}

fn known_as(known: &Known) -> Result<agent::KnownAs, Failure> {
    let give = match known.peers.as_deref() {
        None => agent::Give::ByThePlane,
        Some("off") => agent::Give::Nowhere,
        Some(text) => agent::Give::At(text.parse().map_err(|_| {
            let message = format!("{text:?} is no place to give chunks at");
            Failure::new(
                "usage",
                message,
                "write ADDRESS:PORT, for example 192.168.1.10:7071, or `off`",
            )
        })?),
    };
    let labels = labels(&known.label)?;
    Ok(agent::KnownAs { name: known.name.clone(), labels, give, metrics: known.metrics })
}

fn join(global: &Global, url: &str, token: &Token, known: &Known) -> Result<(), Failure> {
    let known_as = known_as(known)?;
    let host: Host = open(global)?;
    // A host that has joined before needs no token.
    let token =
        match (read_token(global, token), token.token.is_some() || token.token_file.is_some()) {
            (Ok(token), _) => Some(token),
            (Err(_), false) => None,
            (Err(failure), true) => return Err(failure),
        };
    take_part(global, &host, url, token, &known_as)
}

/// Lets this host take part until this process ends.
fn take_part(
    global: &Global,
    host: &Host,
    url: &str,
    token: Option<Credentials>,
    known_as: &agent::KnownAs,
) -> Result<(), Failure> {
    let identity = agent::join(host, url, token)?;
    let (well, url) = (Mutex::new(None), Mutex::new(url.to_owned()));
    let ready = AtomicBool::new(false);
    agent::run(host, identity, known_as, &|heard| {
        // Said when it changes, not with each beat.
        let changes = |now: bool| {
            let mut well = well.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            well.replace(now) != Some(now)
        };
        // It has said what it has, or tried to, and goes on: no guest waits for a plane that is away.
        if !matches!(heard, Heard::Did(_) | Heard::Figures(_) | Heard::Turned(_)) {
            if !ready.swap(true, Ordering::Relaxed) {
                notify(READY);
            }
            notify(WATCHDOG);
        }
        match heard {
            Heard::Taken(reply) if changes(true) => {
                let url = url.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                print::note(global, &format!("this host has joined {url} ({})", reply.state));
            }
            Heard::Failed(error) if changes(false) => {
                print::note(global, &format!("{error}; this host goes on trying"));
            }
            Heard::Stumbled(failure) if changes(false) => {
                print::note(global, &format!("{failure}; this host goes on trying"));
            }
            Heard::Turned(to) => {
                let mut url = url.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                url.clone_from(to);
            }
            Heard::Taken(_) | Heard::Failed(_) | Heard::Stumbled(_) => {}
            Heard::Did(what) => print::note(global, what),
            Heard::Figures(address) => {
                print::note(global, &format!("figures of this host: http://{address}/metrics"));
            }
        }
        true
    })
}

fn list(global: &Global, at: &At) -> Result<(), Failure> {
    let hosts: Vec<HostPrint> = client(global, at)?.get("/v1/hosts").map_err(not_answered)?;
    print::result(global, &hosts, || {
        if global.quiet {
            return hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join("\n");
        }
        let header = ["NAME", "STATE", "INSTANCES", "CPUS", "MEMORY", "CACHE", "LABELS", "ID"];
        print::table(&header, hosts.iter().map(row))
    });
    Ok(())
}

fn row(host: &HostPrint) -> Vec<String> {
    let labels = host.labels.iter().map(|(key, value)| format!("{key}={value}"));
    vec![
        host.name.clone(),
        host.state.clone(),
        host.instances.to_string(),
        host.cpus.to_string(),
        format_bytes(host.memory_bytes),
        format_bytes(host.cache_bytes),
        labels.collect::<Vec<_>>().join(" "),
        host.id.get(..12).unwrap_or(&host.id).to_owned(),
    ]
}

fn wish(
    global: &Global,
    one: &OneHost,
    state: HostWish,
    within_s: Option<u64>,
) -> Result<(), Failure> {
    let client = client(global, &one.at)?;
    let path = format!("/v1/hosts/{}", find(&client, &one.host)?.id);
    client
        .change("PATCH", &path, &[], Some(&HostChange { state, within_s }))
        .map_err(not_answered)?;
    let host: HostPrint = client.get(&path).map_err(not_answered)?;
    print::result(global, &host, || format!("{} is {}", host.name, host.state));
    Ok(())
}

/// A host by its name, or by how its id begins. The id is what counts: names may be alike.
pub fn find(client: &AnyPlane, text: &str) -> Result<HostPrint, Failure> {
    let hosts: Vec<HostPrint> = client.get("/v1/hosts").map_err(not_answered)?;
    let fits =
        |host: &&HostPrint| host.name == text || (text.len() >= 6 && host.id.starts_with(text));
    let mut found: Vec<_> = hosts.iter().filter(fits).cloned().collect();
    let hint = "`collective host list` lists hosts; an id names one for certain";
    match (found.pop(), found.is_empty()) {
        (Some(host), true) => Ok(host),
        (Some(_), false) => {
            Err(Failure::new("usage", format!("more than one host is called {text}"), hint))
        }
        (None, _) => Err(Failure::new("not_found", format!("no host {text} has joined"), hint)),
    }
}

pub fn plan(global: &Global, verb: &Plan) -> Result<(), Failure> {
    let plan: PlanPrint = client(global, &verb.at)?.get("/v1/plan").map_err(not_answered)?;
    print::result(global, &plan, || {
        let lines = plan.choices.iter().map(|choice| {
            let target = choice.target.as_deref().unwrap_or("nowhere");
            let source =
                choice.source.as_deref().map(|name| format!("{name} ")).unwrap_or_default();
            format!("{} {source}-> {target}: {}\n", choice.instance, choice.why.join("; "))
        });
        let overloaded = plan.overloaded.iter();
        let overloaded =
            overloaded.map(|over| format!("{} is overloaded: {}\n", over.host, over.why));
        let lines = lines.chain(overloaded).collect::<String>();
        format!("{lines}{} stay where they are", plan.stay)
    });
    Ok(())
}

pub fn client(global: &Global, at: &At) -> Result<AnyPlane, Failure> {
    let credentials = read_token(global, &at.token)?;
    let file = at.token.token.is_none();
    let file = file.then(|| token_file(global, at.token.token_file.as_ref()));
    any_of(global, at.plane.as_deref(), credentials, file.as_deref())
}

/// Planes at the addresses that were given, and where the token is kept in a file, at those beside it.
pub fn any_of(
    global: &Global,
    said: Option<&str>,
    credentials: Credentials,
    token_file: Option<&Path>,
) -> Result<AnyPlane, Failure> {
    let kept = token_file.map(KeptPlanes::beside);
    let named = kept.as_ref().map(KeptPlanes::read).unwrap_or_default();
    let global = global.clone();
    let hear = move |heard: &client::Heard<'_>| match heard {
        client::Heard::Turned { away, to } => {
            print::note(&global, &format!("{away}; the plane at {to} is asked instead"));
        }
        client::Heard::Named(named) => {
            if let Some(kept) = &kept {
                kept.keep(named);
            }
        }
    };
    AnyPlane::new(urls(said), named, credentials, Box::new(hear)).map_err(not_answered)
}

/// Where the planes are.
fn urls(said: Option<&str>) -> Vec<String> {
    let from_environment = || std::env::var("COLLECTIVE_PLANE").ok().filter(|url| !url.is_empty());
    let urls = said.map(str::to_owned).or_else(from_environment);
    let urls = urls.unwrap_or_else(|| "https://127.0.0.1:7070".to_owned());
    urls.split(',').map(|url| url.trim().to_owned()).collect()
}

/// Where the token is.
pub fn token_file(global: &Global, said: Option<&PathBuf>) -> PathBuf {
    let from_environment =
        || std::env::var_os("COLLECTIVE_PLANE_TOKEN_FILE").filter(|file| !file.is_empty());
    let file = said.cloned().or_else(|| from_environment().map(PathBuf::from));
    file.unwrap_or_else(|| {
        global.dir.clone().unwrap_or_else(HostDir::default_path).join(TOKEN_FILE)
    })
}

fn read_token(global: &Global, token: &Token) -> Result<Credentials, Failure> {
    let parse = |text: &str| {
        let hint =
            "the token's file holds all of it; a join token is what `collective host token` prints";
        Credentials::parse(text).map_err(|e| Failure::new("permission", e.to_string(), hint))
    };
    if let Some(token) = &token.token {
        return parse(token);
    }
    let file = token_file(global, token.token_file.as_ref());
    let text = std::fs::read_to_string(&file).map_err(|error| {
        let message = format!("cannot read the plane's token in {}: {error}", file.display());
        Failure::new("permission", message, "name the file with --token-file")
    })?;
    parse(&text)
}

/// Prints what lets a new host join, and nothing else.
fn join_token(global: &Global, token: &Token) -> Result<(), Failure> {
    let Credentials::Admin(secret) = read_token(global, token)? else {
        let hint = "it is made from the plane's own token";
        return Err(Failure::new("permission", "this is not the plane's own token", hint));
    };
    let wrong = |error: IdentityError| Failure::new("internal", error.to_string(), "");
    let authority = Authority::of(&secret).map_err(wrong)?;
    let token = secret.join_token(&authority);
    print::result(global, &serde_json::json!({"token": token}), || token.clone());
    Ok(())
}

pub fn not_answered(error: ClientError) -> Failure {
    match error {
        ClientError::Refused(problem) => {
            // Kinds are words of ours; one that this program does not know is a newer plane's.
            let kinds = [
                "usage",
                "not_found",
                "exists",
                "quota",
                "state",
                "changed",
                "permission",
                "unavailable",
            ];
            let kind = kinds.into_iter().find(|kind| *kind == problem.kind).unwrap_or("plane");
            Failure::new(kind, problem.detail, problem.hint)
        }
        ClientError::Url { .. } => Failure::new(
            "usage",
            error.to_string(),
            "`collective plane` says where it listens when it starts",
        ),
        ClientError::Unreachable { .. } => Failure::new(
            "unavailable",
            error.to_string(),
            "is `collective plane` running there? Instances go on without it",
        ),
    }
}
