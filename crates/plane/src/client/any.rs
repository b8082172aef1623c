//! Asking whichever plane of a state answers: what the CLI does. They share the state, so it does not matter which
//! has what it knows from there.
//!
//! ```text
//! the first ──away──▶ the next ──away──▶ … each once for a request, and the one that answered for the next request
//! ```
//!
//! *When an answer is lost,* the next is asked for what only looks, and for what goes with an `Idempotency-Key`: it
//! is done once by whichever plane. All else is sent on only when nobody was there to take it.
//!
//! **Invariant:** whoever is at any of the addresses is believed only by the certificate of the authority that the
//! credentials are for.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Answer, Client, ClientError, REQUEST, Unanswered, place, resend};
use crate::identity::Credentials;

/// Most planes that are asked for one request, and most bytes of an address that a plane names.
const PLANES_MAX: usize = 16;
const URL_BYTES_MAX: usize = 512;

/// What is noticed while it asks.
#[derive(Debug)]
pub enum Heard<'a> {
    /// One is away; the one at this address is asked instead.
    Turned { away: &'a ClientError, to: &'a str },
    /// Where all planes of the state are, as the one that was asked says.
    Named(&'a [String]),
}

type Hear = Box<dyn Fn(&Heard<'_>)>;

/// See the module's documentation.
pub struct AnyPlane {
    credentials: Credentials,
    asked: RefCell<Client>,
    /// As they were given.
    said: Vec<String>,
    named: RefCell<Vec<String>>,
    told: Told,
}

/// Who is told what is noticed: of each plane that is asked instead once, until one has answered.
struct Told {
    of: RefCell<BTreeSet<String>>,
    hear: Hear,
}

impl Told {
    fn turned(&self, away: &ClientError, to: &str) {
        if self.of.borrow_mut().insert(to.to_owned()) {
            (self.hear)(&Heard::Turned { away, to });
        }
    }
}

impl AnyPlane {
    /// Planes at these addresses, in this order, and those that one of them has named before.
    pub fn new(
        said: Vec<String>,
        named: Vec<String>,
        credentials: Credentials,
        hear: Hear,
    ) -> Result<Self, ClientError> {
        for url in &said {
            place(url)?;
        }
        let all = all(&said, &named);
        let first = all.first().cloned().unwrap_or_default();
        let others = all.get(1..).unwrap_or_default();
        let told = Told { of: RefCell::default(), hear };
        let client = match Client::new(&first, credentials.clone()) {
            Ok(client) => client,
            Err(away) => next(away, others, &credentials, &told)?.0,
        };
        Ok(Self { credentials, asked: RefCell::new(client), said, named: named.into(), told })
    }

    /// Sends anything, once: to the next only when it can be known that the one before has not done it, or when that
    /// makes no difference.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        document: Option<&impl Serialize>,
    ) -> Result<Answer, ClientError> {
        let may_repeat = method == "GET";
        let sent =
            self.each(may_repeat, |plane| plane.try_send(method, path, headers, document, REQUEST));
        sent.map_err(|unanswered| unanswered.error)
    }

    /// Sends what changes something: it is done once, by whichever plane, also when the answer is lost and it is
    /// sent again. One that nobody was there to take is not sent again.
    pub fn change(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        document: Option<&impl Serialize>,
    ) -> Result<Answer, ClientError> {
        resend(headers, |headers| {
            self.each(true, |plane| plane.try_send(method, path, headers, document, REQUEST))
        })
    }

    /// The same, and reads what was made by it.
    pub fn make<T: DeserializeOwned>(
        &self,
        path: &str,
        document: &impl Serialize,
    ) -> Result<T, ClientError> {
        let answer = self.change("POST", path, &[], Some(document))?;
        self.asked.borrow().read(&answer)
    }

    /// Reads a document.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = self.send("GET", path, &[], None::<&()>)?;
        self.asked.borrow().read(&answer)
    }

    /// Reads what happens ([`Client::events`]); another plane knows it by the same ids.
    pub fn events(
        &self,
        after: Option<u64>,
        mut heard: impl FnMut(u64, Option<&str>) -> bool,
    ) -> Result<(), ClientError> {
        let mut any = false;
        self.each(true, |plane| {
            let ended = plane.events(after, |id, document| {
                any = true;
                heard(id, document)
            });
            match ended {
                // Who has heard something says itself where it goes on.
                Err(error) if !any => Err(error.into()),
                ended => Ok(ended),
            }
        })
        .map_err(|unanswered| unanswered.error)?
    }

    /// Asks one after the other until one is not away.
    fn each<T: Names>(
        &self,
        may_repeat: bool,
        mut ask: impl FnMut(&Client) -> Result<T, Unanswered>,
    ) -> Result<T, Unanswered> {
        let all = all(&self.said, &self.named.borrow());
        let asked = self.asked.borrow().url().to_owned();
        let at = all.iter().position(|url| *url == asked).map_or(0, |at| at + 1);
        let (before, after) = all.split_at(at);
        let others = after.iter().chain(before).filter(|url| **url != asked).cloned();
        let others = others.collect::<Vec<_>>();
        let mut others = &others[..];
        let mut may_be_done = false;
        loop {
            let answer = ask(&self.asked.borrow());
            let unanswered = match answer {
                Ok(answer) => {
                    self.told.of.borrow_mut().clear();
                    self.names(answer.names());
                    return Ok(answer);
                }
                Err(unanswered) => unanswered,
            };
            may_be_done |= unanswered.may_be_done;
            let was_there = !matches!(unanswered.error, ClientError::Unreachable { .. });
            if !may_repeat && (may_be_done || was_there) {
                return Err(Unanswered { may_be_done, ..unanswered });
            }
            match next(unanswered.error, others, &self.credentials, &self.told) {
                Ok((client, left)) => {
                    *self.asked.borrow_mut() = client;
                    others = &others[others.len() - left..];
                }
                Err(error) => return Err(Unanswered { error, may_be_done }),
            }
        }
    }

    fn names(&self, named: &[String]) {
        if named.is_empty() || *self.named.borrow() == named {
            return;
        }
        (self.told.hear)(&Heard::Named(named));
        *self.named.borrow_mut() = named.to_vec();
    }
}

/// What an answer says of where planes are.
trait Names {
    fn names(&self) -> &[String];
}

impl Names for Answer {
    fn names(&self) -> &[String] {
        &self.planes
    }
}

impl Names for Result<(), ClientError> {
    fn names(&self) -> &[String] {
        &[]
    }
}

/// Each once.
fn all(said: &[String], named: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for url in said.iter().chain(named).map(|url| url.trim_end_matches('/')) {
        if url.len() <= URL_BYTES_MAX && all.len() < PLANES_MAX && !all.iter().any(|one| one == url)
        {
            all.push(url.to_owned());
        }
    }
    all
}

/// The first of these that can be asked instead of one that is away, and how many follow it.
fn next(
    mut away: ClientError,
    others: &[String],
    credentials: &Credentials,
    told: &Told,
) -> Result<(Client, usize), ClientError> {
    if !away.is_away() {
        return Err(away);
    }
    for (at, url) in others.iter().enumerate() {
        told.turned(&away, url);
        match Client::new(url, credentials.clone()) {
            Ok(client) => return Ok((client, others.len() - at - 1)),
            Err(error) if error.is_away() => away = error,
            // Another plane is there by now.
            Err(_) => {}
        }
    }
    Err(away)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::identity::Secret;

    #[test]
    fn who_asks_again_and_again_is_told_once_that_all_are_away() {
        let nowhere = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let urls = [nowhere(), nowhere()].map(|at| format!("https://{at}"));
        let heard = Rc::new(RefCell::new(Vec::new()));
        let said = heard.clone();
        let hear = move |heard: &Heard<'_>| {
            let Heard::Turned { away, to } = heard else { panic!("nobody names any") };
            said.borrow_mut().push((away.to_string(), (*to).to_owned()));
        };
        let secret = Credentials::Admin(Secret::parse(&"ab".repeat(32)).unwrap());
        let planes = AnyPlane::new(urls.to_vec(), Vec::new(), secret, Box::new(hear)).unwrap();
        for _ in 0..4 {
            let error = planes.get::<()>("/v1/whoami").unwrap_err();
            assert!(error.is_away(), "{error}");
        }
        let heard = heard.borrow();
        let to: Vec<_> = heard.iter().map(|(_, to)| to).collect();
        assert_eq!(to, [&urls[1], &urls[0]], "{heard:?}");
        assert!(heard[0].0.contains(&urls[0]) && heard[1].0.contains(&urls[1]), "{heard:?}");
    }
}
