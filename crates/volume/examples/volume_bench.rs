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

/// What an act took: by the clock, and of the processors by all threads of this process.
#[derive(Clone, Copy)]
struct Spent {
    wall: Duration,
    cpu: Duration,
}

fn timed(act: impl FnOnce()) -> Spent {
    let (start, start_cpu): (Instant, Duration) = (now(), cpu());
    act();
    Spent { wall: now().duration_since(start), cpu: cpu() - start_cpu }
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn random(target: &dyn Target, size: u64, write: bool, rng: &mut Rng) -> PerPage {
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
    spent.each(RANDOM_OPS)
}

/// Random writes and one flush, as one operation.
fn flushed(target: &dyn Target, size: u64, _: bool, rng: &mut Rng) -> PerPage {
    let mut page = vec![0; PAGE];
    let spent = timed(|| {
        for _ in 0..1024 {
            page[..8].copy_from_slice(&(rng.next() | 1).to_le_bytes());
            target.write(rng.next() % (size / PAGE as u64) * PAGE as u64, &page);
        }
        target.flush();
    });
    spent.each(1024)
}

fn sequential(target: &dyn Target, size: u64, write: bool, rng: &mut Rng) -> PerPage {
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
    spent.each(size as usize / PAGE)
}

/// Microseconds for one page.
#[derive(Clone, Copy)]
struct PerPage {
    wall: f64,
    cpu: f64,
}

impl Spent {
    fn each(self, pages: usize) -> PerPage {
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / pages as f64;
        PerPage { wall: each(self.wall), cpu: each(self.cpu) }
    }
}

fn medians(figures: &[PerPage]) -> PerPage {
    let of = |part: fn(&PerPage) -> f64| median(figures.iter().map(part).collect());
    PerPage { wall: of(|figure| figure.wall), cpu: of(|figure| figure.cpu) }
}

fn row(what: &str, ours: &[PerPage], raw: &[PerPage]) {
    let ours = medians(ours);
    print!("{what:<28} {:>10.2} {:>10.2} {:>10.0}", ours.wall, ours.cpu, 1e6 / ours.wall);
    if raw.is_empty() {
        return println!();
    }
    let raw = medians(raw);
    println!(" {:>10.2} {:>10.2} {:>8.2}", raw.wall, raw.cpu, raw.wall / ours.wall);
}

type Act = fn(&dyn Target, u64, bool, &mut Rng) -> PerPage;

/// The same on the volume and on the raw file, in turns.
fn compare(
    targets: &[&dyn Target; 2],
    rng: &mut Rng,
    what: &str,
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
    row(what, &ours, &raw);
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

    println!("microseconds for a page of 4 KiB; ratio: times as fast as the raw file");
    println!(
        "{:<28} {:>10} {:>10} {:>10} {:>10} {:>10} {:>8}",
        "", "volume", "its cpu", "pages/s", "raw file", "its cpu", "ratio"
    );
    let volume = create("v", None);
    let path = dir.path().join("raw");
    let raw = File::options().read(true).write(true).create_new(true).open(path).expect("a file");
    let targets: [&dyn Target; 2] = [&volume, &raw];
    compare(&targets, &mut rng, "overlay write 1M seq", size, true, sequential);
    compare(&targets, &mut rng, "overlay read 1M seq", size, false, sequential);
    compare(&targets, &mut rng, "overlay write 4k random", size, true, random);
    compare(&targets, &mut rng, "overlay read 4k random", size, false, random);
    compare(&targets, &mut rng, "1024 random pages + flush", size, true, flushed);

    let (mut freezes, mut sealed_pages, mut adopts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        sequential(&volume, size, true, &mut rng);
        freezes.push(timed(|| volume.freeze().expect("freezes")).each(1));
        let mut sealed = None;
        let spent = timed(|| sealed = Some(volume.seal(&mut store.clone()).expect("seals")));
        sealed_pages.push(spent.each(size as usize / PAGE));
        let sealed = sealed.expect("sealed");
        adopts.push(timed(|| volume.adopt(&sealed).expect("adopts")).each(1));
    }
    row("freeze (one, not a page)", &freezes, &[]);
    row("seal into memory", &sealed_pages, &[]);
    row("adopt (one, not a page)", &adopts, &[]);

    let targets: [&dyn Target; 2] = [&volume, &raw];
    compare(&targets, &mut rng, "cache read 1M seq", size, false, sequential);
    compare(&targets, &mut rng, "cache read 4k random", size, false, random);
}
