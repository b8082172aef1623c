//! How fast a volume is: 4 KiB random and 1 MiB sequential reads and writes on overlay and cache,
//! the pause of a freeze, and sealing.
//!
//! `cargo run --release -p volume --example volume_bench [-- DIR [MIB]]`: works in a new directory
//! under DIR (default: the system's for temporary files) with MIB MiB of data (default 512), and
//! removes it. Each figure is the median of five rounds, interleaved with the same on a raw file
//! where that makes sense.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use ambient::{Duration, Instant, now};
use chunk::Memory;
use volume::{Cache, Fetcher, Volume, VolumeOptions};

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;
const ROUNDS: usize = 5;
const RANDOM_OPS: usize = 20_000;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.chunks_exact_mut(8).for_each(|w| w.copy_from_slice(&self.next().to_le_bytes()));
    }
}

/// Something that is read and written at offsets.
trait Target {
    fn read(&self, offset: u64, buf: &mut [u8]);
    fn write(&self, offset: u64, bytes: &[u8]);
    fn flush(&self);
}

impl Target for Volume {
    fn read(&self, offset: u64, buf: &mut [u8]) {
        self.read_at(offset, buf).expect("reads");
    }
    fn write(&self, offset: u64, bytes: &[u8]) {
        self.write_at(offset, bytes).expect("writes");
    }
    fn flush(&self) {
        Volume::flush(self).expect("flushes");
    }
}

impl Target for File {
    fn read(&self, offset: u64, buf: &mut [u8]) {
        self.read_exact_at(buf, offset).expect("reads");
    }
    fn write(&self, offset: u64, bytes: &[u8]) {
        self.write_all_at(bytes, offset).expect("writes");
    }
    fn flush(&self) {
        self.sync_data().expect("syncs");
    }
}

fn timed(act: impl FnOnce()) -> Duration {
    let start: Instant = now();
    act();
    now().duration_since(start)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn random(target: &dyn Target, size: u64, write: bool, rng: &mut Rng) -> f64 {
    let mut page = vec![0; PAGE];
    rng.fill(&mut page);
    let spent = timed(|| {
        for n in 0..RANDOM_OPS {
            let offset = rng.next() % (size / PAGE as u64) * PAGE as u64;
            if write {
                page[..8].copy_from_slice(&(n as u64 | 1).to_le_bytes());
                target.write(offset, &page);
            } else {
                target.read(offset, &mut page);
            }
        }
    });
    RANDOM_OPS as f64 / spent.as_secs_f64()
}

/// Random writes and one flush, as one operation.
fn flushed(target: &dyn Target, size: u64, _: bool, rng: &mut Rng) -> f64 {
    let mut page = vec![0; PAGE];
    let spent = timed(|| {
        for _ in 0..1024 {
            page[..8].copy_from_slice(&(rng.next() | 1).to_le_bytes());
            target.write(rng.next() % (size / PAGE as u64) * PAGE as u64, &page);
        }
        target.flush();
    });
    1.0 / spent.as_secs_f64()
}

fn sequential(target: &dyn Target, size: u64, write: bool, rng: &mut Rng) -> f64 {
    let mut piece = vec![0; MIB];
    rng.fill(&mut piece);
    let spent = timed(|| {
        for offset in (0..size).step_by(MIB) {
            if write {
                // Another content each time, so that nothing is told apart by its name only.
                for page in piece.chunks_exact_mut(PAGE) {
                    page[..8].copy_from_slice(&rng.next().to_le_bytes());
                }
                target.write(offset, &piece);
            } else {
                target.read(offset, &mut piece);
            }
        }
    });
    size as f64 / 1e6 / spent.as_secs_f64()
}

fn row(what: &str, unit: &str, ours: Vec<f64>, raw: Option<Vec<f64>>) {
    let ours = median(ours);
    match raw.map(median) {
        Some(raw) => println!("{what:<28} {ours:>10.0} {raw:>10.0} {unit:<6} {:.2}", ours / raw),
        None => println!("{what:<28} {ours:>10.0} {:>10} {unit}", ""),
    }
}

type Act = fn(&dyn Target, u64, bool, &mut Rng) -> f64;

/// The same on the volume and on the raw file, in turns.
fn compare(
    targets: &[&dyn Target; 2],
    rng: &mut Rng,
    what: &str,
    unit: &str,
    size: u64,
    write: bool,
    act: Act,
) {
    let mut figures = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        for turn in 0..2 {
            let which = (turn + round) % 2;
            figures[which].push(act(targets[which], size, write, rng));
        }
    }
    let [ours, raw] = figures;
    row(what, unit, ours, Some(raw));
}

fn main() {
    let mut args = std::env::args_os().skip(1);
    let under = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let mib = args.next().and_then(|n| n.to_str()?.parse::<u64>().ok()).unwrap_or(512);
    let size = mib << 20;
    let dir = tempfile::tempdir_in(under).expect("a directory");
    let store = Arc::new(Memory::new());
    let cache = Arc::new(Cache::open(&dir.path().join("cache"), size * 10).expect("a cache"));
    let fetcher = Arc::new(Fetcher::new(cache, store.clone(), 4));
    let create = |name: &str, base| {
        let dir = dir.path().join(name);
        Volume::create(&dir, base, size, fetcher.clone(), VolumeOptions::named(name))
            .expect("a volume")
    };
    let mut rng = Rng(0x5eed);

    println!("{:<28} {:>10} {:>10}", "", "volume", "raw file");
    let volume = create("v", None);
    let path = dir.path().join("raw");
    let raw = File::options().read(true).write(true).create_new(true).open(path).expect("a file");
    let targets: [&dyn Target; 2] = [&volume, &raw];
    compare(&targets, &mut rng, "overlay write 1M seq", "MB/s", size, true, sequential);
    compare(&targets, &mut rng, "overlay read 1M seq", "MB/s", size, false, sequential);
    compare(&targets, &mut rng, "overlay write 4k random", "op/s", size, true, random);
    compare(&targets, &mut rng, "overlay read 4k random", "op/s", size, false, random);
    compare(&targets, &mut rng, "1024 random pages + flush", "op/s", size, true, flushed);

    let (mut freezes, mut sealed_pages, mut adopts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        sequential(&volume, size, true, &mut rng);
        freezes.push(timed(|| volume.freeze().expect("freezes")).as_secs_f64() * 1e6);
        let mut sealed = None;
        let spent = timed(|| sealed = Some(volume.seal(&mut store.clone()).expect("seals")));
        sealed_pages.push((size / PAGE as u64) as f64 / spent.as_secs_f64());
        let sealed = sealed.expect("sealed");
        adopts.push(timed(|| volume.adopt(&sealed).expect("adopts")).as_secs_f64() * 1e6);
    }
    row("freeze", "us", freezes, None);
    row("seal into memory", "page/s", sealed_pages, None);
    row("adopt", "us", adopts, None);

    let targets: [&dyn Target; 2] = [&volume, &raw];
    compare(&targets, &mut rng, "cache read 1M seq", "MB/s", size, false, sequential);
    compare(&targets, &mut rng, "cache read 4k random", "op/s", size, false, random);
}
