//! What a guest is told after it continued from memory: what time it is, and who it is now.
//!
//! A forked guest would otherwise keep its parent's address. The virtual machine generation id is
//! the device's own doing; this is the rest. Best effort: a guest without an agent goes on as it
//! is. `docs/identity.md` lists what is refreshed and what is not.

use std::fmt::Write as _;

use model::Name;

/// A POSIX shell script for the guest: sets the clock, and with `fresh` the identity.
///
/// `macs` are the addresses of the network cards in the guest's order (by bus address).
pub fn script(unix_ms: u64, fresh: Option<(&Name, &[[u8; 6]])>) -> String {
    let mut script = format!("date -u -s @{} >/dev/null 2>&1\n", unix_ms / 1000);
    if let Some((name, macs)) = fresh {
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
        let _ = writeln!(
            script,
            "[ -x /etc/collective/fresh-identity ] && COLLECTIVE_NAME={name} \
             /etc/collective/fresh-identity"
        );
    }
    script.push_str("exit 0\n");
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_is_a_script_and_names_what_is_fresh() {
        let name = Name::new("t1").unwrap();
        let fresh = script(1_700_000_000_123, Some((&name, &[[2, 0, 0, 0, 0, 1]])));
        assert!(fresh.contains("@1700000000 "));
        assert!(fresh.contains("02:00:00:00:00:01"));
        assert!(!script(0, None).contains("address"));
        for text in [fresh, script(0, None)] {
            let status =
                std::process::Command::new("sh").args(["-n", "-c", &text]).status().unwrap();
            assert!(status.success(), "{text}");
        }
    }
}
