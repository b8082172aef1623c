//! What a plane is sent, and what its store says.

use super::texts;
use crate::golden;

pub fn backups() -> Vec<Vec<u8>> {
    vec![golden("plane/tests/golden/backup-1.jsonl")]
}

pub fn requests() -> Vec<Vec<u8>> {
    let token = format!("user.{}.{}", "0123456789abcdef", "5a".repeat(32));
    let kept = format!("{token}.{}", "7b".repeat(32));
    let bodies = [
        r#"{"version":"5a5a","base_bytes":7,"cpus":1,"memory_bytes":536870912,"needs":["kvm"],"state":"running","project":"home"}"#,
        r#"{"state":"suspended","on":null,"pinned":true}"#,
        r#"{"instances":10,"cpus":8,"memory_bytes":17179869184,"stored_bytes":1099511627776}"#,
        r#"{"role":"operator","expires_s":3600,"project":"home","read_only":true}"#,
        r#"{"state":"drained","within_s":60}"#,
    ];
    let request = |body: &&str| format!("after=12&limit=100\n{token}\n\"7\"\n{body}").into_bytes();
    let mut all: Vec<_> = bodies.iter().map(request).collect();
    all.push(format!("host=a&x\n{kept}\n*\n{{}}").into_bytes());
    all
}

pub fn answers() -> Vec<Vec<u8>> {
    texts(&[
        r#"{"header":{"revision":"12"},"kvs":[{"key":"Yy9hYmM=","value":"AAAAAAAAAAAAAAAAAAAAAHZhbHVl","mod_revision":"11","lease":"7"}],"more":true}"#,
        r#"{"header":{"revision":"12"},"succeeded":true,"responses":[{"response_range":{"kvs":[{"key":"Yy9h","value":""}]}}]}"#,
        r#"{"result":{"header":{"revision":13},"created":true,"events":[{"type":"DELETE","kv":{"key":"Yy9h","mod_revision":"13"}}]}}"#,
        r#"{"result":{"canceled":true,"compact_revision":"5"}}"#,
        r#"{"ID":"7587883","TTL":"10"}"#,
        r#"{"result":{"ID":"7587883","TTL":"10"}}"#,
        r#"{"code":5,"message":"etcdserver: requested lease not found"}"#,
    ])
}
