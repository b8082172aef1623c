//! `publish`, `promote`, `yank`, `key`: what makers do.

use std::io::{IsTerminal, Read, Write};

use host::makers::Rollout;
use host::trust::key::Key;
use host::trust::{Delegate, Roles};
use host::{Failure, PublishOptions};
use model::{Name, format_bytes};
use zeroize::Zeroizing;

use super::open;
use crate::cli::{Global, Keys, Promote, Publish, SigningKey, Yank};
use crate::print::{self, duration};

/// The longest text of a licence, bytes.
const LICENCE_BYTES_MAX: u64 = 1 << 20;

pub fn publish(global: &Global, verb: &Publish) -> Result<(), Failure> {
    let host = open(global)?;
    let keys = keys(&verb.keys)?;
    if verb.again {
        let all = host.sign_again(&verb.to, &keys)?;
        print::result(global, &serde_json::json!({"location": verb.to, "versions": all}), || {
            if all {
                format!("what is at {} is signed again", verb.to)
            } else {
                format!(
                    "that it is current is signed again at {}; versions are as they were",
                    verb.to
                )
            }
        });
        return Ok(());
    }
    let usage = |error: model::NameError| {
        Failure::new("usage", error.to_string(), "`collective appliances` lists them")
    };
    let words = |text: &Option<String>| -> Vec<String> {
        text.iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect()
    };
    let options = PublishOptions {
        appliance: Name::appliance(verb.appliance.as_deref().unwrap_or_default()).map_err(usage)?,
        version: verb.number.clone().unwrap_or_default(),
        channel: verb.channel.clone(),
        to: verb.to.clone(),
        maker: verb.maker.as_deref().map(Name::new).transpose().map_err(usage)?,
        keys,
        notes: verb.notes.clone(),
        licence: verb.licence.clone(),
        licence_text: match &verb.licence_file {
            None => String::new(),
            Some(file) => {
                let mut text = String::new();
                std::fs::File::open(file)
                    .and_then(|file| file.take(LICENCE_BYTES_MAX).read_to_string(&mut text))
                    .map_err(|e| {
                        Failure::from(e).during(format!("cannot read {}", file.display()))
                    })?;
                text
            }
        },
        rollout: Rollout {
            percent: verb.percent,
            emergency: verb.emergency,
            from_unix_ms: from(verb.after.as_deref())?,
        },
        healthy_within_s: verb.healthy_within,
        health: words(&verb.health),
        migrate: words(&verb.migrate),
        least: verb.least.clone(),
        deltas: !verb.no_delta,
    };
    let published = host.publish(&options, &mut |text| print::note(global, text))?;
    print::result(global, &published, || {
        let mut text = format!(
            "published {} {} ({}) in {}: {} uploaded, {} there already\n  channel {} offers it",
            published.appliance,
            published.version,
            &published.version_id[..12],
            duration(published.total_ms),
            format_bytes(published.uploaded_bytes),
            format_bytes(published.reused_bytes),
            published.channel,
        );
        if published.new_maker {
            text.push_str(&format!(
                "\nlet any web server show {}, and tell your users its address and this fingerprint:\n  \
                 collective trust add https://... --root-fingerprint {}\n  collective run {}:{}",
                published.location,
                published.root_fingerprint,
                published.appliance,
                published.channel
            ));
        }
        text
    });
    Ok(())
}

pub fn promote(global: &Global, verb: &Promote) -> Result<(), Failure> {
    let keys = keys(&verb.keys)?;
    let appliance = appliance(&verb.appliance)?;
    let host = open(global)?;
    let rollout =
        Rollout { from_unix_ms: from(verb.after.as_deref())?, ..Rollout::to(verb.percent) };
    let done = host.promote(&verb.to, &appliance, &verb.from, &verb.channel, rollout, &keys)?;
    print::result(global, &done, || {
        format!("channel {} of {} offers version {}", verb.channel, done.appliance, done.version)
    });
    Ok(())
}

pub fn yank(global: &Global, verb: &Yank) -> Result<(), Failure> {
    let keys = keys(&verb.keys)?;
    let appliance = appliance(&verb.appliance)?;
    let done = open(global)?.yank(&verb.to, &appliance, &verb.number, &verb.reason, &keys)?;
    print::result(global, &done, || {
        let offers: Vec<String> =
            done.channels.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let mut text = format!(
            "{} {} is taken back; channels offer: {}",
            done.appliance,
            done.version,
            if offers.is_empty() { "nothing".to_owned() } else { offers.join(", ") }
        );
        for channel in &done.ended {
            text.push_str(&format!(
                "\nchannel {channel} offered nothing before it, and is no more: who follows it keeps what \
                 they have, until you publish or promote a version to it"
            ));
        }
        text
    });
    Ok(())
}

pub fn key(global: &Global, verb: SigningKey) -> Result<(), Failure> {
    match verb {
        SigningKey::New { file, plain } => {
            let key = Key::generate()?;
            let passphrase = if plain { None } else { Some(new_passphrase()?) };
            key.save(&file, passphrase.as_ref().map(|text| text.as_str()))?;
            let public = key.public_text()?;
            let document = serde_json::json!({
                "file": file, "public": public, "encrypted": passphrase.is_some(),
            });
            print::result(global, &document, || {
                format!(
                    "wrote {}{}\n  its public part: {public}\nkeep a copy of it in a safe place: \
                     without it nothing can be published under your name",
                    file.display(),
                    if passphrase.is_some() { ", encrypted" } else { "" },
                )
            });
        }
        SigningKey::Show { key } => {
            let public = open_key(&key)?.public_text()?;
            print::result(global, &serde_json::json!({"public": public}), || public.clone());
        }
        SigningKey::Delegate { name, part, to, by, keys: signing } => {
            let signing = keys(&signing)?;
            let who = Delegate { name, part, keys: role(&by)? };
            open(global)?.delegate(&to, &who, &signing)?;
            let document =
                serde_json::json!({"location": to, "delegate": who.name, "part": who.part});
            print::result(global, &document, || {
                format!(
                    "{} may sign {} at {to}; who trusts you follows by itself",
                    who.name,
                    who.part.join(", ")
                )
            });
        }
        SigningKey::Revoke { name, to, keep, keys: signing } => {
            let signing = keys(&signing)?;
            open(global)?.revoke(&to, &name, keep, &signing)?;
            let document = serde_json::json!({"location": to, "revoked": name, "kept": keep});
            print::result(global, &document, || {
                let what = if keep { "is signed by you now" } else { "is offered no more" };
                format!("{name} signs nothing at {to} any more; what {name} signed {what}")
            });
        }
        SigningKey::Rotate { to, root, targets, online, keys: signing } => {
            let signing = keys(&signing)?;
            let roles =
                Roles { root: role(&root)?, targets: role(&targets)?, online: role(&online)? };
            let fingerprint = open(global)?.rotate(&to, &roles, &signing)?;
            let document = serde_json::json!({"location": to, "root_fingerprint": fingerprint});
            print::result(global, &document, || {
                format!(
                    "{to} has new keys; who trusts it follows by itself\n  its root now: {fingerprint}"
                )
            });
        }
    }
    Ok(())
}

/// The instant that is so long from now; 0: at once.
fn from(after: Option<&str>) -> Result<u64, Failure> {
    let Some(after) = after else { return Ok(0) };
    let hint = "for example --after 12h";
    let seconds = model::auto::parse_every(after)
        .map_err(|_| Failure::new("usage", format!("{after} is not a time from now"), hint))?;
    Ok(ambient::unix_ms().saturating_add(seconds.saturating_mul(1000)))
}

/// Reads `2:KEY,KEY,KEY`: public keys (or files of keys), and how many of them must sign.
fn role(text: &str) -> Result<(Vec<Vec<u8>>, u64), Failure> {
    let usage = |message: String| {
        Failure::new(
            "usage",
            message,
            "for example 2:FILE,FILE,FILE or the 64 digits of public keys",
        )
    };
    let (threshold, keys) = match text.split_once(':') {
        Some((number, keys)) if number.bytes().all(|b| b.is_ascii_digit()) => {
            (number.parse().map_err(|_| usage(format!("{number} is not a number")))?, keys)
        }
        _ => (1, text),
    };
    let mut public = Vec::new();
    for key in keys.split(',').filter(|key| !key.is_empty()) {
        public.push(match host::trust::key::public_of(key) {
            Some(bytes) => bytes,
            None => open_key(key)?.public()?,
        });
    }
    Ok((public, threshold))
}

fn appliance(text: &str) -> Result<Name, Failure> {
    Name::appliance(text)
        .map_err(|e| Failure::new("usage", e.to_string(), "`collective catalog` lists them"))
}

fn keys(keys: &Keys) -> Result<Vec<Key>, Failure> {
    open_keys(&keys.keys)
}

pub(super) fn open_keys(places: &[String]) -> Result<Vec<Key>, Failure> {
    places.iter().map(|place| open_key(place)).collect()
}

fn open_key(place: &str) -> Result<Key, Failure> {
    let mut ask = || passphrase(&format!("Passphrase of {place}: "));
    Ok(Key::open(place, &mut ask)?)
}

/// A passphrase that was given by the environment.
fn given() -> Option<Zeroizing<String>> {
    if let Ok(text) = std::env::var("COLLECTIVE_PASSPHRASE") {
        return Some(Zeroizing::new(text));
    }
    let file = std::env::var_os("COLLECTIVE_PASSPHRASE_FILE")?;
    let text = Zeroizing::new(std::fs::read_to_string(file).ok()?);
    Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn passphrase(question: &str) -> Option<Zeroizing<String>> {
    given().or_else(|| asked(question))
}

/// Asks at the terminal, without showing what is typed.
fn asked(question: &str) -> Option<Zeroizing<String>> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return None;
    }
    let _ = write!(std::io::stderr(), "{question}");
    let shown = rustix::termios::tcgetattr(&stdin).ok()?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(rustix::termios::LocalModes::ECHO);
    let now = rustix::termios::OptionalActions::Now;
    rustix::termios::tcsetattr(&stdin, now, &hidden).ok()?;
    let mut line = Zeroizing::new(String::new());
    let read = stdin.read_line(&mut line);
    let _ = rustix::termios::tcsetattr(&stdin, now, &shown);
    let _ = writeln!(std::io::stderr());
    read.ok().map(|_| Zeroizing::new(line.trim_end_matches(['\r', '\n']).to_owned()))
}

fn new_passphrase() -> Result<Zeroizing<String>, Failure> {
    if let Some(text) = given() {
        return Ok(text);
    }
    let wrong = |message: &str| {
        Failure::new(
            "usage",
            message,
            "type it twice at a terminal, set COLLECTIVE_PASSPHRASE or COLLECTIVE_PASSPHRASE_FILE, or \
             use --plain",
        )
    };
    let first =
        asked("Passphrase for the new key: ").ok_or_else(|| wrong("a key needs a passphrase"))?;
    if first.is_empty() {
        return Err(wrong("an empty passphrase protects nothing"));
    }
    let second = asked("The same again: ").unwrap_or_default();
    if *first != *second { Err(wrong("the two are not the same")) } else { Ok(first) }
}
