//! The verbs that only look: `doctor`, `ps`, `inspect`, `config`.

use std::process::ExitCode;

use api::{InspectPrint, InstancePrint, ScrubPrint, SignedPrint, UpdatesPrint};
use host::Failure;
use model::format_bytes;

use super::{name, open};
use crate::cli::{Config, Doctor, Global, Inspect, Ps};
use crate::print;

pub fn doctor(global: &Global, verb: &Doctor) -> Result<ExitCode, Failure> {
    let checks = open(global)?.doctor(verb.fix);
    print::result(global, &checks, || {
        let mut text = print::table(
            &["CHECK", "STATUS", "DETAIL"],
            checks.iter().map(|c| vec![c.check.clone(), c.status.clone(), c.detail.clone()]),
        );
        for check in checks.iter().filter(|c| !c.hint.is_empty()) {
            text.push_str(&format!("\n{}: {}", check.check, check.hint));
        }
        text
    });
    let failed = checks.iter().any(|check| check.status == "failed");
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

pub fn ps(global: &Global, verb: &Ps) -> Result<(), Failure> {
    if super::fleet::decides() && !verb.local {
        return super::fleet::ps(global);
    }
    let (instances, warning) = open(global)?.ps(verb.local)?;
    if let Some(warning) = warning {
        print::note(global, &warning);
    }
    print::result(global, &instances, || {
        if global.quiet {
            return instances.iter().map(|i| i.name.as_str()).collect::<Vec<_>>().join("\n");
        }
        print::table(
            &["NAME", "STATE", "APPLIANCE", "VERSION", "ACCEL", "PID", "PORTS", "NOTE"],
            instances.iter().map(row),
        )
    });
    Ok(())
}

fn row(instance: &InstancePrint) -> Vec<String> {
    let ports: Vec<String> = instance
        .ports
        .iter()
        .map(|port| format!("{}:{}->{}", port.address, port.host_port, port.guest_port))
        .collect();
    let note = match (&instance.note, &instance.host) {
        (Some(note), _) => note.clone(),
        (None, Some(host)) if instance.pid.is_none() => format!("on {host}"),
        _ => String::new(),
    };
    vec![
        instance.name.clone(),
        instance.state.clone(),
        instance.appliance.clone(),
        instance.version.clone(),
        instance.accel.clone().unwrap_or_default(),
        instance.pid.map(|pid| pid.to_string()).unwrap_or_default(),
        ports.join(","),
        note,
    ]
}

pub fn inspect(global: &Global, verb: &Inspect) -> Result<(), Failure> {
    let host = open(global)?;
    let name = name(&verb.name)?;
    let mut shown = host.inspect(&name)?;
    if verb.drift {
        shown.drift = Some(host.drift(&name, &mut print::progress(global))?);
    }
    print::result(global, &shown, || describe(&shown));
    Ok(())
}

fn describe(shown: &InspectPrint) -> String {
    let none = || "-".to_owned();
    let mut lines = vec![
        format!("name        {}", shown.instance.name),
        format!("id          {}", shown.instance.id),
        format!("state       {}", shown.instance.state),
        format!("appliance   {} {}", shown.instance.appliance, shown.instance.version),
        format!("version id  {}", shown.version_id),
        format!("head        {}", shown.head.clone().unwrap_or_else(none)),
        format!("generation  {}", shown.generation),
        format!(
            "hardware    {}, {} CPU{} ({}), {} memory",
            shown.profile,
            shown.cpus,
            if shown.cpus == 1 { "" } else { "s" },
            shown.cpu_model,
            format_bytes(shown.memory_bytes)
        ),
        format!("mac         {}", shown.mac.join(" ")),
        format!("network     {}", if shown.mac.is_empty() { "-" } else { &shown.network }),
        format!("host        {}", shown.instance.host.clone().unwrap_or_else(none)),
        format!("vnc         {}", shown.vnc.clone().unwrap_or_else(none)),
        format!("directory   {}", shown.directory.clone().unwrap_or_else(none)),
    ];
    if let Some(note) = &shown.instance.note {
        lines.push(format!("note        {note}"));
    }
    if let Some(signed) = &shown.signed {
        lines.push(format!("maker       {}", describe_signed(signed)));
    }
    if let Some(updates) = &shown.updates {
        lines.push(format!("updates     {}", describe_updates(updates)));
    }
    lines.push(format!("checkpoints {}", super::auto::describe(&shown.auto)));
    let bytes = |value: Option<u64>| value.map_or_else(none, format_bytes);
    if let Some(trace) = &shown.trace {
        lines.push(format!(
            "start       touched {} pages; {} lay ready, {} were fetched ahead and {} of them in time; \
             waited for {}",
            trace.recorded, trace.placed, trace.prefetched, trace.hits, trace.misses
        ));
    }
    if let Some(arriving) = &shown.arriving {
        let from = &arriving.from;
        lines.push(match (&arriving.missing, arriving.left_chunks) {
            (Some(why), _) => format!("arriving    from {from}: {why}"),
            (None, Some(0)) => format!("arriving    from {from}: all is here, and is being stored"),
            (None, Some(left)) => format!("arriving    from {from}: {left} chunks are to come"),
            (None, None) => format!("arriving    from {from}"),
        });
    }
    if let Some(scrub) = &shown.scrub {
        lines.push(format!("scrub       {}", describe_scrub(scrub)));
    }
    if let Some(drift) = &shown.drift {
        lines.push(format!("not as its maker shipped it:\n{}", super::diff::paths(drift)));
    }
    lines.push(print::table(
        &["VOLUME", "SIZE", "WRITTEN", "FETCHED", "CACHED", "BASE"],
        shown.volumes.iter().map(|volume| {
            vec![
                volume.name.clone(),
                format_bytes(volume.size_bytes),
                bytes(volume.dirty_bytes),
                bytes(volume.fetched_bytes),
                bytes(volume.cached_bytes),
                volume.manifest.as_ref().map_or_else(none, |id| id[..12].to_owned()),
            ]
        }),
    ));
    lines.join("\n")
}

fn describe_signed(signed: &SignedPrint) -> String {
    let day = |time: &Option<String>| time.as_ref().map_or("-", |time| &time[..10]).to_owned();
    let mut text = match (&signed.why, signed.signed) {
        (None, true) => format!(
            "{}: signed, published {}, asked {}, signatures hold until {}",
            signed.maker,
            day(&signed.published),
            day(&signed.asked),
            day(&signed.expires)
        ),
        (why, _) => {
            format!("{}: NOT CHECKED: {}", signed.maker, why.as_deref().unwrap_or_default())
        }
    };
    if let Some(person) = &signed.signed_by {
        text.push_str(&format!("; by {person}, for it"));
    }
    if let Some(recipe) = &signed.recipe {
        text.push_str(&format!("; built from recipe {}", &recipe[..12.min(recipe.len())]));
    }
    if let Some(why) = &signed.taken_back {
        text.push_str(&format!("; TAKEN BACK by its maker: {why}"));
    }
    text
}

fn describe_updates(updates: &UpdatesPrint) -> String {
    let mut text = match &updates.channel {
        Some(channel) => format!("follows {channel} ({})", updates.policy),
        None => "stays at its version".to_owned(),
    };
    let mut say = |part: String| text.push_str(&format!("; {part}"));
    if let (Some(offered), Some(when)) = (&updates.offered, &updates.when) {
        let here = if updates.here { "is here" } else { "can be had" };
        say(format!("version {offered} {here}: {when}"));
    }
    if updates.on_trial {
        say("on trial: it goes back by itself if this version does not work".to_owned());
    }
    if let Some(undone) = &updates.undone {
        say(undone.clone());
    }
    if let Some(failing) = &updates.failing {
        say(format!("asking failed: {failing}"));
    }
    text
}

fn describe_scrub(scrub: &ScrubPrint) -> String {
    let fetched = format_bytes(scrub.fetched_bytes);
    match scrub.state.as_str() {
        "done" => format!("done: needs its repository no more (fetched {fetched})"),
        "full" => format!("ended: this host's cache is full (fetched {fetched})"),
        "running" => format!("{}% looked at, fetched {fetched}", scrub.percent),
        "waiting" if scrub.missing_bytes > 0 => {
            format!("waiting to try again: {} cannot be had", format_bytes(scrub.missing_bytes))
        }
        "waiting" => "waiting until it is ready".to_owned(),
        other => other.to_owned(),
    }
}

pub fn config(global: &Global, verb: &Config) -> Result<(), Failure> {
    let mut host = open(global)?;
    let config = match (&verb.key, &verb.value) {
        (Some(key), Some(value)) => host.configure(key, value)?,
        _ => host.config(),
    };
    print::result(global, &config, || {
        [
            format!("repository  {}", config.repository.as_deref().unwrap_or("-")),
            format!("sources     {}", config.sources.join(" ")).trim_end().to_owned(),
            format!("cache-size  {}", format_bytes(config.cache_bytes_max)),
            format!("scrub       {}", config.scrub),
            format!("auto        {}", config.auto),
            format!("keep        {}", config.keep),
            format!("updates     {}", config.updates),
        ]
        .join("\n")
    });
    Ok(())
}
