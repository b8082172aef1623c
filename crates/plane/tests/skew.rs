//! Hosts and planes one release apart: what the first release said, as bytes that stay, and what a newer
//! one may say.

use std::path::Path;
use std::time::Duration;

use api::{
    BeatReply, HostIdentity, HostReport, MeterReply, MeterReport, OrderAct, OrderPrint,
    OrderReport, OrdersKnown, PeersPrint, Problem, RELEASE, RELEASE_HEADER,
};
use plane::client::{Answer, Client, ClientError};
use plane::identity::{Credentials, Secret};
use plane::serve::{Plane, Server};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What a host sends, and what it is answered, in the order in which a host does it.
const HOST_SAYS: &str = include_str!("golden/host-says-1.json");
const PLANE_ANSWERS: &str = include_str!("golden/plane-answers-1.json");

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn serve(folder: &Path) -> (Server, Client) {
    let state = format!("embedded:{}", folder.join("state").display());
    let file = folder.join("token");
    let plane = Plane::open(&state, &file, Duration::from_secs(60)).unwrap();
    let server = Server::start(plane, "127.0.0.1:0".parse().unwrap()).unwrap();
    let secret = Secret::parse(std::fs::read_to_string(file).unwrap().trim()).unwrap();
    let url = format!("https://{}", server.address());
    let client = Client::new(&url, Credentials::Admin(secret)).unwrap();
    (server, client)
}

fn said(client: &Client, release: &str, said: &Value) -> Result<Answer, ClientError> {
    let path = said["path"].as_str().unwrap().replace("ID", &"01".repeat(16));
    let body = Some(&said["body"]).filter(|body| !body.is_null());
    client.send(said["method"].as_str().unwrap(), &path, &[(RELEASE_HEADER, release)], body)
}

/// The same with fields that nobody knows yet, wherever there are fields.
fn newer(value: &Value) -> Value {
    match value {
        Value::Array(each) => each.iter().map(newer).collect(),
        Value::Object(fields) => {
            let maps = ["labels", "cached", "revoked"];
            let field = |(name, value): (&String, &Value)| {
                (
                    name.clone(),
                    if maps.contains(&name.as_str()) { value.clone() } else { newer(value) },
                )
            };
            let mut fields: serde_json::Map<_, _> = fields.iter().map(field).collect();
            fields.insert("newer".to_owned(), json!({"than": ["this"]}));
            fields.into()
        }
        other => other.clone(),
    }
}

/// What the first release needs is there, and is of the kind that it was.
fn has_all_of(now: &Value, then: &Value, place: &str) {
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => {
            for (field, then) in then {
                let place = format!("{place}.{field}");
                has_all_of(now.get(field).unwrap_or_else(|| panic!("no {place}")), then, &place);
            }
        }
        (Value::Array(now), Value::Array(then)) => {
            assert_eq!(now.len(), then.len(), "{place}");
            now.iter().zip(then).for_each(|(now, then)| has_all_of(now, then, place));
        }
        _ => assert_eq!(now, then, "{place}"),
    }
}

/// Read by the types of today and written again, it is what it was, and perhaps more.
fn stays<T: DeserializeOwned + Serialize>(then: &Value) {
    let read: T = serde_json::from_value(then.clone()).unwrap();
    has_all_of(&serde_json::to_value(&read).unwrap(), then, std::any::type_name::<T>());
    // What a newer one adds changes nothing of what is read.
    let newer: T = serde_json::from_value(newer(then)).unwrap();
    assert_eq!(serde_json::to_value(&newer).unwrap(), serde_json::to_value(&read).unwrap());
}

#[test]
fn a_host_of_the_first_release_and_one_that_is_newer_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let (_server, client) = serve(folder.path());
    let wish = json!({"version": "ab".repeat(32), "cpus": 1, "memory_bytes": 1 << 27});
    client.send("PUT", "/v1/instances/web", &[], Some(&wish)).unwrap();
    let next = (RELEASE + 1).to_string();
    let says = parsed(HOST_SAYS);
    for document in says.as_array().unwrap() {
        for (release, document) in [("1", document.clone()), (&next, newer(document))] {
            let answer = said(&client, release, &document);
            let answer = answer.unwrap_or_else(|no| panic!("{document}: {no:?}"));
            if document["path"].as_str().unwrap().ends_with("beat") {
                let answered: Value = serde_json::from_slice(&answer.body).unwrap();
                assert_eq!(answered["managed"], json!(["web"]));
            }
        }
    }
    // A kind of order that this plane has not given.
    let mut unknown = says[5].clone();
    unknown["body"]["act"] = "dance".into();
    unknown["body"]["end"] = "tired".into();
    said(&client, &next, &unknown).unwrap();

    // Beyond that nobody guesses.
    for far in [RELEASE + 2, RELEASE + 40] {
        for document in says.as_array().unwrap() {
            match said(&client, &far.to_string(), document) {
                Err(ClientError::Refused(problem)) => {
                    assert_eq!((problem.status, problem.kind.as_str()), (426, "format"));
                    let words = format!("of release {far}, its plane of release {RELEASE}");
                    assert!(problem.detail.contains(&words), "{problem:?}");
                    assert!(problem.hint.contains("one release at a time"), "{problem:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(said(&client, "x", &says[0]).is_err());
}

#[test]
fn what_hosts_and_planes_say_has_all_that_the_first_release_reads() {
    let says = parsed(HOST_SAYS);
    let body = |n: usize| &says[n]["body"];
    stays::<OrdersKnown>(body(0));
    stays::<HostReport>(body(1));
    stays::<MeterReport>(body(3));
    stays::<OrderReport>(body(4));
    stays::<OrderReport>(body(5));
    let answers = parsed(PLANE_ANSWERS);
    stays::<BeatReply>(&answers["beat"]);
    stays::<Vec<OrderPrint>>(&answers["orders"]);
    stays::<PeersPrint>(&answers["peers"]);
    stays::<MeterReply>(&answers["usage"]);
    stays::<HostIdentity>(&answers["certificate"]);
    stays::<Problem>(&answers["refused"]);
    // One order that a host does not know keeps it from no other.
    let mut orders = answers["orders"].clone();
    orders[0]["act"] = "dance".into();
    let read: Vec<OrderPrint> = serde_json::from_value(orders).unwrap();
    assert_eq!((read[0].act, read[1].act), (OrderAct::Unknown, OrderAct::TakeOver));
}
