//! Storing, finding again, and making visible.

use std::collections::HashSet;
use std::sync::Arc;

use chunk::{ChunkSink, ChunkSource, FetchError, Put, Urgency, id_of};
use model::Generation;
use objects::{Counted, Faults, FlipEvery, Memory, Objects};
use repository::{
    Child, CopyHints, Init, Open, RefError, RefPayload, Repository, RepositoryError, Target,
    new_key, read_blob, read_record, write_blob, write_record,
};

fn page(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..4096)
        .map(|at| {
            if at % 4 == 0 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
            }
            (state >> (at % 4 * 8)) as u8 & 0x3f
        })
        .collect()
}

fn private(objects: &Arc<dyn Objects>) -> Repository {
    Repository::init(Arc::clone(objects), &Init { key: Some(new_key()), ..Init::default() })
        .unwrap()
}

fn again(repository: &Repository, objects: &Arc<dyn Objects>) -> Repository {
    let open = Open { key: repository.key().cloned(), ..Open::default() };
    Repository::open(Arc::clone(objects), open).unwrap()
}

#[test]
fn what_is_stored_is_found_from_another_host() {
    for key in [None, Some(new_key())] {
        let objects: Arc<dyn Objects> = Arc::new(Memory::new());
        let init = Init { key, ..Init::default() };
        let repository = Repository::init(Arc::clone(&objects), &init).unwrap();
        let mut writer = repository.writer().unwrap();
        let pages: Vec<_> = (0..1000).map(page).collect();
        for page in &pages {
            assert_eq!(writer.put(id_of(page), page), Ok(Put::Stored));
        }
        assert_eq!(writer.put(id_of(&pages[3]), &pages[3]), Ok(Put::Reused));
        let stats = writer.finish().unwrap();
        assert_eq!((stats.chunks, stats.stored_chunks, stats.packs), (1001, 1000, 1));
        assert_eq!((stats.logical_bytes, stats.reused_bytes), (1001 * 4096, 4096));
        assert!(stats.stored_bytes < stats.logical_bytes, "{stats:?}");

        let other = again(&repository, &objects);
        for page in &pages {
            let chunks = other.fetch(&id_of(page), Urgency::Urgent).unwrap();
            assert_eq!(&*chunks[0], page.as_slice());
            assert!(chunks.len() > 1, "neighbours come along");
        }
        let mut writer = other.writer().unwrap();
        assert_eq!(writer.put(id_of(&pages[7]), &pages[7]), Ok(Put::Reused));
        assert_eq!(writer.finish().unwrap().packs, 0);
        let absent = id_of(b"absent");
        let missing = other.fetch(&absent, Urgency::Urgent).unwrap_err();
        assert_eq!(missing, FetchError::Missing { id: absent });
    }
}

#[test]
fn another_hosts_chunks_are_found_without_opening_again() {
    let objects: Arc<dyn Objects> = Arc::new(Memory::new());
    let here = private(&objects);
    let there = again(&here, &objects);
    let mut writer = here.writer().unwrap();
    writer.put(id_of(&page(1)), &page(1)).unwrap();
    writer.finish().unwrap();
    assert_eq!(&*there.fetch(&id_of(&page(1)), Urgency::Urgent).unwrap()[0], page(1).as_slice());
}

#[test]
fn keys_are_told_apart() {
    let objects: Arc<dyn Objects> = Arc::new(Memory::new());
    let open = |key| Repository::open(Arc::clone(&objects), Open { key, ..Open::default() });
    assert!(matches!(open(None), Err(RepositoryError::NotARepository { .. })));
    let repository = private(&objects);
    assert!(matches!(open(None), Err(RepositoryError::NeedsKey { .. })));
    assert!(matches!(open(Some(new_key())), Err(RepositoryError::WrongKey { .. })));
    assert!(open(repository.key().cloned()).is_ok());
    let twice = Repository::init(Arc::clone(&objects), &Init::default());
    assert!(matches!(twice, Err(RepositoryError::ExistsAlready { .. })));
}

#[test]
fn a_folder_may_hold_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let folder = objects::create(dir.path().to_str().unwrap()).unwrap();
    // An `init` that died left its key.
    let left = dir.path().join("key");
    std::fs::write(&left, repository::export_key(&new_key()).as_bytes()).unwrap();
    let key_place = repository::KeyPlace::InRepository;
    let init = Init { key: Some(new_key()), key_place, ..Init::default() };
    let made = Repository::init(Arc::clone(&folder), &init).unwrap();
    let opened = Repository::open(Arc::clone(&folder), Open::default()).unwrap();
    assert_eq!(opened.key().unwrap().expose(), made.key().unwrap().expose());
    std::fs::remove_file(&left).unwrap();
    let without = Repository::open(Arc::clone(&folder), Open::default());
    assert!(matches!(without, Err(RepositoryError::NeedsKey { .. })));
    let memory: Arc<dyn Objects> = Arc::new(Memory::new());
    assert!(matches!(Repository::init(memory, &init), Err(RepositoryError::Invalid { .. })));
}

#[test]
fn a_ref_is_advanced_by_one_and_fences_the_other() {
    let objects: Arc<dyn Objects> = Arc::new(Memory::new());
    let here = private(&objects);
    let there = again(&here, &objects);
    let payload = |body: &str| RefPayload { roots: vec![], body: body.into() };
    assert_eq!(here.refs().read("instance", "t1"), Ok(None));
    let one = here.refs().advance("instance", "t1", Generation(0), &payload("a")).unwrap();
    assert_eq!(one, Generation(1));
    let two = there.refs().advance("instance", "t1", one, &payload("b")).unwrap();
    let fenced = here.refs().advance("instance", "t1", one, &payload("c")).unwrap_err();
    assert!(matches!(fenced, RefError::Fenced { current, .. } if current == two), "{fenced}");
    assert_eq!(here.refs().read("instance", "t1").unwrap().unwrap().body, b"b");
    assert_eq!(here.refs().read("branch", "t1"), Ok(None));
    let names: Vec<_> =
        here.refs().list("instance").unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["t1"]);
    let bodies: Vec<_> = here.refs().history("instance", "t1").unwrap();
    assert_eq!(bodies.iter().map(|v| v.body.as_slice()).collect::<Vec<_>>(), [b"a", b"b"]);
    here.refs().remove("instance", "t1", two).unwrap();
    assert_eq!(here.refs().read("instance", "t1"), Ok(None));
    assert_eq!(here.refs().list("").unwrap(), []);
    let three = here.refs().current("instance", "t1").unwrap().unwrap();
    assert_eq!(three, Generation(3));
    here.refs().advance("instance", "t1", three, &payload("d")).unwrap();
    assert_eq!(there.refs().read("instance", "t1").unwrap().unwrap().generation, Generation(4));
}

#[test]
fn records_and_blobs_come_back() {
    let objects: Arc<dyn Objects> = Arc::new(Memory::new());
    let repository = private(&objects);
    let blob: Vec<u8> = (0..1_500_000u32).map(|i| (i.wrapping_mul(i) >> 5) as u8).collect();
    let mut writer = repository.writer().unwrap();
    let blob_id = write_blob(&mut writer, &blob).unwrap();
    let empty = write_blob(&mut writer, b"").unwrap();
    let children = [Child::new("devices", Target::Record(blob_id))];
    let record = write_record(&mut writer, &children, b"{}").unwrap();
    writer.finish().unwrap();
    let read = read_record(&repository, &record).unwrap();
    assert_eq!(read.body, b"{}");
    assert_eq!(read.child("devices"), Some(&Target::Record(blob_id)));
    assert_eq!(read_blob(&repository, &blob_id).unwrap(), blob);
    assert_eq!(read_blob(&repository, &empty).unwrap(), b"");
    assert!(read_blob(&repository, &record).is_err());
}

#[test]
fn what_lies_near_comes_in_one_request_and_whole() {
    let faults = Arc::new(Faults::new(Arc::new(Memory::new())));
    let counted = Arc::new(Counted::new(faults.clone()));
    let objects: Arc<dyn Objects> = counted.clone();
    let repository = private(&objects);
    let mut writer = repository.writer().unwrap();
    let ids: Vec<_> = (0..1000).map(page).map(|page| id_of(&page)).collect();
    for page in (0..1000).map(page) {
        writer.put(id_of(&page), &page).unwrap();
    }
    writer.finish().unwrap();
    // Frames lie one after another, in the order in which they were filled (a compressor may
    // overtake another).
    let place = |n: usize| repository.place(&ids[n]).unwrap();
    let mut frames: Vec<_> = (0..1000).map(place).collect();
    frames.sort_unstable();
    frames.dedup();
    assert!(frames.len() >= 1000 / 32, "{}", frames.len());
    for pair in frames.windows(2) {
        assert_eq!(pair[0].object, pair[1].object);
        assert_eq!(pair[0].offset + u64::from(pair[0].bytes), pair[1].offset);
    }
    assert_eq!(repository.place(&id_of(b"absent")), None);

    // A page twice, one of another frame, and one that is not here.
    let far = (0..1000).find(|n| place(*n) != place(3)).unwrap();
    let wanted = [ids[far], ids[3], ids[3], id_of(b"absent")];
    let before = counted.counts().reads;
    let came: HashSet<_> =
        repository.fetch_near(&wanted, Urgency::Background).iter().map(|c| c.id()).collect();
    assert_eq!(counted.counts().reads, before + 1);
    let in_frames: HashSet<_> =
        (0..1000).filter(|n| [place(3), place(far)].contains(&place(*n))).map(|n| ids[n]).collect();
    assert_eq!(came, in_frames, "both frames, and nothing of what lies between");

    // A frame that is damaged is left out, the others come.
    let (first, last) = (frames[0], frames[frames.len() - 1]);
    let at = |frame| ids[(0..1000).find(|n| place(*n) == frame).unwrap()];
    let flip = FlipEvery { prefix: "packs/".to_owned(), bit: 100 };
    faults.flip(Some(flip));
    let came = repository.fetch_near(&[at(first), at(last)], Urgency::Background);
    assert!(came.iter().any(|chunk| chunk.id() == at(last)));
    assert!(came.iter().all(|chunk| chunk.id() != at(first)));
    faults.flip(None);
    faults.vanish(true);
    assert!(repository.fetch_near(&[at(first)], Urgency::Background).is_empty());
    faults.vanish(false);

    // A repository asks the source that has what it lacks.
    let mine: Arc<dyn Objects> = Arc::new(Memory::new());
    let init = Init { key: Some(new_key()), ..Init::default() };
    let key = Repository::init(mine.clone(), &init).unwrap().key().cloned();
    let open = Open { key, sources: vec![Arc::new(repository.clone())], ..Open::default() };
    let mine = Repository::open(mine, open).unwrap();
    assert_eq!(mine.place(&ids[3]), Some(place(3)));
    assert!(mine.fetch_near(&ids[3..4], Urgency::Background).iter().any(|c| c.id() == ids[3]));
}

#[test]
fn each_piece_of_a_blob_is_asked_for_once() {
    // 40 pieces of which 3 differ, as in a kernel that is mostly padding.
    let piece = |n: u8| vec![n; 512 << 10];
    let blob: Vec<u8> = (0..40).flat_map(|n| piece(if n % 20 == 7 { n } else { 0 })).collect();
    let chunks = Arc::new(chunk::Memory::new());
    let id = write_blob(&mut chunks.clone(), &blob).unwrap();
    assert_eq!(read_blob(&chunks, &id).unwrap(), blob);
    assert_eq!(chunks.fetches(), 1 + 3);
    chunks.remove(&id_of(&piece(27)));
    let error = read_blob(&chunks, &id).unwrap_err();
    assert!(error.to_string().contains(&id_of(&piece(27)).short()), "{error}");
}

#[test]
fn what_is_wanted_first_lies_together_in_a_copy() {
    let objects: Arc<dyn Objects> = Arc::new(Memory::new());
    let from = private(&objects);
    let mut writer = from.writer().unwrap();
    let mut children = Vec::new();
    for page in (0..1000).map(page) {
        writer.put(id_of(&page), &page).unwrap();
        children.push(Child::new("", Target::Chunk(id_of(&page))));
    }
    let record = write_record(&mut writer, &children, b"").unwrap();
    writer.finish().unwrap();
    let first: Vec<_> = (0..50).map(|n| id_of(&page(n * 20 + 3))).collect();
    let frames = |first_ones: &[chunk::ChunkId]| {
        let to = private(&(Arc::new(Memory::new()) as Arc<dyn Objects>));
        let mut writer = to.writer().unwrap();
        let roots = [Target::Record(record)];
        let hints = CopyHints { first: first_ones.to_vec(), ..CopyHints::default() };
        let copied = repository::copy(&from, &mut writer, &hints, &roots, &mut |_| {}).unwrap();
        writer.finish().unwrap();
        assert!(
            (0..1000).all(|n| *to.fetch(&id_of(&page(n)), Urgency::Urgent).unwrap()[0] == page(n))
        );
        let frame = |id| to.place(id).map(|place| (place.object, place.offset)).unwrap();
        let wanted = first.iter().map(frame).collect::<HashSet<_>>();
        let all: Vec<_> = (0..1000).map(|n| id_of(&page(n))).collect();
        let all = all.iter().map(frame).collect::<HashSet<_>>();
        ((wanted.len(), all.len()), copied.new_bytes)
    };
    let ((scattered, few), all_bytes) = frames(&[]);
    let ((together, many), bytes) = frames(&first);
    assert!(together * 4 < scattered, "{together} frames, and {scattered}");
    assert!(
        many > few + few / 2,
        "a page that is wanted alone brings little: {many} frames, and {few}"
    );
    assert_eq!(bytes, all_bytes, "each once");
}
