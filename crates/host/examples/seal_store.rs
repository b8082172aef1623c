//! Seals files as volumes and stores them in a new, private repository in a folder; the part of
//! `scripts/bench` that is compared with a backup program.
//!
//! `cargo run --release -p host --example seal_store -- REPOSITORY WORK FILE...`: REPOSITORY must
//! not exist or be empty, WORK is for the volumes' own files; the caller removes both. Prints one
//! JSON document. Loading the files into volumes is not part of the time; from the freeze until
//! everything is durable and indexed is. Everything is read back afterwards through a repository
//! opened anew with an empty cache, and compared with the files.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chunk::{ChunkSource, is_zero};
use model::{ManifestId, PAGE_BYTES};
use repository::{Init, KeyPlace, Open, Repository, new_key};
use volume::{Cache, Fetcher, Volume, VolumeOptions};

/// Bytes read and compared at once.
const PIECE_BYTES: usize = 1 << 20;
/// The hosts' caches, bytes: room for everything.
const CACHE_BYTES: u64 = 8 << 30;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let usage = "usage: seal_store REPOSITORY WORK FILE...";
    let folder = arguments.next().ok_or(usage)?.into_string().map_err(|_| usage)?;
    if folder == "--dense" {
        return dense(&PathBuf::from(arguments.next().ok_or(usage)?), arguments.map(PathBuf::from));
    }
    let work = PathBuf::from(arguments.next().ok_or(usage)?);
    let files: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    std::fs::create_dir_all(&work)?;

    let init = Init { key: Some(new_key()), key_place: KeyPlace::InRepository, ..Init::default() };
    let repository = Repository::init(objects::create(&folder)?, &init)?;
    let fetcher = fetcher(&work.join("cache"), &repository)?;
    let mut volumes = Vec::new();
    for (index, file) in files.iter().enumerate() {
        volumes.push(load(file, &work.join(format!("volume-{index}")), &fetcher)?);
    }

    let cpu_before = cpu_ms()?;
    let begun = ambient::now();
    let mut writer = repository.writer()?;
    let mut sealed = Vec::new();
    for volume in &volumes {
        volume.freeze()?;
        sealed.push(volume.seal(&mut writer)?);
    }
    let sealing = begun.elapsed();
    let stored = writer.finish()?;
    let spent = begun.elapsed();
    let cpu = cpu_ms()? - cpu_before;

    let reopened = Repository::open(objects::open(&folder)?, Open::default())?;
    let fetcher = self::fetcher(&work.join("second-cache"), &reopened)?;
    for ((file, volume), sealed) in files.iter().zip(&volumes).zip(&sealed) {
        let folder = work.join(format!("second-{}", volume.name()));
        compare(file, &folder, sealed.manifest, volume.size_bytes(), &fetcher)?;
    }
    let bytes: u64 = volumes.iter().map(Volume::size_bytes).sum();
    let dirty: u64 = sealed.iter().map(|sealed| sealed.dirty_bytes).sum();
    println!(
        "{{\"bytes\":{bytes},\"data_bytes\":{dirty},\"stored_bytes\":{},\"packs\":{},\
         \"cpu_ms\":{cpu},\"seal_ms\":{:.1},\"total_ms\":{:.1},\"verified\":true}}",
        stored.stored_bytes,
        stored.packs,
        sealing.as_secs_f64() * 1e3,
        spent.as_secs_f64() * 1e3,
    );
    Ok(())
}

/// CPU time of this process and the kernel on its behalf, milliseconds.
fn cpu_ms() -> Result<u64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The program's name comes first and may hold spaces. The kernel counts in 10 ms here.
    let fields = stat.rsplit_once(')').ok_or("what is /proc/self/stat?")?.1;
    let ticks: Result<Vec<u64>, _> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect();
    Ok(ticks?.iter().sum::<u64>() * 10)
}

fn fetcher(cache: &Path, repository: &Repository) -> Result<Arc<Fetcher>, Box<dyn Error>> {
    let cache = Arc::new(Cache::open(cache, CACHE_BYTES)?);
    let source: Arc<dyn ChunkSource> = Arc::new(repository.clone());
    Ok(Arc::new(Fetcher::new(cache, source, 4)))
}

/// A new volume with the file's content, flushed.
fn load(path: &Path, folder: &Path, fetcher: &Arc<Fetcher>) -> Result<Volume, Box<dyn Error>> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len().next_multiple_of(PAGE_BYTES as u64);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let options = VolumeOptions::named(name);
    let volume = Volume::create(folder, None, size, fetcher.clone(), options)?;
    let mut piece = vec![0; PIECE_BYTES];
    for offset in (0..size).step_by(PIECE_BYTES) {
        let filled = fill(&mut file, &mut piece)?;
        for (index, page) in piece[..filled].chunks_exact(PAGE_BYTES).enumerate() {
            if !is_zero(page) {
                volume.write_at(offset + (index * PAGE_BYTES) as u64, page)?;
            }
        }
    }
    volume.flush()?;
    Ok(volume)
}

fn compare(
    path: &Path,
    folder: &Path,
    manifest: ManifestId,
    size: u64,
    fetcher: &Arc<Fetcher>,
) -> Result<(), Box<dyn Error>> {
    let options = VolumeOptions::named("compared");
    let volume = Volume::create(folder, Some(manifest), size, fetcher.clone(), options)?;
    let file = File::open(path)?;
    let (mut ours, mut theirs) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    for offset in (0..size).step_by(PIECE_BYTES) {
        let length = (size - offset).min(PIECE_BYTES as u64) as usize;
        volume.read_at(offset, &mut ours[..length])?;
        let there = (file.metadata()?.len() - offset).min(length as u64) as usize;
        file.read_exact_at(&mut theirs[..there], offset)?;
        theirs[there..length].fill(0);
        if ours[..length] != theirs[..length] {
            return Err(format!("{} differs at {offset}", path.display()).into());
        }
    }
    Ok(())
}

/// The pages of the files that are not zero, one after the other.
fn dense(out: &Path, files: impl Iterator<Item = PathBuf>) -> Result<(), Box<dyn Error>> {
    let mut out = BufWriter::new(File::create_new(out)?);
    let mut piece = vec![0; PIECE_BYTES];
    for path in files {
        let mut file = File::open(path)?;
        loop {
            let filled = fill(&mut file, &mut piece)?;
            if filled == 0 {
                break;
            }
            for page in piece[..filled].chunks_exact(PAGE_BYTES).filter(|page| !is_zero(page)) {
                out.write_all(page)?;
            }
        }
    }
    Ok(out.flush()?)
}

/// Reads as much as fits; pads the file's last page with zeros.
fn fill(file: &mut File, piece: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match file.read(&mut piece[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    let padded = filled.next_multiple_of(PAGE_BYTES);
    piece[filled..padded].fill(0);
    Ok(padded)
}
