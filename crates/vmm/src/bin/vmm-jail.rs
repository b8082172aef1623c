//! For tests, this crate's own and those of the whole program. `vmm-jail __jail ...` is the jail's entry point, as in the real
//! binary. Called as QEMU is (or as `vmm-jail __try TARGETS`), it is a prisoner instead: it tries what it
//! should not be able to do and says how that went, one `act: result` a line. What to try is its CPU
//! model; or, when that is none, the text on its first disk: there a guest that has broken out would
//! keep it, too. Called as swtpm is, it tries what stands behind [`LIST`] at the end of its own program.
//!
//! Unsafe: most of what it tries has no safe wrapper, because nobody should call it. All such
//! calls have null or invalid arguments, so that they do nothing where they are allowed.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::Command;

fn main() {
    let words: Vec<_> = std::env::args_os().collect();
    match words.get(1).and_then(|word| word.to_str()) {
        Some("__jail") => vmm::jail_main(words.into_iter().skip(2)),
        Some("socket") => {
            let own = std::fs::read(&words[0]).expect("its own program");
            let at = own.windows(LIST.len()).rposition(|window| window == LIST);
            attempt_listed(&own[at.expect("a list") + LIST.len()..]);
        }
        Some("__try") => attempt_all(&words[2].to_string_lossy()),
        Some("-name") => {
            let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            let model = words.iter().position(|word| word == "-cpu").map(|at| &*words[at + 1]);
            match model.filter(|model| model.contains('=')) {
                Some(targets) => attempt_all(targets),
                None => {
                    let mut files = words.iter().filter_map(|word| word.split_once("filename="));
                    let disk = files.next().expect("a disk").1.replace(",,", ",");
                    attempt_listed(&std::fs::read(disk).expect("its own disk"));
                }
            }
        }
        _ => {
            eprintln!("usage: vmm-jail __jail ... | __try TARGETS");
            std::process::exit(2);
        }
    }
}

/// `targets`: `name=value` with `;` between.
fn attempt_all(targets: &str) {
    let targets: HashMap<&str, &str> =
        targets.split(';').filter_map(|target| target.split_once('=')).collect();
    files(&targets);
    sockets(&targets);
    processes(&targets);
    system_calls();
    privileges();
}

/// Begins the list at the end of a program that is called as swtpm is.
const LIST: &[u8] = b"\n--- acts to try ---\n";

/// Tries what is listed, an act a line: `read PATH`, `write PATH`, `list PATH`, `connect PATH`,
/// `abstract NAME`, `port NUMBER`, `signal PID`.
fn attempt_listed(bytes: &[u8]) {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    for line in String::from_utf8_lossy(text).lines() {
        let (act, target) = line.split_once(' ').expect("an act and its target");
        match act {
            "read" => say(line, File::open(target).and_then(|mut f| f.read(&mut [0]))),
            "write" => say(line, OpenOptions::new().write(true).open(target)),
            "list" => say(line, std::fs::read_dir(target)),
            "connect" => say(line, UnixStream::connect(target)),
            "abstract" => {
                let name = SocketAddr::from_abstract_name(target);
                say(line, name.and_then(|name| UnixStream::connect_addr(&name)));
            }
            "port" => say(line, TcpStream::connect(("127.0.0.1", target.parse().unwrap()))),
            "signal" => {
                let process = rustix::process::Pid::from_raw(target.parse().unwrap()).unwrap();
                say(line, rustix::process::test_kill_process(process).map_err(io::Error::from));
            }
            other => panic!("{other}?"),
        }
    }
}

fn say<T>(act: &str, result: io::Result<T>) {
    match result {
        Ok(_) => eprintln!("{act}: ok"),
        Err(error) => eprintln!("{act}: {error}"),
    }
}

fn files(targets: &HashMap<&str, &str>) {
    for act in ["other", "shadow", "passwd", "own-ram", "own-disk"] {
        say(&format!("read {act}"), File::open(targets[act]));
    }
    for act in ["other", "own-ram"] {
        say(&format!("write {act}"), OpenOptions::new().write(true).open(targets[act]));
    }
    let run = std::path::Path::new(targets["run"]);
    say("create in run", File::create(run.join("made-by-prisoner")));
    say("remove in run", std::fs::remove_file(run.join("qemu.log")));
    say("list root", std::fs::read_dir("/"));
    say("list proc", std::fs::read_dir("/proc"));
    say("list other", std::fs::read_dir(std::path::Path::new(targets["other"]).parent().unwrap()));
    say("create in /tmp", File::create("/tmp/made-by-prisoner"));
    let _ = std::fs::remove_file("/tmp/made-by-prisoner");
}

fn sockets(targets: &HashMap<&str, &str>) {
    say("connect unix", UnixStream::connect(targets["unix"]));
    let name = SocketAddr::from_abstract_name(targets["abstract"]);
    say("connect abstract", name.and_then(|name| UnixStream::connect_addr(&name)));
    let port: u16 = targets["tcp"].parse().unwrap();
    say("connect tcp", TcpStream::connect(("127.0.0.1", port)));
    say("listen tcp", TcpListener::bind(("127.0.0.1", 0)));
    let published: u16 = targets["published"].parse().unwrap();
    say("listen published", TcpListener::bind(("127.0.0.1", published)));
}

fn processes(targets: &HashMap<&str, &str>) {
    let parent = rustix::process::Pid::from_raw(targets["parent"].parse().unwrap()).unwrap();
    say("signal parent", rustix::process::test_kill_process(parent).map_err(io::Error::from));
    say("exec", Command::new("/bin/true").status());
    eprintln!("environment: {}", std::env::vars_os().count());
    // Without /proc there is no list of them to be had.
    let open = (3..1024).filter(|&fd| unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0);
    eprintln!("descriptors: {:?}", open.collect::<Vec<i32>>());
}

fn system_calls() {
    let call = |number: i64, arguments: [i64; 5]| {
        let [a, b, c, d, e] = arguments;
        match unsafe { libc::syscall(number, a, b, c, d, e) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    };
    let none = [0; 5];
    for (act, number, arguments) in [
        ("ptrace", libc::SYS_ptrace, none), // PTRACE_TRACEME
        ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0]),
        ("mount", libc::SYS_mount, none),
        ("unshare", libc::SYS_unshare, none),
        ("setns", libc::SYS_setns, [-1, 0, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, -3, 0, 0, 0]), // the session's keyring
        ("bpf", libc::SYS_bpf, [-1, 0, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, none),
        ("userfaultfd", libc::SYS_userfaultfd, [1, 0, 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, none),
        ("init_module", libc::SYS_init_module, none),
        ("reboot", libc::SYS_reboot, none), // without its magic numbers
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [-1, 0, 0, 0, 0]),
        ("x32 getpid", (1 << 30) + libc::SYS_getpid, none),
        ("socket netlink", libc::SYS_socket, [libc::AF_NETLINK.into(), 3, 0, 0, 0]),
        ("socket packet", libc::SYS_socket, [libc::AF_PACKET.into(), 3, 0, 0, 0]),
        ("socket vsock", libc::SYS_socket, [libc::AF_VSOCK.into(), 1, 0, 0, 0]),
    ] {
        say(act, call(number, arguments));
    }
    let page = 4096;
    let anywhere = std::ptr::null_mut();
    let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let memory = unsafe { libc::mmap(anywhere, page, protection, flags, -1, 0) };
    for (act, advice) in [("hugepage", libc::MADV_HUGEPAGE), ("dontneed", libc::MADV_DONTNEED)] {
        let result = unsafe { libc::madvise(memory, page, advice) };
        say(act, if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) });
    }
}

fn privileges() {
    use rustix::thread::{
        CapabilitySet, capabilities, capability_is_in_bounding_set, no_new_privs,
    };
    let sets = capabilities(None).unwrap();
    let all = sets.effective | sets.permitted | sets.inheritable;
    eprintln!("capabilities: {}", all.bits().count_ones());
    let bound = CapabilitySet::all().iter();
    let bound = bound.filter(|&c| capability_is_in_bounding_set(c).unwrap_or(false)).count();
    eprintln!("bounding set: {bound}");
    eprintln!("no new privileges: {}", no_new_privs().unwrap());
    eprintln!("user: {}", rustix::process::geteuid().as_raw());
    eprintln!("groups: {:?}", rustix::process::getgroups().unwrap_or_default());
    let core = rustix::process::getrlimit(rustix::process::Resource::Core);
    eprintln!("core: {:?}", core.maximum);
}
