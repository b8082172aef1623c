//! `build`, `appliances`, `schema`.

use std::time::Duration;

use host::{BuildOptions, Failure};
use model::format_bytes;

use super::open;
use crate::cli::{Build, Global};
use crate::print::{self, duration};

pub fn build(global: &Global, verb: &Build) -> Result<(), Failure> {
    if verb.validate {
        let recipe = host::validate_recipe(&verb.path)?;
        print::result(global, &serde_json::json!({"appliance": recipe, "valid": true}), || {
            format!("{recipe}: valid")
        });
        return Ok(());
    }
    let host = open(global)?;
    let mut progress = |text: &str| print::note(global, text);
    let options = BuildOptions {
        path: verb.path.clone(),
        accel: super::start::accelerator(&verb.accel),
        timeout: Duration::from_secs(verb.timeout),
    };
    let built = host.build(&options, &mut progress)?;
    print::result(global, &built, || {
        let mut text = format!(
            "built {} {} ({}) in {}: {} of content, {} stored, {} reused",
            built.appliance,
            built.version,
            &built.version_id[..12],
            duration(built.total_ms),
            format_bytes(built.logical_bytes),
            format_bytes(built.stored_bytes),
            format_bytes(built.reused_bytes),
        );
        if let Some(warm) = &built.warm {
            text.push_str(&format!(
                "\n  starts from memory ({}): ready in {} instead of {}; {} written, {} stored",
                warm.accel,
                duration(warm.start_ms),
                duration(warm.boot_ms),
                format_bytes(warm.written_bytes),
                format_bytes(warm.stored_bytes),
            ));
        }
        text
    });
    Ok(())
}

pub fn appliances(global: &Global) -> Result<(), Failure> {
    let list = open(global)?.appliances()?;
    print::result(global, &list, || {
        print::table(
            &["NAME", "VERSION", "ID", "DESCRIPTION"],
            list.iter().map(|a| {
                vec![
                    a.name.clone(),
                    a.version.clone(),
                    a.version_id[..12].to_owned(),
                    a.description.clone(),
                ]
            }),
        )
    });
    Ok(())
}

pub fn schema(global: &Global) -> Result<(), Failure> {
    let schema = build::schema();
    let text = serde_json::to_string_pretty(&schema)
        .map_err(|e| Failure::new("internal", e.to_string(), ""))?;
    // The schema is JSON itself: the same document either way.
    print::result(&Global { json: false, ..global.clone() }, &schema, || text);
    Ok(())
}
