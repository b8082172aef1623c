//! A door for the fuzzers (crate `fuzz`): what reads what callers, hosts and people send to a plane, as
//! functions of bytes. Nothing else goes through it.

use std::collections::BTreeMap;

use api::{
    HostChange, HostKey, HostReport, InstanceChange, InstanceWish, MemberWish, MeterReport,
    OrderReport, OrdersKnown, Quota, TokenWish, UserWish,
};

use crate::access::Caller;
use crate::backup;
use crate::identity::{UserToken, user_token_parts};
use crate::serve::{Ask, Request};

/// A copy of a plane's state, as it came, and with a right end.
pub fn backup(bytes: &[u8]) {
    let _ = backup::read(bytes);
    let summed = backup::with_end(bytes);
    if let Ok(mut entries) = backup::read(&summed) {
        let pairs = entries.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        let again = backup::write(pairs);
        entries.retain(|(key, _)| !backup::is_left_out(key));
        assert_eq!(backup::read(&again).ok(), Some(entries));
    }
}

/// A request: a line each with a query, a token and an entity tag, and a document.
pub fn request(bytes: &[u8]) {
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let mut line = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (query, token, tag) = (line(), line(), line());
    let body = parts.next().unwrap_or_default().to_vec();
    if let Some(read) = UserToken::parse(&token) {
        assert!(UserToken::is_id(read.id()), "{token:?}");
        assert_eq!(UserToken::parse(&read.bearer()).as_ref(), Some(&read));
    }
    if let Some((bearer, fingerprint)) = user_token_parts(&token) {
        assert!(UserToken::parse(&bearer).is_some() && !fingerprint.contains('.'));
    }
    let headers = BTreeMap::from([("if-match".to_owned(), tag)]);
    let request = Request { query, headers, body, ..Request::default() };
    let ask = Ask::new(&request, &Caller::Administrator, Vec::new());
    for name in ["after", "limit", "host", ""] {
        let value = ask.query(name);
        assert!(value.is_none_or(|value| !value.contains('&')), "{value:?}");
        let _ = ask.number(name);
    }
    let _ = ask.if_match();
    let _ = ask.body::<InstanceWish>();
    let _ = ask.body::<InstanceChange>();
    let _ = ask.body::<UserWish>();
    let _ = ask.body::<Quota>();
    let _ = ask.body::<MemberWish>();
    let _ = ask.body::<TokenWish>();
    let _ = ask.body::<HostChange>();
    let _ = ask.body::<HostKey>();
    let _ = ask.body::<HostReport>();
    let _ = ask.body::<MeterReport>();
    let _ = ask.body::<OrdersKnown>();
    let _ = ask.body::<OrderReport>();
}
