//! A request whose caller is known, and what it is about.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::de::DeserializeOwned;

use super::{Plane, Refused, token};
use crate::access::{Caller, Demand};
use crate::identity::{Peer, UserToken};
use kv::Revision;

/// A request, read.
#[derive(Debug, Default, Clone)]
pub struct Request {
    /// Names it, in the answer and in the audit log.
    pub id: String,
    pub method: String,
    pub path: String,
    /// What stands after `?`.
    pub query: String,
    /// By lower-case names.
    pub headers: BTreeMap<String, String>,
    /// The host whose certificate was shown.
    pub peer: Option<Peer>,
    pub body: Vec<u8>,
    /// Whose connection it is.
    pub from: Option<IpAddr>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Ask<'a> {
    pub request: &'a Request,
    pub caller: &'a Caller,
    /// The parts of the path that the route names in braces.
    pub parts: Vec<&'a str>,
    /// The project that it turned out to be about.
    pub project: RefCell<Option<String>>,
    /// The id of the operation that it begins.
    pub operation: RefCell<Option<String>>,
    /// What it will be answered, when that is a document.
    pub answer: RefCell<Option<String>>,
    /// What is written down in place of the document that was sent.
    pub says: RefCell<Option<String>>,
    /// It is in the audit log.
    pub noted: Cell<bool>,
}

type Result<T> = std::result::Result<T, Refused>;

impl<'a> Ask<'a> {
    pub fn new(request: &'a Request, caller: &'a Caller, parts: Vec<&'a str>) -> Self {
        let (project, operation, answer, says, noted) = Default::default();
        Self { request, caller, parts, project, operation, answer, says, noted }
    }

    /// It is about something of this project.
    pub fn in_project(&self, project: &str) {
        *self.project.borrow_mut() = Some(project.to_owned());
    }

    /// A value of the query.
    pub fn query(&self, name: &str) -> Option<&str> {
        let pairs = self.request.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// A number in the query.
    pub fn number(&self, name: &str) -> Result<Option<u64>> {
        let parse = |text: &str| text.parse();
        let number = self.query(name).map(parse).transpose();
        number.map_err(|_| Refused::wrong(format!("{name} is no number")))
    }

    /// The first part that the route names.
    pub fn about(&self) -> &str {
        self.parts.first().copied().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.request.headers.get(name).map(String::as_str)
    }

    /// The document that was sent.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T> {
        let read = serde_json::from_slice(&self.request.body);
        read.map_err(|error| Refused::wrong(error.to_string()))
    }

    /// What the caller has seen, if it says so.
    pub fn if_match(&self) -> Result<Option<Revision>> {
        let Some(value) = self.header("if-match").filter(|value| *value != "*") else {
            return Ok(None);
        };
        let number = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        match number.and_then(|number| number.parse().ok()) {
            Some(number) => Ok(Some(Revision(number))),
            None => Err(Refused::changed("an entity tag that is none of ours")),
        }
    }
}

impl Plane {
    /// Who asks.
    pub(super) fn caller(&self, request: &Request) -> Result<Caller> {
        let shown = request.headers.get("authorization");
        if let Some(shown) = shown.and_then(|value| value.strip_prefix("Bearer ")) {
            if token::is_same(shown, &self.secret.bearer()) {
                return Ok(Caller::Administrator);
            }
            if token::is_same(shown, &self.secret.join_bearer()) {
                return Ok(Caller::Joining);
            }
            if let Some(token) = UserToken::parse(shown)
                && let Some(user) = self.user_of(&token)?
            {
                return Ok(user);
            }
        } else if let Some(peer) = request.peer
            && self.is_trusted(&peer)?
        {
            return Ok(Caller::Host(peer.host));
        }
        let hint = "send `Authorization: Bearer TOKEN`; the plane's own token is in its token file. A \
                    token may have ended or been taken back; a host that was removed joins again";
        Err(Refused::new(401, "permission", "this needs a token of the plane's", hint))
    }
}

/// Refuses a host of a release with which this one has not agreed on anything.
pub fn of_a_release_that_fits(request: &Request) -> Result<()> {
    let said = request.headers.get(api::RELEASE_HEADER);
    let its = said.map_or(Some(1), |said| said.parse::<u64>().ok()).unwrap_or(u64::MAX);
    if its.abs_diff(api::RELEASE) <= 1 {
        return Ok(());
    }
    let detail = format!(
        "this host is of release {its}, its plane of release {}: they may be one apart",
        api::RELEASE
    );
    let hint = "upgrade the older one, by one release at a time: docs/operating.md";
    Err(Refused::new(426, "format", detail, hint))
}

/// Not with this identity.
pub fn forbidden(demand: Demand) -> Refused {
    let detail = format!("this needs {}", demand.words());
    Refused::new(403, "permission", detail, "`collective whoami` says what a token allows")
}
