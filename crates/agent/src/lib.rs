//! A host's agent: says to a plane that this host is there and what it has, and does what the plane
//! orders, as long as it runs.
//!
//! ```text
//! beat:   report ──▶ plane ──lease──▶ plane/lease.json, for the shims
//! usage:  what instances have used ──▶ plane, which counts it
//! orders: plane ──▶ each on a thread of its own ──▶ how far it is, and what came of it ──▶ plane
//! ```
//!
//! **Invariant:** holds nothing. When it ends, instances go on until the host's lease is over, and are
//! held and suspended then by their own shims; the plane knows the host again with the next beat.
//! **Invariant:** starts nothing while the lease is over, and does nothing with a head of another
//! generation than the order's.

mod figures;
mod giving;
mod holds;
mod identity;
mod load;
mod metering;
mod orders;
mod tenure;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::BeatReply;
use host::{Failure, Host};
use plane::client::{Client, ClientError};

use figures::Figures;
pub use giving::Give;
use giving::Giving;
use holds::Holds;
pub use identity::{Identity, join};
use load::Loads;
use tenure::Tenure;
use work::Work;

/// Between two tries, when the plane does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// The shortest time between two beats, whatever the plane says.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// What happened.
#[derive(Debug)]
pub enum Heard {
    /// The plane has taken a beat.
    Taken(BeatReply),
    /// It did not; it is tried again.
    Failed(ClientError),
    /// This host could not say what it has; it is tried again.
    Stumbled(Failure),
    /// An order was carried out, or why not, in words.
    Did(String),
    /// Its figures are at this address.
    Figures(SocketAddr),
}

/// What a host is called and what is said of it.
#[derive(Debug, Clone, Default)]
pub struct KnownAs {
    /// None: as its machine is.
    pub name: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub give: Give,
    /// Where its figures are; none: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// One host and its plane.
struct Agent<'a> {
    host: &'a Host,
    known_as: &'a KnownAs,
    identity: Mutex<Identity>,
    client: Mutex<Arc<Client>>,
    tenure: Tenure,
    giving: Giving,
    figures: Arc<Figures>,
    holds: Holds,
    /// The order that is carried out for each instance: one after the other.
    under_way: Mutex<HashMap<String, Arc<Work>>>,
    /// One beat at a time: what was described last is said last.
    beating: Mutex<Loads>,
    over: AtomicBool,
    heard: &'a (dyn Fn(&Heard) -> bool + Sync),
}

/// Takes part until `heard`, which is told what happens, says no. A plane that does not know this host
/// any more ends it too, and so does another agent of this host.
pub fn run(
    host: &Host,
    identity: Identity,
    known_as: &KnownAs,
    heard: &(dyn Fn(&Heard) -> bool + Sync),
) -> Result<(), Failure> {
    let _only = host.only_agent()?;
    let giving = Giving::start(host, &identity, known_as.give)?;
    let figures = Arc::new(Figures::new(giving.given_bytes()));
    let told = known_as.metrics.map(|address| Figures::serve(&figures, address)).transpose()?;
    if let Some(told) = &told {
        heard(&Heard::Figures(told.address()));
    }
    let agent = Agent {
        giving,
        figures,
        holds: Holds::default(),
        host,
        known_as,
        client: Mutex::new(Arc::new(client_of(&identity)?)),
        identity: Mutex::new(identity),
        tenure: Tenure::default(),
        under_way: Mutex::default(),
        beating: Mutex::default(),
        over: AtomicBool::new(false),
        heard,
    };
    std::thread::scope(|scope| {
        let agent = &agent;
        scope.spawn(move || agent.take_orders(scope));
        scope.spawn(move || agent.learn_peers());
        scope.spawn(move || agent.meter());
        scope.spawn(move || agent.look_what_it_holds());
        let ended = agent.beats();
        agent.over.store(true, Ordering::Relaxed);
        ended
    })
}

fn client_of(identity: &Identity) -> Result<Client, Failure> {
    identity.client().map_err(|error| Failure::new("internal", error.to_string(), ""))
}

impl Agent<'_> {
    fn beats(&self) -> Result<(), Failure> {
        loop {
            let client = self.client();
            let (heard, pause) = match self.beat(&client) {
                // A disk that is full now, for example.
                Err(failure) => (Heard::Stumbled(failure), RETRY),
                Ok(Ok(reply)) => {
                    self.renew(&client);
                    let third = Duration::from_millis(reply.lease_ms / 3);
                    (Heard::Taken(reply), third.max(PAUSE_MIN))
                }
                Ok(Err(ClientError::Refused(problem))) if matches!(problem.status, 401 | 403) => {
                    return Err(Failure::new("permission", problem.detail, problem.hint));
                }
                Ok(Err(error)) => (Heard::Failed(error), RETRY),
            };
            if !(self.heard)(&heard) {
                return Ok(());
            }
            ambient::sleep(pause);
        }
    }

    /// On a thread of its own: whoever waits for it must not keep a beat waiting.
    fn learn_peers(&self) {
        let mut asked: Option<ambient::Instant> = None;
        while !self.over.load(Ordering::Relaxed) {
            if asked.is_none_or(|asked| asked.elapsed() >= giving::ASK)
                && let Ok(twin) = self.client().twin()
            {
                self.giving.learn(self.host, &twin);
                asked = Some(ambient::now());
            }
            ambient::sleep(PAUSE_MIN);
        }
    }

    /// The plane, by the certificate that this host has now.
    fn client(&self) -> Arc<Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gets a new certificate in time. What fails is tried again with the next beat.
    fn renew(&self, client: &Client) {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        if !identity.is_old() {
            return;
        }
        if let Ok(new) = identity.renewed(self.host, client)
            && let Ok(client) = client_of(&new)
        {
            self.giving.renew(&new);
            *identity = new;
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(client);
        }
    }

    /// Says what there is, and keeps what the plane grants for it.
    fn beat(&self, client: &Client) -> Result<Result<BeatReply, ClientError>, Failure> {
        let mut loads = self.beating.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = ambient::since_boot();
        let mut report = self.host.describe(self.known_as.labels.clone())?;
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone();
        report.peer = self.giving.told(&identity);
        report.load = Some(loads.of(self.host)?);
        self.holds.say(&mut report);
        if let Some(name) = &self.known_as.name {
            report.name.clone_from(name);
        }
        let answer =
            client.put::<BeatReply>(&format!("/v1/hosts/{}/beat", self.host.id()), &report);
        self.figures.beat(&report, answer.is_ok());
        if let Ok(reply) = &answer {
            self.tenure.granted(self.host, sent, reply)?;
        }
        Ok(answer)
    }
}
