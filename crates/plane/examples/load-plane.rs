//! How many requests a plane on an embedded state answers in a second, by TLS, with 8 callers on this
//! machine: `scripts/bench-plane`. Writes are beats in which a host's instance has changed: each is a
//! commit with a disk's sync behind it. Wishes are people's: each changes what an instance is to do, ends one
//! operation, begins another, and is in the audit log, before it is answered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::{
    BeatReply, HostPrint, HostReport, InstanceChange, InstanceSeen, InstanceWish, StateWish,
};
use plane::client::Client;
use plane::identity::Credentials;
use plane::serve::{Plane, Server};

const CALLERS: u8 = 8;
const TIME: Duration = Duration::from_secs(5);

fn main() {
    let folder = std::path::PathBuf::from(std::env::args().nth(1).expect("a folder to work in"));
    let token_file = folder.join("token");
    let state = format!("embedded:{}", folder.join("state").display());
    let plane = Plane::open(&state, &token_file, Duration::from_secs(15)).expect("the state opens");
    let server = Server::start(plane, "127.0.0.1:0".parse().expect("an address")).expect("a port");
    let token = std::fs::read_to_string(token_file).expect("the token is there");
    let admin = Credentials::parse(&token).expect("a token");
    let url = format!("https://{}", server.address());
    let rate = |act: &(dyn Fn(&Client, u8, u64) + Sync)| {
        let done = AtomicU64::new(0);
        let begun = ambient::now();
        std::thread::scope(|scope| {
            for n in 0..CALLERS {
                let (done, url, admin) = (&done, &url, admin.clone());
                scope.spawn(move || {
                    let client = Client::new(url, admin).expect("a client");
                    for round in 0.. {
                        if begun.elapsed() > TIME {
                            return;
                        }
                        act(&client, n, round);
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        done.into_inner() as f64 / begun.elapsed().as_secs_f64()
    };
    let writes = rate(&|client, n, round| {
        let seen = InstanceSeen {
            name: format!("i{n}"),
            state: "running".to_owned(),
            generation: round,
            managed: true,
            cpus: 0,
            memory_bytes: 0,
        };
        let report = HostReport {
            name: format!("h{n}"),
            labels: Default::default(),
            cpus: 4,
            memory_bytes: 8 << 30,
            kvm: false,
            cache_bytes: 0,
            cached: Default::default(),
            needed: Default::default(),
            instances: vec![seen],
            peer: None,
            load: None,
        };
        let path = format!("/v1/hosts/{n:032x}/beat");
        client.put::<BeatReply>(&path, &report).expect("a beat is taken");
    });
    let reads = rate(&|client, n, _| {
        client.get::<HostPrint>(&format!("/v1/hosts/{n:032x}")).expect("a host is shown");
    });
    let wishes = rate(&|client, n, round| {
        let path = format!("/v1/instances/i{n}");
        if round == 0 {
            let wish = InstanceWish::new("ab".repeat(32), 1, 1 << 30);
            client.send("PUT", &path, &[], Some(&wish)).expect("a wish is taken");
        }
        let state = if round % 2 == 0 { StateWish::Suspended } else { StateWish::Stopped };
        let change = InstanceChange { state: Some(state), ..Default::default() };
        client.send("PATCH", &path, &[], Some(&change)).expect("a change is taken");
    });
    println!(
        "{{\"writes_per_s\":{writes:.0},\"reads_per_s\":{reads:.0},\"wishes_per_s\":{wishes:.0}}}"
    );
}
