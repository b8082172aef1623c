//! What hosts do: verbs, drawn from the seed; and how a run begins and ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use host::auto::Auto;
use host::dir::HostDir;
use host::record::{UpdatePolicy, Version, Warm};
use host::store::Store;
use host::{
    Accelerator, AutoChange, ForkOptions, Host, Reference, Result, ResumeOptions, RunOptions,
    StartOptions,
};
use model::{
    Boot, BootKind, DiskBus, DiskRole, DiskSpec, Hardware, Media, Name, Profile, Ready,
    ResetPolicy, VersionId,
};
use objects::Objects;
use repository::{Init, KeyPlace, Repository};

use crate::chance::Chance;
use crate::check;
use crate::disk::Unsynced;
use crate::doors::Simulated;
use crate::machine::Cpu;
use crate::truth::{PAGES, Truth, VOLUMES, page};
use crate::world::{Crashed, World};

/// Where the store is, as orders name it.
pub const LOCATION: &str = "sim://repository";
/// How long something unnamed is kept.
pub const GRACE_MS: u64 = 600_000;

/// Everything of one run.
pub struct Run {
    pub world: Arc<World>,
    pub truth: Arc<Truth>,
    pub hosts: Vec<Arc<Simulated>>,
    pub dirs: Vec<HostDir>,
    pub folder: tempfile::TempDir,
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name of ours")
}

/// Where hosts keep what lies beside their volumes. It is synced often, and outlives nobody: memory is
/// the place for it, where there is one.
fn shelf() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

pub fn start_options() -> StartOptions {
    StartOptions {
        ports: Vec::new(),
        network: None,
        accel: Accelerator::Tcg,
        wait: true,
        timeout: Duration::from_secs(60),
    }
}

pub fn run_options(appliance: Reference, new: &Name, begin: &Begin) -> RunOptions {
    RunOptions {
        appliance,
        updates: UpdatePolicy::Auto,
        name: Some(new.clone()),
        properties: Vec::new(),
        user_data: None,
        network_config: None,
        boot: begin.boot,
        auto: begin.auto.map(AutoChange::from),
        start: start_options(),
    }
}

fn disk(name: &str, role: DiskRole) -> DiskSpec {
    DiskSpec {
        name: name.to_owned(),
        role,
        reset: ResetPolicy::Reset,
        size_bytes: 1 << 20,
        bus: DiskBus::Virtio,
        media: Media::Disk,
    }
}

/// How an instance begins.
#[derive(Default)]
pub struct Begin {
    /// Also when its version has a memory.
    pub boot: bool,
    pub auto: Option<Auto>,
}

impl Begin {
    fn drawn(chance: &mut Chance) -> Self {
        let auto = match chance.below(4) {
            0 => Some("1m"),
            1 => Some("10s,last=2"),
            2 => Some("5m,last=1,hourly=2"),
            _ => None,
        };
        let auto = auto.map(|text| Auto::parse(text).expect("a policy of ours"));
        Self { boot: chance.is(300), auto }
    }
}

impl Run {
    /// A repository with one appliance, and hosts that know it.
    pub fn new(world: Arc<World>, hosts: usize) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("collective-simulation-")
            .tempdir_in(shelf())
            .expect("there is room for temporary files");
        let truth = Arc::new(Truth::default());
        let key = repository::new_key();
        let init = Init {
            key: Some(key.clone()),
            key_place: KeyPlace::Host,
            local_dir: None,
            grace_ms: GRACE_MS,
        };
        let objects: Arc<dyn Objects> = world.objects.clone();
        Repository::init(objects, &init).expect("a repository");
        let mut run = Self { world, truth, hosts: Vec::new(), dirs: Vec::new(), folder };
        for at in 0..hosts {
            run.world.act_for(at);
            let root = run.folder.path().join(format!("host{at}"));
            let mut dir = HostDir::open(&root).expect("a host's directory");
            dir.configure_scrub(false).expect("a setting");
            dir.configure_cache(16 << 20).expect("a setting");
            let keys = dir.folder("keys").expect("a folder").join("simulated.key");
            std::fs::write(keys, repository::export_key(&key).as_bytes()).expect("a key");
            let doors = Simulated::new(&run.world, &run.truth, at);
            run.dirs.push(dir.behind(doors.clone()));
            run.hosts.push(doors);
        }
        run.world.act_for(0);
        run.publish("1", None).expect("an appliance");
        run
    }

    pub fn host(&self, at: usize) -> Host {
        Host::with(self.dirs[at].clone(), LOCATION)
    }

    pub fn store(&self, at: usize) -> Result<Store> {
        Store::open(&self.dirs[at], LOCATION)
    }

    /// What a build stores: a version, and the ref that makes it its appliance's newest.
    pub fn publish(&self, number: &str, warm: Option<Warm>) -> Result<()> {
        self.publish_of("tiny", number, warm, None).map(drop)
    }

    /// The same of any appliance; with what the first page of its system disk holds.
    pub fn publish_of(
        &self,
        appliance: &str,
        number: &str,
        warm: Option<Warm>,
        system: Option<u64>,
    ) -> Result<VersionId> {
        let store = self.store(self.world.current())?;
        let appliance = Name::appliance(appliance).expect("a name of ours");
        let mut session = store.thorough_session()?;
        let empty = session.put_pages(1 << 20, &mut std::iter::empty())?;
        let first = system.map(|value| session.put_page(&page(value))).transpose()?;
        let system = session.put_pages(1 << 20, &mut first.map(|id| (0, Some(id))).into_iter())?;
        let version = Version {
            appliance: appliance.clone(),
            version: number.to_owned(),
            description: String::new(),
            hardware: Hardware {
                profile: Profile::Light,
                cpus: 1,
                memory_bytes: 1 << 20,
                boot: Boot { kind: BootKind::Bios, cmdline: String::new(), secure_boot: false },
                disks: vec![disk("system", DiskRole::System), disk("data", DiskRole::Data)],
                nics: Vec::new(),
                display: None,
            },
            ready: Ready::Started,
            kernel: None,
            initrd: None,
            firmware: None,
            disks: vec![system, empty],
            packages: Vec::new(),
            packages_of: None,
            properties: Vec::new(),
            vendor_data: None,
            auto: None,
            warm,
        };
        let id = session.put_version(&version)?;
        ambient::step("publish: put");
        session.finish()?;
        ambient::step("publish: durable");
        store.set_appliance(&appliance, id)?;
        Ok(id)
    }

    /// What a build of `state: running` does: an instance boots, is suspended, and its memory becomes
    /// its version's.
    pub fn publish_warm(&self, at: usize, number: &str, chance: &mut Chance) -> Result<()> {
        let maker = name(&format!("maker{number}"));
        self.run_new(at, &maker, &Begin { boot: true, auto: None })?;
        for (_, cpu) in
            self.hosts[at].guests().iter().filter(|(path, _)| path.ends_with(maker.as_str()))
        {
            self.work(cpu, chance);
        }
        let host = self.host(at);
        let taken = host.suspend(&maker, None)?.checkpoint.parse().expect("a checkpoint's id");
        let store = self.store(at)?;
        let checkpoint = store.checkpoint(taken)?;
        let memory = checkpoint.memory.expect("a suspended one has a memory");
        self.publish(number, Some(Warm { memory, disks: checkpoint.disks, agent: true }))?;
        self.truth.known().removed.insert(checkpoint.instance.to_string());
        host.rm(&maker, true).map(drop)
    }

    /// Time goes by, and what is due by itself is done.
    pub fn tick(&self, at: usize, ms: u64) -> Result<()> {
        self.world.wait_ms(ms);
        for (path, _) in self.hosts[at].guests() {
            self.hosts[at].tick(&path)?;
        }
        Ok(())
    }

    /// Writes and syncs of a guest.
    pub fn work(&self, cpu: &Cpu, chance: &mut Chance) {
        if !cpu.is_running() {
            return;
        }
        for _ in 0..1 + chance.below(6) {
            let at = chance.below(VOLUMES as u64) as usize;
            cpu.files.write(at, chance.below(PAGES[at]), self.truth.fresh());
        }
        if chance.is(500) {
            let at = 1 + chance.below(2) as usize;
            let _ = cpu.files.sync(at);
        }
    }

    fn instances(&self, at: usize) -> Vec<Name> {
        let heads = self.store(at).and_then(|store| store.heads()).unwrap_or_default();
        heads.into_iter().map(|(_, head)| head.name).collect()
    }

    /// One thing that host `at` does.
    pub fn act(&self, at: usize, chance: &mut Chance) {
        let host = self.host(at);
        let guests = self.hosts[at].guests();
        // Guests run on while other things are done.
        for (_, cpu) in &guests {
            self.guarded(at, "guest", &mut || {
                self.work(cpu, chance);
                Ok(())
            });
        }
        let here: Vec<Name> = guests
            .iter()
            .filter_map(|(path, _)| Name::new(path.file_name()?.to_str()?).ok())
            .collect();
        let pick = |chance: &mut Chance, names: &[Name]| {
            (!names.is_empty()).then(|| names[chance.below(names.len() as u64) as usize].clone())
        };
        let mine = pick(chance, &here);
        if chance.is(120) {
            self.world.state().fates[at].crash_in = Some(chance.below(160));
        }
        match (chance.below(28), mine) {
            (0..=4, Some(mine)) => self.verb(at, &format!("checkpoint {mine}"), &mut || {
                host.checkpoint(&mine, None).map(drop)
            }),
            (5..=8, Some(mine)) => self
                .verb(at, &format!("suspend {mine}"), &mut || host.suspend(&mine, None).map(drop)),
            (9 | 10, Some(mine)) => self.verb(at, &format!("stop {mine}"), &mut || {
                host.stop(&mine, true, Duration::from_secs(1)).map(drop)
            }),
            (11 | 12, Some(mine)) => self.verb(at, &format!("undo {mine}"), &mut || {
                host.undo(&mine, None, &start_options()).map(drop)
            }),
            (13, Some(mine)) => {
                let folder = guests.iter().find(|(path, _)| path.ends_with(mine.as_str()));
                let folder: PathBuf = folder.map(|(path, _)| path.clone()).unwrap_or_default();
                let by_itself = chance.is(500);
                self.verb(at, &format!("QEMU of {mine} ends"), &mut || {
                    self.hosts[at].guest_ends(&folder, by_itself);
                    Ok(())
                });
            }
            (21..=23, _) if !guests.is_empty() => {
                let ms = [1_000, 15_000, 70_000, 400_000][chance.below(4) as usize];
                self.verb(at, "time goes by", &mut || self.tick(at, ms));
            }
            (24, Some(mine)) => {
                let change = Begin::drawn(chance).auto.map_or(AutoChange::Off, AutoChange::from);
                self.verb(at, &format!("auto {mine}"), &mut || {
                    host.set_auto(&mine, change).map(drop)
                });
            }
            (14, _) => {
                self.verb(at, "gc", &mut || host.repo_gc(&host::GcOptions::default()).map(drop))
            }
            (15, _) => {
                let leap = chance.is(300);
                self.world.wait_ms(if leap { GRACE_MS * 2 } else { 5_000 });
                let mut state = self.world.state();
                state.fates[at].skew_ms = chance.below(20_000_000) as i64 - 10_000_000;
                *state.faults.entry("clock jumped").or_default() += 1;
            }
            (16, _) => {
                let mut state = self.world.state();
                if state.faulty > 0 {
                    match chance.below(4) {
                        0 => state.store_full = !state.store_full,
                        1 => state.fates[at].full = true,
                        _ => {
                            state.store_full = false;
                            state.fates[at].full = false;
                        }
                    }
                }
            }
            (17, _) if chance.is(400) => {
                let number = format!("{}", 2 + chance.below(1000));
                if chance.is(500) {
                    self.verb(at, "publish", &mut || self.publish(&number, None));
                } else {
                    self.verb(at, "publish, running", &mut || {
                        self.publish_warm(at, &number, chance)
                    });
                }
            }
            (18, Some(mine)) => {
                let known = self.truth.known().told.clone();
                let told: Vec<_> = known.iter().map(|(_, id)| id.clone()).collect();
                if !told.is_empty() {
                    let to = told[chance.below(told.len() as u64) as usize].clone();
                    self.verb(at, &format!("undo {mine} to {}", &to[..12]), &mut || {
                        host.undo(&mine, Some(&to), &start_options()).map(drop)
                    });
                }
            }
            (19, mine) => {
                self.guarded(at, "look", &mut || {
                    let Some(of) = mine.clone().or_else(|| pick(chance, &self.instances(at)))
                    else {
                        return Ok(());
                    };
                    let count = 1 + chance.below(2) as u32;
                    let start_them = chance.is(500);
                    self.verb(at, &format!("fork {of}"), &mut || {
                        let options = ForkOptions {
                            name: of.clone(),
                            count,
                            new_name: None,
                            at: None,
                            start_them,
                            start: start_options(),
                        };
                        host.fork(&options).map(drop)
                    });
                    Ok(())
                });
            }
            (20, _) if chance.is(150) => {
                self.guarded(at, "look", &mut || {
                    let Some(of) = pick(chance, &self.instances(at)) else { return Ok(()) };
                    let head = self.store(at)?.head(&of)?.head;
                    self.verb(at, &format!("rm {of}"), &mut || {
                        // From its beginning on nothing of it is promised any more.
                        if let Some((_, head)) = &head {
                            self.truth.known().removed.insert(head.instance.to_string());
                        }
                        host.rm(&of, true).map(drop)
                    });
                    Ok(())
                });
            }
            _ => {
                self.guarded(at, "look", &mut || {
                    let names = self.instances(at);
                    let take_over = chance.is(400);
                    match pick(chance, &names) {
                        Some(of) if chance.is(850) || names.len() > 4 => {
                            self.verb(at, &format!("resume {of} {take_over}"), &mut || {
                                self.resume(at, &of, take_over)
                            });
                        }
                        _ => {
                            let new = name(&format!("i{}", chance.below(6)));
                            let begin = Begin::drawn(chance);
                            self.verb(at, &format!("run {new}"), &mut || {
                                self.run_new(at, &new, &begin)
                            });
                        }
                    }
                    Ok(())
                });
            }
        }
        let dead = self.world.state().fates[at].dead;
        if dead {
            // A helper's request met the death, and the verb ended before another point.
            self.crash(at, Unsynced::Kept);
        }
        self.world.state().fates[at].crash_in = None;
    }

    pub fn run_new(&self, at: usize, new: &Name, begin: &Begin) -> Result<()> {
        let appliance = Reference::newest(Name::appliance("tiny").expect("a name of ours"));
        self.host(at).run(&run_options(appliance, new, begin)).map(drop)
    }

    pub fn resume(&self, at: usize, of: &Name, take_over: bool) -> Result<()> {
        let options =
            ResumeOptions { name: of.clone(), take_over, at: None, start: start_options() };
        self.host(at).resume(&options).map(drop)
    }

    /// A verb: its end is noted, and its host may die in it.
    pub fn verb(&self, at: usize, what: &str, act: &mut dyn FnMut() -> Result<()>) {
        self.world.event(at, what);
        let verb = what.split(' ').next().unwrap_or_default().to_owned();
        *self.world.state().verbs.entry(verb).or_default() += 1;
        self.guarded(at, what, act);
    }

    fn guarded(&self, at: usize, what: &str, act: &mut dyn FnMut() -> Result<()>) {
        if self.world.state().fates[at].dead {
            return;
        }
        match catch_unwind(AssertUnwindSafe(act)) {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => {
                self.world.event(at, &format!("{what}: {}: {failure}", failure.kind));
                if matches!(failure.kind, "internal" | "damaged" | "format" | "key") {
                    self.world.violation(format!("{what}: {}: {failure}", failure.kind));
                }
            }
            Err(panic) if panic.is::<Crashed>() => {
                let kind = match self.world.state().chance.below(3) {
                    0 => Unsynced::Kept,
                    1 => Unsynced::Lost,
                    _ => Unsynced::Torn,
                };
                self.crash(at, kind);
            }
            Err(panic) => {
                let said = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                self.world.violation(format!("{what}: panicked: {}", said.unwrap_or_default()));
            }
        }
    }

    /// The same; says whether its host died, and leaves its disk so.
    pub fn verb_until_death(
        &self,
        at: usize,
        what: &str,
        unsynced: Unsynced,
        act: &mut dyn FnMut() -> Result<()>,
    ) -> bool {
        self.world.event(at, what);
        let died = match catch_unwind(AssertUnwindSafe(act)) {
            Err(panic) if panic.is::<Crashed>() => true,
            Err(_) => {
                self.world.violation(format!("{what} panicked"));
                false
            }
            // A helper's request met the death, and the verb ended before another point.
            Ok(ended) => {
                let died = self.world.state().fates[at].dead;
                if let Err(failure) = ended
                    && !died
                    && failure.kind != "fenced"
                {
                    let text = format!("{what}, with nothing wrong: {}: {failure}", failure.kind);
                    self.world.violation(text);
                }
                died
            }
        };
        if died {
            self.crash(at, unsynced);
        }
        died
    }

    pub fn crash(&self, at: usize, unsynced: Unsynced) {
        self.world.event(at, &format!("is dead; unsynced is {unsynced:?}"));
        self.hosts[at].crash(unsynced);
    }

    /// Faults are over: every instance can be gone on with, by any host, and everything that was
    /// promised is there.
    pub fn settle(&self) {
        {
            let mut state = self.world.state();
            state.faulty = 0;
            state.switching = 0;
            state.store_full = false;
            for fate in &mut state.fates {
                fate.crash_in = None;
                fate.full = false;
            }
        }
        self.world.land_all();
        let must = |at: usize, what: &str, done: Result<()>, may: &[&str]| match done {
            Err(failure) if !may.contains(&failure.kind) => {
                let text =
                    format!("after the faults, host {at}: {what}: {}: {failure}", failure.kind);
                self.world.violation(text);
            }
            _ => {}
        };
        // Who still runs a guest puts it to sleep, or is told that it was fenced out.
        for at in 0..self.hosts.len() {
            self.world.act_for(at);
            for (path, _) in self.hosts[at].guests() {
                let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
                let of = name(file);
                let done = self.host(at).suspend(&of, None).map(drop);
                must(at, &format!("suspend {of}"), done, &["fenced", "state"]);
            }
        }
        let Some(last) = self.hosts.len().checked_sub(1) else { return };
        self.look(0);
        for at in (0..=last).rev() {
            self.world.act_for(at);
            for of in self.instances(at) {
                if self.world.failed() {
                    return;
                }
                must(at, &format!("resume {of}"), self.resume(at, &of, true), &[]);
                let host = self.host(at);
                for (_, cpu) in self.hosts[at].guests() {
                    cpu.files.write(0, 0, self.truth.fresh());
                    cpu.files.write(2, 1, self.truth.fresh());
                }
                must(at, "checkpoint", host.checkpoint(&of, None).map(drop), &[]);
                must(at, "suspend", host.suspend(&of, None).map(drop), &[]);
            }
        }
        let named = self.look(0);
        if let Ok(store) = self.store(0) {
            self.world.act_for(0);
            check::left(&named, &store, &self.truth, &self.world);
        }
        for round in 0..3 {
            self.world.wait_ms(GRACE_MS * 2);
            self.world.act_for(round % self.hosts.len());
            let done =
                self.host(round % self.hosts.len()).repo_gc(&host::GcOptions::default()).map(drop);
            must(round, "gc", done, &[]);
        }
        self.look(last);
        let checked = self.host(0).repo_check(true, &mut |_| ());
        match checked {
            Ok(print) if print.ok => {}
            Ok(print) => self.world.violation(format!("repo check: {:?}", print.problems)),
            Err(failure) => self.world.violation(format!("repo check: {failure}")),
        }
    }

    /// The checkers, as host `at` sees the repository.
    pub fn look(&self, at: usize) -> check::Named {
        self.world.act_for(at);
        match self.store(at) {
            Ok(store) => check::all(&store, &self.truth, &self.world),
            Err(failure) => {
                self.world.violation(format!("the repository cannot be opened: {failure}"));
                check::Named::new()
            }
        }
    }
}
