//! A cage: a folder as the root file system of a program.
//!
//! The program runs in mount, PID, network, IPC and host-name namespaces of its own, so that its
//! mounts vanish with it, nothing it started outlives it, and it cannot fetch anything: what it
//! makes depends on what was put in. It is confinement against accidents; a recipe's commands
//! run as root, as a package's own scripts do.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::workshop::Workshop;

/// Mounts what programs expect, then becomes the program. `$1` is the root, `$2` a folder to
/// show at `/mnt` or nothing.
const ENTER: &str = r#"
set -eu
root=$1; shown=$2; shift 2
mount -t tmpfs -o mode=0755,nosuid dev "$root/dev"
for node in null zero full random urandom tty; do
    : > "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
mkdir -m 1777 "$root/dev/shm"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
[ -z "$shown" ] || mount --bind "$shown" "$root/mnt"
ip link set lo up 2>/dev/null || :
exec chroot "$root" "$@"
"#;

/// See the module's documentation.
pub(crate) struct Cage {
    root: PathBuf,
    shown: Option<PathBuf>,
}

impl Cage {
    /// A cage whose root has the folders `dev`, `proc` and `mnt`.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), shown: None }
    }

    /// Shows a folder of the host, writable, at `/mnt`.
    pub fn showing(mut self, folder: &Path) -> Self {
        self.shown = Some(folder.to_owned());
        self
    }

    /// The command that runs `program` in the cage; add its arguments.
    pub fn command(&self, shop: &Workshop, program: &str) -> Command {
        let mut command = shop.command("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--net", "--ipc", "--uts"]);
        command.args(["--propagation", "private", "--", "/bin/sh", "-c", ENTER, "enter"]);
        command.arg(&self.root).arg(self.shown.as_deref().unwrap_or(Path::new(""))).arg(program);
        command.env("HOME", "/root").env("TMPDIR", "/tmp").current_dir("/");
        for name in ["http_proxy", "https_proxy", "no_proxy", "APT_CONFIG"] {
            command.env_remove(name);
        }
        command
    }
}
