//! A host that is overloaded, behind the plane's socket: what its hosts, its users and its operators see.

use std::time::{Duration, Instant};

use api::{
    BeatReply, HostPrint, HostReport, InstanceChange, InstanceLoad, InstanceSeen, InstanceWish,
    LoadSeen, OrderAct, OrderPrint, OrdersKnown, PlacedPrint, PlanPrint,
};
use plane::client::Client;
use plane::identity::{Credentials, Secret};
use plane::serve::{Plane, Server};

fn id(n: u8) -> String {
    format!("{n:02x}").repeat(16)
}

fn beat(client: &Client, n: u8, cpu_percent: u32, runs: &[&str]) {
    let seen = |name: &&str| InstanceSeen {
        name: (*name).to_owned(),
        state: "running".to_owned(),
        generation: 3,
        managed: true,
        cpus: 1,
        memory_bytes: 1 << 30,
    };
    let used = InstanceLoad { cpu_percent: Some(300), unsaved_bytes: Some(5 << 20) };
    let instances = runs.iter().map(|name| ((*name).to_owned(), used)).collect();
    let report = HostReport {
        name: format!("h{n}"),
        labels: Default::default(),
        cpus: 4,
        memory_bytes: 8 << 30,
        kvm: false,
        cache_bytes: 0,
        cached: Default::default(),
        needed: Default::default(),
        instances: runs.iter().map(seen).collect(),
        peer: None,
        load: Some(LoadSeen { cpu_percent, memory_percent: 30, instances, ..Default::default() }),
    };
    client.put::<BeatReply>(&format!("/v1/hosts/{}/beat", id(n)), &report).unwrap();
}

fn serve(folder: &std::path::Path, relieve: bool) -> (Server, Client) {
    let (state, file) =
        (format!("embedded:{}", folder.join("state").display()), folder.join("token"));
    let plane = Plane::open(&state, &file, Duration::from_secs(600)).unwrap();
    plane.relieve(relieve);
    let server = Server::start(plane, "127.0.0.1:0".parse().unwrap()).unwrap();
    let secret = Secret::parse(std::fs::read_to_string(file).unwrap().trim()).unwrap();
    let client = Client::new(&format!("https://{}", server.address()), Credentials::Admin(secret));
    (server, client.unwrap())
}

fn wish(client: &Client, name: &str, pinned: bool) {
    let wish = InstanceWish { pinned, ..InstanceWish::new("ab".repeat(32), 1, 1 << 30) };
    client.send("PUT", &format!("/v1/instances/{name}"), &[], Some(&wish)).unwrap();
}

#[test]
fn what_leaves_a_host_that_is_overloaded_is_said_and_ordered() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, client) = serve(folder.path(), true);
    wish(&client, "web", true);
    beat(&client, 1, 180, &["web"]);
    beat(&client, 2, 10, &[]);
    // It is pinned: nothing leaves, and that is said.
    let plan: PlanPrint = client.get("/v1/plan").unwrap();
    assert_eq!((plan.choices.len(), plan.stay), (0, 1), "{plan:?}");
    let (host, why) = (&plan.overloaded[0].host, &plan.overloaded[0].why);
    assert!(host == "h1" && why.contains("180% of its CPUs") && why.contains("may leave"), "{why}");
    let hosts: Vec<HostPrint> = client.get("/v1/hosts").unwrap();
    assert_eq!(hosts[0].load.as_ref().unwrap().cpu_percent, 180);

    let change = InstanceChange { pinned: Some(false), ..Default::default() };
    client.send("PATCH", "/v1/instances/web", &[], Some(&change)).unwrap();
    let known = OrdersKnown { wait_ms: 10_000, ..Default::default() };
    let path = format!("/v1/hosts/{}/orders", id(1));
    let ends = Instant::now() + Duration::from_secs(60);
    let order = loop {
        let orders: Vec<OrderPrint> = client.post(&path, &known).unwrap();
        if let Some(order) = orders.into_iter().next() {
            break order;
        }
        assert!(Instant::now() < ends, "there never is an order");
    };
    assert_eq!((order.name.as_str(), order.act, order.at), ("web", OrderAct::Leave, 3));
    let placed = loop {
        let placed: PlacedPrint = client.get("/v1/instances/web").unwrap();
        if placed.next.is_some() {
            break placed;
        }
        assert!(Instant::now() < ends, "nobody says what is done");
        std::thread::sleep(Duration::from_millis(20));
    };
    let next = placed.next.unwrap();
    assert!(
        next.starts_with("leaves h1: h1 is overloaded: ") && next.contains("h2 has room"),
        "{next}"
    );
    let relief = placed.relief.unwrap();
    assert_eq!((relief.from, relief.to, relief.why.len()), (id(1), id(2), 3));
    // It stands until it is done, and nothing else is begun.
    let plan: PlanPrint = client.get("/v1/plan").unwrap();
    assert!(plan.choices.is_empty() && plan.overloaded[0].why.contains("awaited"), "{plan:?}");
}

#[test]
fn a_plane_that_is_told_so_relieves_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, client) = serve(folder.path(), false);
    wish(&client, "web", false);
    beat(&client, 1, 180, &["web"]);
    beat(&client, 2, 10, &[]);
    let plan: PlanPrint = client.get("/v1/plan").unwrap();
    assert!(plan.choices.is_empty() && plan.overloaded.is_empty() && plan.stay == 1, "{plan:?}");
}
