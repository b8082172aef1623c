//! `import`, `export`: what other programs made, and what is made for them.

use host::{Answer, ExportFormat, ExportOptions, Failure, ImportOptions};
use model::{BootKind, DiskBus, Name, NicModel, format_bytes, parse_bytes};

use super::open;
use crate::cli::{Export, Global, Import};
use crate::print::{self, duration};

pub fn import(global: &Global, verb: &Import) -> Result<(), Failure> {
    let name = Name::appliance(&verb.name)
        .map_err(|e| Failure::new("usage", e.to_string(), "choose another --name"))?;
    let options = ImportOptions {
        file: verb.file.clone(),
        name,
        version: verb.as_version.clone(),
        format: verb.format.as_deref().and_then(import::Format::parse),
        cpus: verb.cpus,
        memory_bytes: verb.memory.as_deref().map(size).transpose()?,
        disk_bus: verb.disk_bus.as_deref().map(|bus| match bus {
            "sata" => DiskBus::Sata,
            _ => DiskBus::Virtio,
        }),
        nic: verb.nic.as_deref().map(|nic| match nic {
            "e1000" => NicModel::E1000,
            _ => NicModel::Virtio,
        }),
        firmware: verb.firmware.as_deref().map(|kind| match kind {
            "uefi" => BootKind::Uefi,
            _ => BootKind::Bios,
        }),
        secure_boot: verb.secure_boot,
        tpm: verb.tpm,
        system: verb.system.clone(),
        disk_bytes: verb.disk_size.as_deref().map(size).transpose()?,
        properties: answers(&verb.properties, &verb.property_files)?,
        properties_at_run: verb.properties_at_run,
        vendor_data: verb.vendor_data.clone(),
    };
    let mut progress = |text: &str| print::note(global, text);
    let imported = open(global)?.import(&options, &mut progress)?;
    print::result(global, &imported, || {
        let mut text = format!(
            "imported {} {} ({}) from {} in {}: {} of content, {} stored, {} reused",
            imported.appliance,
            imported.version,
            &imported.version_id[..12],
            imported.format,
            duration(imported.total_ms),
            format_bytes(imported.logical_bytes),
            format_bytes(imported.stored_bytes),
            format_bytes(imported.reused_bytes),
        );
        for note in &imported.notes {
            text.push_str(&format!("\n  {note}"));
        }
        text
    });
    Ok(())
}

pub fn export(global: &Global, verb: &Export) -> Result<(), Failure> {
    let (name, checkpoint) = match verb.name.split_once('@') {
        Some((name, checkpoint)) => (name, Some(checkpoint.to_owned())),
        None => (verb.name.as_str(), None),
    };
    let name = Name::appliance(name).map_err(|e| {
        let hint = "`collective ps` and `collective appliances` list them";
        Failure::new("usage", e.to_string(), hint)
    })?;
    let options = ExportOptions {
        name,
        checkpoint,
        appliance: verb.appliance,
        file: verb.file.clone(),
        format: match verb.format.as_str() {
            "qcow2" => ExportFormat::Qcow2,
            "ova" => ExportFormat::Ova,
            _ => ExportFormat::Raw,
        },
        disk: verb.disk.clone(),
        replace: verb.force,
    };
    let mut progress = |text: &str| print::note(global, text);
    let exported = open(global)?.export(&options, &mut progress)?;
    print::result(global, &exported, || {
        let mut text = format!(
            "exported the {} {} as {} to {} in {}: {}",
            exported.what,
            exported.name,
            exported.format,
            exported.file,
            duration(exported.total_ms),
            format_bytes(exported.file_bytes),
        );
        for disk in &exported.disks {
            text.push_str(&format!(
                "\n  {}: {}, {} of it in use",
                disk.name,
                format_bytes(disk.size_bytes),
                format_bytes(disk.data_bytes)
            ));
        }
        for note in &exported.notes {
            text.push_str(&format!("\n  {note}"));
        }
        text
    });
    Ok(())
}

fn size(text: &str) -> Result<u64, Failure> {
    parse_bytes(text).map_err(|e| Failure::new("usage", e.to_string(), ""))
}

/// Reads `KEY=VALUE`s and `KEY=FILE`s.
pub fn answers(texts: &[String], files: &[String]) -> Result<Vec<(String, Answer)>, Failure> {
    let split = |text: &String, hint: &str| -> Result<(String, String), Failure> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::new("usage", format!("{text:?} is no property"), hint))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    let mut answers = Vec::new();
    for text in texts {
        let (key, value) = split(text, "write KEY=VALUE; an empty value is KEY=")?;
        answers.push((key, Answer::Text(value)));
    }
    for text in files {
        let (key, path) = split(text, "write KEY=FILE")?;
        answers.push((key, Answer::File(path.into())));
    }
    Ok(answers)
}
