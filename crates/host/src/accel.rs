//! What runs the CPUs: KVM where it is proven to run a 64-bit guest, else TCG.
//!
//! The proof takes up to three seconds, so it is remembered until the next boot of this machine
//! (or another QEMU), beside the cache.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use vmm::{Accel, Jail, KvmProof};

use crate::dir::{self, HostDir};
use crate::failure::{Failure, Result};

/// Where KVM works, the payload takes well below a second.
const DEADLINE: Duration = Duration::from_secs(3);

#[derive(Serialize, Deserialize)]
struct Remembered {
    /// The boot and the QEMU that it was tried with.
    situation: String,
    proof: String,
    why: String,
}

/// `auto` proves KVM and falls back to TCG, saying so; `kvm` refuses without proof.
pub fn choose(host: &HostDir, wanted: &str) -> Result<Accel> {
    if wanted == "tcg" {
        return Ok(Accel::Tcg);
    }
    match proof(host)? {
        KvmProof::Proven => Ok(Accel::Kvm),
        KvmProof::NotThere { why } | KvmProof::False { why } if wanted == "kvm" => {
            Err(Failure::new(
                "hypervisor",
                format!("KVM cannot be used: {why}"),
                "`--accel auto` falls back to TCG; `collective doctor` says more",
            ))
        }
        KvmProof::NotThere { why } | KvmProof::False { why } => {
            eprintln!("TCG runs the guest: {why}");
            Ok(Accel::Tcg)
        }
    }
}

/// The proof, tried once for each boot.
pub fn proof(host: &HostDir) -> Result<KvmProof> {
    // Not remembered: who may not use it now may be let in the next moment.
    if let Err(why) = vmm::open_kvm() {
        return Ok(KvmProof::NotThere { why });
    }
    let qemu = vmm::find_qemu()?;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let program = std::fs::metadata(&qemu)?;
    let situation = format!("{} {} {:?}", boot.trim(), program.len(), program.modified()?);
    let file = host.folder("cache")?.join("kvm.json");
    if let Ok(known) = dir::decode::<Remembered>(&file)
        && known.situation == situation
    {
        match known.proof.as_str() {
            "proven" => return Ok(KvmProof::Proven),
            "false" => return Ok(KvmProof::False { why: known.why }),
            _ => {}
        }
    }
    let jail = Jail::new(vmm::Launcher::this_binary(), None);
    let proof = vmm::prove_kvm(&qemu, &jail, DEADLINE);
    let (word, why) = match &proof {
        KvmProof::Proven => ("proven", String::new()),
        KvmProof::False { why } => ("false", why.clone()),
        KvmProof::NotThere { .. } => return Ok(proof),
    };
    let known = Remembered { situation, proof: word.to_owned(), why };
    dir::replace_json(&file, &known)?;
    Ok(proof)
}
