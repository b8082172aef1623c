//! The machine that a saved memory fits: checked before anything starts.

use model::Hardware;
use vmm::Accel;

use crate::record::Machine;

/// The machine that `hardware` is on this host.
pub fn here(hardware: &Hardware, accel: Accel) -> Machine {
    Machine {
        machine_type: vmm::machine_type(hardware.profile).to_owned(),
        cpu_model: vmm::BASELINE_CPU.to_owned(),
        accel: accel.as_str().to_owned(),
        memory_bytes: hardware.memory_bytes,
    }
}

/// Whether what was saved on `saved` can go on here; else what differs.
pub fn check(saved: &Machine, hardware: &Hardware, accel: Accel) -> Result<(), String> {
    let here = here(hardware, accel);
    let differs = |what: &str, saved: &str, here: &str| {
        Err(format!("was made with {what} {saved}; here it is {here}"))
    };
    if saved.memory_bytes != here.memory_bytes {
        let (saved, here) = (saved.memory_bytes, here.memory_bytes);
        let text = model::format_bytes;
        return differs("a memory of", &text(saved), &text(here));
    }
    if saved.machine_type != here.machine_type {
        return differs("the machine", &saved.machine_type, &here.machine_type);
    }
    if saved.cpu_model != here.cpu_model {
        return differs("the CPU model", &saved.cpu_model, &here.cpu_model);
    }
    if saved.accel != here.accel {
        return differs("the accelerator", &saved.accel, &here.accel);
    }
    Ok(())
}
