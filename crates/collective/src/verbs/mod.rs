//! One file for each verb, or for each few that are alike.

mod access;
mod appliance;
mod attach;
mod audit;
mod auto;
mod diff;
mod events;
mod files;
mod fleet;
mod foreign;
mod history;
mod instance;
mod kept_planes;
mod list;
mod login;
mod maker;
mod networks;
mod operations;
mod planes;
mod repo;
mod shutdown;
mod start;
mod update;
mod usage;

use std::path::Path;
use std::process::ExitCode;

use host::{Failure, Host, HostDir};

use crate::cli::{Cli, Global, Verb};

/// Does what was asked.
pub fn execute(cli: Cli) -> Result<ExitCode, Failure> {
    let about = cli.verb.instance().and_then(|name| model::Name::new(name).ok());
    let done = act(cli);
    match about {
        Some(name) => done.map_err(|failure| failure.about(&name)),
        None => done,
    }
}

fn act(cli: Cli) -> Result<ExitCode, Failure> {
    let global = cli.global;
    let done = |result: Result<(), Failure>| result.map(|()| ExitCode::SUCCESS);
    match cli.verb {
        Verb::Doctor(verb) => list::doctor(&global, &verb),
        Verb::Build(verb) => done(appliance::build(&global, &verb)),
        Verb::Import(verb) => done(foreign::import(&global, &verb)),
        Verb::Export(verb) => done(foreign::export(&global, &verb)),
        Verb::Appliances => done(appliance::appliances(&global)),
        Verb::Trust(verb) => done(update::trust(&global, verb)),
        Verb::Catalog(verb) => done(update::catalog(&global, &verb)),
        Verb::Diff(verb) => done(diff::diff(&global, &verb)),
        Verb::Update(verb) => update::update(&global, &verb),
        Verb::Rollback(verb) => done(update::rollback(&global, &verb)),
        Verb::Publish(verb) => done(maker::publish(&global, &verb)),
        Verb::Promote(verb) => done(maker::promote(&global, &verb)),
        Verb::Yank(verb) => done(maker::yank(&global, &verb)),
        Verb::Key(verb) => done(maker::key(&global, verb)),
        Verb::Plane(verb) => done(planes::plane(&global, &verb)),
        Verb::Up(verb) => done(planes::up(&global, &verb)),
        Verb::Host(verb) => done(planes::hosts(&global, verb)),
        Verb::Plan(verb) => done(planes::plan(&global, &verb)),
        Verb::User(verb) => done(access::users(&global, &verb)),
        Verb::Project(verb) => done(access::projects(&global, &verb)),
        Verb::Token(verb) => done(access::tokens(&global, &verb)),
        Verb::Login(verb) => done(login::login(&global, &verb)),
        Verb::LoginRule(verb) => done(login::rules(&global, &verb)),
        Verb::Operation(verb) => done(operations::execute(&global, &verb)),
        Verb::Events(verb) => done(events::events(&global, &verb)),
        Verb::Audit(verb) => done(audit::audit(&global, &verb)),
        Verb::Usage(verb) => done(usage::usage(&global, &verb)),
        Verb::Whoami(at) => done(access::whoami(&global, &at)),
        Verb::Schema => done(appliance::schema(&global)),
        Verb::Run(verb) => done(start::run(&global, &verb)),
        Verb::Resume(verb) => done(start::resume(&global, &verb)),
        Verb::Move(verb) => done(fleet::move_(&global, &verb)),
        Verb::Pin(verb) => done(fleet::pin(&global, &verb)),
        Verb::Undo(verb) => done(start::undo(&global, &verb)),
        Verb::Fork(verb) => done(start::fork(&global, &verb)),
        Verb::Ps(verb) => done(list::ps(&global, &verb)),
        Verb::Inspect(verb) => done(list::inspect(&global, &verb)),
        Verb::History(verb) => done(history::history(&global, &verb)),
        Verb::Pause(verb) => done(instance::pause(&global, &verb)),
        Verb::Unpause(verb) => done(instance::unpause(&global, &verb)),
        Verb::Suspend(verb) => done(instance::suspend(&global, &verb)),
        Verb::Checkpoint(verb) => done(instance::checkpoint(&global, &verb)),
        Verb::Stop(verb) => done(instance::stop(&global, &verb)),
        Verb::Rm(verb) => done(instance::rm(&global, &verb)),
        Verb::Cp(verb) => done(files::cp(&global, &verb)),
        Verb::Mount(verb) => done(files::mount(&global, &verb)),
        Verb::Exec(verb) => attach::exec(&global, &verb),
        Verb::Console(verb) => done(attach::console(&global, &verb)),
        Verb::View(verb) => done(attach::view(&global, &verb)),
        Verb::Screenshot(verb) => done(attach::screenshot(&global, &verb)),
        Verb::Logs(verb) => done(attach::logs(&global, &verb)),
        Verb::Network { verb } => done(networks::execute(&global, verb.as_ref())),
        Verb::Config(verb) => done(list::config(&global, &verb)),
        Verb::Repo(verb) => repo::execute(&global, verb),
        Verb::Completion { shell } => {
            let mut command = <Cli as clap::CommandFactory>::command();
            clap_complete::generate(shell, &mut command, "collective", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Opens this host, as the global options and the environment say.
fn open(global: &Global) -> Result<Host, Failure> {
    let dir = global.dir.clone().unwrap_or_else(HostDir::default_path);
    let from_environment = || std::env::var("COLLECTIVE_REPO").ok().filter(|text| !text.is_empty());
    let repo = global.repo.clone().or_else(from_environment);
    Host::open(&dir, repo.as_deref())
}

/// Reads the name of an instance that is there.
fn name(text: &str) -> Result<model::Name, Failure> {
    model::Name::new(text)
        .map_err(|e| Failure::new("usage", e.to_string(), "`collective ps` lists instances"))
}

/// Reads the name of an instance that is to be.
fn new_name(text: &str) -> Result<model::Name, Failure> {
    model::Name::new(text)
        .map_err(|e| Failure::new("usage", e.to_string(), "for example --name web-1"))
}

/// A file that the user named could not be written.
fn not_written(path: &Path, error: std::io::Error) -> Failure {
    let path = path.display();
    if error.kind() == std::io::ErrorKind::AlreadyExists {
        return Failure::new("exists", format!("there is a file {path} already"), NAME_ANOTHER);
    }
    Failure { hint: NAME_ANOTHER.to_owned(), ..Failure::from(error) }
        .during(format!("cannot write {path}"))
}

const NAME_ANOTHER: &str = "name another file with -o";
