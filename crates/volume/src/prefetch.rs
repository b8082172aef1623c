//! Pushes the pages of a trace ahead of who will touch them.
//!
//! ```text
//! trace ──window──▶ which are missing here? ──▶ spans: one request each ──▶ lanes ──▶ cache
//! ```
//! In the trace's order, a window of it at a time; within a window, what lies near in the source is
//! one request. Some requests are on their way at once, each as large as comes in about a tenth of
//! a second, so that a guest's own request never has to share the line with much.
//!
//! Whoever touches a page that is on its way waits for that request, and makes none. What is here
//! already, what was written over and what is a hole costs nothing. Errors are not told: who
//! touches the page will see.
//!
//! What it does, on an empty host with 25 ms to an S3 server, unoptimised, on two busy cores:
//!
//! | | pages waited for | from running to ready | fetched until ready |
//! | --- | --- | --- | --- |
//! | `tiny` resumed, without a trace / with one | 236 / 0 | 7.3 / 0.5 s | 31.4 / 32.0 MB |
//! | `web` resumed | 316 / 1 | 11.8 / 0.6 s | 32.5 / 33.4 MB |
//! | `web` booted | 2131 / 35 | 13.6 / 7.7 s | 39.2 / 42.5 MB |
//!
//! (20 MB and more of what is fetched are kernel and initrd.)

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use ambient::Duration;
use chunk::{ChunkId, Place};

use crate::fetch::{Cancel, Fetcher};
use crate::lock::lock;
use crate::recorder::Recorder;
use crate::spans;
use crate::stride::Stride;
use crate::trace::{Run, Trace};
use crate::volume::Volume;

/// Pages of a trace that are looked at together.
const WINDOW_PAGES: u64 = 1024;
/// How often it looks whether somebody still waits.
const YIELD: Duration = Duration::from_millis(20);
/// Requests on their way at once.
const LANES: usize = 3;

/// A page of a volume and its chunk.
type Wanted = ((u8, u64), ChunkId);

/// What one request is to bring: chunks, and the pages that each of them is.
type Span = Vec<(ChunkId, Vec<(u8, u64)>)>;

/// Fetches the pages of `trace` that are not on this host. Its volumes are found by their names
/// among `volumes`, which `recorder` knows in this order. Blocks until all is there or `cancel` is:
/// give it a thread.
pub fn prefetch(trace: &Trace, volumes: &[Arc<Volume>], recorder: &Recorder, cancel: &Cancel) {
    let Some(fetcher) = volumes.first().map(|volume| &volume.fetcher) else { return };
    let stride = Mutex::new(Stride::default());
    let (spans, taken) = sync_channel::<Span>(0);
    let taken = Mutex::new(taken);
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| lane(&taken, fetcher, recorder, cancel, &stride));
        }
        plan(trace, volumes, fetcher, cancel, &stride, &spans);
        // Nothing more comes: the lanes end.
        drop(spans);
    });
}

/// Gives the lanes what to ask for, in order.
fn plan(
    trace: &Trace,
    volumes: &[Arc<Volume>],
    fetcher: &Fetcher,
    cancel: &Cancel,
    stride: &Mutex<Stride>,
    spans: &SyncSender<Span>,
) {
    let places: Vec<Option<usize>> = trace
        .volumes()
        .iter()
        .map(|name| volumes.iter().position(|volume| volume.name() == name))
        .collect();
    for window in windows(trace.runs()) {
        if cancel.is_cancelled() {
            return;
        }
        let mut wanted = Vec::new();
        for run in window {
            if let Some(place) = places[usize::from(run.volume)] {
                volumes[place].missing(place as u8, run.first, run.count, &mut wanted);
            }
        }
        let located: Vec<(ChunkId, Option<Place>)> =
            wanted.iter().map(|(_, id)| (*id, fetcher.place(id))).collect();
        let mut pages: HashMap<ChunkId, Vec<(u8, u64)>> = HashMap::new();
        wanted.iter().for_each(|(page, id)| pages.entry(*id).or_default().push(*page));
        let chunks_max = lock(stride).pages();
        for ids in spans::group(&located, chunks_max) {
            let with_pages = |id| (id, pages.remove(&id).unwrap_or_default());
            let span: Span = ids.into_iter().map(with_pages).collect();
            // Waits for a free lane. They end only with this.
            if cancel.is_cancelled() || spans.send(span).is_err() {
                return;
            }
        }
    }
}

fn lane(
    spans: &Mutex<Receiver<Span>>,
    fetcher: &Fetcher,
    recorder: &Recorder,
    cancel: &Cancel,
    stride: &Mutex<Stride>,
) {
    loop {
        let Ok(span) = lock(spans).recv() else { return };
        if cancel.is_cancelled() {
            continue;
        }
        // Over a slow line a guest's own request would come as late as all that is beside it.
        while lock(stride).is_crawling() && fetcher.is_waited_for() && !cancel.is_cancelled() {
            ambient::sleep(YIELD);
        }
        recorder.ask(span.iter().flat_map(|(_, pages)| pages).copied());
        let ids: Vec<ChunkId> = span.iter().map(|(id, _)| *id).collect();
        let began = ambient::now();
        let Some(chunks) = fetcher.get_near(&ids, cancel) else { continue };
        lock(stride).took(began.elapsed());
        let came = std::iter::zip(&span, chunks).filter(|(_, chunk)| chunk.is_ok());
        recorder.brought(came.map(|((_, pages), _)| pages.len() as u64).sum());
    }
}

/// Cuts runs into windows of [`WINDOW_PAGES`].
fn windows(runs: &[Run]) -> impl Iterator<Item = Vec<Run>> {
    let mut left = runs.iter().copied().rev().collect::<Vec<_>>();
    std::iter::from_fn(move || {
        let (mut window, mut pages) = (Vec::new(), 0);
        while pages < WINDOW_PAGES
            && let Some(run) = left.pop()
        {
            let count = run.count.min(WINDOW_PAGES - pages);
            window.push(Run { count, ..run });
            pages += count;
            if count < run.count {
                left.push(Run { first: run.first + count, count: run.count - count, ..run });
            }
        }
        (!window.is_empty()).then_some(window)
    })
}

impl Volume {
    /// The pages `first..first + count` that would have to be fetched, with their chunks. May wait
    /// for the index; when that cannot be had, none.
    fn missing(&self, place: u8, first: u64, count: u64, missing: &mut Vec<Wanted>) {
        let count = count.min(self.pages().saturating_sub(first));
        let layers = self.layers();
        let mut held = vec![false; count as usize];
        layers.mark_held(first, &mut held);
        if held.iter().all(|&held| held) {
            return;
        }
        let mut ids = Vec::new();
        if layers.base_ids(&self.nodes, first, count, &mut ids).is_err() {
            return;
        }
        let cache = self.fetcher.cache();
        for ((page, held), id) in (first..).zip(held).zip(ids) {
            if let Some(id) = id
                && !held
                && !cache.has(&id)
            {
                missing.push(((place, page), id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cut_long_runs_and_keep_the_order() {
        let run = |first, count| Run { volume: 0, age: 0, first, count };
        let runs = [run(5, 2), run(100, 2500), run(1, 1), run(7, 1)];
        let windows: Vec<Vec<Run>> = windows(&runs).collect();
        assert_eq!(
            windows,
            [
                vec![run(5, 2), run(100, 1022)],
                vec![run(1122, 1024)],
                vec![run(2146, 454), run(1, 1), run(7, 1)],
            ]
        );
    }
}
