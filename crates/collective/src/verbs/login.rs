//! `login`, `login-rule`: into a plane by an OpenID Connect provider.
//!
//! The browser comes back to 127.0.0.1 (RFC 8252). It need not be on this computer: `--port`, and a tunnel
//! for that port, do as well.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::{LoginClaim, LoginPrint, LoginRulePrint, LoginRuleWish, LoginWish, NewToken};
use host::Failure;
use plane::identity::Credentials;
use plane::login::{Attempt, AttemptError};

use super::access::{NONE, role, seconds, send, word};
use super::not_written;
use super::planes::{any_of, client, not_answered, token_file};
use crate::cli::{Global, Login, LoginRules, NewRule};
use crate::print;

/// Of what a browser sends.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
const REQUEST_TIME: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

pub fn login(global: &Global, verb: &Login) -> Result<(), Failure> {
    let file = token_file(global, verb.at.token_file.as_ref());
    let fingerprint = fingerprint(&file, verb.fingerprint.as_deref())?;
    let wish = LoginWish {
        port: 0,
        project: verb.project.clone(),
        role: verb.role.map(role),
        read_only: verb.read_only,
        lasts_s: Some(seconds(&verb.expires)?),
    };
    // The file first: a token that nobody could keep would only lie about.
    let mut draft = Draft::beside(&file)?;
    let stranger = Credentials::Stranger { fingerprint };
    let client = any_of(global, verb.at.plane.as_deref(), stranger, Some(&file))?;
    let at: LoginPrint = client.get("/v1/login").map_err(not_answered)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, verb.port)).map_err(|error| {
        let failure = Failure::from(error).during(format!("cannot listen on port {}", verb.port));
        Failure { hint: "choose another --port".to_owned(), ..failure }
    })?;
    let port = listener.local_addr()?.port();
    let attempt = Attempt::new();
    let no_url =
        || Failure::new("plane", "the provider's address is none", "tell an administrator");
    let url = attempt.url(&at, port).ok_or_else(no_url)?;
    print::note(global, &format!("log in with a browser on this computer:\n\n  {url}\n"));
    let shown = wait(&listener, &attempt, &at.issuer, Duration::from_secs(verb.timeout))?;
    let wish = LoginWish { port, ..wish };
    let headers = [("Authorization", shown.as_str())];
    let answer = client.send("POST", "/v1/login", &headers, Some(&wish)).map_err(not_answered)?;
    let made: NewToken = serde_json::from_slice(&answer.body)
        .map_err(|error| Failure::new("plane", error.to_string(), "is the plane a newer one?"))?;
    draft.keep(&made.token, &file)?;
    print::result(global, &made.about, || {
        let hours = made.about.ends_unix_ms.saturating_sub(ambient::unix_ms()).div_ceil(3_600_000);
        format!(
            "{} is logged in for {hours} h; the token is in {}",
            made.about.user,
            file.display()
        )
    });
    Ok(())
}

/// What names the plane. A file that is there is replaced only when it holds a user's token of that
/// plane: never the plane's own, which is nowhere else.
fn fingerprint(file: &Path, said: Option<&str>) -> Result<String, Failure> {
    let kept = match std::fs::read_to_string(file) {
        Ok(text) => match Credentials::parse(&text) {
            Ok(Credentials::User { fingerprint, .. }) => Some(fingerprint),
            _ => {
                let message =
                    format!("{} holds another secret than a user's token", file.display());
                let hint = "name a file of your own with --token-file";
                return Err(Failure::new("exists", message, hint));
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(not_written(file, error)),
    };
    let said = said.map(|text| text.trim().to_ascii_lowercase());
    match (said, kept) {
        (Some(said), Some(kept)) if said != kept => {
            let message = format!("{} holds a token of another plane", file.display());
            Err(Failure::new("exists", message, "name another file with --token-file"))
        }
        (Some(said), _) if said.len() == 64 && said.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Ok(said)
        }
        (Some(_), _) => Err(Failure::new(
            "usage",
            "a plane's fingerprint is 64 hexadecimal digits",
            "`collective plane` says it when it starts",
        )),
        (None, Some(kept)) => Ok(kept),
        (None, None) => Err(Failure::new(
            "usage",
            "which plane it is has to be said the first time",
            "--fingerprint, as `collective plane` says it when it starts: ask who runs it",
        )),
    }
}

/// Waits until the browser comes back.
fn wait(
    listener: &TcpListener,
    attempt: &Attempt,
    issuer: &str,
    timeout: Duration,
) -> Result<String, Failure> {
    listener.set_nonblocking(true)?;
    let begun = ambient::now();
    while begun.elapsed() < timeout {
        let mut socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                ambient::sleep(PAUSE);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        // Browsers open connections that they do not use, and ask for icons.
        let Some(target) = target(&mut socket) else { continue };
        match attempt.read(&target, issuer) {
            Ok(shown) => {
                answer(
                    &mut socket,
                    "200 OK",
                    "Thank you. Go on where you typed `collective login`.",
                );
                return Ok(shown);
            }
            Err(AttemptError::Another) => answer(&mut socket, "404 Not Found", "Nothing is here."),
            Err(refused @ AttemptError::Refused(_)) => {
                answer(&mut socket, "200 OK", "The provider has refused it.");
                return Err(Failure::new("permission", refused.to_string(), "log in again"));
            }
        }
    }
    let message = format!("nobody has logged in within {} s", timeout.as_secs());
    Err(Failure::new("timeout", message, "try again; --timeout waits for longer"))
}

/// The target of a request: its first line is all that counts.
fn target(socket: &mut TcpStream) -> Option<String> {
    socket.set_nonblocking(false).ok()?;
    socket.set_read_timeout(Some(REQUEST_TIME)).ok()?;
    socket.set_write_timeout(Some(REQUEST_TIME)).ok()?;
    let begun = ambient::now();
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; 4096];
        let length = socket.read(&mut part).ok().filter(|length| *length > 0)?;
        head.extend_from_slice(&part[..length]);
        if head.len() > REQUEST_BYTES_MAX || begun.elapsed() > REQUEST_TIME {
            return None;
        }
    }
    let line = String::from_utf8_lossy(&head);
    let mut words = line.lines().next()?.split(' ');
    (words.next() == Some("GET")).then(|| words.next().map(str::to_owned))?
}

fn answer(socket: &mut TcpStream, status: &str, text: &str) {
    let length = text.len() + 1;
    // The code is in the address of this page: it goes nowhere from there.
    let _ = write!(
        socket,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{text}\n"
    );
}

/// A file that will take the token's place, or go.
pub struct Draft {
    path: PathBuf,
    file: std::fs::File,
}

impl Draft {
    pub fn beside(file: &Path) -> Result<Self, Failure> {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        let made = folder.map_or(Ok(()), |folder| {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
        });
        made.map_err(|error| not_written(file, error))?;
        let mark: [u8; 8] = ambient::random();
        let mut path = file.as_os_str().to_owned();
        path.push(format!(".{:016x}", u64::from_le_bytes(mark)));
        let path = PathBuf::from(path);
        let mut options = std::fs::OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(0o600).open(&path);
        Ok(Self { file: opened.map_err(|error| not_written(file, error))?, path })
    }

    pub fn keep(&mut self, token: &str, file: &Path) -> Result<(), Failure> {
        let written = writeln!(self.file, "{token}").and_then(|()| self.file.sync_all());
        let kept = written.and_then(|()| std::fs::rename(&self.path, file));
        kept.map_err(|error| not_written(file, error))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is gone when it has taken its place.
        let _ = std::fs::remove_file(&self.path);
    }
}

pub fn rules(global: &Global, verb: &LoginRules) -> Result<(), Failure> {
    match verb {
        LoginRules::Add(new) => add(global, new),
        LoginRules::List(at) => {
            let rules: Vec<LoginRulePrint> =
                client(global, at)?.get("/v1/login-rules").map_err(not_answered)?;
            print::result(global, &rules, || {
                if global.quiet {
                    return rules
                        .iter()
                        .map(|rule| rule.id.as_str())
                        .collect::<Vec<_>>()
                        .join("\n");
                }
                let rows = rules.iter().map(|rule| {
                    let user = rule.user.clone().unwrap_or_default();
                    vec![rule.id.clone(), who(&rule.who), user, gives(rule), rule.issuer.clone()]
                });
                print::table(&["ID", "WHO", "IS", "MAY", "PROVIDER"], rows)
            });
            Ok(())
        }
        LoginRules::Remove { id, at } => {
            let client = client(global, at)?;
            send(&client, "DELETE", &format!("/v1/login-rules/{id}"), &[], NONE)?;
            let document = serde_json::json!({"id": id});
            print::result(global, &document, || format!("rule {id} counts no longer"));
            Ok(())
        }
    }
}

fn add(global: &Global, new: &NewRule) -> Result<(), Failure> {
    let claims = [
        new.subject.clone().map(LoginClaim::Subject),
        new.email.clone().map(LoginClaim::Email),
        new.group.clone().map(LoginClaim::Group),
    ];
    let nobody = || Failure::new("usage", "it has to be said who", "--subject, --email or --group");
    let who = claims.into_iter().flatten().next().ok_or_else(nobody)?;
    let wish = LoginRuleWish {
        who,
        user: new.user.clone(),
        role: new.role.map(role),
        project: new.project.clone(),
    };
    let client = client(global, &new.at)?;
    let made: LoginRulePrint = client.make("/v1/login-rules", &wish).map_err(not_answered)?;
    print::result(global, &made, || {
        let user = made.user.as_ref().map(|user| format!("is {user}"));
        let may = made.role.map(|_| format!("may {}", gives(&made)));
        let says: Vec<_> = [user, may].into_iter().flatten().collect();
        format!("rule {}: {} {}", made.id, self::who(&made.who), says.join(" and "))
    });
    Ok(())
}

fn who(claim: &LoginClaim) -> String {
    match claim {
        LoginClaim::Subject(value) => format!("subject {value}"),
        LoginClaim::Email(value) => format!("e-mail {value}"),
        LoginClaim::Group(value) => format!("group {value}"),
    }
}

fn gives(rule: &LoginRulePrint) -> String {
    match (rule.role, &rule.project) {
        (Some(role), Some(project)) => format!("{} in {project}", word(role)),
        (Some(role), None) => format!("{} everywhere", word(role)),
        (None, _) => String::new(),
    }
}
