//! `repo ...`: the verbs about repositories.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use host::auto::Keep;
use host::{Failure, GcOptions, KeyPlace};
use model::format_bytes;

use super::{not_written, open};
use crate::cli::{Gc, Global, Key, Repo};
use crate::print;

pub fn execute(global: &Global, verb: Repo) -> Result<ExitCode, Failure> {
    match verb {
        Repo::Init { location, public, key, grace } => {
            let grace = grace.map(Duration::from_secs);
            init(global, &location, public, key.as_deref(), grace)?;
        }
        Repo::Use { location } => {
            let location = open(global)?.use_repository(&location)?;
            print::result(global, &serde_json::json!({"location": location}), || {
                format!("this host uses {location} from now on")
            });
        }
        Repo::Check { read_data: _, repair: true, from } => return mend(global, &from),
        Repo::Check { read_data, .. } => return check(global, read_data),
        Repo::Repair { from } => return repair(global, &from),
        Repo::Mirror { from, to, root_fingerprint } => {
            mirror(global, &from, &to, root_fingerprint.as_deref())?;
        }
        Repo::Gc(verb) => gc(global, &verb)?,
        Repo::Stats => stats(global)?,
        Repo::Source { location, remove } => {
            let sources = open(global)?.source(&location, !remove)?;
            print::result(global, &serde_json::json!({"sources": sources}), || {
                if sources.is_empty() {
                    "this host has no sources beside its repository".to_owned()
                } else {
                    format!("sources beside the repository:\n  {}", sources.join("\n  "))
                }
            });
        }
        Repo::Key(Key::Export { output }) => export(global, output)?,
        Repo::Key(Key::Import { file }) => import(global, file)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn init(
    global: &Global,
    location: &str,
    public: bool,
    key: Option<&str>,
    grace: Option<Duration>,
) -> Result<(), Failure> {
    let place = match (public, key) {
        (true, Some(_)) => {
            return Err(Failure::new(
                "usage",
                "a public repository has no key",
                "leave out --key or --public",
            ));
        }
        (true, None) => KeyPlace::None,
        (false, Some("host")) => KeyPlace::Host,
        (false, Some(_)) => KeyPlace::Repository,
        (false, None) => KeyPlace::Default,
    };
    let (document, configured) = open(global)?.repo_init(location, place, grace)?;
    print::result(global, &document, || {
        let mut text = format!("made repository {} at {}", &document.id[..12], document.location);
        match document.key.as_deref() {
            Some("repository") => text.push_str(
                "\nits key lies in it: whoever can read the folder can read what it holds\n\
                 (`--key host` keeps it on this host only)",
            ),
            Some(_) => text.push_str(
                "\nits key is on this host only: `collective repo key export` for a second host, \
                 and for a safe place",
            ),
            None => text.push_str("\nnot encrypted: whoever can read it can read what it holds"),
        }
        if configured {
            text.push_str("\nthis host uses it from now on");
        }
        text
    });
    Ok(())
}

fn check(global: &Global, read_data: bool) -> Result<ExitCode, Failure> {
    let host = open(global)?;
    let document = host.repo_check(read_data, &mut |text| print::note(global, text))?;
    print::result(global, &document, || {
        let mut text = document.problems.join("\n");
        if !text.is_empty() {
            text.push('\n');
        }
        let what = format!("{} chunks in {} objects", document.chunks, document.objects);
        let read = format_bytes(document.read_bytes);
        text.push_str(&match (document.ok, read_data) {
            (true, true) => format!("whole: {what}, {read} read and verified"),
            (true, false) => {
                format!("complete: {what} are there (`--read-data` reads and verifies them too)")
            }
            (false, _) => format!("damaged: {what}, {read} read"),
        });
        text
    });
    Ok(if document.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn mend(global: &Global, from: &[String]) -> Result<ExitCode, Failure> {
    let document = open(global)?.repo_mend(from, &mut |text| print::note(global, text))?;
    print::result(global, &document, || {
        let mut text = String::new();
        for mended in &document.mended {
            text.push_str(&format!("mended: {mended}\n"));
        }
        for problem in &document.problems {
            text.push_str(&format!("not mended: {problem}\n"));
        }
        let looked = format!(
            "{} chunks in {} objects, {} read, {} fetched",
            document.chunks,
            document.objects,
            format_bytes(document.read_bytes),
            format_bytes(document.fetched_bytes)
        );
        text.push_str(&match (document.ok, document.mended.len()) {
            (true, 0) => format!("nothing to mend: {looked}"),
            (true, _) => format!("whole again: {looked}"),
            (false, _) => format!("still damaged: {looked}"),
        });
        text
    });
    Ok(if document.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn repair(global: &Global, from: &str) -> Result<ExitCode, Failure> {
    let document = open(global)?.repo_repair(from, &mut |text| print::note(global, text))?;
    print::result(global, &document, || {
        let mut text = String::new();
        for key in &document.repaired {
            text.push_str(&format!("put back: {key}\n"));
        }
        for problem in &document.problems {
            text.push_str(&format!("{problem}\n"));
        }
        let looked =
            format!("{} objects, {} read", document.objects, format_bytes(document.read_bytes));
        text.push_str(&match (document.ok, document.repaired.len()) {
            (true, 0) => format!("nothing to repair: {looked}"),
            (true, many) => format!("whole again: {many} put back; {looked}"),
            (false, many) => {
                format!("still damaged: {many} put back, {} not; {looked}", document.problems.len())
            }
        });
        text
    });
    Ok(if document.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn mirror(global: &Global, from: &str, to: &str, root: Option<&str>) -> Result<(), Failure> {
    let mut last = 0;
    let mut progress = |text: &str| {
        // A line for each part of a long way.
        let now = ambient::unix_ms() / 1000;
        if now > last {
            print::note(global, text);
            last = now;
        }
    };
    let done = open(global)?.repo_mirror(from, to, root, &mut progress)?;
    print::result(global, &done, || {
        let mut text = format!(
            "{} has all of {} ({} versions): {} copied, {} there already",
            done.to,
            done.maker,
            done.versions,
            format_bytes(done.copied_bytes),
            format_bytes(done.reused_bytes),
        );
        if done.dropped_versions > 0 {
            text.push_str(&format!(
                "\n{} versions that the maker no longer lists are dropped",
                done.dropped_versions
            ));
        }
        text
    });
    Ok(())
}

fn gc(global: &Global, verb: &Gc) -> Result<(), Failure> {
    let policy = |text: Option<&str>| {
        let keep = text.map(Keep::parse).transpose();
        keep.map_err(|error| Failure::new("usage", error.to_string(), error.hint()))
    };
    let (keep, taken) = (policy(verb.keep.as_deref())?, policy(verb.keep_taken.as_deref())?);
    let keys = super::maker::open_keys(&verb.keys)?;
    let (versions, dry_run) = (verb.keep_versions, verb.dry_run);
    let document = open(global)?.repo_gc(&GcOptions { keep, taken, versions, keys, dry_run })?;
    print::result(global, &document, || {
        let mut text = String::new();
        let verb = if document.dry_run { "would drop" } else { "dropped" };
        for dropped in &document.dropped {
            text.push_str(&format!("{verb} {dropped}\n"));
        }
        let bytes = format_bytes(document.dropped_bytes);
        if document.dry_run {
            text.push_str(&match document.dropped.len() {
                0 => "nothing would go".to_owned(),
                _ => format!("that would free {bytes}, a grace age later"),
            });
            return text;
        }
        if !document.dropped.is_empty() {
            text.push_str(&format!("that frees {bytes}, a grace age later\n"));
        }
        text += &format!(
            "{} chunks are needed; {} packs deleted ({} freed), {} rewritten",
            document.live_chunks,
            document.deleted_packs,
            format_bytes(document.freed_bytes),
            document.repacked_packs,
        );
        if document.condemned_packs > 0 {
            text.push_str(&format!(
                "\n{} packs ({}) are no longer needed: a gc after {} s or more deletes them",
                document.condemned_packs,
                format_bytes(document.condemned_bytes),
                document.grace_s
            ));
        }
        text
    });
    Ok(())
}

fn stats(global: &Global) -> Result<(), Failure> {
    let document = open(global)?.repo_stats()?;
    print::result(global, &document, || {
        format!(
            "{} of content in {} stored: {} chunks in {} objects",
            format_bytes(document.logical_bytes),
            format_bytes(document.stored_bytes),
            document.chunks,
            document.objects
        )
    });
    Ok(())
}

fn export(global: &Global, output: Option<PathBuf>) -> Result<(), Failure> {
    let key = open(global)?.key_export()?;
    match output {
        None => print::result(global, &serde_json::json!({"key": key}), || key.clone()),
        Some(path) => {
            let file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .and_then(|mut file| std::io::Write::write_all(&mut file, key.as_bytes()));
            file.map_err(|e| not_written(&path, e))?;
            print::result(global, &serde_json::json!({"file": path}), || {
                format!("wrote {}", path.display())
            });
        }
    }
    Ok(())
}

fn import(global: &Global, file: PathBuf) -> Result<(), Failure> {
    let mut text = String::new();
    // A key is a line of text; anything longer is something else.
    const KEY_BYTES_MAX: u64 = 4096;
    let read = if file.as_os_str() == "-" {
        std::io::stdin().take(KEY_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(&file).and_then(|f| f.take(KEY_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|e| {
        let hint = "name the file that `collective repo key export -o FILE` wrote";
        match e.kind() {
            std::io::ErrorKind::NotFound => {
                Failure::new("not_found", format!("there is no file {}", file.display()), hint)
            }
            _ => Failure { hint: hint.to_owned(), ..e.into() }
                .during(format!("cannot read {}", file.display())),
        }
    })?;
    let id = open(global)?.key_import(&text)?;
    print::result(global, &serde_json::json!({"repository": id}), || {
        format!("this host can open repository {} now", &id[..12.min(id.len())])
    });
    Ok(())
}
