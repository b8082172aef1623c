//! Operations behind the plane's socket, on either kind of state: how far they are, who sees and cancels
//! them, and that what is said to be cancelled is not done.

#[path = "../../kv/tests/support/mod.rs"]
mod etcd;

use std::path::Path;
use std::time::{Duration, Instant};

use api::{
    BeatReply, EventPrint, HeadSeen, HostReport, InstanceChange, InstanceSeen, InstanceWish,
    NewToken, OperationKind, OperationPrint, OperationState, OrderAct, OrderEnd, OrderPrint,
    OrderReport, OrderUnderWay, OrdersKnown, PlacedPrint, Role, StateWish, TokenWish, Trouble,
};
use plane::client::{Answer, Client, ClientError};
use plane::identity::{Credentials, Secret};
use plane::serve::{Plane, Server};
use serde_json::json;

const NONE: Option<&()> = None;
/// Nothing here is about its end.
const LEASE: Duration = Duration::from_secs(600);
/// Longer than anything takes, also on a machine with much else to do.
const LONG: Duration = Duration::from_secs(60);

struct Serving {
    server: Server,
    client: Client,
}

fn serve(state: &str, folder: &Path) -> Serving {
    let file = folder.join("token");
    let plane = Plane::open(state, &file, LEASE).unwrap();
    let server = Server::start(plane, "127.0.0.1:0".parse().unwrap()).unwrap();
    let secret = Secret::parse(std::fs::read_to_string(file).unwrap().trim()).unwrap();
    let url = format!("https://{}", server.address());
    let client = Client::new(&url, Credentials::Admin(secret)).unwrap();
    Serving { server, client }
}

fn embedded(folder: &Path) -> String {
    format!("embedded:{}", folder.join("state").display())
}

/// A host, as its plane hears of it.
struct Host<'a> {
    client: &'a Client,
    id: String,
    name: &'static str,
}

impl<'a> Host<'a> {
    fn new(client: &'a Client, n: u8, name: &'static str) -> Self {
        Self { client, id: format!("{n:02x}").repeat(16), name }
    }

    /// It is there, and runs this at this generation.
    fn beat(&self, runs: Option<(&str, u64)>) {
        let seen = |(name, generation): (&str, u64)| InstanceSeen {
            name: name.to_owned(),
            state: "running".to_owned(),
            generation,
            managed: true,
            cpus: 1,
            memory_bytes: 1 << 30,
        };
        let report = HostReport {
            name: self.name.to_owned(),
            labels: Default::default(),
            cpus: 4,
            memory_bytes: 8 << 30,
            kvm: false,
            cache_bytes: 0,
            cached: Default::default(),
            needed: Default::default(),
            instances: runs.map(seen).into_iter().collect(),
            peer: None,
            load: None,
        };
        let _: BeatReply =
            self.client.put(&format!("/v1/hosts/{}/beat", self.id), &report).unwrap();
    }

    fn ask(&self, known: &OrdersKnown) -> Vec<OrderPrint> {
        self.client.post(&format!("/v1/hosts/{}/orders", self.id), known).unwrap()
    }

    /// Waits for an order of this kind. Who looks finds nothing in the repository.
    #[track_caller]
    fn ordered(&self, act: OrderAct) -> OrderPrint {
        let ends = Instant::now() + LONG;
        while Instant::now() < ends {
            let known = OrdersKnown { wait_ms: 1000, ..Default::default() };
            for order in self.ask(&known) {
                if order.act == OrderAct::Look {
                    let head = head(&order.name, 0, None, "none");
                    self.ends(&order, OrderEnd::Done, Some(head), None);
                } else {
                    assert_eq!(order.act, act, "{order:?}");
                    return order;
                }
            }
        }
        panic!("{} was never ordered to {act:?}", self.name);
    }

    fn ends(
        &self,
        order: &OrderPrint,
        end: OrderEnd,
        head: Option<HeadSeen>,
        trouble: Option<Trouble>,
    ) {
        let (id, name) = (order.id.clone(), order.name.clone());
        let report =
            OrderReport { order: id, name, act: order.act, end, trouble, head, cost: None };
        let path = format!("/v1/hosts/{}/done", self.id);
        self.client.send("POST", &path, &[], Some(&report)).unwrap();
    }

    /// Starts it.
    fn starts(&self, order: &OrderPrint) -> u64 {
        let generation = order.at + 1;
        self.beat(Some((&order.name, generation)));
        let head = head(&order.name, generation, Some(&self.id), "running");
        self.ends(order, OrderEnd::Done, Some(head), None);
        generation
    }

    fn lets_go(&self, order: &OrderPrint, state: &str) {
        self.beat(None);
        let head = head(&order.name, order.at + 1, None, state);
        self.ends(order, OrderEnd::Done, Some(head), None);
    }
}

fn head(name: &str, generation: u64, holder: Option<&str>, state: &str) -> HeadSeen {
    HeadSeen {
        name: name.to_owned(),
        generation,
        holder: holder.map(str::to_owned),
        state: state.to_owned(),
        checkpoint_unix_ms: None,
        offered_by: None,
    }
}

fn under_way(order: &OrderPrint, step: &str, done_bytes: u64, past: bool) -> OrdersKnown {
    let work = OrderUnderWay {
        order: order.id.clone(),
        name: order.name.clone(),
        step: Some(step.to_owned()),
        done_bytes: Some(done_bytes),
        past,
        called_back: false,
    };
    OrdersKnown { known: vec![order.id.clone()], wait_ms: 0, under_way: vec![work] }
}

fn wish() -> InstanceWish {
    InstanceWish {
        appliance: Some("tiny".to_owned()),
        ..InstanceWish::new("ab".repeat(32), 1, 1 << 30)
    }
}

fn to(state: StateWish) -> InstanceChange {
    InstanceChange { state: Some(state), ..Default::default() }
}

fn path(of: &str) -> String {
    format!("/v1/instances/{of}")
}

fn asks(client: &Client, of: &str, change: &InstanceChange) -> String {
    let answer = client.send("PATCH", &path(of), &[], Some(change)).unwrap();
    answer.operation.expect("it begins an operation")
}

fn shown(client: &Client, id: &str) -> OperationPrint {
    client.get(&format!("/v1/operations/{id}")).unwrap()
}

fn cancel(client: &Client, id: &str) -> Result<Answer, ClientError> {
    client.send("POST", &format!("/v1/operations/{id}/cancel"), &[], NONE)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(got: Result<T, ClientError>, status: u16) -> String {
    match got {
        Err(ClientError::Refused(problem)) => {
            assert_eq!(problem.status, status, "{problem:?}");
            assert!(!problem.hint.is_empty(), "{problem:?}");
            problem.detail
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn over(client: &Client, id: &str, state: OperationState) -> OperationPrint {
    let ends = Instant::now() + LONG;
    loop {
        let now = shown(client, id);
        if now.state.is_over() {
            assert_eq!(now.state, state, "{now:?}");
            assert!(now.ended_unix_ms.is_some_and(|at| at >= now.begun_unix_ms), "{now:?}");
            return now;
        }
        assert!(Instant::now() < ends, "{now:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `web` runs on the first host; its generation.
fn runs(client: &Client, host: &Host<'_>) -> u64 {
    host.beat(None);
    let put = client.send("PUT", &path("web"), &[], Some(&wish())).unwrap();
    let id = put.operation.unwrap();
    let order = host.ordered(OrderAct::Start);
    let generation = host.starts(&order);
    over(client, &id, OperationState::Done);
    generation
}

/// What follows on either kind of state, whichever plane is asked: `two` is another one, or the same.
fn is_shown_and_called_off(one: &Client, two: &Client) {
    let (a, b) = (Host::new(one, 1, "a"), Host::new(two, 2, "b"));
    // Nobody is there: it waits, and says for what.
    let put = one.send("PUT", &path("web"), &[], Some(&wish())).unwrap();
    let id = put.operation.unwrap();
    let ends = Instant::now() + LONG;
    while shown(two, &id).step.is_none() {
        assert!(Instant::now() < ends);
        std::thread::sleep(Duration::from_millis(20));
    }
    let now = shown(two, &id);
    assert_eq!((now.kind, now.state), (OperationKind::Start, OperationState::Waiting));
    assert_eq!((now.asked_by.as_str(), now.instance.as_str()), ("administrator", "web"));
    assert!(now.step.unwrap().contains("no host"));
    let placed: PlacedPrint = two.get(&path("web")).unwrap();
    assert_eq!(placed.operation.unwrap().id, id);
    // What nobody has begun is not done: it never was asked for.
    cancel(two, &id).unwrap();
    let now = shown(one, &id);
    assert_eq!(now.state, OperationState::Cancelled);
    assert_eq!(now.cancelled_by.as_deref(), Some("administrator"));
    refused(one.get::<PlacedPrint>(&path("web")), 404);
    cancel(one, &id).unwrap();

    // A host begins it: it is shown where and how far, and it is too late to cancel it.
    a.beat(None);
    let put = one.send("PUT", &path("web"), &[], Some(&wish())).unwrap();
    let id = put.operation.unwrap();
    let order = a.ordered(OrderAct::Start);
    let now = shown(two, &id);
    assert_eq!((now.state, now.host.as_ref()), (OperationState::Running, Some(&a.id)));
    assert_eq!(now.step.as_deref(), Some("starts on a"));
    a.ask(&under_way(&order, "reads its memory", 4096, true));
    let now = shown(two, &id);
    assert_eq!((now.step.as_deref(), now.done_bytes), (Some("reads its memory"), Some(4096)));
    assert!(refused(cancel(two, &id), 409).contains("host a has begun"));
    let generation = a.starts(&order);
    let done = over(two, &id, OperationState::Done);
    assert_eq!(done.step.as_deref(), Some("it is running on a"));
    refused(cancel(two, &id), 409);

    // To suspend it is cancelled before its host asks what to do: it is never told.
    let id = asks(one, "web", &to(StateWish::Suspended));
    let ends = Instant::now() + LONG;
    while shown(two, &id).step.as_deref() != Some("is suspended on a") {
        assert!(Instant::now() < ends, "{:?}", shown(two, &id));
        std::thread::sleep(Duration::from_millis(20));
    }
    cancel(two, &id).unwrap();
    assert_eq!(shown(one, &id).state, OperationState::Cancelled);
    a.beat(Some(("web", generation)));
    assert_eq!(a.ask(&OrdersKnown { wait_ms: 1500, ..Default::default() }), []);
    let placed: PlacedPrint = one.get(&path("web")).unwrap();
    assert_eq!((placed.wish.state, placed.operation), (StateWish::Running, None));

    // One that is on its way to another host stays, when that one has not let it go.
    b.beat(None);
    let on_b = InstanceChange { on: Some(b.id.clone()), ..to(StateWish::Running) };
    let id = asks(two, "web", &on_b);
    let order = a.ordered(OrderAct::Leave);
    let answered = Instant::now();
    let stores = under_way(&order, "is stored while it runs on", 1 << 20, false);
    assert_eq!(a.ask(&stores).len(), 1);
    let now = shown(two, &id);
    assert_eq!((now.kind, now.state), (OperationKind::Move, OperationState::Running));
    assert_eq!(now.done_bytes, Some(1 << 20));
    cancel(two, &id).unwrap();
    let now = shown(one, &id);
    assert!(!now.state.is_over() && now.cancelled_by.is_some(), "{now:?}");
    // Its host hears of that at once.
    let waits = OrdersKnown { wait_ms: 10_000, ..stores };
    assert_eq!(a.ask(&waits), []);
    assert!(answered.elapsed() < Duration::from_secs(9), "it was kept waiting");
    // Told once, it is not told again and again.
    let mut told = waits.clone();
    (told.under_way[0].called_back, told.wait_ms) = (true, 700);
    let began = Instant::now();
    a.ask(&told);
    assert!(began.elapsed() >= Duration::from_millis(700));
    assert!(!shown(one, &id).state.is_over(), "its host works on it");
    let stays = head("web", generation, Some(&a.id), "running");
    a.ends(&order, OrderEnd::Refused, Some(stays), None);
    over(two, &id, OperationState::Cancelled);
    let placed: PlacedPrint = one.get(&path("web")).unwrap();
    assert_eq!((placed.host.as_ref(), placed.generation), (Some(&a.id), generation));

    // Past that point it goes.
    let id = asks(two, "web", &on_b);
    let order = a.ordered(OrderAct::Leave);
    a.ask(&under_way(&order, "stands still", 1 << 20, true));
    assert!(refused(cancel(one, &id), 409).contains("host a has begun"));
    a.lets_go(&order, "suspended");
    let order = b.ordered(OrderAct::Start);
    let generation = b.starts(&order);
    let done = over(one, &id, OperationState::Done);
    assert_eq!(done.step.as_deref(), Some("it is running on b"));

    // It was let go while that was on its way: it comes back, and is nowhere between.
    let on_a = InstanceChange { on: Some(a.id.clone()), ..to(StateWish::Running) };
    let id = asks(one, "web", &on_a);
    let order = b.ordered(OrderAct::Leave);
    assert_eq!(order.at, generation);
    cancel(one, &id).unwrap();
    b.lets_go(&order, "suspended");
    let order = b.ordered(OrderAct::Start);
    assert!(!shown(one, &id).state.is_over());
    b.starts(&order);
    over(one, &id, OperationState::Cancelled);

    // Who asks for something else takes its place.
    let id = asks(one, "web", &to(StateWish::Suspended));
    let next = asks(two, "web", &to(StateWish::Stopped));
    let old = shown(one, &id);
    assert_eq!(old.state, OperationState::Cancelled);
    assert!(old.step.unwrap().contains(&next), "it says what instead");
    let order = loop {
        let orders = b.ask(&OrdersKnown { wait_ms: 1000, ..Default::default() });
        // What was ordered first may stand for a moment.
        if let Some(stop) = orders.into_iter().find(|order| order.act == OrderAct::Stop) {
            break stop;
        }
    };
    b.lets_go(&order, "stopped");
    over(one, &next, OperationState::Done);
    // What is so already is done at once; what is not asked of a host is no operation.
    let id = asks(one, "web", &to(StateWish::Stopped));
    over(one, &id, OperationState::Done);
    let pin = InstanceChange { pinned: Some(true), ..Default::default() };
    assert_eq!(one.send("PATCH", &path("web"), &[], Some(&pin)).unwrap().operation, None);

    // Only so many are kept of those that are over; the newest stay.
    let last = (0..12).map(|_| asks(one, "web", &to(StateWish::Stopped))).last().unwrap();
    over(one, &last, OperationState::Done);
    let listed: Vec<OperationPrint> = two.get("/v1/operations?instance=web").unwrap();
    assert_eq!((listed.len(), &listed[7].id), (8, &last));
    refused(one.get::<OperationPrint>(&format!("/v1/operations/{id}")), 404);
    refused(one.get::<OperationPrint>("/v1/operations/web"), 404);
    let others: Vec<OperationPrint> = two.get("/v1/operations?instance=db").unwrap();
    assert_eq!(others, []);
}

/// A host that has begun to start it is told, and what it says then decides.
fn a_start_is_called_off(one: &Client, two: &Client) {
    let a = Host::new(one, 1, "a");
    a.beat(None);
    // Of one that is new nothing is left, when it has not run.
    let put = one.send("PUT", &path("web"), &[], Some(&wish())).unwrap();
    let id = put.operation.unwrap();
    let order = a.ordered(OrderAct::Start);
    let starts = under_way(&order, "fetches", 4096, false);
    a.ask(&starts);
    // Its shim is there, and has not taken it yet: nobody holds it.
    a.beat(Some(("web", 0)));
    cancel(two, &id).unwrap();
    let now = shown(one, &id);
    assert!(!now.state.is_over() && now.cancelled_by.is_some(), "{now:?}");
    let began = Instant::now();
    let orders = a.ask(&OrdersKnown { wait_ms: 10_000, ..starts.clone() });
    assert_eq!((orders.len(), &orders[0].id, orders[0].called_off), (1, &order.id, true));
    assert!(began.elapsed() < Duration::from_secs(9), "its host hears of it at once");
    let mut told = starts;
    (told.under_way[0].called_back, told.wait_ms) = (true, 2500);
    assert_eq!(a.ask(&told), orders, "nothing is decided while its host works on it");
    assert!(!shown(one, &id).state.is_over());
    let never_there = head("web", order.at, None, "none");
    a.beat(None);
    a.ends(&order, OrderEnd::Refused, Some(never_there), None);
    over(two, &id, OperationState::Cancelled);
    eventually_none(one, "web");

    // It ran before its host heard of it: it rests, and is there.
    let put = one.send("PUT", &path("web"), &[], Some(&wish())).unwrap();
    let id = put.operation.unwrap();
    let order = a.ordered(OrderAct::Start);
    cancel(two, &id).unwrap();
    a.starts(&order);
    let rests = a.ordered(OrderAct::Suspend);
    assert!(!shown(one, &id).state.is_over());
    a.lets_go(&rests, "suspended");
    over(two, &id, OperationState::Cancelled);
    let placed: PlacedPrint = one.get(&path("web")).unwrap();
    assert_eq!((placed.wish.state, placed.state.as_str()), (StateWish::Suspended, "suspended"));

    // One that is there rests on. Its guest has begun to run, as its host says: that is too late.
    let id = asks(one, "web", &to(StateWish::Running));
    let order = a.ordered(OrderAct::Start);
    cancel(two, &id).unwrap();
    // An agent that knows nothing of it is told not to begin it.
    let told = a.ask(&OrdersKnown::default());
    assert!(told.iter().any(|told| told.called_off && told.id == order.id), "{told:?}");
    let rests = head("web", order.at + 2, None, "suspended");
    a.ends(&order, OrderEnd::Refused, Some(rests), None);
    over(two, &id, OperationState::Cancelled);
    let id = asks(one, "web", &to(StateWish::Running));
    let order = a.ordered(OrderAct::Start);
    assert_eq!(order.at, placed.generation + 2, "what its host said counts");
    a.ask(&under_way(&order, "runs", 4096, true));
    assert!(refused(cancel(two, &id), 409).contains("host a has begun"));
    a.starts(&order);
    over(one, &id, OperationState::Done);
    assert_eq!(a.ask(&OrdersKnown { wait_ms: 1500, ..Default::default() }), []);

    // Only who cancels calls a start off: not who wishes for something else while its host starts it. That one
    // is told so although its order does not stand any more since it said that it has it.
    client_rests(one, &a);
    let id = asks(one, "web", &to(StateWish::Running));
    let order = a.ordered(OrderAct::Start);
    a.beat(Some(("web", order.at + 1)));
    let starts = OrdersKnown { wait_ms: 1500, ..under_way(&order, "fetches", 4096, false) };
    assert!(a.ask(&starts).iter().all(|order| !order.called_off));
    cancel(two, &id).unwrap();
    let told = a.ask(&OrdersKnown { wait_ms: 10_000, ..starts });
    assert!(told.iter().any(|told| told.called_off && told.id == order.id), "{told:?}");
    let rests = head("web", order.at + 2, None, "suspended");
    a.beat(None);
    a.ends(&order, OrderEnd::Refused, Some(rests), None);
    over(two, &id, OperationState::Cancelled);

    let id = asks(one, "web", &to(StateWish::Running));
    let order = a.ordered(OrderAct::Start);
    asks(one, "web", &to(StateWish::Stopped));
    let starts = OrdersKnown { wait_ms: 1500, ..under_way(&order, "fetches", 4096, false) };
    assert!(a.ask(&starts).iter().all(|order| !order.called_off));
    assert_eq!(shown(one, &id).state, OperationState::Cancelled);
    a.starts(&order);
    let order = a.ordered(OrderAct::Stop);
    a.lets_go(&order, "stopped");
}

/// `web`, which runs on this host, is suspended.
fn client_rests(client: &Client, host: &Host<'_>) {
    let id = asks(client, "web", &to(StateWish::Suspended));
    let order = host.ordered(OrderAct::Suspend);
    host.lets_go(&order, "suspended");
    over(client, &id, OperationState::Done);
}

#[track_caller]
fn eventually_none(client: &Client, of: &str) {
    let ends = Instant::now() + LONG;
    while client.get::<PlacedPrint>(&path(of)).is_ok() {
        assert!(Instant::now() < ends, "{of} is wished for");
        std::thread::sleep(Duration::from_millis(20));
    }
    refused(client.get::<PlacedPrint>(&path(of)), 404);
}

/// Does it with a plane on an embedded state.
fn on_an_embedded_state(act: fn(&Client, &Client)) {
    let folder = tempfile::tempdir().unwrap();
    let Serving { server: _server, client } = serve(&embedded(folder.path()), folder.path());
    act(&client, &client);
}

/// Does it with two planes that share one on etcd.
fn on_etcd(act: fn(&Client, &Client)) {
    let cluster = etcd::Cluster::start();
    let folder = tempfile::tempdir().unwrap();
    let state = cluster.location("plane");
    let one = serve(&state, folder.path());
    let two = serve(&state, folder.path());
    act(&one.client, &two.client);
}

#[test]
fn a_start_that_a_host_has_begun_is_called_off_on_an_embedded_state() {
    on_an_embedded_state(a_start_is_called_off);
}

#[test]
fn etcd_lets_any_plane_call_off_a_start_that_a_host_has_begun() {
    on_etcd(a_start_is_called_off);
}

#[test]
fn an_operation_is_shown_and_called_off_on_an_embedded_state() {
    on_an_embedded_state(is_shown_and_called_off);
}

#[test]
fn etcd_lets_any_plane_show_an_operation_and_call_it_off() {
    on_etcd(is_shown_and_called_off);
}

#[test]
fn what_does_not_come_about_has_failed_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let Serving { server: _server, client } = serve(&embedded(folder.path()), folder.path());
    let a = Host::new(&client, 1, "a");
    let generation = runs(&client, &a);
    // It is not there, and nobody says of what it is to be made.
    let nothing = InstanceWish { appliance: None, ..wish() };
    let put = client.send("PUT", &path("db"), &[], Some(&nothing)).unwrap();
    let id = put.operation.unwrap();
    let ends = Instant::now() + LONG;
    while !shown(&client, &id).state.is_over() {
        for order in a.ask(&OrdersKnown { wait_ms: 100, ..Default::default() }) {
            assert_eq!(order.act, OrderAct::Look, "{order:?}");
            a.ends(&order, OrderEnd::Done, Some(head("db", 0, None, "none")), None);
        }
        assert!(Instant::now() < ends);
    }
    let failed = shown(&client, &id);
    assert_eq!(failed.state, OperationState::Failed);
    assert!(failed.failure.unwrap().detail.contains("no such instance"));

    // What fails is tried again, and is shown with why; who takes it back then has not changed their mind.
    let id = asks(&client, "web", &to(StateWish::Suspended));
    let order = a.ordered(OrderAct::Suspend);
    assert_eq!(order.at, generation);
    let why = Trouble {
        kind: "no_space".to_owned(),
        detail: "the repository is full".to_owned(),
        hint: "make room".to_owned(),
    };
    let stays = head("web", generation, Some(&a.id), "running");
    a.ends(&order, OrderEnd::Failed, Some(stays), Some(why.clone()));
    let now = shown(&client, &id);
    assert_eq!((now.state, now.failure.as_ref()), (OperationState::Waiting, Some(&why)));
    client.send("DELETE", &path("web"), &[], NONE).unwrap();
    let failed = shown(&client, &id);
    assert_eq!((failed.state, failed.failure), (OperationState::Failed, Some(why)));
}

#[test]
fn an_operation_is_seen_and_cancelled_by_whom_it_concerns_and_once() {
    let folder = tempfile::tempdir().unwrap();
    let Serving { server, client } = serve(&embedded(folder.path()), folder.path());
    let send = |method: &str, path: &str, body: &serde_json::Value| {
        client.send(method, path, &[], Some(body)).unwrap();
    };
    for project in ["blue", "red"] {
        send("PUT", &format!("/v1/projects/{project}"), &json!({}));
    }
    let url = format!("https://{}", server.address());
    let by = |user: &str, project: &str, role: Role| {
        send("PUT", &format!("/v1/users/{user}"), &json!({}));
        let path = format!("/v1/projects/{project}/members/{user}");
        send("PUT", &path, &json!({"role": role}));
        let wish = TokenWish { user: Some(user.to_owned()), ..TokenWish::default() };
        let token: NewToken = client.post("/v1/tokens", &wish).unwrap();
        Client::new(&url, Credentials::parse(&token.token).unwrap()).unwrap()
    };
    let anna = by("anna", "blue", Role::User);
    let bert = by("bert", "blue", Role::User);
    let olaf = by("olaf", "blue", Role::Operator);
    let audi = by("audi", "blue", Role::Auditor);
    let rita = by("rita", "red", Role::Admin);
    let mut begins = 0;
    let here = rita.events(None, |id, document| {
        begins = id;
        document.is_some()
    });
    here.unwrap();

    // Asked again with its key it is the same operation.
    let key = [("Idempotency-Key", "k1")];
    let ask = || anna.send("PUT", &path("web"), &key, Some(&wish())).unwrap().operation.unwrap();
    let id = ask();
    assert_eq!(ask(), id);
    let at = format!("/v1/operations/{id}");
    let list = |client: &Client, query: &str| -> Vec<String> {
        let found: Vec<OperationPrint> = client.get(&format!("/v1/operations{query}")).unwrap();
        found.into_iter().map(|found| found.id).collect()
    };
    for client in [&anna, &bert, &olaf, &audi, &client] {
        assert_eq!(client.get::<OperationPrint>(&at).unwrap().owner, "anna");
        assert_eq!(list(client, ""), [id.as_str()]);
        assert_eq!(list(client, "?project=blue&instance=web"), [id.as_str()]);
        assert_eq!(list(client, "?project=red"), [""; 0]);
    }
    refused(rita.get::<OperationPrint>(&at), 403);
    assert_eq!(list(&rita, ""), [""; 0]);
    // Neither who only reads, nor another user, nor who is of another project calls it off.
    for client in [&audi, &bert, &rita] {
        refused(cancel(client, &id), 403);
    }
    assert_eq!(shown(&anna, &id).state, OperationState::Waiting);
    // By what was seen.
    let etag = anna.send("GET", &at, &[], NONE).unwrap().etag.unwrap();
    let cancels = format!("{at}/cancel");
    refused(olaf.send("POST", &cancels, &[("If-Match", "\"1\"")], NONE), 412);
    let seen = [("If-Match", etag.as_str()), ("Idempotency-Key", "k2")];
    olaf.send("POST", &cancels, &seen, NONE).unwrap();
    olaf.send("POST", &cancels, &seen, NONE).unwrap();
    let now = shown(&anna, &id);
    assert_eq!((now.state, now.cancelled_by.as_deref()), (OperationState::Cancelled, Some("olaf")));
    // Who cancelled is in the audit log, once.
    let log: api::AuditPrint = client.get("/v1/projects/blue/audit?after=0").unwrap();
    let of = |entry: &&api::AuditEntry| entry.on == cancels && entry.status == 204;
    let who: Vec<_> = log.entries.iter().filter(of).map(|entry| entry.who.as_str()).collect();
    assert_eq!(who, ["olaf"]);
    assert!(log.entries.iter().any(|entry| entry.request == now.request));

    // It was heard of by whom it concerns, to its end.
    let hear = |client: &Client| {
        let mut states = Vec::new();
        let heard = client.events(Some(begins), |_, document| {
            let Some(document) = document else { return true };
            let event: EventPrint = serde_json::from_str(document).unwrap();
            let of = event.operation.filter(|operation| operation.id == id);
            states.extend(of.map(|operation| operation.state));
            // Of its own project.
            event.name != "last" || event.event != "instance"
        });
        heard.unwrap();
        states
    };
    for (client, project) in [(&anna, "blue"), (&rita, "red")] {
        let last = InstanceWish { project: Some(project.to_owned()), ..wish() };
        client.send("PUT", &path("last"), &[], Some(&last)).unwrap();
        let states = hear(client);
        if project == "blue" {
            assert_eq!(states.last(), Some(&OperationState::Cancelled), "{states:?}");
            client.send("DELETE", &path("last"), &[], NONE).unwrap();
        } else {
            assert_eq!(states, []);
        }
    }
}
