//! A real OpenID Connect provider of a test's own: Canaille, a small one that people use. What a browser
//! does is done by curl.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

pub const PASSWORD: &str = "correct horse battery";
pub const SECRET: &str = "of a: client & its provider";
/// The client of a plane, with [`SECRET`]; its ID tokens are for itself.
pub const CLIENT: &str = "plane";
/// One without a secret.
pub const PUBLIC: &str = "plane-public";
/// One whose ID tokens are for [`CLIENT`].
pub const ASTRAY: &str = "astray";

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plane/tests/provider");

pub struct Provider {
    child: Child,
    says: BufReader<ChildStdout>,
    pub issuer: String,
}

impl Provider {
    /// Starts one with these accounts and their groups.
    pub fn start(accounts: &[(&str, &[&str])]) -> Self {
        let folder = Path::new(HERE).join("../../../../target/oidc-provider");
        let fetch = Path::new(HERE).join("../../../../scripts/fetch-provider");
        let fetched = Command::new(fetch).arg(&folder).output().unwrap();
        assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
        let accounts: serde_json::Map<String, Value> =
            accounts.iter().map(|(name, groups)| ((*name).to_owned(), json!(groups))).collect();
        let asked = json!({
            "accounts": accounts,
            "password": PASSWORD,
            "clients": {
                CLIENT: {"secret": SECRET, "audience": CLIENT},
                PUBLIC: {"secret": null, "audience": PUBLIC},
                ASTRAY: {"secret": SECRET, "audience": CLIENT},
            },
        });
        let mut child = Command::new("python3")
            .arg(Path::new(HERE).join("serve.py"))
            .arg(asked.to_string())
            .env("PYTHONPATH", &folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut says = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        says.read_line(&mut line).unwrap();
        let said: Value = serde_json::from_str(&line).unwrap();
        Self { child, says, issuer: said["issuer"].as_str().unwrap().to_owned() }
    }

    /// Lets browsers be sent back to this address only.
    pub fn send_back_to(&mut self, redirect_uri: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{redirect_uri}").unwrap();
        self.says.read_line(&mut String::new()).unwrap();
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A browser with cookies of its own.
pub struct Browser(PathBuf);

struct Page {
    text: String,
    /// Where it is, after what was followed.
    at: String,
    /// Where it leads, not followed.
    to: String,
}

impl Browser {
    pub fn new(folder: &Path, name: &str) -> Self {
        Self(folder.join(format!("{name}.cookies")))
    }

    fn get(&self, url: &str, arguments: &[&str]) -> Page {
        let cookies = self.0.to_str().unwrap();
        let got = Command::new("curl")
            .args(["--silent", "--show-error", "--noproxy", "*", "--cookie", cookies])
            .args(["--cookie-jar", cookies, "--write-out", "\n%{url_effective} %{redirect_url}"])
            .args(arguments)
            .arg(url)
            .output()
            .unwrap();
        assert!(got.status.success(), "{url}: {}", String::from_utf8_lossy(&got.stderr));
        let text = String::from_utf8(got.stdout).unwrap();
        let (text, places) = text.rsplit_once('\n').unwrap();
        let (at, to) = places.split_once(' ').unwrap();
        Page { text: text.to_owned(), at: at.to_owned(), to: to.to_owned() }
    }

    /// Fills a form in.
    fn fill(&self, page: &Page, fields: &[&str]) -> Page {
        let name = "name=\"csrf_token\" value=\"";
        let (_, rest) = page.text.split_once(name).unwrap_or_else(|| panic!("{}", page.text));
        let token = format!("csrf_token={}", rest.split_once('"').unwrap().0);
        let mut arguments = vec!["--data-urlencode", &token];
        arguments.extend(fields.iter().flat_map(|field| ["--data-urlencode", field]));
        self.get(&page.at, &arguments)
    }

    /// Logs in, and agrees when that is asked; gives the address to which the browser is sent back then.
    pub fn log_in(&self, url: &str, account: &str) -> String {
        let (provider, _) = url.split_once("/oauth/").unwrap();
        let (login, password) = (format!("login={account}"), format!("password={PASSWORD}"));
        let mut page = self.get(url, &[]);
        for _ in 0..16 {
            page = match page.to.as_str() {
                "" if page.text.contains("name=\"login\"") => {
                    self.fill(&page, &[&login, "answer="])
                }
                "" if page.text.contains("name=\"password\"") => self.fill(&page, &[&password]),
                "" => self.fill(&page, &["answer=accept"]),
                to if to.starts_with(provider) => self.get(to, &[]),
                to => return to.to_owned(),
            };
        }
        panic!("{account} is not sent back: {}", page.text)
    }

    /// Goes there.
    pub fn follow(&self, url: &str) -> String {
        self.get(url, &[]).text
    }
}
