//! What a guest is told after it became somebody else: what time it is, and who it is now.
//!
//! A forked guest would otherwise keep its parent's address, and every instance of a warm version
//! its maker's. The virtual machine generation id is the device's own doing; this is the rest.
//! `docs/identity.md` lists what is refreshed and what is not.

use std::fmt::Write as _;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::Name;

use super::guest::Guest;
use crate::failure::{Failure, Result};

/// How long the guest may take to become somebody else: its maker's program makes keys, and the pages
/// of all that may come over a slow line.
const TIMEOUT: Duration = Duration::from_secs(300);
/// How much of what went wrong is told.
const SAID_BYTES_MAX: usize = 400;

/// Lets the guest's agent make it who it is now. `macs` are the addresses of its network cards in
/// the guest's order (by bus address).
pub fn refresh(guest: &Guest, unix_ms: u64, name: &Name, macs: &[[u8; 6]]) -> Result<()> {
    let argv = ["/bin/sh", "-c", &script(unix_ms, name, macs)].map(str::to_owned);
    let done = guest.exec_patiently(&argv, None, TIMEOUT, TIMEOUT).map_err(|failure| {
        let message = format!("the guest's identity was not refreshed: {}", failure.message);
        Failure { kind: "agent", message, ..failure }
    })?;
    if done.exit_code == 0 {
        return Ok(());
    }
    let said = STANDARD.decode(&done.stderr_base64).unwrap_or_default();
    let said = String::from_utf8_lossy(&said[..said.len().min(SAID_BYTES_MAX)]).trim().to_owned();
    let code = done.exit_code;
    Err(Failure::new(
        "agent",
        format!(
            "the guest's {HOOK} failed with code {code}{}{said}",
            if said.is_empty() { "" } else { ": " }
        ),
        "docs/identity.md says what it has to do; `collective run --boot` starts without memory",
    ))
}

/// What the maker knows of, in the guest.
const HOOK: &str = "/etc/collective/fresh-identity";

/// A POSIX shell script that sets the clock and the identity. It fails when the maker's part does.
fn script(unix_ms: u64, name: &Name, macs: &[[u8; 6]]) -> String {
    let mut script = format!("date -u -s @{} >/dev/null 2>&1\n", unix_ms / 1000);
    let _ = writeln!(script, "echo {name} >/proc/sys/kernel/hostname");
    script.push_str("set --");
    for mac in macs {
        let _ = write!(script, " {}", network::Mac(*mac));
    }
    // Interfaces in the order of their devices' bus addresses.
    script.push_str(
        "\nfor dev in $(for i in /sys/class/net/*; do [ -e \"$i/device\" ] && \
         echo \"$(readlink -f \"$i/device\") ${i##*/}\"; done | sort | sed 's/.* //'); do\n\
         [ $# -gt 0 ] || break\n\
         ip link set dev \"$dev\" address \"$1\" || \
         { ip link set dev \"$dev\" down; ip link set dev \"$dev\" address \"$1\"; \
         ip link set dev \"$dev\" up; }\nshift\ndone\n",
    );
    let _ = writeln!(script, "[ -x {HOOK} ] || exit 0\nCOLLECTIVE_NAME={name} exec {HOOK}");
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_a_script_and_names_what_is_fresh() {
        let name = Name::new("t1").unwrap();
        let fresh = script(1_700_000_000_123, &name, &[[2, 0, 0, 0, 0, 1]]);
        assert!(fresh.contains("@1700000000 "));
        assert!(fresh.contains("02:00:00:00:00:01"));
        let status = std::process::Command::new("sh").args(["-n", "-c", &fresh]).status().unwrap();
        assert!(status.success(), "{fresh}");
    }
}
