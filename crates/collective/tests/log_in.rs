//! `collective login`: a plane, a provider and a browser, all of them real.

#[path = "support/fleet.rs"]
mod fleet;
#[path = "../../plane/tests/provider/mod.rs"]
mod provider;
mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;

use fleet::Fleet;
use provider::{Browser, CLIENT, Provider, SECRET};
use serde_json::Value;
use support::World;

#[test]
fn a_browser_lets_the_command_line_in_and_its_token_is_kept() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::empty("login");
    let mut real = Provider::start(&[("anna", &["ops"])]);
    let secret = world.root().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let (_plane, fleet) = Fleet::start_by(
        &world,
        &[
            ["--oidc-issuer", &real.issuer],
            ["--oidc-client-id", CLIENT],
            ["--oidc-client-secret-file", secret.to_str().unwrap()],
        ]
        .concat(),
    );
    let rule = ["login-rule", "add", "--group", "ops", "--role", "user", "--project", "default"];
    fleet.at("P", &rule).ok();
    assert_eq!(fleet.at("P", &["login-rule", "list"]).ok()[0]["who"]["group"], "ops");
    let misused = |said: &support::Said| said.code == 2 && said.json()["error"]["kind"] == "usage";
    assert!(misused(&fleet.at("P", &["login-rule", "add", "--role", "user"])));

    let file = world.root().join("anna.token");
    let words = |rest: &[&str]| {
        let mut words = vec!["login", "--plane", &fleet.url, "--token-file"];
        words.extend(rest);
        world.run("A", &words)
    };
    // The plane's own token is not overwritten, and nothing is said to a plane that is not known.
    let own = world.host("P").join("plane.token").display().to_string();
    assert_eq!(words(&[&own]).error().0, "exists");
    let path = file.to_str().unwrap();
    assert!(misused(&words(&[path])));
    assert!(misused(&words(&[path, "--fingerprint", &"ab".repeat(32)])));

    let browser = Browser::new(world.root(), "anna");
    let mut log_in = |rest: &[&str]| -> Value {
        let mut command = world.command("A", &["login", "--plane", &fleet.url]);
        command.args(["--token-file", path]).args(rest);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut says = BufReader::new(child.stderr.take().unwrap());
        let mut url = String::new();
        while !url.trim().starts_with("http") {
            url.clear();
            assert!(says.read_line(&mut url).unwrap() > 0, "it ended");
        }
        let (_, rest) = url.split_once("redirect_uri=http%3A%2F%2F127.0.0.1%3A").unwrap();
        let port = rest.split_once('%').unwrap().0;
        real.send_back_to(&format!("http://127.0.0.1:{port}/login"));
        let stray = browser.follow(&format!("http://127.0.0.1:{port}/login?code=x&state=y"));
        assert!(stray.contains("Nothing is here."), "{stray}");
        let sent_back = browser.log_in(url.trim(), "anna");
        assert!(browser.follow(&sent_back).contains("Thank you."));
        let mut document = String::new();
        child.stdout.take().unwrap().read_to_string(&mut document).unwrap();
        assert!(child.wait().unwrap().success(), "{document}");
        serde_json::from_str(&document).unwrap()
    };
    let made = log_in(&["--fingerprint", &fleet.fingerprint]);
    assert!(made["user"].as_str().unwrap().starts_with("anna-"), "{made}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let whoami = || {
        world.run("A", &["whoami", "--plane", &fleet.url, "--token-file", path]).ok()["token"]
            .clone()
    };
    assert_eq!(whoami(), made["id"]);
    let left = std::fs::read_dir(world.root()).unwrap();
    let left = left.filter(|entry| {
        entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("anna.token")
    });
    assert_eq!(left.count(), 1);
    fleet.at("P", &["audit", "verify"]).ok();
}
