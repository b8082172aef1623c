//! `trust`, `catalog`, `update`, `rollback`: makers and their versions, for users.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use api::UpdatePrint;
use host::{Failure, Following, UpdateMode, UpdateOptions};
use model::{format_bytes, parse_bytes};

use super::{name, open};
use crate::cli::{Catalog, Global, Rollback, Trust, Update};
use crate::print;

pub fn trust(global: &Global, verb: Trust) -> Result<(), Failure> {
    let host = open(global)?;
    match verb {
        Trust::Add { location, root_fingerprint, yes } => {
            let fingerprint = match root_fingerprint {
                Some(fingerprint) => fingerprint,
                None => compared(&host.fingerprint_at(&location)?, &location, yes)?,
            };
            let maker = host.trust_add(&location, &fingerprint)?;
            print::result(global, &maker, || {
                format!(
                    "this host trusts {} at {}: {} appliances\nsee what there is: collective catalog {}",
                    maker.name, maker.location, maker.appliances, maker.name
                )
            });
        }
        Trust::List => {
            let makers = host.trust_list()?;
            print::result(global, &makers, || {
                if makers.is_empty() {
                    return "this host trusts no maker: `collective trust add LOCATION`".to_owned();
                }
                let mirrors = makers.iter().flat_map(|maker| {
                    maker
                        .mirrors
                        .iter()
                        .map(|at| format!("\n{} is asked at {at} first", maker.name))
                });
                let mirrors: String = mirrors.collect();
                let table = print::table(
                    &["MAKER", "ROOT", "ASKED", "VALID UNTIL", "LOCATION"],
                    makers.iter().map(|maker| {
                        vec![
                            maker.name.clone(),
                            maker.root_fingerprint[..12].to_owned(),
                            maker.asked.clone(),
                            maker
                                .why
                                .as_ref()
                                .map_or(maker.expires.clone(), |_| "ended".to_owned()),
                            maker.location.clone(),
                        ]
                    }),
                );
                table + &mirrors
            });
        }
        Trust::Refresh { maker, clock_is_right } => {
            let maker = host.trust_refresh(&maker, clock_is_right)?;
            print::result(global, &maker, || {
                format!(
                    "{}: {} appliances, valid until {}",
                    maker.name, maker.appliances, maker.expires
                )
            });
        }
        Trust::Mirror { maker, location, remove } => {
            let maker = host.trust_mirror(&maker, &location, !remove)?;
            print::result(global, &maker, || match maker.mirrors.len() {
                0 => format!("{} has no mirrors: it is asked at {}", maker.name, maker.location),
                _ => format!(
                    "{} is asked at {}, then at {}",
                    maker.name,
                    maker.mirrors.join(", "),
                    maker.location
                ),
            });
        }
        Trust::Remove { maker } => {
            host.trust_remove(&maker)?;
            print::result(global, &serde_json::json!({"removed": maker}), || {
                format!("this host no longer trusts {maker}")
            });
        }
    }
    Ok(())
}

/// A person looks at the fingerprint that was found.
fn compared(found: &str, location: &str, yes: bool) -> Result<String, Failure> {
    if yes {
        return Ok(found.to_owned());
    }
    let unseen = || {
        Failure::new(
            "trust",
            format!(
                "whoever signs at {location} has the root {found}: nobody has compared that yet"
            ),
            format!(
                "compare it with what the maker says elsewhere, then: collective trust add {location} \
                 --root-fingerprint {found}"
            ),
        )
    };
    if !std::io::stdin().is_terminal() {
        return Err(unseen());
    }
    let _ = write!(
        std::io::stderr(),
        "The root at {location} has the fingerprint\n  {found}\n\
         Is that what the maker says elsewhere (its web page, a letter)? [y/N] "
    );
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim().eq_ignore_ascii_case("y") { Ok(found.to_owned()) } else { Err(unseen()) }
}

pub fn catalog(global: &Global, verb: &Catalog) -> Result<(), Failure> {
    let one = verb.maker.as_deref().filter(|text| text.contains('/') || verb.sbom);
    if let Some(one) = one {
        let host = open(global)?;
        if verb.sbom {
            std::io::stdout().write_all(&host.release_sbom(one)?)?;
            return Ok(());
        }
        let release = host.release_print(one)?;
        print::result(global, &release, || about(&release));
        return Ok(());
    }
    let (rows, notes) = open(global)?.catalog(verb.maker.as_deref(), verb.search.as_deref())?;
    print::result(global, &rows, || {
        if rows.is_empty() {
            return "nothing: `collective trust list` lists the makers that are asked".to_owned();
        }
        let channels = |row: &api::CatalogPrint| {
            let all = row.channels.iter().map(|(name, version)| {
                let mut text = format!("{name} {version}");
                if let Some(percent) = row.rollouts.get(name) {
                    text.push_str(&format!(" ({percent} %)"));
                }
                if let Some(instant) = row.put_off.get(name) {
                    text.push_str(&format!(" (from {instant})"));
                }
                text
            });
            all.collect::<Vec<_>>().join(", ")
        };
        let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), format_bytes);
        let mut text = print::table(
            &["APPLIANCE", "CHANNELS", "SIZE", "UPDATE", "LICENCE", "DESCRIPTION"],
            rows.iter().map(|row| {
                vec![
                    row.appliance.clone(),
                    channels(row),
                    size(row.size_bytes),
                    size(row.update_bytes),
                    row.licence.clone(),
                    row.description.clone(),
                ]
            }),
        );
        if verb.versions {
            for row in &rows {
                for version in &row.versions {
                    let yanked = version.yanked.as_ref().map(|why| format!("  taken back: {why}"));
                    text.push_str(&format!(
                        "\n{}@{}  {}  {}{}",
                        row.appliance,
                        version.version,
                        &version.id[..12],
                        version.published,
                        yanked.unwrap_or_default()
                    ));
                }
            }
        }
        text
    });
    for note in notes {
        print::note(global, &note);
    }
    Ok(())
}

/// What a maker signed about a version, line by line.
fn about(release: &api::ReleasePrint) -> String {
    let words = |words: &[String]| words.join(" ");
    let rows = [
        ("version", format!("{} {}", release.appliance, release.version)),
        ("id", release.id.clone()),
        ("published", format!("{} by {}", release.published, release.published_by)),
        ("taken back", release.yanked.clone().unwrap_or_default()),
        ("signed by", release.signed_by.clone().unwrap_or_default()),
        ("root", release.root_fingerprint.clone()),
        ("description", release.description.clone()),
        ("size", format_bytes(release.size_bytes)),
        ("packages", format!("{} (--sbom lists them)", release.packages)),
        ("built by", release.built_by.clone().unwrap_or_default()),
        ("recipe", release.recipe.clone().unwrap_or_default()),
        ("of packages", release.recipe_packages.clone().unwrap_or_default()),
        ("ready within", format!("{} s", release.healthy_within_s)),
        ("health", words(&release.health)),
        ("migrate", words(&release.migrate)),
        ("not without", release.least.clone().unwrap_or_default()),
        ("licence", release.licence.clone()),
        ("notes", release.notes.clone()),
    ];
    let said = rows.iter().filter(|(_, value)| !value.is_empty());
    let lines: Vec<String> = said.map(|(key, value)| format!("{key:<12} {value}")).collect();
    match release.licence_text.trim_end() {
        "" => lines.join("\n"),
        text => format!("{}\n\n{text}", lines.join("\n")),
    }
}

pub fn update(global: &Global, verb: &Update) -> Result<ExitCode, Failure> {
    let mode = match (verb.check, verb.fetch) {
        (true, _) => UpdateMode::Check,
        (false, true) => UpdateMode::Fetch,
        (false, false) => UpdateMode::Now,
    };
    let rate = verb.rate.as_deref().map(|text| {
        let hint = "for example --rate 500KiB";
        parse_bytes(text).map_err(|e| Failure::new("usage", e.to_string(), hint))
    });
    let options = UpdateOptions {
        name: name(&verb.name)?,
        mode,
        to: verb.to.clone(),
        channel: verb.channel.clone(),
        updates: verb.updates.as_deref().and_then(Following::parse),
        rate: rate.transpose()?,
        force: verb.force,
        start: super::start::start_options(&verb.start)?,
    };
    let mut progress = print::progress(global);
    let updated = open(global)?.update(&options, &mut progress)?;
    print::result(global, &updated, || describe(&updated));
    Ok(if updated.rolled_back { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

pub fn rollback(global: &Global, verb: &Rollback) -> Result<(), Failure> {
    let start = super::start::start_options(&verb.start)?;
    let done = open(global)?.rollback(&name(&verb.name)?, verb.force, &start)?;
    print::result(global, &done, || {
        format!("{} has version {} again, with its data as it is now", done.name, done.to)
    });
    Ok(())
}

/// One line about an update, and what to do about it.
pub(super) fn describe(update: &UpdatePrint) -> String {
    let UpdatePrint { name, from, to, reason, .. } = update;
    let why = reason.as_deref().unwrap_or_default();
    let mut text = match (update.applied, update.rolled_back) {
        (_, true) => format!("{name} is back at version {from}: version {to} did not work ({why})"),
        (true, false) => format!("{name} has version {to} instead of {from}; its data was kept"),
        (false, false) if from == to => format!("{name} has version {from}: {why}"),
        (false, false) => format!("{name} has version {from}; there is version {to}: {why}"),
    };
    if update.applied && !update.rolled_back && !why.is_empty() {
        text.push_str(&format!("; {why}"));
    }
    if update.fetched_bytes + update.reused_bytes > 0 {
        text.push_str(&format!(
            "\n  fetched {}, reused {}",
            format_bytes(update.fetched_bytes),
            format_bytes(update.reused_bytes)
        ));
    }
    for warning in &update.warnings {
        text.push_str(&format!("\n  {warning}"));
    }
    if let Some(report) = &update.report {
        text.push_str(&format!("\n  for its maker: {report}"));
    }
    text
}
