//! Stores files into a new private repository in a folder and says how fast:
//! `cargo run --release -p repository --example store -- FOLDER FILE...`
//!
//! Reads a chunk of each frame back afterwards; what is fetched is verified against its id.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use chunk::{ChunkSink, ChunkSource, Urgency, id_of, is_zero};
use repository::{Init, Repository, new_key};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("usage: store FOLDER FILE...")?;
    let files: Vec<String> = arguments.collect();
    let objects = objects::create(&folder)?;
    let init = Init { key: Some(new_key()), ..Init::default() };
    let repository = Repository::init(Arc::clone(&objects), &init)?;
    let begun = ambient::now();
    let mut writer = repository.writer()?;
    let mut ids = Vec::new();
    let mut bytes = 0u64;
    let (mut reading, mut hashing, mut putting) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for path in &files {
        let mut file = File::open(path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let at = ambient::now();
            let mut filled = 0;
            while filled < buffer.len() {
                match file.read(&mut buffer[filled..])? {
                    0 => break,
                    n => filled += n,
                }
            }
            reading += ambient::now() - at;
            if filled == 0 {
                break;
            }
            bytes += filled as u64;
            for page in buffer[..filled].chunks(4096).filter(|page| !is_zero(page)) {
                let at = ambient::now();
                let id = id_of(page);
                let hashed = ambient::now();
                writer.put(id, page)?;
                hashing += hashed - at;
                putting += ambient::now() - hashed;
                ids.push(id);
            }
        }
    }
    let at = ambient::now();
    let stats = writer.finish()?;
    let finishing = ambient::now() - at;
    let seconds = (ambient::now() - begun).as_secs_f64();
    println!(
        "{} MB in {seconds:.2} s: {:.0} MB/s; stored {} MB in {} packs; {} of {} chunks new",
        bytes / 1_000_000,
        bytes as f64 / 1e6 / seconds,
        stats.stored_bytes / 1_000_000,
        stats.packs,
        stats.stored_chunks,
        stats.chunks
    );
    println!(
        "reading {reading:?}, hashing {hashing:?}, putting {putting:?}, finishing {finishing:?}"
    );
    let begun = ambient::now();
    let mut at = 0;
    let mut fetched = 0u64;
    while at < ids.len() {
        let chunks = repository.fetch(&ids[at], Urgency::Background)?;
        fetched += chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        at += 32;
    }
    let seconds = (ambient::now() - begun).as_secs_f64();
    println!("read back {} MB: {:.0} MB/s", fetched / 1_000_000, fetched as f64 / 1e6 / seconds);
    Ok(())
}
