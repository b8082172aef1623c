//! A stock QEMU maps its memory from the mount and opens its disk there.

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use export::{Export, ExportFile, Options};
use support::MemFile;

const MIB: usize = 1 << 20;
const RAM: usize = 16 * MIB;
/// Nobody, when the test is root: QEMU runs as another user than the one that serves its files.
const OTHER_USER: u32 = 65534;

/// A guest of one sector: says `boots=N` on its serial port, and counts N on its disk.
const NANO: &[u8] = include_bytes!("../../../appliances/nano/nano.img");

struct Qemu {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Qemu {
    fn start(export: &Export, serial: &Path, other_user: bool) -> Qemu {
        let (ram, disk) = (export.path("ram").unwrap(), export.path("disk0").unwrap());
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-nodefaults", "-display", "none", "-vga", "std", "-no-user-config"])
            .args(["-accel", "tcg,thread=single,tb-size=32"])
            .args(["-machine", "pc,memory-backend=ram", "-m", "16", "-qmp", "stdio"])
            .arg("-object")
            .arg(format!("memory-backend-file,id=ram,size=16M,share=on,mem-path={}", ram.display()))
            .arg("-drive")
            .arg(format!("file={},format=raw,if=ide,discard=unmap", disk.display()))
            .arg("-serial")
            .arg(format!("file:{}", serial.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if other_user {
            command.uid(OTHER_USER).gid(OTHER_USER);
        }
        let mut process = command.spawn().expect("qemu-system-x86_64 is installed");
        let commands = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut qemu = Qemu { process, commands, answers };
        qemu.wait_for("QMP");
        qemu.execute(r#"{"execute":"qmp_capabilities"}"#);
        qemu
    }

    fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        while !line.contains(word) {
            assert!(!line.contains("\"error\""), "{line}");
            line.clear();
            assert_ne!(self.answers.read_line(&mut line).unwrap(), 0, "QEMU is gone");
        }
    }

    fn execute(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
        self.wait_for("\"return\"");
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn wait_for_text(serial: &Path, text: &str) {
    for _ in 0..3000 {
        if fs::read(serial).is_ok_and(|said| String::from_utf8_lossy(&said).contains(text)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("the guest never said {text:?}: {:?}", fs::read(serial));
}

#[test]
fn guest_memory_and_disk_are_the_exported_files() {
    let root = rustix::process::geteuid().is_root();
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let mount = dir.path().join("files");
    fs::create_dir(&mount).unwrap();

    let (ram, disk) = (Arc::new(MemFile::new(RAM)), Arc::new(MemFile::new(MIB)));
    disk.bytes.write().unwrap()[..NANO.len()].copy_from_slice(NANO);
    let files: Vec<(String, Arc<dyn ExportFile>)> =
        vec![("ram".to_owned(), ram.clone()), ("disk0".to_owned(), disk.clone())];
    let owner = root.then_some((OTHER_USER, OTHER_USER));
    let export = Export::mount(&mount, files, Options { owner, ..Options::ram() }).unwrap();

    for boots in 1..=2 {
        let serial = dir.path().join(format!("serial{boots}"));
        let mut qemu = Qemu::start(&export, &serial, root);
        wait_for_text(&serial, &format!("boots={boots}"));
        qemu.execute(r#"{"execute":"stop"}"#);
        let dump = dir.path().join(format!("dump{boots}"));
        qemu.execute(&format!(
            r#"{{"execute":"pmemsave","arguments":{{"val":0,"size":{RAM},"filename":"{}"}}}}"#,
            dump.display()
        ));
        export.sync("ram").unwrap();
        export.sync("disk0").unwrap();
        let seen = fs::read(&dump).unwrap();
        let stored = ram.bytes.read().unwrap();
        // All but the hole of the video memory and the shadows of ROMs.
        assert!(seen[..0xa_0000] == stored[..0xa_0000]);
        assert!(seen[MIB..] == stored[MIB..]);
        assert!(stored[0x7c00..].starts_with(&NANO[..64]), "the boot sector was loaded there");
        let counter = disk.bytes.read().unwrap()[512..520].to_vec();
        assert_eq!(counter, [b"nano".as_slice(), &[boots, 0, 0, 0]].concat());
        drop(stored);

        qemu.execute(r#"{"execute":"cont"}"#);
        assert!(qemu.process.try_wait().unwrap().is_none(), "it goes on");
    }
    let stats = export.stats();
    assert!(stats.reads > 0 && stats.writes > 0, "{stats:?}");
    File::open(export.path("disk0").unwrap()).unwrap();
    export.unmount().unwrap();
}
