//! How fast the door is: fio on an exported file against fio on a plain one.
//!
//! ```text
//! export_bench [--backend memory|file|overlay|base] [--loop-threads N,N] [--rounds N] [--seconds N] [--only NAME]
//! ```
//! Needs fio. All sides take turns in each round (A B, then B A), and the median counts: another
//! process that wants the machine disturbs all. In brackets: processor time of the server for each
//! request.
//!
//! With `memory` the door alone is measured; `file` answers from a plain file through the page
//! cache; `overlay` is a volume that everything was written to, `base` one that reads everything
//! from a manifest whose chunks the host's cache has. The raw side is a plain file on the same file
//! system with direct I/O, as QEMU would open it with `cache=none`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, RwLock};

use export::{Export, ExportFile, Options, VolumeFile};
use volume::{Cache, Fetcher, Volume, VolumeOptions};

const SIZE: u64 = 256 << 20;

struct Memory(Vec<RwLock<Box<[u8]>>>);

const PIECE: u64 = 1 << 20;

impl Memory {
    fn new() -> Memory {
        let piece = || RwLock::new(vec![1; PIECE as usize].into_boxed_slice());
        Memory((0..SIZE / PIECE).map(|_| piece()).collect())
    }

    /// Calls with each piece that the range touches: piece, place in it, place in the range.
    fn pieces(offset: u64, len: usize, mut each: impl FnMut(usize, usize, usize, usize)) {
        let mut at = 0;
        while at < len {
            let start = offset + at as u64;
            let within = (start % PIECE) as usize;
            let take = (len - at).min(PIECE as usize - within);
            each((start / PIECE) as usize, within, at, take);
            at += take;
        }
    }
}

impl ExportFile for Memory {
    fn size_bytes(&self) -> u64 {
        SIZE
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        Memory::pieces(offset, buf.len(), |piece, within, at, len| {
            let bytes = self.0[piece].read().unwrap();
            buf[at..at + len].copy_from_slice(&bytes[within..within + len]);
        });
        Ok(())
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        Memory::pieces(offset, bytes.len(), |piece, within, at, len| {
            let mut target = self.0[piece].write().unwrap();
            target[within..within + len].copy_from_slice(&bytes[at..at + len]);
        });
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_at(offset, &vec![0; len as usize])
    }
    fn is_local(&self, _: u64, _: u64) -> bool {
        true
    }
}

struct Plain(File);

impl ExportFile for Plain {
    fn size_bytes(&self) -> u64 {
        SIZE
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }
    fn flush(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.write_at(offset, &vec![0; len as usize])
    }
    fn is_local(&self, _: u64, _: u64) -> bool {
        true
    }
}

/// A volume that everything was written to.
fn written_volume(dir: &Path) -> (Arc<Volume>, Arc<chunk::Memory>) {
    let store = Arc::new(chunk::Memory::new());
    let cache = Arc::new(Cache::open(&dir.join("cache"), 2 * SIZE).unwrap());
    let fetcher = Arc::new(Fetcher::new(cache, store.clone(), 4));
    let options = VolumeOptions::named("bench");
    let volume = Volume::create(&dir.join("volume"), None, SIZE, fetcher, options).unwrap();
    let mut bytes = vec![0; PIECE as usize];
    for at in 0..SIZE / PIECE {
        for (page, bytes) in bytes.chunks_mut(4096).enumerate() {
            // Pages that differ, so that they are not one chunk.
            bytes[..8].copy_from_slice(&(at * 256 + page as u64 + 1).to_le_bytes());
        }
        volume.write_at(at * PIECE, &bytes).unwrap();
    }
    volume.flush().unwrap();
    (Arc::new(volume), store)
}

/// A volume on a base, all of which this host's cache has.
fn warm_volume(dir: &Path) -> Arc<Volume> {
    let (volume, store) = written_volume(&dir.join("maker"));
    volume.freeze().unwrap();
    let base = volume.seal(&mut store.clone()).unwrap().manifest;
    let cache = Arc::new(Cache::open(&dir.join("cache"), 2 * SIZE).unwrap());
    let fetcher = Arc::new(Fetcher::new(cache, store, 4));
    let options = VolumeOptions::named("bench");
    let volume = Volume::create(&dir.join("user"), Some(base), SIZE, fetcher, options).unwrap();
    let mut bytes = vec![0; PIECE as usize];
    for at in 0..SIZE / PIECE {
        volume.read_at(at * PIECE, &mut bytes).unwrap();
    }
    Arc::new(volume)
}

/// Name, what it is measured in, and fio's arguments.
const JOBS: &[(&str, Unit, &str)] = &[
    ("randread 4k QD1", Unit::Iops, "--rw=randread --bs=4k --iodepth=1 --direct=1"),
    ("randread 4k QD16", Unit::Iops, "--rw=randread --bs=4k --iodepth=16 --direct=1"),
    ("randwrite 4k QD1", Unit::Iops, "--rw=randwrite --bs=4k --iodepth=1 --direct=1"),
    ("randwrite 4k QD16", Unit::Iops, "--rw=randwrite --bs=4k --iodepth=16 --direct=1"),
    ("read 1m QD4", Unit::Bandwidth, "--rw=read --bs=1m --iodepth=4 --direct=1"),
    ("write 1m QD4", Unit::Bandwidth, "--rw=write --bs=1m --iodepth=4 --direct=1"),
    (
        "read 1m buffered, cold",
        Unit::Bandwidth,
        "--rw=read --bs=1m --direct=0 --invalidate=1 --loops=1 --time_based=0",
    ),
    (
        "randread 4k buffered, warm",
        Unit::Iops,
        "--rw=randread --bs=4k --direct=0 --invalidate=0 --pre_read=1",
    ),
    (
        "randwrite 4k buffered + fsync",
        Unit::Iops,
        "--rw=randwrite --bs=4k --direct=0 --end_fsync=1 --time_based=0 --size=64m --invalidate=1",
    ),
    (
        "page faults (mmap, cold)",
        Unit::Iops,
        "--ioengine=mmap --rw=randread --bs=4k --direct=0 --invalidate=1 --time_based=0 --size=64m",
    ),
];

#[derive(Clone, Copy)]
enum Unit {
    Iops,
    Bandwidth,
}

/// One run; IOPS, or MB/s.
fn fio(file: &Path, unit: Unit, arguments: &str, seconds: u64) -> f64 {
    let output = Command::new("fio")
        .args(["--name=x", "--minimal", "--ioengine=libaio", "--thread", "--norandommap"])
        .args(["--randrepeat=0", "--time_based=1", "--group_reporting"])
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--size={SIZE}"))
        .arg(format!("--runtime={seconds}"))
        .args(arguments.split(' '))
        .output()
        .expect("fio is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with("3;"));
    let fields: Vec<&str> = line.unwrap_or_default().split(';').collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    // fio's terse format, version 3: 6, 7 read KiB/s and IOPS; 47, 48 the same for writes.
    let (read, write) = match unit {
        Unit::Iops => (number(7), number(48)),
        Unit::Bandwidth => (number(6), number(47)),
    };
    let value = read.unwrap_or(0.0) + write.unwrap_or(0.0);
    assert!(value > 0.0, "fio {arguments}: {text} {}", String::from_utf8_lossy(&output.stderr));
    if matches!(unit, Unit::Bandwidth) { value * 1024.0 / 1e6 } else { value }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).cloned()
    };
    let number = |name: &str, default: u64| {
        option(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let backend = option("--backend").unwrap_or_else(|| "file".to_owned());
    let (rounds, seconds) = (number("--rounds", 3), number("--seconds", 2));
    let only = option("--only").unwrap_or_default();

    let scratch = tempfile::tempdir().expect("a scratch directory");
    let plain = |name: &str| {
        let path = scratch.path().join(name);
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        for at in 0..SIZE / PIECE {
            file.write_all_at(&vec![1; PIECE as usize], at * PIECE).unwrap();
        }
        file.sync_all().unwrap();
        (file, path)
    };
    let (_, raw) = plain("raw");
    let file: Arc<dyn ExportFile> = match backend.as_str() {
        "memory" => Arc::new(Memory::new()),
        "overlay" => Arc::new(VolumeFile::new(written_volume(&scratch.path().join("v")).0)),
        "base" => Arc::new(VolumeFile::new(warm_volume(scratch.path()))),
        _ => Arc::new(Plain(plain("backing").0)),
    };
    let base = if arguments.iter().any(|argument| argument == "--ram") {
        Options::ram()
    } else {
        Options::disk()
    };
    let threads = option("--loop-threads").unwrap_or_else(|| base.loop_threads.to_string());
    let mut sides = vec![("raw".to_owned(), raw, None)];
    for threads in threads.split(',') {
        let options = Options {
            loop_threads: threads.parse().expect("numbers of threads"),
            max_background: number("--background", base.max_background.into()) as u16,
            ..base.clone()
        };
        let mount = scratch.path().join(format!("mount{threads}"));
        std::fs::create_dir(&mount).unwrap();
        let files = vec![("disk0".to_owned(), file.clone())];
        let export = Export::mount(&mount, files, options).unwrap();
        let path = export.path("disk0").unwrap();
        sides.push((format!("{threads} threads"), path, Some(export)));
    }

    print!("{:<31}", format!("{backend}, medians of {rounds}"));
    sides.iter().for_each(|(label, ..)| print!("{label:>24}"));
    println!();
    for (name, unit, job) in JOBS.iter().filter(|(name, ..)| name.contains(&only)) {
        let mut figures = vec![Vec::new(); sides.len()];
        let mut cpu = vec![Vec::new(); sides.len()];
        for round in 0..rounds as usize {
            // Forwards and backwards in turn: A B, B A.
            let forwards = round % 2 == 0;
            for at in 0..sides.len() {
                let side = if forwards { at } else { sides.len() - 1 - at };
                let (_, path, export) = &sides[side];
                let before = (requests(export), cpu_us());
                figures[side].push(fio(path, *unit, job, seconds));
                let asked = requests(export) - before.0;
                cpu[side].push((cpu_us() - before.1) / (asked.max(1) as f64));
            }
        }
        print!("{name:<31}");
        let unit = if matches!(unit, Unit::Iops) { "IOPS" } else { "MB/s" };
        for (figures, cpu) in figures.into_iter().zip(cpu) {
            let cpu = format!("({:.1}us)", median(cpu));
            print!("{:>9.0} {unit} {cpu:>9}", median(figures));
        }
        println!();
    }
    for (.., export) in sides {
        if let Some(export) = export {
            println!("{:?}", export.stats());
            export.unmount().unwrap();
        }
    }
}

fn requests(export: &Option<Export>) -> u64 {
    export.as_ref().map_or(0, |export| export.stats().reads + export.stats().writes)
}

/// Processor time of this process, which serves: less disturbed by others than time that passes.
fn cpu_us() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |at: usize| after_name.split(' ').nth(at).and_then(|text| text.parse::<f64>().ok());
    // proc_pid_stat(5): utime and stime, in hundredths of a second.
    (ticks(12).unwrap_or(0.0) + ticks(13).unwrap_or(0.0)) * 10_000.0
}
