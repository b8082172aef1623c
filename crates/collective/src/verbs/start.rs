//! The verbs that start guests: `run`, `resume`, `undo`, `fork`.

use std::time::Duration;

use api::StartPrint;
use host::record::UpdatePolicy;
use host::{Accelerator, Failure, ForkOptions, Reference, ResumeOptions, RunOptions, StartOptions};
use model::format_bytes;

use super::{name, new_name, open};
use crate::cli::{Fork, Global, Resume, Run, Start, Undo};
use crate::print::{self, duration};

pub fn run(global: &Global, verb: &Run) -> Result<(), Failure> {
    let appliance = Reference::parse(&verb.appliance)?;
    let host = open(global)?;
    if super::fleet::decides() {
        return super::fleet::run(global, verb, &host);
    }
    if verb.placement.is_wished() {
        return Err(without_a_plane("--on, --restart, --near, --apart and --need"));
    }
    let options = RunOptions {
        appliance,
        updates: UpdatePolicy::parse(&verb.updates).unwrap_or(UpdatePolicy::Auto),
        auto: super::auto::change(&verb.auto)?,
        name: verb.name.as_deref().map(new_name).transpose()?,
        properties: super::foreign::answers(&verb.properties, &verb.property_files)?,
        user_data: verb.user_data.clone(),
        network_config: verb.network_config.clone(),
        boot: verb.boot,
        start: start_options(&verb.start)?,
    };
    let started = host.run(&options)?;
    print_start(global, &started, options.start.wait);
    Ok(())
}

fn without_a_plane(options: &str) -> Failure {
    let hint =
        "set COLLECTIVE_PLANE to the plane's address: `collective plane` says it when it starts";
    Failure::new("usage", format!("{options}: no plane decides here"), hint)
}

pub fn resume(global: &Global, verb: &Resume) -> Result<(), Failure> {
    if super::fleet::decides() {
        return super::fleet::resume(global, verb, &open(global)?);
    }
    if verb.on.is_some() {
        return Err(without_a_plane("--on"));
    }
    let options = ResumeOptions {
        name: name(&verb.name)?,
        take_over: verb.take_over,
        at: None,
        start: start_options(&verb.start)?,
    };
    let started = open(global)?.resume(&options)?;
    print_start(global, &started, options.start.wait);
    Ok(())
}

pub fn undo(global: &Global, verb: &Undo) -> Result<(), Failure> {
    let name = name(&verb.name)?;
    let undone = open(global)?.undo(&name, verb.to.as_deref(), &start_options(&verb.start)?)?;
    print::result(global, &undone, || {
        let mut text =
            format!("{} is back at {} ({})", undone.name, &undone.checkpoint[..12], undone.state);
        if let Some(branch) = &undone.branch {
            text.push_str(&format!(
                "\nwhat was undone is kept: collective fork {} --at {}",
                undone.name,
                &branch[..12.min(branch.len())]
            ));
        }
        if undone.autos > 0 {
            text.push_str(&format!(
                "\nand with it {} automatic checkpoint{}: collective history {}",
                undone.autos,
                if undone.autos == 1 { "" } else { "s" },
                undone.name
            ));
        }
        match undone.state.as_str() {
            "suspended" => {
                text.push_str(&format!("\ngo on from there: collective resume {}", undone.name));
            }
            "stopped" => {
                text.push_str(&format!("\nstart it from there: collective resume {}", undone.name));
            }
            _ => {}
        }
        text
    });
    Ok(())
}

pub fn fork(global: &Global, verb: &Fork) -> Result<(), Failure> {
    let options = ForkOptions {
        name: name(&verb.name)?,
        count: verb.count,
        new_name: verb.new_name.as_deref().map(new_name).transpose()?,
        at: verb.at.clone(),
        start_them: !verb.no_start,
        start: start_options(&verb.start)?,
    };
    let forked = open(global)?.fork(&options)?;
    print::result(global, &forked, || {
        let mut text = format!(
            "forked {} from {} (paused {:.0} ms)",
            forked.instances.join(", "),
            &forked.checkpoint[..12],
            forked.pause_ms
        );
        for started in &forked.starts {
            text.push('\n');
            text.push_str(&describe(started, options.start.wait));
        }
        text
    });
    Ok(())
}

fn print_start(global: &Global, started: &StartPrint, waited: bool) {
    print::result(global, started, || describe(started, waited));
}

fn describe(started: &StartPrint, waited: bool) -> String {
    let StartPrint { name, how, accel, .. } = started;
    let mut text = format!("{name} {how} in {}", duration(started.started_ms));
    text.push_str(&if waited {
        format!(
            ", ready in {} ({accel}): fetched {}{}, reused {}",
            duration(started.ready_ms),
            format_bytes(started.fetched_bytes),
            match started.peer_bytes {
                0 => String::new(),
                bytes => format!(" and {} from other hosts", format_bytes(bytes)),
            },
            format_bytes(started.reused_bytes),
        )
    } else {
        format!(" ({accel}); whether it is ready was not waited for")
    });
    if let Some(why) = &started.cold {
        text.push_str(&format!("\n  it booted: {why}"));
    }
    if let Some(update) = &started.update {
        text.push_str("\n  ");
        text.push_str(&super::update::describe(update));
    }
    for port in &started.ports {
        text.push_str(&format!(
            "\n  {}:{} -> port {} of the guest",
            port.address, port.host_port, port.guest_port
        ));
    }
    text
}

pub(super) fn accelerator(text: &str) -> Accelerator {
    match text {
        "kvm" => Accelerator::Kvm,
        "tcg" => Accelerator::Tcg,
        _ => Accelerator::Auto,
    }
}

fn network(text: &str) -> Result<model::Name, Failure> {
    let hint = "`collective network` lists those of this host";
    model::Name::new(text).map_err(|e| Failure::new("usage", e.to_string(), hint))
}

pub(super) fn start_options(start: &Start) -> Result<StartOptions, Failure> {
    Ok(StartOptions {
        ports: start.publish.iter().map(|text| host::parse_port(text)).collect::<Result<_, _>>()?,
        network: start.network.as_deref().map(network).transpose()?,
        accel: accelerator(&start.accel),
        wait: !start.no_wait,
        timeout: Duration::from_secs(start.timeout),
    })
}
