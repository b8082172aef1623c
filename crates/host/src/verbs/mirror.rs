//! `repo mirror`: a full copy of a maker's repository, for a branch office; and `trust mirror`: where
//! copies of a maker's are.
//!
//! A mirror is a public repository of its own (its packs and log are not the maker's), with what the
//! maker signed beside it, byte for byte. So a web server on it serves it like the maker's, and whoever
//! serves it can change nothing.
//!
//! *Order.* What a version names, by what is signed; the ref that keeps it; the next version; signed
//! documents, the timestamp last; then refs of versions that are not signed any more go. So a reader of
//! the mirror sees the state before or the new one, and finds all that either names. (What was dropped
//! stays for the grace age, like everywhere.)
//!
//! *Crash.* At any point the mirror is what it was. Versions that were brought are kept, and pages that
//! were listed are found; the next run goes on from there.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::{MakerPrint, MirrorPrint};
use model::format_bytes;
use objects::{Counted, Objects};
use repository::{CopyHints, GcOptions, Init, KeyPlace, Open, RefPayload, Repository};
use trust::Trusted;

use crate::Host;
use crate::failure::{Failure, Result};
use crate::makers::{self, Appliance, Release, document};
use crate::store;

/// The kind of the refs that keep published versions.
const RELEASE: &str = "release";

/// Where it comes from, and what is believed of it.
struct Origin {
    location: String,
    objects: Arc<dyn Objects>,
    counted: Arc<Counted<Arc<dyn Objects>>>,
    trusted: Trusted,
}

impl Host {
    /// Makes `to` a mirror of the maker's repository `from` (a location, or a trusted maker's name), or
    /// brings it up to date. `fingerprint` says whom to believe where this host trusts nobody there yet.
    pub fn repo_mirror(
        &self,
        from: &str,
        to: &str,
        fingerprint: Option<&str>,
        progress: &mut dyn FnMut(&str),
    ) -> Result<MirrorPrint> {
        let began = ambient::now();
        let to = store::absolute_location(to)?;
        let target = Arc::new(Counted::new(objects::create(&to)?));
        let place: Arc<dyn Objects> = target.clone();
        let origin = self.origin(from, &to, fingerprint, &place)?;
        let maker = document::maker(&origin.trusted)?;
        let source = Repository::open(origin.objects.clone(), self.open_here()?)?;
        let mirror = self.mirror_at(&place, &source)?;
        // Opening may have tried what the store does.
        let written = target.counts().writes;

        let mut print = MirrorPrint {
            from: origin.location.clone(),
            to: to.clone(),
            maker: maker.to_string(),
            ..MirrorPrint::default()
        };
        let mut kept = BTreeSet::new();
        for name in origin.trusted.names() {
            let Some(short) = name.strip_suffix(".appliance.json") else { continue };
            let Some(appliance) = Appliance::read(&origin.trusted, short)? else { continue };
            for listed in &appliance.versions {
                let release = Release::read(&origin.trusted, short, listed)?;
                progress(&format!("{short} {}", listed.version));
                bring(&source, &mirror, &release, &mut print, progress)?;
                print.versions += 1;
                kept.insert(ref_name(short, &listed.version));
            }
        }
        let signed = trust::mirror(&origin.objects, &origin.trusted, &place)?;
        print.copied_bytes += signed.written_bytes;
        print.reused_bytes += signed.same_bytes;

        // Nobody is told of them any more. They are kept until here, and the grace age from here.
        for entry in mirror.refs().list(RELEASE)? {
            if !kept.contains(&entry.name) {
                mirror.refs().remove(RELEASE, &entry.name, entry.value.generation)?;
                print.dropped_versions += 1;
            }
        }
        if print.dropped_versions > 0 || mirror.has_condemned() {
            let done = mirror.gc(GcOptions { keep_generations: 1, ..GcOptions::default() })?;
            print.freed_bytes = done.removed_bytes;
        }
        print.objects = target.counts().writes - written;
        print.fetched_bytes = origin.counted.counts().read_bytes;
        print.total_ms = began.elapsed().as_millis() as u64;
        Ok(print)
    }

    /// What is believed of a maker's repository, on its way to the mirror at `to`.
    fn origin(
        &self,
        from: &str,
        to: &str,
        fingerprint: Option<&str>,
        place: &Arc<dyn Objects>,
    ) -> Result<Origin> {
        let known = makers::find(&self.dir, from)?;
        let location = match &known {
            Some(maker) => maker.location.clone(),
            None => store::absolute_location(from)?,
        };
        if location.trim_end_matches('/') == to.trim_end_matches('/') {
            let message = "a repository cannot be its own mirror";
            return Err(Failure::new("usage", message, "name another place: repo mirror FROM TO"));
        }
        let known = match known {
            None => makers::all(&self.dir)?.into_iter().find(|maker| maker.location == location),
            known => known,
        };
        let counted = Arc::new(Counted::new(self.dir.doors().objects(&location)?));
        let objects: Arc<dyn Objects> = counted.clone();
        trust::may_mirror(&*objects, &**place).map_err(|error| other_maker(error, to))?;
        let folder = match &known {
            Some(maker) => maker.believed(&self.dir),
            None => self.dir.folder("mirroring")?.join(&blake3::hash(to.as_bytes()).to_hex()[..32]),
        };
        let begun = folder.join("first.json").exists();
        if let Some(fingerprint) = fingerprint {
            let there = trust::fingerprints(&*objects)?;
            if !there.contains(&fingerprint.to_ascii_lowercase()) {
                let found = there.last().cloned().unwrap_or_default();
                return Err(trust::TrustError::OtherRoot { location, found }.into());
            }
        }
        let trusted = match (begun, fingerprint) {
            (true, _) => Trusted::refresh(&objects, &folder)?,
            (false, Some(fingerprint)) => {
                // What a run that died began.
                let _ = std::fs::remove_dir_all(&folder);
                Trusted::begin(&objects, fingerprint, &folder)?
            }
            (false, None) => return Err(unseen(&location, to, &*objects)?),
        };
        // Another host may have brought something newer to the mirror, which must not go back.
        let trusted = match Trusted::refresh(place, &folder) {
            Ok(there) if there.is_newer_than(&trusted) => Trusted::refresh(&objects, &folder)?,
            // What is there may be older, half copied, or no longer valid: it is about to be replaced.
            _ => trusted,
        };
        Ok(Origin { location, objects, counted, trusted })
    }

    /// Opens the mirror; makes it where there is nothing.
    fn mirror_at(&self, place: &Arc<dyn Objects>, source: &Repository) -> Result<Repository> {
        let mirror = match Repository::open(place.clone(), self.open_here()?) {
            Err(repository::RepositoryError::NotARepository { .. }) => {
                let (key_place, local_dir) = (KeyPlace::Host, self.open_here()?.local_dir);
                Repository::init(
                    place.clone(),
                    &Init { key: None, key_place, local_dir, ..Init::default() },
                )?
            }
            other => other?,
        };
        let elsewhere = "name a place of its own: it is made when it is not there";
        let location = mirror.location();
        if mirror.id() == source.id() {
            let message = format!("{location} is the same repository as {}", source.location());
            return Err(Failure::new("usage", message, elsewhere));
        }
        let others = mirror.refs().list("")?.into_iter().any(|entry| entry.kind != RELEASE);
        if mirror.is_private() || others {
            let message = format!("{location} is a repository of something else");
            return Err(Failure::new("exists", message, elsewhere));
        }
        Ok(mirror)
    }

    fn open_here(&self) -> Result<Open> {
        Ok(Open { local_dir: Some(self.dir.folder("index")?), ..Open::default() })
    }

    /// Adds or removes a mirror of a maker's: a place that is asked before the maker's own.
    pub fn trust_mirror(&self, name: &str, location: &str, present: bool) -> Result<MakerPrint> {
        let location = store::absolute_location(location)?;
        let maker = self.maker(name)?;
        if present {
            let objects = self.dir.doors().objects(&location)?;
            let there = trust::fingerprints(&*objects)?;
            if !there.contains(&maker.fingerprint) {
                let found = there.last().cloned().unwrap_or_default();
                return Err(trust::TrustError::OtherRoot { location, found }.into());
            }
            Repository::open(objects, Open::default())?;
        }
        let maker = maker.set_mirror(&self.dir, &location, present)?;
        super::trust::print(&maker, &maker.kept(&self.dir, None)?)
    }
}

/// Brings what a version names, unless it is there, and keeps it.
fn bring(
    source: &Repository,
    mirror: &Repository,
    release: &Release,
    print: &mut MirrorPrint,
    progress: &mut dyn FnMut(&str),
) -> Result<()> {
    let refs = mirror.refs();
    let name = ref_name(&release.appliance, &release.version);
    let roots = release.roots()?;
    // A ref is there only when all that it names is.
    if refs.read(RELEASE, &name)?.is_some_and(|value| value.roots == roots) {
        print.reused_bytes += release.content_bytes;
        return Ok(());
    }
    let mut said = |copied: &repository::Copied| {
        let (there, new) = (format_bytes(copied.reused_bytes), format_bytes(copied.new_bytes));
        progress(&format!("{name}: {there} there already, {new} new"));
    };
    let mut writer = mirror.thorough_writer()?;
    let copied = repository::copy(source, &mut writer, &CopyHints::default(), &roots, &mut said);
    let copied = copied.map_err(|error| Failure::from(error).during(&name))?;
    ambient::step("mirror: copied");
    writer.finish()?;
    let from = refs.current(RELEASE, &name)?.unwrap_or_default();
    refs.advance(RELEASE, &name, from, &RefPayload { roots, body: Vec::new() })?;
    ambient::step("mirror: version kept");
    print.copied_bytes += copied.new_bytes;
    print.reused_bytes += copied.reused_bytes;
    Ok(())
}

fn ref_name(appliance: &str, version: &str) -> String {
    format!("{appliance}/{version}")
}

fn unseen(location: &str, to: &str, objects: &dyn Objects) -> Result<Failure> {
    let found = trust::fingerprints(objects)?.pop().unwrap_or_default();
    let message =
        format!("whoever signs at {location} has the root {found}: nobody has compared that yet");
    let hint = format!(
        "compare it with what the maker says elsewhere, then: collective repo mirror {location} {to} \
         --root-fingerprint {found}"
    );
    Ok(Failure::new("trust", message, hint))
}

fn other_maker(error: trust::TrustError, to: &str) -> Failure {
    match error {
        trust::TrustError::OtherRoot { .. } => Failure::new(
            "exists",
            format!("{to} is signed by another maker"),
            "name a place of its own: it is made when it is not there",
        ),
        trust::TrustError::Rollback { .. } => Failure::new(
            "trust",
            format!("{to} has newer keys of this maker's: what would be copied is old"),
            "nothing was changed; copy from the maker's own place",
        ),
        other => other.into(),
    }
}
