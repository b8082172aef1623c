//! As services: what a plane and an agent tell who started them, and the units that do, read by systemd and run by
//! one that is process 1 of a machine.

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fleet::Fleet;
use serde_json::json;
use support::{World, eventually};

/// What is said until something is.
#[track_caller]
fn hears(socket: &UnixDatagram, what: &str) {
    let ends = Instant::now() + Duration::from_secs(30);
    let mut said = [0; 64];
    while Instant::now() < ends {
        if let Ok(bytes) = socket.recv(&mut said)
            && said[..bytes] == *what.as_bytes()
        {
            return;
        }
    }
    panic!("nobody said {what}");
}

fn listening(address: &SocketAddr) -> UnixDatagram {
    let socket = UnixDatagram::bind_addr(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket
}

#[test]
fn a_plane_and_an_agent_say_that_they_serve_and_that_they_are_alive() {
    let world = World::empty("services");
    let file = world.root().join("notify");
    let by_file = listening(&SocketAddr::from_pathname(&file).unwrap());
    let (_plane, fleet) = Fleet::start_with(
        &world,
        &[("NOTIFY_SOCKET", file.to_str().unwrap()), ("WATCHDOG_USEC", "600000")],
    );
    hears(&by_file, "READY=1");
    hears(&by_file, "WATCHDOG=1");
    hears(&by_file, "WATCHDOG=1");

    let name = format!("collective-test-{}", std::process::id());
    let abstractly = listening(&SocketAddr::from_abstract_name(&name).unwrap());
    let _agent = fleet.join_with("A", &[("NOTIFY_SOCKET", &format!("@{name}"))]);
    hears(&abstractly, "READY=1");
    hears(&abstractly, "WATCHDOG=1");
    // A machine on which nothing runs can be shut down.
    assert_eq!(world.run("A", &["host", "suspend"]).ok(), json!([]));
}

#[test]
fn units_are_what_systemd_reads() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
    let world = World::empty("units");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(units).unwrap() {
        let entry = entry.unwrap();
        let text = std::fs::read_to_string(entry.path()).unwrap();
        let file = world.root().join(entry.file_name());
        let program = env!("CARGO_BIN_EXE_collective");
        std::fs::write(&file, text.replace("/usr/bin/collective", program)).unwrap();
        files.push(file);
    }
    assert_eq!(files.len(), 3);
    let verified = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args(&files)
        .output()
        .expect("systemd-analyze is there: scripts/install-deps --test");
    let said = String::from_utf8_lossy(&verified.stderr);
    // Of other units of the machine it may say what it likes.
    let about =
        |file: &std::path::PathBuf| said.contains(&*file.file_name().unwrap().to_string_lossy());
    assert!(verified.status.success() && !files.iter().any(about), "{said}");
}

/// Becomes the first process of a machine of its own, in namespaces: a systemd whose `/` is this machine's with
/// another layer above it, with our units beside systemd's own; `$1` is the same folder there as here.
/// What would set this machine's kernel or terminals is masked.
const BOOT: &str = r#"
set -euo pipefail
folder=$1 program=$2 units=$3
mount --make-rprivate /
mkdir -p "$folder/machine"
mount -t tmpfs tmpfs "$folder/machine"
cd "$folder/machine"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
mkdir -p kept
mount --bind "$folder" kept
cd root
mount -t proc proc proc
mount --rbind /sys sys
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p ".$folder"
mount --move ../kept ".$folder"
rm -rf etc/systemd/system var/lib/systemd var/lib/collective var/lib/private etc/default/collective-*
mkdir -p etc/systemd/system before
cp "$program" usr/bin/collective
cp "$units"/*.service etc/systemd/system/
ln -s /lib/systemd/system/multi-user.target etc/systemd/system/default.target
for unit in systemd-sysctl systemd-modules-load systemd-binfmt systemd-remount-fs console-getty systemd-update-utmp; do
  ln -s /dev/null "etc/systemd/system/$unit.service"
done
ip link set lo up
export container=other
pivot_root . before
umount -l /before
exec /lib/systemd/systemd --system
"#;

/// A machine that [`BOOT`] has made; ends with this.
struct Machine {
    child: Child,
    /// Of its systemd.
    first: u32,
}

impl Machine {
    fn start(folder: &Path) -> Self {
        let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/systemd");
        let mut child = Command::new("unshare");
        child.args([
            "--fork",
            "--kill-child",
            "--pid",
            "--mount",
            "--uts",
            "--ipc",
            "--cgroup",
            "--net",
        ]);
        child.args(["bash", "-c", BOOT, "boot"]).arg(folder);
        child.arg(env!("CARGO_BIN_EXE_collective")).arg(units.canonicalize().unwrap());
        let child = child.stdin(Stdio::null()).spawn().unwrap();
        let of = child.id();
        let mut machine = Self { child, first: 0 };
        eventually(Duration::from_secs(30), "it has a first process", || {
            let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children"));
            machine.first = children.unwrap().trim().parse().unwrap_or_default();
            machine.first != 0
        });
        eventually(Duration::from_secs(60), "it is up", || {
            ["running", "degraded"]
                .contains(&machine.says("systemctl is-system-running").0.as_str())
        });
        machine
    }

    /// What a shell says there, and whether it did what it was to do.
    fn says(&self, line: &str) -> (String, bool) {
        let there = ["-t", &self.first.to_string(), "-a", "bash", "-c"].map(str::to_owned);
        let done = Command::new("nsenter").args(there).arg(line).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).trim().to_owned();
        let also = String::from_utf8_lossy(&done.stderr);
        (if done.status.success() { said } else { format!("{said}{also}") }, done.status.success())
    }

    #[track_caller]
    fn does(&self, line: &str) -> String {
        let (said, done) = self.says(line);
        assert!(done, "{line}: {said}");
        said
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn guest_outlives_its_agent_and_is_suspended_when_its_machine_is_off() {
    let world = World::with_nano("units-run");
    let machine = Machine::start(world.root());
    let active = |units: &str| machine.does(&format!("systemctl is-active {units}"));
    machine.does("systemctl start collective-plane");
    // It has a user of its own, and gives nobody else its token.
    assert_ne!(machine.does("ps -o user= -C collective"), "root");
    let token = "/var/lib/collective-plane/plane.token";
    let here = format!(
        "export COLLECTIVE_DIR=/var/lib/collective COLLECTIVE_REPO={} \
         COLLECTIVE_PLANE=https://127.0.0.1:7070 COLLECTIVE_PLANE_TOKEN_FILE={token};",
        world.repository()
    );
    // As docs/operating.md says.
    let join = "(collective host join https://127.0.0.1:7070 --token-file";
    machine.does(&format!(
        "{here} mkdir -m 700 $COLLECTIVE_DIR; {join} {token} & echo $! > /tmp/joins) 2>&1 | head -n 1"
    ));
    machine.does("kill -TERM $(cat /tmp/joins); while kill -0 $(cat /tmp/joins); do sleep 0.1; done 2>/dev/null");
    machine.does(&format!(
        "printf 'PLANE=https://127.0.0.1:7070\\nCOLLECTIVE_REPO={}\\n' > /etc/default/collective-host",
        world.repository()
    ));
    machine.does("systemctl start collective-host");
    assert_eq!(
        active("collective-plane collective-host collective-guests"),
        "active\nactive\nactive"
    );

    machine.does(&format!("{here} collective run nano --name n1"));
    let qemu = || machine.does("pgrep qemu-system");
    let runs = qemu();
    machine.does("systemctl restart collective-host");
    assert_eq!((active("collective-host"), qemu()), ("active".to_owned(), runs.clone()));
    // What dies is started again, the plane too, and its guests do not notice.
    for unit in ["collective-host", "collective-plane"] {
        let main = || machine.does(&format!("systemctl show -p MainPID --value {unit}"));
        let before = main();
        machine.does(&format!("kill -9 {before}"));
        eventually(Duration::from_secs(60), "it is there again", || {
            machine.says(&format!("systemctl is-active {unit}")).0 == "active" && main() != before
        });
    }
    assert_eq!(qemu(), runs);
    let state = || machine.says(&format!("{here} collective --json -q ps")).0;
    eventually(Duration::from_secs(60), "its plane knows it", || {
        state().contains("\"state\":\"running\"")
    });

    // Off: all processes end, and the guest is in the repository.
    machine.says("systemctl poweroff");
    let first = Path::new("/proc").join(machine.first.to_string());
    eventually(Duration::from_secs(120), "it is off", || !first.exists());
    assert_eq!(world.state("A", "n1"), "suspended");
    world.run("A", &["resume", "n1"]).ok();
}
