//! The store on an etcd that is reached by TLS and wants to know who asks.

#[path = "support/certificates.rs"]
mod certificates;
mod support;

use std::time::{Duration, Instant};

use certificates::Authority;
use kv::{KvError, Location, Tls, Txn};
use support::Cluster;

const SOON: Duration = Duration::from_secs(30);

fn tls(cacert: Option<&str>, shown: Option<&[String; 2]>) -> Tls {
    let (cert, key) = shown.map(|[cert, key]| (cert.into(), key.into())).unzip();
    Tls { cacert: cacert.map(Into::into), cert, key }
}

#[test]
fn etcd_is_reached_by_tls_and_each_believes_only_whom_its_authority_signed() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, others) =
        (Authority::new(folder.path(), "ours"), Authority::new(folder.path(), "other"));
    let member = ours.sign("member", "127.0.0.1");
    let (plane, stranger) = (ours.sign("plane", "plane"), others.sign("stranger", "plane"));
    let seats = Cluster::seats(1);
    let port = seats[0].at[0].port();
    let authority = ours.file();
    let options = ["--cert-file", &member[0], "--key-file", &member[1]];
    let wants = ["--client-cert-auth", "--trusted-ca-file", &authority];
    let _cluster = Cluster::of(&seats, "https", &[&options[..], &wants].concat());
    let open = |scheme: &str, host: &str, tls: Tls| {
        kv::open(Location { text: format!("{scheme}://{host}:{port}/tls"), tls })
    };
    let right = || tls(Some(&authority), Some(&plane));
    let ends = Instant::now() + SOON;
    let kv = loop {
        match open("etcds", "127.0.0.1", right()) {
            Ok(kv) => break kv,
            Err(KvError::Unavailable { .. }) if Instant::now() < ends => {}
            Err(error) => panic!("{error}"),
        }
    };
    let watch = kv.watch("", kv.list("").unwrap().revision).unwrap();
    assert!(kv.commit(&Txn::create("a", "1")).unwrap().is_done());
    assert_eq!(watch.next(SOON).unwrap().unwrap().changes[0].key(), "a");
    kv.keep_alive(kv.grant(Duration::from_secs(2)).unwrap()).unwrap();

    let untrusted = |got: Result<_, KvError>, says: &str| match got {
        Err(KvError::Untrusted { detail, .. }) if detail.contains(says) => {}
        other => panic!("{says}: {other:?}"),
    };
    let other = others.file();
    untrusted(open("etcds", "127.0.0.1", tls(Some(&other), Some(&plane))), "UnknownIssuer");
    untrusted(open("etcds", "127.0.0.1", tls(None, Some(&plane))), "UnknownIssuer");
    untrusted(open("etcds", "localhost", right()), "localhost");
    for shown in [None, Some(&stranger)] {
        let got = open("etcds", "127.0.0.1", tls(Some(&authority), shown));
        assert!(matches!(got, Err(KvError::Stranger { .. })), "{got:?}");
    }
    // A member that is wrong is no reason not to ask the next one.
    let text = format!("etcds://localhost:{port},127.0.0.1:{port}/tls");
    assert!(kv::open(Location { text, tls: right() }).unwrap().get("a").unwrap().is_some());

    // A member that is not spoken to as it wants hangs up without a word.
    let plain = Cluster::start();
    let text = format!("etcds://{}", plain.hosts());
    let by_tls = kv::open(Location { text, tls: right() });
    for got in [by_tls, open("etcd", "127.0.0.1", Tls::default())] {
        match got {
            Err(error @ KvError::Unavailable { .. }) => assert!(error.hint().contains("etcds://")),
            other => panic!("{other:?}"),
        }
    }

    let key = std::fs::read_to_string(&plane[1]).unwrap();
    let secret = key.lines().nth(1).unwrap();
    let unusable = |tls: Tls, file: &str| match open("etcds", "127.0.0.1", tls) {
        Err(error @ KvError::Unusable { .. }) => {
            let said = error.to_string();
            assert!(said.contains(file) && !said.contains(secret), "{said}");
        }
        other => panic!("{file}: {other:?}"),
    };
    unusable(tls(Some("/nowhere/ca.pem"), None), "/nowhere/ca.pem");
    unusable(tls(Some(&plane[1]), None), &plane[1]);
    unusable(tls(Some(&authority), Some(&[plane[0].clone(), authority.clone()])), &plane[0]);
    unusable(tls(Some(&authority), Some(&[plane[1].clone(), plane[1].clone()])), &plane[1]);
}
