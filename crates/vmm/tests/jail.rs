//! The walls, tried from inside: a prisoner runs in QEMU's place and says what it could do.

mod common;

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{Dir, launcher, nano};
use model::{NicSpec, PortMap, Profile};
use network::{Netdev, UserNetdev, random_mac};
use vmm::{Identity, Jail, NicLaunch, QEMU_LOG, Qemu, VmmError};

/// What a host has that its guests must not reach.
struct Host {
    other: Dir,
    published: u16,
    text: String,
    _unix: UnixListener,
    _abstract: UnixListener,
    _tcp: TcpListener,
}

fn host(own: &Dir) -> Host {
    let other = Dir::new("other-instance");
    let secret = other.join("ram");
    fs::write(&secret, "secret").unwrap();
    // Readable and writable by everybody: it is not the file's mode that keeps them out.
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o666)).unwrap();
    let socket = other.join("s.sock");
    let unix = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o777)).unwrap();
    let name = format!("collective-test-{}-{}", std::process::id(), own.path().display());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = format!(
        "other={};shadow=/etc/shadow;passwd=/etc/passwd;own-ram={};own-disk={};run={};unix={};\
         abstract={name};tcp={};published={free};parent={}",
        secret.display(),
        own.join("ram").display(),
        own.join("disk").display(),
        own.join("run").display(),
        socket.display(),
        tcp.local_addr().unwrap().port(),
        std::process::id(),
    );
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    Host { other, published: free, text, _unix: unix, _abstract, _tcp: tcp }
}

fn results(text: &str) -> HashMap<String, String> {
    let pair = |line: &str| line.split_once(": ").map(|(a, r)| (a.to_owned(), r.to_owned()));
    text.lines().filter_map(pair).collect()
}

/// Runs the prisoner as QEMU would run.
fn imprisoned(identity: Option<Identity>, nic: Option<Netdev>) -> HashMap<String, String> {
    let own = Dir::new("prisoner");
    let host = host(&own);
    let mut launch = nano(&own, Profile::Light);
    launch.qemu = launcher().program;
    launch.cpu_model = host.text.clone();
    launch.jail = Jail::new(launcher(), identity);
    if let Some(mut netdev) = nic {
        if let Netdev::User(user) = &mut netdev {
            let address = [127, 0, 0, 1].into();
            user.forwards = vec![PortMap { address, host_port: host.published, guest_port: 80 }];
        }
        launch.hardware.nics =
            vec![NicSpec { network: "user".into(), ports: vec![80], model: Default::default() }];
        launch.nics = vec![NicLaunch { mac: random_mac([0; 4]), netdev }];
    }
    // A secret in the environment and an open file that nobody closed, as a shell leaves them.
    let leaked = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let error = Qemu::spawn(&launch).err().expect("a prisoner speaks no QMP");
    assert!(matches!(error, VmmError::Died { .. }), "{error}");
    assert!(host.other.join("ram").exists());
    let log = fs::read_to_string(launch.run_dir.join(QEMU_LOG)).unwrap();
    println!("{log}");
    results(&log)
}

const OUT_OF_REACH: [&str; 31] = [
    "read other",
    "read shadow",
    "read passwd",
    "write other",
    "create in run",
    "remove in run",
    "list root",
    "list proc",
    "list other",
    "create in /tmp",
    "connect unix",
    "connect abstract",
    "listen tcp",
    "signal parent",
    "exec",
    "ptrace",
    "process_vm_readv",
    "mount",
    "unshare",
    "setns",
    "keyctl",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "init_module",
    "reboot",
    "open_by_handle_at",
    "x32 getpid",
    "socket netlink",
    "socket packet",
];

fn check_walls(results: &HashMap<String, String>) {
    let is_denied = |result: &str| {
        result.contains("Operation not permitted") || result.contains("Permission denied")
    };
    for act in OUT_OF_REACH {
        assert!(is_denied(&results[act]), "{act}: {}", results[act]);
    }
    for act in ["read own-ram", "write own-ram", "read own-disk", "dontneed"] {
        assert_eq!(results[act], "ok", "{act}");
    }
    assert!(results["hugepage"].contains("Invalid argument"), "{}", results["hugepage"]);
    assert_eq!(results["environment"], "0");
    assert_eq!(results["descriptors"], "[100, 101, 102, 103]");
    assert_eq!(results["capabilities"], "0");
    assert_eq!(results["no new privileges"], "true");
    assert_eq!(results["core"], "Some(0)");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_prisoner_of_the_same_user_reaches_nothing() {
    let results = imprisoned(None, None);
    check_walls(&results);
    for act in ["connect tcp", "listen published"] {
        assert!(results[act].contains("not permitted"), "{act}: {}", results[act]);
    }
}

#[test]
fn a_prisoner_of_root_is_nobody() {
    if !is_root() {
        return;
    }
    let results = imprisoned(Some(Identity { uid: 65534, gid: 65534 }), None);
    check_walls(&results);
    assert_eq!(results["user"], "65534");
    assert_eq!(results["groups"], "[]");
    assert_eq!(results["bounding set"], "0");
}

#[test]
fn with_a_network_only_the_published_port_is_opened() {
    let user =
        |outbound| Some(Netdev::User(UserNetdev { forwards: vec![], outbound, closed: false }));
    let results = imprisoned(None, user(false));
    check_walls(&results);
    assert_eq!(results["listen published"], "ok");
    assert!(results["connect tcp"].contains("denied"), "{}", results["connect tcp"]);
    assert_eq!(imprisoned(None, user(true))["connect tcp"], "ok");
}

/// The same prisoner outside: so that the tests above mean something.
#[test]
fn without_walls_it_could() {
    let own = Dir::new("free");
    let host = host(&own);
    nano(&own, Profile::Light);
    let output = Command::new(launcher().program).arg("__try").arg(&host.text).output().unwrap();
    let results = results(&String::from_utf8_lossy(&output.stderr));
    let mut possible = vec![
        "read other",
        "read passwd",
        "write other",
        "create in run",
        "list proc",
        "connect unix",
        "connect abstract",
        "connect tcp",
        "listen tcp",
        "signal parent",
        "exec",
        "ptrace",
        "unshare",
        "keyctl",
        "socket netlink",
        "hugepage",
    ];
    if is_root() {
        possible.push("read shadow");
    }
    for act in possible {
        assert_eq!(results[act], "ok", "{act}");
    }
}

#[test]
fn walls_that_cannot_be_built_are_a_clear_error() {
    let own = Dir::new("nowalls");
    let mut launch = nano(&own, Profile::Light);
    launch.jail.readable.push("/does/not/exist".into());
    let error = Qemu::spawn(&launch).err().unwrap();
    let text = error.to_string();
    assert!(text.contains("jail") && text.contains("/does/not/exist"), "{text}");
    launch.jail.launcher.program = "/does/not/exist".into();
    let error = Qemu::spawn(&launch).err().unwrap();
    assert!(matches!(error, VmmError::NotInstalled { .. }), "{error}");
}

/// A shim that is killed cannot clean up: the kernel ends its QEMU.
#[test]
fn a_prisoner_dies_with_whoever_started_it() {
    use std::io::BufRead;
    use std::process::Stdio;
    let jail = launcher().program;
    let script = format!(
        "{} __jail --network 0 -- /bin/sleep 1000 < /dev/null & echo $!; wait",
        jail.display()
    );
    let mut shim = Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(shim.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let prisoner = std::path::PathBuf::from(format!("/proc/{}", line.trim()));
    let name = || fs::read_to_string(prisoner.join("comm")).unwrap_or_default();
    let end = ambient::now() + common::LONG;
    while name().trim() != "sleep" {
        assert!(ambient::now() < end, "the prisoner is {:?}", name());
        std::thread::yield_now();
    }
    shim.kill().unwrap();
    shim.wait().unwrap();
    while name().trim() == "sleep" && !is_zombie(&prisoner) {
        assert!(ambient::now() < end, "the prisoner outlives its shim");
        std::thread::yield_now();
    }
}

/// What was readied for a start that did not come ends with it, and has been nobody.
#[test]
fn a_jail_that_waits_in_vain_ends() {
    let waiting = |parent: u32| {
        let children = fs::read_to_string(format!("/proc/self/task/{parent}/children"));
        children.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let jails = || -> Vec<String> {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let ids = tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok());
        ids.flat_map(waiting).collect()
    };
    let readied = vmm::Readied::start(&launcher()).unwrap();
    let [jail] = &jails()[..] else { panic!("{:?}", jails()) };
    let process = std::path::PathBuf::from(format!("/proc/{jail}"));
    // It is still our own program, and told nobody anything. (Linux closes what `spawn` waits for a
    // moment before it gives the process its new name.)
    let until = Instant::now() + Duration::from_secs(60);
    let name = || fs::read_to_string(process.join("comm")).unwrap().trim().to_owned();
    while name() != "vmm-jail" {
        assert!(Instant::now() < until, "it is {:?} still", name());
        thread::yield_now();
    }
    drop(readied);
    assert!(!process.exists() || is_zombie(&process));
}

/// Dead and waiting to be collected by whoever inherits orphans here.
fn is_zombie(process: &std::path::Path) -> bool {
    fs::read_to_string(process.join("stat")).is_ok_and(|stat| stat.contains(") Z "))
}
