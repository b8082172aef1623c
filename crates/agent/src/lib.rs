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

mod distances;
mod figures;
mod giving;
mod holds;
mod identity;
mod load;
mod metering;
mod orders;
mod planes;
mod tenure;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::{BeatReply, LoadSeen};
use host::{Failure, Host};
use plane::client::{Client, ClientError, REQUEST};

use distances::Distances;
use figures::Figures;
pub use giving::Give;
use giving::Giving;
use holds::Holds;
pub use identity::{Identity, join};
use load::Loads;
use planes::Planes;
use tenure::Tenure;
use work::Work;

/// Between two tries, when the plane does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// What a plane has to answer a beat, at least.
const PATIENCE_MIN: Duration = Duration::from_secs(2);
/// The shortest time between two beats, whatever the plane says.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// What guests left here that went on elsewhere is looked after this often...
const LOOK: Duration = Duration::from_secs(2);
/// ...and stored from here when nobody has taken it for so long.
const UNCLAIMED: Duration = Duration::from_secs(20);

/// What happened.
#[derive(Debug)]
pub enum Heard {
    /// The plane has taken a beat.
    Taken(BeatReply),
    /// The plane that was asked is away: the one at this address is asked from now on.
    Turned(String),
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
    planes: Mutex<Planes>,
    tenure: Tenure,
    giving: Giving,
    figures: Arc<Figures>,
    holds: Holds,
    distances: Distances,
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
        distances: Distances::default(),
        host,
        known_as,
        client: Mutex::new(Arc::new(client_of(&identity, &identity.url)?)),
        planes: Mutex::new(Planes::known(host, &identity.url)),
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
        scope.spawn(move || agent.measure());
        scope.spawn(move || agent.meter());
        scope.spawn(move || agent.look_what_it_holds());
        scope.spawn(move || agent.see_to_parcels());
        let ended = agent.beats();
        agent.over.store(true, Ordering::Relaxed);
        ended
    })
}

fn client_of(identity: &Identity, url: &str) -> Result<Client, Failure> {
    identity.client_at(url).map_err(|error| Failure::new("internal", error.to_string(), ""))
}

impl Agent<'_> {
    fn beats(&self) -> Result<(), Failure> {
        let mut lease = Duration::ZERO;
        // Where it began that nobody answers.
        let mut failed_at = None;
        loop {
            let client = self.client();
            let (heard, pause) = match self.beat(&client, self.patience(&client, lease)) {
                // A disk that is full now, for example.
                Err(failure) => (Heard::Stumbled(failure), RETRY),
                Ok(Ok(reply)) => {
                    let mut planes = self.planes.lock().unwrap_or_else(PoisonError::into_inner);
                    planes.named(self.host, &reply.planes);
                    drop(planes);
                    self.renew(&client);
                    lease = Duration::from_millis(reply.lease_ms);
                    (Heard::Taken(reply), (lease / 3).max(PAUSE_MIN))
                }
                Ok(Err(ClientError::Refused(problem))) if matches!(problem.status, 401 | 403) => {
                    return Err(Failure::new("permission", problem.detail, problem.hint));
                }
                Ok(Err(error)) => (Heard::Failed(error), RETRY),
            };
            if !(self.heard)(&heard) {
                return Ok(());
            }
            let away = matches!(&heard, Heard::Failed(error) if error.is_away());
            failed_at = if away { failed_at.or(Some(client.url().to_owned())) } else { None };
            let mut pause = pause;
            if away && let Some(url) = self.turn(client.url()) {
                // Asked at once, the lease goes on by whichever answers; and when none has, after a while.
                pause = if failed_at.as_ref() == Some(&url) { RETRY } else { PAUSE_MIN };
                (self.heard)(&Heard::Turned(url));
            }
            ambient::sleep(pause);
        }
    }

    /// How long a plane may take to answer a beat: where there is another, that one must have its time too
    /// before the lease is over.
    fn patience(&self, client: &Client, lease: Duration) -> Duration {
        let planes = self.planes.lock().unwrap_or_else(PoisonError::into_inner);
        if planes.after(client.url()).is_empty() {
            REQUEST
        } else {
            (lease / 3).clamp(PATIENCE_MIN, REQUEST)
        }
    }

    /// Asks the next plane from now on, if there is another.
    fn turn(&self, from: &str) -> Option<String> {
        let planes = self.planes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // One whose name nobody knows now is passed over.
        let next = planes.after(from).into_iter().find_map(|url| identity.client_at(url).ok())?;
        let url = next.url().to_owned();
        *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        Some(url)
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

    /// How far other sites are. On a thread of its own, as what learns peers.
    fn measure(&self) {
        let mut measured: Option<ambient::Instant> = None;
        while !self.over.load(Ordering::Relaxed) {
            let sites = self.giving.sites();
            // As soon as there is one.
            let is_due = match measured {
                Some(measured) => measured.elapsed() >= distances::PACE,
                None => !sites.is_empty(),
            };
            if is_due {
                self.distances.measure(&sites);
                measured = Some(ambient::now());
            }
            ambient::sleep(PAUSE_MIN);
        }
    }

    /// On a thread of its own: storing one may take long.
    fn see_to_parcels(&self) {
        let (mut looked, mut said): (Option<ambient::Instant>, _) = (None, Vec::new());
        while !self.over.load(Ordering::Relaxed) {
            if looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
                let done = self.host.see_to_parcels(UNCLAIMED);
                let done = done.unwrap_or_else(|failure| vec![failure.to_string()]);
                // What fails is said once, not each time.
                for did in done.iter().filter(|did| !said.contains(*did)) {
                    (self.heard)(&Heard::Did(did.clone()));
                }
                said = done;
                looked = Some(ambient::now());
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
            && let Ok(client) = client_of(&new, client.url())
        {
            self.giving.renew(&new);
            *identity = new;
            *self.client.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(client);
        }
    }

    /// Says what there is, and keeps what the plane grants for it.
    fn beat(
        &self,
        client: &Client,
        within: Duration,
    ) -> Result<Result<BeatReply, ClientError>, Failure> {
        let mut loads = self.beating.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = ambient::since_boot();
        let mut report = self.host.describe(self.known_as.labels.clone())?;
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone();
        report.peer = self.giving.told(&identity);
        let round_trips_us = self.distances.seen();
        report.load = Some(LoadSeen { round_trips_us, ..loads.of(self.host)? });
        self.holds.say(&mut report);
        if let Some(name) = &self.known_as.name {
            report.name.clone_from(name);
        }
        let path = format!("/v1/hosts/{}/beat", self.host.id());
        let answer = client.put_within::<BeatReply>(&path, &report, within);
        self.figures.beat(&report, answer.is_ok());
        if let Ok(reply) = &answer {
            self.tenure.granted(self.host, sent, reply)?;
        }
        Ok(answer)
    }
}
