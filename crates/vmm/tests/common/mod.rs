//! A nano guest in a directory of its own, which goes away with it.
#![allow(dead_code)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use model::{
    Boot, BootKind, DiskRole, DiskSpec, DisplayCard, DisplaySpec, Hardware, Profile, ResetPolicy,
};
use vmm::{Accel, BASELINE_CPU, DiskFile, Identity, Jail, Launch, Launcher};

pub const LONG: Duration = Duration::from_secs(60);

const NANO: &[u8] = include_bytes!("../../../../appliances/nano/nano.img");

/// A directory that is removed when the test ends, however it ends.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("vmm-{name}-{}-{count}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn launcher() -> Launcher {
    Launcher { program: env!("CARGO_BIN_EXE_vmm-jail").into(), arguments: vec!["__jail".into()] }
}

/// When we are root, QEMU is somebody else, as in production.
pub fn jail() -> Jail {
    let root = rustix::process::geteuid().is_root();
    Jail::new(launcher(), root.then_some(Identity { uid: 65534, gid: 65534 }))
}

pub fn hardware(profile: Profile, memory_mib: u64) -> Hardware {
    Hardware {
        profile,
        cpus: 1,
        memory_bytes: memory_mib << 20,
        boot: Boot { kind: BootKind::Bios, cmdline: String::new(), secure_boot: false },
        disks: vec![DiskSpec {
            name: "system".into(),
            role: DiskRole::System,
            reset: ResetPolicy::Keep,
            size_bytes: 1 << 20,
            bus: Default::default(),
            media: Default::default(),
        }],
        nics: vec![],
        display: Some(DisplaySpec { video_bytes: 2 << 20, card: DisplayCard::Vga }),
    }
}

fn file(path: &Path, content: &[u8], bytes: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(content).unwrap();
    file.set_len(bytes).unwrap();
    // QEMU's user must reach them; on a host, the volume mount sees to that.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
}

/// Makes the files of a nano guest and says how to start it.
pub fn nano(dir: &Dir, profile: Profile) -> Launch {
    let hardware = hardware(profile, 16);
    file(&dir.join("ram"), &[], hardware.memory_bytes);
    file(&dir.join("disk"), NANO, 1 << 20);
    fs::create_dir_all(dir.join("run")).unwrap();
    Launch {
        qemu: vmm::find_qemu().unwrap(),
        hardware,
        cpu_model: BASELINE_CPU.into(),
        accel: Accel::Tcg,
        ram_path: dir.join("ram"),
        disks: vec![DiskFile { name: "system".into(), path: dir.join("disk"), read_only: false }],
        kernel: None,
        initrd: None,
        firmware: None,
        tpm: None,
        cmdline_extra: String::new(),
        nics: vec![],
        vmgenid: [7; 16],
        uuid: [9; 16],
        run_dir: dir.join("run"),
        incoming: false,
        jail: jail(),
    }
}

/// Somebody at the console.
pub struct Typist {
    stream: UnixStream,
    pub said: String,
}

impl Typist {
    pub fn new(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        Self { stream, said: String::new() }
    }

    pub fn type_text(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    pub fn expect(&mut self, text: &str) {
        let start = ambient::now();
        while !self.said.contains(text) {
            assert!(start.elapsed() < LONG, "no {text:?} in {:?}", self.said);
            let mut buffer = [0; 256];
            if let Ok(count) = self.stream.read(&mut buffer) {
                self.said.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        }
        self.said.clear();
    }
}
