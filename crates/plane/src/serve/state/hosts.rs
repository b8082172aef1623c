//! Hosts: they say that they are there, and people say what is to become of them.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use api::{BeatReply, HostChange, HostPrint, HostReport, HostWish, LoadSeen, PeersPrint};
use kv::{Condition, Entry, KvError, Outcome, Revision, Txn};
use model::HostId;

use super::{HostRecord, LOADS, Result, SeenRecord, TRIES, host_id, json, name, read, version};
use crate::fleet::{Host, HostState, SITE};
use crate::serve::ask::Ask;
use crate::serve::{Plane, Refused};

/// How long a host that is drained may look for other hosts, unless somebody says otherwise.
const DRAIN_S: u64 = 600;
/// Most peers that a host is told of.
const PEERS_MAX: usize = 16;
/// Most sites that a host is told of.
const SITES_MAX: usize = 64;
/// So old may be what hosts are told of their peers.
const LATELY: Duration = Duration::from_secs(2);

impl Plane {
    /// A host says that it is there, and what it has.
    pub(in crate::serve) fn beat(&self, id: HostId, mut report: HostReport) -> Result<BeatReply> {
        for id in report.cached.keys().chain(report.needed.keys()) {
            version(id)?;
        }
        for seen in &report.instances {
            name(&seen.name)?;
        }
        if let Some(peer) = &report.peer {
            // The others go where it says, and take nobody there for it who has not its certificate.
            let its_own = peer.name.contains(&format!(".h{id}."));
            if !its_own || peer.address.parse::<SocketAddr>().is_err() {
                let message =
                    format!("{} at {:?} is no peer of host {id}", peer.name, peer.address);
                return Err(Refused::wrong(message));
            }
        }
        let begun_again = self.keep_alive(id)?;
        // By itself: it changes all the time, and is no news to who listens to events.
        self.keep_load(id, report.load.take())?;
        let mut managed = Vec::new();
        for seen in &report.instances {
            if self.kv.get(&format!("instances/{}", seen.name))?.is_some() {
                managed.push(seen.name.clone());
            }
        }
        let lease_ms = self.lease_ms();
        let reply_managed = managed.clone();
        let planes = self.planes()?;
        let reply = |wish| BeatReply { lease_ms, begun_again, state: word(wish), managed, planes };
        let key = format!("hosts/{id}");
        for _ in 0..TRIES {
            let entry = self.kv.get(&key)?;
            let old = entry.as_ref().map(read::<HostRecord>).transpose()?;
            if let Some(old) = &old
                && old.report == report
            {
                return Ok(reply(old.wish));
            }
            // What it holds first: a host that is known to hold nothing may be forgotten.
            let said = old.as_ref().map_or(&[][..], |old| &old.report.instances);
            let news = report.instances.iter().filter(|seen| !said.contains(seen));
            for seen in news.filter(|seen| reply_managed.contains(&seen.name)) {
                self.said_by_holder(id, seen)?;
                self.is_as_large(id, seen)?;
            }
            // What it no longer speaks of has to be looked at.
            for seen in said {
                if !report.instances.iter().any(|now| now.name == seen.name) {
                    self.not_said_by_holder(id, &seen.name)?;
                }
            }
            let (txn, wish) = match (entry, old) {
                (Some(entry), Some(old)) => {
                    let new = HostRecord { report: report.clone(), ..old };
                    (Txn::replace(&key, entry.revision, json(&new)), new.wish)
                }
                _ => {
                    let wish = HostWish::Ready;
                    let new = HostRecord { report: report.clone(), wish, drain_by_unix_ms: 0 };
                    (Txn::create(&key, json(&new)), wish)
                }
            };
            if self.kv.commit(&txn)?.is_done() {
                return Ok(reply(wish));
            }
        }
        Err(Refused::changed(&format!("host {id}")))
    }

    /// Begins a host's lease anew; whether there was none.
    fn keep_alive(&self, id: HostId) -> Result<bool> {
        let key = format!("alive/{id}");
        // One that was granted for another time lasts that time, however often it is kept alive.
        let lasts = json(&self.lease_ms());
        let entry = self.kv.get(&key)?.filter(|entry| entry.value == lasts);
        let lease = entry.and_then(|entry| entry.lease);
        match lease.map(|lease| self.kv.keep_alive(lease)) {
            Some(Ok(())) => return Ok(false),
            Some(Err(KvError::LeaseGone)) | None => {}
            Some(Err(error)) => return Err(error.into()),
        }
        let lease = self.kv.grant(self.lease)?;
        self.kv.commit(&Txn::new().put_leased(&key, lasts, lease))?;
        Ok(true)
    }

    fn lease_ms(&self) -> u64 {
        self.lease.as_millis() as u64
    }

    /// All hosts, by name.
    pub(in crate::serve) fn hosts(&self) -> Result<Vec<HostPrint>> {
        let alive = self.alive()?;
        let mut loads = self.loads()?;
        let mut hosts = Vec::new();
        for entry in self.kv.list("hosts/")?.entries {
            let load = loads.remove(&entry.key["hosts/".len()..]);
            hosts.push(print(&entry, &alive, load)?);
        }
        hosts.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(hosts)
    }

    pub(in crate::serve) fn host(&self, id: HostId) -> Result<(Revision, HostPrint)> {
        let entry = self.kv.get(&format!("hosts/{id}"))?;
        let entry = entry.ok_or_else(|| Refused::not_found(&format!("host {id}")))?;
        let load = self.kv.get(&format!("{LOADS}{id}"))?.as_ref().map(read).transpose()?;
        Ok((entry.revision, print(&entry, &self.alive()?, load)?))
    }

    pub(super) fn alive(&self) -> Result<HashSet<HostId>> {
        let entries = self.kv.list("alive/")?.entries;
        entries.into_iter().map(|entry| host_id(&entry.key["alive/".len()..])).collect()
    }

    /// Whom a host may ask for chunks, and whom it answers.
    pub(in crate::serve) fn peers(&self, id: HostId) -> Result<PeersPrint> {
        let hosts = self.hosts_lately()?;
        let site = |host: &HostPrint| host.labels.get(SITE).cloned();
        let own = hosts.iter().find(|(at, _)| *at == id).and_then(|(_, host)| site(host));
        let others = hosts.iter().filter(|(at, host)| *at != id && host.state != "gone");
        let mut others: Vec<_> = others
            .filter_map(|(at, host)| Some((site(host) != own, at, host.peer.clone()?)))
            .collect();
        others.sort_by_key(|(far, at, _)| (*far, **at));
        let mut revoked = BTreeMap::new();
        for entry in self.kv.list("revoked/")?.entries {
            revoked.insert(entry.key["revoked/".len()..].to_owned(), read(&entry)?);
        }
        let peers = others.into_iter().take(PEERS_MAX).map(|(_, _, peer)| peer).collect();
        Ok(PeersPrint { peers, revoked, sites: doors(id, own.as_deref(), &hosts) })
    }

    /// All hosts, as they were a moment ago: many ask.
    fn hosts_lately(&self) -> Result<Arc<Vec<(HostId, HostPrint)>>> {
        let mut known = self.hosts_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, hosts)) = &*known
            && at.elapsed() < LATELY
        {
            return Ok(hosts.clone());
        }
        let hosts = self.hosts()?.into_iter().map(|host| Ok((host_id(&host.id)?, host)));
        let hosts = Arc::new(hosts.collect::<Result<Vec<_>>>()?);
        *known = Some((ambient::now(), hosts.clone()));
        Ok(hosts)
    }

    /// Says what is to become of a host; at this revision, if one is given.
    pub(in crate::serve) fn wish_host(
        &self,
        ask: &Ask<'_>,
        id: HostId,
        at: Option<Revision>,
        change: HostChange,
    ) -> Result<()> {
        let key = format!("hosts/{id}");
        let drain_by_unix_ms = match change.state {
            HostWish::Draining => {
                let within = change.within_s.unwrap_or(DRAIN_S).saturating_mul(1000);
                ambient::unix_ms().saturating_add(within)
            }
            HostWish::Ready | HostWish::Cordoned => 0,
        };
        for _ in 0..TRIES {
            let entry = self.kv.get(&key)?;
            let entry = entry.ok_or_else(|| Refused::not_found(&format!("host {id}")))?;
            if at.is_some_and(|at| at != entry.revision) {
                return Err(Refused::changed(&format!("host {id}")));
            }
            let record: HostRecord = read(&entry)?;
            let new = HostRecord { wish: change.state, drain_by_unix_ms, ..record };
            if self.commit(ask, Txn::replace(&key, entry.revision, json(&new)))?.is_done() {
                return Ok(());
            }
        }
        Err(Refused::changed(&format!("host {id}")))
    }

    /// Forgets a host that is gone, or that holds nothing and is to get nothing; its certificate is
    /// worth nothing from then on.
    pub(in crate::serve) fn forget_host(&self, ask: &Ask<'_>, id: HostId) -> Result<()> {
        let (revision, host) = self.host(id)?;
        let still = |why: &str| {
            let detail = format!("host {} {why}", host.name);
            Err(Refused::new(
                409,
                "state",
                detail,
                "drain it until it holds nothing; or end its agent, and wait for its lease",
            ))
        };
        for entry in self.kv.list("seen/")?.entries {
            let seen: SeenRecord = read(&entry)?;
            let wished = self.kv.get(&format!("instances/{}", seen.head.name))?.is_some();
            if wished && seen.head.holder.as_deref() == Some(&id.to_string()) {
                let detail = format!("host {} was the last to have {}", host.name, seen.head.name);
                let hint = "let it go on elsewhere first: `collective resume NAME --on HOST`";
                return Err(Refused::new(409, "state", detail, hint));
            }
        }
        let txn = Txn::remove(&format!("hosts/{id}"), revision)
            .put(&format!("revoked/{id}"), json(&ambient::unix_ms()))
            .delete(&format!("{LOADS}{id}"))
            .delete(&format!("relief/{id}"));
        let alive = format!("alive/{id}");
        let txn = if host.state == HostState::Gone.as_str() {
            txn.when(&alive, Condition::Absent)
        } else if host.state != HostState::Ready.as_str() && host.instances == 0 {
            txn.delete(&alive)
        } else {
            return still("is there");
        };
        match self.commit(ask, txn)? {
            Outcome::Done(_) => self.keep_revocations(),
            Outcome::Refused => still("has come back"),
        }
    }
}

/// A door at each other site. Hosts of one site are told of different ones there, so that none is asked by all.
fn doors(id: HostId, own: Option<&str>, hosts: &[(HostId, HostPrint)]) -> BTreeMap<String, String> {
    let mut sites: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (_, host) in hosts.iter().filter(|(_, host)| host.state != HostState::Gone.as_str()) {
        if let (Some(site), Some(peer)) = (host.labels.get(SITE), &host.peer)
            && own != Some(site.as_str())
        {
            sites.entry(site).or_default().push(&peer.address);
        }
    }
    let turn = id.as_bytes().iter().fold(0, |sum, byte| sum + usize::from(*byte));
    let chosen = sites.into_iter().take(SITES_MAX);
    let chosen =
        chosen.map(|(site, doors)| (site.to_owned(), doors[turn % doors.len()].to_owned()));
    chosen.collect()
}

fn word(wish: HostWish) -> String {
    state(wish).as_str().to_owned()
}

fn state(wish: HostWish) -> HostState {
    match wish {
        HostWish::Ready => HostState::Ready,
        HostWish::Cordoned => HostState::Cordoned,
        HostWish::Draining => HostState::Draining,
    }
}

/// A host as the planner sees it, but for how busy it is.
pub fn as_planned(id: HostId, record: &HostRecord, lives: bool) -> Result<Host> {
    let report = &record.report;
    let cached = report.cached.iter();
    Ok(Host {
        id,
        name: report.name.clone(),
        state: if lives { state(record.wish) } else { HostState::Gone },
        labels: report.labels.clone(),
        cpus: report.cpus,
        memory_bytes: report.memory_bytes,
        kvm: report.kvm,
        cached: cached.map(|(id, bytes)| Ok((version(id)?, *bytes))).collect::<Result<_>>()?,
        load: None,
        round_trips_us: BTreeMap::new(),
        overloaded: false,
        relief_ms_ago: None,
    })
}

fn print(entry: &Entry, alive: &HashSet<HostId>, load: Option<LoadSeen>) -> Result<HostPrint> {
    let record: HostRecord = read(entry)?;
    let id = host_id(&entry.key["hosts/".len()..])?;
    let host = as_planned(id, &record, alive.contains(&id))?;
    Ok(HostPrint {
        id: id.to_string(),
        name: host.name,
        state: host.state.as_str().to_owned(),
        labels: host.labels,
        instances: record.report.instances.len() as u64,
        cache_bytes: record.report.cache_bytes,
        cached: record.report.cached,
        cpus: host.cpus,
        memory_bytes: host.memory_bytes,
        kvm: host.kvm,
        peer: record.report.peer,
        load: load.filter(|_| host.state != HostState::Gone),
    })
}
