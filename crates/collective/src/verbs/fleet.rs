//! `run`, `resume`, `suspend`, `stop`, `ps`, `move` and `pin` where a plane decides: what is wanted is said to
//! it, and waited for.
//!
//! A verb goes this way when `COLLECTIVE_PLANE` names a plane, or one of its options needs one.

use std::cell::RefCell;
use std::time::Duration;

use api::{
    CamePrint, HostPrint, InstanceChange, InstanceWish, OperationPrint, OperationState,
    PlacedPrint, RestartWish, StateWish, Trouble,
};
use host::{Failure, Host, Size};
use model::{Name, format_bytes};
use plane::client::{AnyPlane, ClientError};
use serde::Serialize;

use super::operations;
use super::planes::{client, find, not_answered};
use crate::cli::{At, Global, Move, Pin, Placement, Resume, Run, Stop, Suspend, Token};
use crate::print::{self, duration};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(150);
/// How long after a move it may take until it is known what that cost.
const COST: Duration = Duration::from_secs(20);
/// A suspend may have much to store.
const LONG: Duration = Duration::from_secs(3600);

/// What a verb prints that was carried out by a plane.
#[derive(Serialize)]
struct Print {
    name: String,
    state: String,
    /// The name of the host that has it.
    host: Option<String>,
    total_ms: u64,
    /// It goes on from a checkpoint of this age: what its last host did after that is not in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    from_ms_ago: Option<u64>,
    /// Of `move`.
    #[serde(flatten)]
    moved: Option<MovedPrint>,
}

/// What a move cost. All zero: it was there already.
#[derive(Serialize, Default)]
struct MovedPrint {
    /// For how long the guest stood still.
    pause_ms: u64,
    /// Bytes that its old host stored and its new one fetched until it went on.
    moved_bytes: u64,
    /// Of these, the bytes that came from other hosts.
    peer_bytes: u64,
}

/// Whether a plane decides.
pub fn decides() -> bool {
    std::env::var_os("COLLECTIVE_PLANE").is_some_and(|url| !url.is_empty())
}

fn at() -> At {
    At { plane: None, token: Token { token: None, token_file: None } }
}

/// A verb that waits for a plane.
struct Asked<'a> {
    global: &'a Global,
    client: AnyPlane,
    began: ambient::Instant,
    /// What it has asked for, when the plane says so.
    operation: RefCell<Option<String>>,
}

impl<'a> Asked<'a> {
    fn new(global: &'a Global) -> Result<Self, Failure> {
        let (client, began) = (client(global, &at())?, ambient::now());
        Ok(Self { global, client, began, operation: RefCell::default() })
    }

    fn path(name: &Name) -> String {
        format!("/v1/instances/{name}")
    }

    fn get(&self, name: &Name) -> Result<Option<PlacedPrint>, Failure> {
        match self.client.get(&Self::path(name)) {
            Ok(placed) => Ok(Some(placed)),
            Err(ClientError::Refused(problem)) if problem.status == 404 => Ok(None),
            Err(error) => Err(not_answered(error)),
        }
    }

    fn change(&self, name: &Name, change: &InstanceChange) -> Result<(), Failure> {
        let sent = self.client.change("PATCH", &Self::path(name), &[], Some(change));
        *self.operation.borrow_mut() = sent.map_err(not_answered)?.operation;
        Ok(())
    }

    fn wish(&self, name: &Name, wish: &InstanceWish) -> Result<(), Failure> {
        let new = [("If-None-Match", "*")];
        match self.client.change("PUT", &Self::path(name), &new, Some(wish)) {
            Ok(answer) => {
                *self.operation.borrow_mut() = answer.operation;
                Ok(())
            }
            Err(ClientError::Refused(problem)) if problem.status == 412 => Err(Failure::new(
                "exists",
                format!("the plane knows an instance {name} already"),
                format!("`collective resume {name}` goes on with it; or choose another --name"),
            )),
            Err(error) => Err(not_answered(error)),
        }
    }

    fn hosts(&self) -> Result<Vec<HostPrint>, Failure> {
        self.client.get("/v1/hosts").map_err(not_answered)
    }

    /// Waits until the instance is as it is wanted; says on the way what is done.
    fn until(
        &self,
        name: &Name,
        within: Duration,
        is_so: impl Fn(&PlacedPrint) -> bool,
    ) -> Result<PlacedPrint, Failure> {
        let mut said = None;
        let mut away = false;
        loop {
            match self.get(name) {
                Ok(Some(placed)) if is_so(&placed) => return Ok(placed),
                Ok(Some(PlacedPrint { trouble: Some(trouble), .. })) => {
                    return Err(troubled(name, trouble));
                }
                Ok(Some(placed)) => {
                    self.still_asked(name, placed.operation.as_ref())?;
                    let next = match &placed.operation {
                        Some(operation) => operations::step(operation),
                        None => placed.next,
                    };
                    if next != said {
                        if let Some(next) = &next {
                            print::note(self.global, &format!("{name}: {next}"));
                        }
                        said = next;
                    }
                }
                Ok(None) => {
                    // Of one that was new nothing is left when that was cancelled.
                    self.still_asked(name, None)?;
                    let hint = "`collective ps` lists those that there are";
                    return Err(Failure::new("not_found", format!("{name} was removed"), hint));
                }
                // It goes on without us.
                Err(failure) if failure.kind == "unavailable" => {
                    if !std::mem::replace(&mut away, true) {
                        print::note(self.global, &failure.message);
                    }
                }
                Err(failure) => return Err(failure),
            }
            if self.began.elapsed() > within {
                let why = said.unwrap_or_else(|| "nothing has happened".to_owned());
                return Err(Failure::new(
                    "timeout",
                    format!("{name} is not there yet: {why}"),
                    "the plane goes on trying; `collective ps` shows how far it is",
                ));
            }
            ambient::sleep(LOOK);
        }
    }

    /// What was asked may be over without having come about.
    fn still_asked(&self, name: &Name, now: Option<&OperationPrint>) -> Result<(), Failure> {
        let asked = self.operation.borrow();
        let Some(id) = asked.as_ref() else { return Ok(()) };
        if now.is_some_and(|operation| operation.id == *id) {
            return Ok(());
        }
        // One that is not known any more, or not by this plane, is waited for as ever.
        let Ok(over) = operations::by_id(&self.client, id) else { return Ok(()) };
        match (over.state, over.failure) {
            (OperationState::Cancelled, _) => {
                let why = over.step.unwrap_or_else(|| "it was cancelled".to_owned());
                let hint =
                    format!("`collective operation list --instance {name}` shows what was asked");
                Err(Failure::new("state", format!("{name}: {why}"), hint))
            }
            (OperationState::Failed, Some(failure)) => Err(troubled(name, failure)),
            _ => Ok(()),
        }
    }

    fn done(&self, placed: &PlacedPrint, from_ms_ago: Option<u64>) -> Result<(), Failure> {
        self.done_after(placed, from_ms_ago, None)
    }

    fn done_after(
        &self,
        placed: &PlacedPrint,
        from_ms_ago: Option<u64>,
        moved: Option<MovedPrint>,
    ) -> Result<(), Failure> {
        let hosts = self.hosts()?;
        let host = placed.host.as_ref().and_then(|id| hosts.iter().find(|host| host.id == *id));
        let done = Print {
            name: placed.name.clone(),
            state: placed.state.clone(),
            host: host.map(|host| host.name.clone()),
            total_ms: self.began.elapsed().as_millis() as u64,
            from_ms_ago,
            moved,
        };
        print::result(self.global, &done, || {
            let place = done.host.as_ref().map_or_else(String::new, |host| format!(" on {host}"));
            let after = duration(done.total_ms);
            let mut text = format!("{} is {}{place} after {after}", done.name, done.state);
            if let Some(moved) = done.moved.as_ref().filter(|moved| moved.moved_bytes > 0) {
                let (stood, bytes) = (duration(moved.pause_ms), format_bytes(moved.moved_bytes));
                text.push_str(&format!("; it stood still for {stood}, and {bytes} went over"));
            }
            if let Some(ago) = done.from_ms_ago {
                text.push_str(&format!(
                    "\nit goes on from a checkpoint of {} ago: its last host is gone; what that one \
                     has and did not store becomes a branch when it comes back",
                    duration(ago)
                ));
            }
            text
        });
        Ok(())
    }
}

fn troubled(name: &Name, trouble: Trouble) -> Failure {
    let kind = host::KINDS.iter().find(|kind| **kind == trouble.kind).copied().unwrap_or("plane");
    let message = format!("{name}: {}; the plane tries it again", trouble.detail);
    let also = format!("`collective stop {name}` ends the trying");
    let hint = if trouble.hint.is_empty() { also } else { format!("{}; {also}", trouble.hint) };
    Failure::new(kind, message, hint)
}

fn runs(placed: &PlacedPrint, on: Option<&str>) -> bool {
    let there = placed.host.as_deref().is_some_and(|host| on.is_none_or(|on| on == host));
    there && placed.host_lives && placed.state == "running"
}

pub fn run(global: &Global, verb: &Run, host: &Host) -> Result<(), Failure> {
    let asked = Asked::new(global)?;
    not_passed_on(&[
        ("--property", !verb.properties.is_empty() || !verb.property_files.is_empty()),
        ("--user-data", verb.user_data.is_some() || verb.network_config.is_some()),
        ("--boot", verb.boot),
        ("a policy for checkpoints", super::auto::change(&verb.auto)?.is_some()),
        ("--updates ask", verb.updates != "auto"),
        ("--accel", verb.start.accel != "auto"),
        ("--no-wait", verb.start.no_wait),
    ])?;
    let name = match &verb.name {
        Some(name) => super::new_name(name)?,
        None => asked.free_name(&verb.appliance)?,
    };
    let appliance = host::Reference::parse(&verb.appliance)?;
    let size = host.size_of(&appliance)?;
    let Placement { project, on, restart, near, apart, needs } = &verb.placement;
    let on = on.as_deref().map(|on| asked.ready_host(on)).transpose()?;
    let wish = InstanceWish {
        project: project.clone(),
        needs: needs.clone(),
        near: near.clone(),
        apart: apart.clone(),
        appliance: Some(verb.appliance.clone()),
        restart: restart_wish(restart.as_deref()),
        on: on.clone(),
        ports: verb.start.publish.clone(),
        network: verb.start.network.clone(),
        ..wish_of(&size)
    };
    asked.wish(&name, &wish)?;
    let within = Duration::from_secs(verb.start.timeout);
    let placed = asked.until(&name, within, |placed| runs(placed, on.as_deref()));
    if let Err(failure) = &placed
        && failure.kind != "timeout"
    {
        // It never was there: nothing is left to be tried.
        let _ = asked.client.change("DELETE", &Asked::path(&name), &[], None::<&()>);
    }
    asked.done(&placed?, None)
}

fn wish_of(size: &Size) -> InstanceWish {
    InstanceWish::new(size.version.to_string(), size.cpus, size.memory_bytes)
}

fn restart_wish(text: Option<&str>) -> RestartWish {
    match text {
        Some("on-failure") => RestartWish::OnFailure,
        Some("always") => RestartWish::Always,
        _ => RestartWish::Never,
    }
}

impl Asked<'_> {
    fn free_name(&self, appliance: &str) -> Result<Name, Failure> {
        let base = appliance.rsplit('/').next().unwrap_or(appliance);
        let base = base.split([':', '@']).next().unwrap_or(base);
        let taken: Vec<PlacedPrint> = self.client.get("/v1/instances").map_err(not_answered)?;
        let free = |name: &String| !taken.iter().any(|placed| placed.name == *name);
        let name = (1..).map(|number| format!("{base}-{number}")).find(free);
        super::new_name(&name.unwrap_or_default())
    }

    /// The id of a host that can have an instance.
    fn ready_host(&self, text: &str) -> Result<String, Failure> {
        let host = find(&self.client, text)?;
        if host.state == "ready" || host.state == "cordoned" {
            return Ok(host.id);
        }
        let hint = "`collective host list` shows hosts that are ready";
        Err(Failure::new("state", format!("host {} is {}", host.name, host.state), hint))
    }

    /// The host that this command was given on, if it takes part.
    fn this_host(&self, host: &Host) -> Result<Option<String>, Failure> {
        let id = host.id().to_string();
        let there = self.hosts()?.into_iter().find(|host| host.id == id && host.state != "gone");
        Ok(there.map(|host| host.id))
    }
}

pub fn resume(global: &Global, verb: &Resume, host: &Host) -> Result<(), Failure> {
    not_passed_on(&[
        ("--publish", !verb.start.publish.is_empty()),
        ("--network", verb.start.network.is_some()),
        ("--accel", verb.start.accel != "auto"),
        ("--no-wait", verb.start.no_wait),
    ])?;
    let asked = Asked::new(global)?;
    let name = super::name(&verb.name)?;
    let on = match &verb.on {
        Some(on) => Some(asked.ready_host(on)?),
        None => asked.this_host(host)?,
    };
    let before = match asked.get(&name)? {
        Some(placed) => placed,
        None => {
            // An instance that was made without the plane comes under it.
            let size = host.size_of_instance(&name)?;
            let wish = InstanceWish {
                on: on.clone(),
                take_over: true,
                take_over_anyway: verb.take_over,
                ..wish_of(&size)
            };
            asked.wish(&name, &wish)?;
            asked.get(&name)?.ok_or_else(|| Failure::new("internal", "it is not there", ""))?
        }
    };
    let lost = before.host.is_some() && !before.host_lives;
    let state = Some(StateWish::Running);
    // A version that it has got since may need more. Where that cannot be read, its host says so.
    let needs = host.size_of_instance(&name).ok();
    let more_cpus = |size: &Size| (size.cpus > before.wish.cpus).then_some(size.cpus);
    let more_memory =
        |size: &Size| (size.memory_bytes > before.wish.memory_bytes).then_some(size.memory_bytes);
    let change = InstanceChange {
        state,
        on: on.clone(),
        cpus: needs.as_ref().and_then(more_cpus),
        memory_bytes: needs.as_ref().and_then(more_memory),
        take_over: true,
        take_over_anyway: verb.take_over,
        ..Default::default()
    };
    asked.change(&name, &change)?;
    let within = Duration::from_secs(verb.start.timeout);
    let placed = asked.until(&name, within, |placed| runs(placed, on.as_deref()))?;
    let moved = lost && placed.host != before.host;
    let from = placed.checkpoint_unix_ms.filter(|_| moved);
    asked.done(&placed, from.map(|taken| ambient::unix_ms().saturating_sub(taken)))
}

pub fn suspend(global: &Global, verb: &Suspend) -> Result<(), Failure> {
    rest(global, &super::name(&verb.name)?, StateWish::Suspended)
}

pub fn stop(global: &Global, verb: &Stop) -> Result<(), Failure> {
    if verb.force {
        return Err(Failure::new(
            "usage",
            "--force is not passed on by a plane",
            "a guest that does not power itself off is powered off after a minute",
        ));
    }
    rest(global, &super::name(&verb.name)?, StateWish::Stopped)
}

fn rest(global: &Global, name: &Name, state: StateWish) -> Result<(), Failure> {
    let asked = Asked::new(global)?;
    asked.change(name, &InstanceChange { state: Some(state), ..Default::default() })?;
    // One that rests already is not woken to rest in another way.
    let at_rest = |placed: &PlacedPrint| {
        placed.host.is_none() && ["suspended", "stopped", "none"].contains(&placed.state.as_str())
    };
    if let Some(placed) = asked.get(name)?
        && placed.host.is_some()
        && !placed.host_lives
    {
        return Err(Failure::new(
            "lease",
            format!("the host that has {name} is gone: it rests when that is back"),
            format!(
                "`collective resume {name}` goes on with it elsewhere, from its last checkpoint"
            ),
        ));
    }
    let placed = asked.until(name, LONG, at_rest)?;
    asked.done(&placed, None)
}

/// Options that only a verb on the host itself understands.
fn not_passed_on(options: &[(&str, bool)]) -> Result<(), Failure> {
    let Some((option, _)) = options.iter().find(|(_, given)| *given) else { return Ok(()) };
    Err(Failure::new(
        "usage",
        format!("{option} is not passed on by a plane yet"),
        "give the command on a host without COLLECTIVE_PLANE; `resume` brings an instance under the plane",
    ))
}

pub fn move_(global: &Global, verb: &Move) -> Result<(), Failure> {
    let asked = Asked::new(global)?;
    let name = super::name(&verb.name)?;
    let on = asked.ready_host(&verb.to)?;
    let before = asked.get(&name)?;
    let state = Some(StateWish::Running);
    let change = InstanceChange { state, on: Some(on.clone()), ..Default::default() };
    asked.change(&name, &change)?;
    let within = Duration::from_secs(verb.timeout);
    let placed = asked.until(&name, within, |placed| runs(placed, Some(&on)))?;
    let before = before.unwrap_or_else(|| placed.clone());
    if runs(&before, Some(&on)) {
        return asked.done_after(&placed, None, Some(MovedPrint::default()));
    }
    // That it runs is heard a moment before what it cost.
    let newly = |came: &CamePrint| came.generation > before.generation && came.to == on;
    let ends = ambient::now() + COST;
    let mut came = placed.came.clone().filter(newly);
    while came.is_none() && ambient::now() < ends {
        ambient::sleep(LOOK);
        came = asked.get(&name)?.and_then(|placed| placed.came).filter(newly);
    }
    let moved = came.map(|came| MovedPrint {
        pause_ms: came.pause_ms,
        moved_bytes: came.moved_bytes,
        peer_bytes: came.peer_bytes,
    });
    asked.done_after(&placed, None, moved)
}

pub fn pin(global: &Global, verb: &Pin) -> Result<(), Failure> {
    let asked = Asked::new(global)?;
    let name = super::name(&verb.name)?;
    let pinned = Some(!verb.off);
    asked.change(&name, &InstanceChange { pinned, ..Default::default() })?;
    let document = serde_json::json!({"name": name.as_str(), "pinned": !verb.off});
    print::result(global, &document, || match verb.off {
        false => format!("{name} stays where it is when its host is overloaded"),
        true => format!("{name} may be moved when its host is overloaded"),
    });
    Ok(())
}

pub fn ps(global: &Global) -> Result<(), Failure> {
    let client = client(global, &at())?;
    let placed: Vec<PlacedPrint> = client.get("/v1/instances").map_err(not_answered)?;
    let hosts: Vec<HostPrint> = client.get("/v1/hosts").map_err(not_answered)?;
    print::result(global, &placed, || {
        if global.quiet {
            return placed.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join("\n");
        }
        let rows = placed.iter().map(|placed| {
            let host = hosts.iter().find(|host| Some(&host.id) == placed.host.as_ref());
            let state = match host {
                // What it said last.
                Some(_) if !placed.host_lives => format!("{}?", placed.state),
                _ => placed.state.clone(),
            };
            let note = match &placed.trouble {
                Some(trouble) => trouble.detail.clone(),
                None => placed.next.clone().unwrap_or_default(),
            };
            let host = host.map_or_else(String::new, |host| host.name.clone());
            let appliance = placed.wish.appliance.clone().unwrap_or_default();
            let (name, owner) = (placed.name.clone(), placed.owner.clone());
            let (project, ports) = (placed.project.clone(), placed.wish.ports.join(","));
            vec![name, state, host, project, owner, appliance, ports, note]
        });
        let header = ["NAME", "STATE", "HOST", "PROJECT", "OWNER", "APPLIANCE", "PORTS", "NOTE"];
        print::table(&header, rows)
    });
    Ok(())
}
