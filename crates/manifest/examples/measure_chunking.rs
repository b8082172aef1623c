//! Compares ways of cutting volumes into chunks: what a repository would hold after successive
//! states of one volume, and what encoding costs.
//!
//! Usage: `measure_chunking STATE..`, raw files of whole pages, oldest first.
//! `scripts/measure-chunking` makes the inputs and runs this.
//!
//! Each way is an id for runs of pages (single pages; runs that end where a page's content says
//! so; runs of fixed length) and a group that is compressed together. For each, all states are
//! stored one after the other, chunks that were stored before are reused, and everything is
//! counted: compressed frames with their headers and tags, manifest nodes that are new, and the
//! index (16 bytes of stored name for each chunk, 16 for each frame). Nothing is written.
//!
//! Throughput is CPU time of one thread for hashing, compressing and sealing what is new (reading
//! aside), so that a busy machine does not change it. "open" is the CPU time to get one page out
//! of the repository: open, decompress, hash.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

use chunk::crypt::{Cipher, FrameKind, MasterKey, PackId, RepositoryId, TAG_BYTES};
use chunk::{ChunkId, PAGE_BYTES, id_of, is_zero};
use rustix::time::{ClockId, clock_gettime};
use zstd::bulk::{Compressor, Decompressor};

const INDEX_BYTES_PER_CHUNK: u64 = 16;
const INDEX_BYTES_PER_FRAME: u64 = 16;
const FRAME_HEAD_BYTES: u64 = 8;
const FAN_OUT: usize = 128;
const NODE_HEAD_BYTES: u64 = 24;

/// How pages become chunks.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    Fixed { pages: u32 },
    Content { mean_pages: u32 },
}

/// A run of pages of one state.
#[derive(Clone, Copy)]
struct Run {
    state: usize,
    page: u32,
    pages: u32,
    id: ChunkId,
}

/// The states, and the id of each of their pages (nothing for zeros).
struct States {
    files: Vec<File>,
    pages: Vec<Vec<Option<ChunkId>>>,
}

fn main() -> std::io::Result<()> {
    let names: Vec<_> = std::env::args_os().skip(1).collect();
    if names.is_empty() {
        eprintln!("usage: measure_chunking STATE..");
        std::process::exit(2);
    }
    let files = names.iter().map(File::open).collect::<Result<Vec<_>, _>>()?;
    let pages = files.iter().map(page_ids).collect::<Result<Vec<_>, _>>()?;
    let states = States { files, pages };
    for (name, pages) in names.iter().zip(&states.pages) {
        let full = pages.iter().flatten().count();
        let name = std::path::Path::new(name).file_name().unwrap_or_default().to_string_lossy();
        println!("    {name}: {} MiB, {} MiB not zero", mib(pages.len()), mib(full));
    }
    println!();
    println!(
        "| chunk | frame | zstd | first MiB | later MiB | of which manifest | index | chunks | MiB/s | open us |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");

    let single = Cut::Fixed { pages: 1 };
    for level in [1, 3, 6] {
        for frame_pages in [1, 8, 16, 32, 64, 128] {
            states.measure(single, frame_pages, level)?;
        }
    }
    for mean_pages in [4, 8, 16] {
        for level in [1, 3, 6] {
            states.measure(Cut::Content { mean_pages }, 1, level)?;
        }
        states.measure(Cut::Content { mean_pages }, 32, 3)?;
    }
    for pages in [4, 16] {
        for level in [1, 3, 6] {
            states.measure(Cut::Fixed { pages }, 1, level)?;
        }
        states.measure(Cut::Fixed { pages }, 32, 3)?;
    }
    Ok(())
}

fn page_ids(file: &File) -> std::io::Result<Vec<Option<ChunkId>>> {
    let mut buffer = vec![0; 256 * PAGE_BYTES];
    let mut ids = Vec::new();
    let mut at = 0;
    loop {
        let read = file.read_at(&mut buffer, at)?;
        let whole = read / PAGE_BYTES * PAGE_BYTES;
        if whole == 0 {
            return Ok(ids);
        }
        ids.extend(
            buffer[..whole]
                .chunks_exact(PAGE_BYTES)
                .map(|page| (!is_zero(page)).then(|| id_of(page))),
        );
        at += whole as u64;
    }
}

fn mib(pages: usize) -> usize {
    pages / 256
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

impl States {
    /// The runs of one state. The id of a run of several pages is the hash of its pages' ids: it
    /// is as unique as a hash of the bytes, and they need not be read again.
    fn cut(&self, state: usize, cut: Cut) -> Vec<Run> {
        let pages = &self.pages[state];
        let mut runs = Vec::new();
        let mut start = 0;
        while start < pages.len() {
            let end = match cut {
                Cut::Fixed { pages: length } => (start + length as usize).min(pages.len()),
                Cut::Content { mean_pages } => content_end(pages, start, mean_pages),
            };
            let run = &pages[start..end];
            if run.iter().any(Option::is_some) {
                let id = match run {
                    [Some(id)] => *id,
                    run => id_of(
                        &run.iter()
                            .flat_map(|id| id.map_or([0; 32], |id| *id.as_bytes()))
                            .collect::<Vec<_>>(),
                    ),
                };
                runs.push(Run { state, page: start as u32, pages: (end - start) as u32, id });
            }
            start = end;
        }
        runs
    }

    fn measure(&self, cut: Cut, frame_pages: u32, level: i32) -> std::io::Result<()> {
        let mut stored = HashSet::new();
        let mut nodes = HashSet::new();
        let mut encoder = Encoder::new(level)?;
        let (mut first, mut later) = (Cost::default(), Cost::default());
        for state in 0..self.files.len() {
            let cost = if state == 0 { &mut first } else { &mut later };
            let runs = self.cut(state, cut);
            let mut frame = Vec::new();
            for run in &runs {
                if stored.insert(run.id) {
                    frame.push(*run);
                    if frame.iter().map(|run| run.pages).sum::<u32>() >= frame_pages {
                        encoder.frame(self, &frame, cost)?;
                        frame.clear();
                    }
                }
            }
            if !frame.is_empty() {
                encoder.frame(self, &frame, cost)?;
            }
            self.manifest(&runs, cut, state, &mut nodes, cost);
        }
        let chunk = match cut {
            Cut::Fixed { pages: 1 } => "page".to_owned(),
            Cut::Fixed { pages } => format!("{} KiB fixed", pages * 4),
            Cut::Content { mean_pages } => format!("{} KiB by content", mean_pages * 4),
        };
        let group = if frame_pages == 1 {
            "1 chunk".to_owned()
        } else {
            format!("{} KiB", frame_pages * 4)
        };
        let to_mib = |bytes: u64| bytes as f64 / (1 << 20) as f64;
        println!(
            "| {chunk} | {group} | {level} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {:.0} | {:.0} |",
            to_mib(first.total()),
            to_mib(later.total()),
            to_mib(first.manifest + later.manifest),
            to_mib(first.index + later.index),
            first.chunks + later.chunks,
            to_mib(encoder.plain) / encoder.seconds,
            encoder.open_seconds / f64::from(encoder.opened.max(1)) * 1e6,
        );
        Ok(())
    }

    /// Counts the nodes of a state's manifest that are new: the same tree for every cut, whose
    /// leaves cover 128 chunks' worth of pages; runs of varying length need two bytes more.
    fn manifest(
        &self,
        runs: &[Run],
        cut: Cut,
        state: usize,
        seen: &mut HashSet<ChunkId>,
        cost: &mut Cost,
    ) {
        let (unit, entry_bytes) = match cut {
            Cut::Fixed { pages } => (pages as usize, 32),
            Cut::Content { mean_pages } => (mean_pages as usize, 34),
        };
        let mut level: Vec<(usize, ChunkId)> =
            runs.iter().map(|run| (run.page as usize / unit, run.id)).collect();
        let mut width = self.pages[state].len() / unit;
        loop {
            let mut above = Vec::new();
            for node in level.chunk_by(|a, b| a.0 / FAN_OUT == b.0 / FAN_OUT) {
                let mut bytes = Vec::new();
                for (slot, id) in node {
                    bytes.extend_from_slice(&slot.to_le_bytes());
                    bytes.extend_from_slice(id.as_bytes());
                }
                let id = id_of(&bytes);
                if seen.insert(id) {
                    let node_bytes = NODE_HEAD_BYTES + node.len() as u64 * entry_bytes;
                    cost.manifest += node_bytes;
                    cost.index += INDEX_BYTES_PER_CHUNK;
                }
                above.push((node[0].0 / FAN_OUT, id));
            }
            width = width.div_ceil(FAN_OUT);
            if width <= 1 {
                return;
            }
            level = above;
        }
    }
}

/// Where a run ends by content: after a page whose hash has enough zero bits, at a hole, or at
/// four times the mean.
fn content_end(pages: &[Option<ChunkId>], start: usize, mean_pages: u32) -> usize {
    let least = (mean_pages / 4).max(1) as usize;
    let most = (mean_pages as usize * 4).min(pages.len() - start);
    for (length, page) in pages[start..start + most].iter().enumerate() {
        let Some(id) = page else { return start + length.max(1) };
        let bits = u16::from_le_bytes([id.as_bytes()[0], id.as_bytes()[1]]);
        if u32::from(bits).is_multiple_of(mean_pages) && length + 1 >= least {
            return start + length + 1;
        }
    }
    start + most
}

#[derive(Default)]
struct Cost {
    frames: u64,
    manifest: u64,
    index: u64,
    chunks: u64,
}

impl Cost {
    fn total(&self) -> u64 {
        self.frames + self.manifest + self.index
    }
}

/// Encodes frames as a repository would, and times it.
struct Encoder {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    cipher: Cipher,
    plain: u64,
    seconds: f64,
    frames: u32,
    opened: u32,
    open_seconds: f64,
}

impl Encoder {
    fn new(level: i32) -> std::io::Result<Self> {
        Ok(Self {
            compressor: Compressor::new(level)?,
            decompressor: Decompressor::new()?,
            cipher: Cipher::aes256gcm(&MasterKey::from_bytes([1; 32]), RepositoryId([2; 16])),
            plain: 0,
            seconds: 0.0,
            frames: 0,
            opened: 0,
            open_seconds: 0.0,
        })
    }

    fn frame(&mut self, states: &States, runs: &[Run], cost: &mut Cost) -> std::io::Result<()> {
        let mut body = Vec::new();
        let mut ends = Vec::new();
        for run in runs {
            body.extend_from_slice(&(run.pages * PAGE_BYTES as u32).to_le_bytes());
        }
        let table_bytes = body.len();
        for run in runs {
            let from = body.len();
            body.resize(from + run.pages as usize * PAGE_BYTES, 0);
            let at = u64::from(run.page) * PAGE_BYTES as u64;
            states.files[run.state].read_exact_at(&mut body[from..], at)?;
            ends.push(from..body.len());
        }

        let pack = self.cipher.pack(PackId([3; 32]));
        let begin = cpu_seconds();
        for range in &ends {
            std::hint::black_box(id_of(&body[range.clone()]));
        }
        let mut sealed = self.compressor.compress(&body)?;
        let raw = sealed.len() >= body.len();
        if raw {
            sealed.clone_from(&body);
        }
        pack.seal(FrameKind::Chunks, self.frames, &mut sealed);
        self.seconds += cpu_seconds() - begin;
        self.plain += (body.len() - table_bytes) as u64;

        cost.frames += FRAME_HEAD_BYTES + sealed.len() as u64;
        cost.index += runs.len() as u64 * INDEX_BYTES_PER_CHUNK + INDEX_BYTES_PER_FRAME;
        cost.chunks += runs.len() as u64;
        debug_assert!(sealed.len() >= TAG_BYTES);

        // A sample of frames is opened again.
        if self.frames.is_multiple_of(16) {
            let begin = cpu_seconds();
            pack.open(FrameKind::Chunks, self.frames, &mut sealed)
                .map_err(std::io::Error::other)?;
            let plain =
                if raw { sealed } else { self.decompressor.decompress(&sealed, body.len())? };
            std::hint::black_box(id_of(&plain[ends[0].clone()]));
            self.open_seconds += cpu_seconds() - begin;
            self.opened += 1;
            assert_eq!(plain, body, "what comes back is what went in");
        }
        self.frames += 1;
        Ok(())
    }
}
