//! Configuration for cloud-init, on a CD (the NoCloud source: a volume called `cidata`).
//!
//! The user's part is user-data and network-config; the maker's is vendor-data, which user-data goes
//! before. What cloud-init could not read is refused before a guest starts: a guest that boots without
//! its configuration says nothing, and nobody can log in to ask.

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::error::{ImportError, Result};
use crate::iso;

/// Longest document, bytes. Most clouds take 16 KiB; on a CD more is possible.
pub const DOCUMENT_BYTES_MAX: usize = 512 << 10;
/// How the volume must be called.
const LABEL: &str = "cidata";

/// What a guest is to be told.
#[derive(Debug, Clone, Default)]
pub struct Seed<'a> {
    /// Another id makes cloud-init configure the guest anew.
    pub instance_id: String,
    /// The guest's name.
    pub hostname: String,
    /// The user's configuration.
    pub user_data: Option<&'a [u8]>,
    /// The user's network.
    pub network_config: Option<&'a [u8]>,
    /// The maker's configuration.
    pub vendor_data: Option<&'a [u8]>,
}

/// Makes the CD, when everything on it is sound.
pub fn image(seed: &Seed<'_>) -> Result<Vec<u8>> {
    // Letters and digits by their types' rules; quoted, so that no id is taken for a number.
    let meta_data =
        format!("instance-id: \"{}\"\nlocal-hostname: \"{}\"\n", seed.instance_id, seed.hostname);
    let mut files: Vec<(&str, &[u8])> = vec![("meta-data", meta_data.as_bytes())];
    // Without the file cloud-init looks on for another source.
    files.push(("user-data", seed.user_data.unwrap_or(b"#cloud-config\n{}\n")));
    if let Some(user_data) = seed.user_data {
        check_user_data("user-data", user_data)?;
    }
    if let Some(vendor_data) = seed.vendor_data {
        check_user_data("vendor-data", vendor_data)?;
        files.push(("vendor-data", vendor_data));
    }
    if let Some(network_config) = seed.network_config {
        check_network_config(network_config)?;
        files.push(("network-config", network_config));
    }
    iso::image(LABEL, &files)
}

/// What a document of user-data may begin with, besides `#cloud-config` and MIME.
const OTHER_FORMS: [&str; 7] = [
    "#!",
    "#include",
    "#cloud-boothook",
    "#part-handler",
    "## template:",
    "#cloud-config-archive",
    "#cloud-config-jsonp",
];

/// Checks user-data or vendor-data.
pub fn check_user_data(document: &'static str, bytes: &[u8]) -> Result<()> {
    let text = readable(document, bytes)?;
    let first = text.lines().next().unwrap_or_default().trim_end();
    if first == "#cloud-config" {
        let top = parse(document, text)?;
        return match top {
            Top::Map | Top::Nothing => Ok(()),
            Top::Other => Err(wrong(document, Some((2, 1)), "it is not a list of `key: value`")),
        };
    }
    if first == "#cloud-config-archive" {
        return parse(document, text).map(drop);
    }
    let lower = text.get(..200).unwrap_or(text).to_ascii_lowercase();
    let is_mime = ["content-type:", "mime-version:", "from "].iter().any(|h| lower.starts_with(h));
    if is_mime || OTHER_FORMS.iter().any(|form| first.starts_with(form)) {
        return Ok(());
    }
    let seen: String = first.chars().take(40).collect();
    Err(wrong(document, Some((1, 1)), &format!("its first line is {seen:?}")))
}

/// Checks a network-config: version 1 or 2, at the top or below `network`.
pub fn check_network_config(bytes: &[u8]) -> Result<()> {
    const DOCUMENT: &str = "network-config";
    let text = readable(DOCUMENT, bytes)?;
    let hint = "for example: version: 2, and ethernets: below it";
    let bad = |detail: &str| ImportError::Configuration {
        document: DOCUMENT,
        place: Some((1, 1)),
        detail: detail.to_owned(),
        hint,
    };
    let Top::Map = parse(DOCUMENT, text)? else {
        return Err(bad("it is not a list of `key: value`"));
    };
    let outer: Network = read(DOCUMENT, text)?;
    let network = outer.network.as_deref().unwrap_or(&outer);
    if network.config.as_ref().and_then(Value::as_str) == Some("disabled") {
        return Ok(());
    }
    // Any other cloud-init passes over, and its guest has no network.
    match network.version.as_ref().map(Value::as_u64) {
        Some(Some(1 | 2)) => Ok(()),
        Some(_) => Err(bad("its `version` is neither 1 nor 2")),
        None => Err(bad("it has no `version`")),
    }
}

/// What of a network-config is looked at.
#[derive(serde::Deserialize)]
struct Network {
    version: Option<Value>,
    config: Option<Value>,
    network: Option<Box<Network>>,
}

fn readable<'a>(document: &'static str, bytes: &'a [u8]) -> Result<&'a str> {
    if bytes.len() > DOCUMENT_BYTES_MAX {
        let detail = format!("{} bytes are more than {DOCUMENT_BYTES_MAX}", bytes.len());
        return Err(wrong(document, None, &detail));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
        let line = before.lines().count().max(1) as u64;
        wrong(document, Some((line, 1)), "it is no UTF-8 text")
    })
}

fn wrong(document: &'static str, place: Option<(u64, u64)>, detail: &str) -> ImportError {
    ImportError::Configuration {
        document,
        place,
        detail: detail.to_owned(),
        hint: "begin with `#cloud-config` and YAML, or with `#!` and a script",
    }
}

fn parse(document: &'static str, text: &str) -> Result<Top> {
    read(document, text)
}

fn read<T: serde::de::DeserializeOwned>(document: &'static str, text: &str) -> Result<T> {
    // Binary content is common in `write_files`, and nothing here is kept.
    let options = serde_saphyr::options! { ignore_binary_tag_for_string: true };
    serde_saphyr::from_str_with_options::<T>(text, options).map_err(|error| {
        let place = error.location().map(|at| (at.line().max(1), at.column().max(1)));
        let full = error.without_snippet().to_string();
        let detail = full.rsplit_once(" at line ").map_or(full.as_str(), |(first, _)| first);
        wrong(document, place, detail)
    })
}

/// The outermost shape of a YAML document, all of which was read.
enum Top {
    Map,
    Nothing,
    Other,
}

impl<'de> Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Top;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("YAML")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Top, A::Error> {
                while map.next_entry::<String, IgnoredAny>()?.is_some() {}
                Ok(Top::Map)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Top, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Top::Other)
            }

            fn visit_unit<E>(self) -> Result<Top, E> {
                Ok(Top::Nothing)
            }

            fn visit_none<E>(self) -> Result<Top, E> {
                Ok(Top::Nothing)
            }

            fn visit_str<E>(self, text: &str) -> Result<Top, E> {
                Ok(if text.is_empty() { Top::Nothing } else { Top::Other })
            }

            fn visit_bool<E>(self, _: bool) -> Result<Top, E> {
                Ok(Top::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Top, E> {
                Ok(Top::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Top, E> {
                Ok(Top::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Top, E> {
                Ok(Top::Other)
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<(), (u64, u64)>) {
        match (check_user_data("user-data", text.as_bytes()), expected) {
            (Ok(()), Ok(())) => {}
            (Err(ImportError::Configuration { place, detail, .. }), Err(want)) => {
                assert_eq!(place, Some(want), "{detail}");
            }
            (found, want) => panic!("{text:?}: {found:?}, not {want:?}"),
        }
    }

    #[test]
    fn user_data_is_checked() {
        check(
            "#cloud-config\npackages: [vim]\nusers:\n- name: me\n  ssh_authorized_keys: [x]\n",
            Ok(()),
        );
        check("#cloud-config\n", Ok(()));
        check("#cloud-config\n{}\n", Ok(()));
        check(
            "#cloud-config\nwrite_files:\n- content: !!binary |\n    AP/+\n  permissions: 0644\n- &a {path: /x, 1: 2}\n- *a\n",
            Ok(()),
        );
        check("#!/bin/sh\n: not: yaml: [\n", Ok(()));
        check("Content-Type: multipart/mixed; boundary=\"x\"\n", Ok(()));
        check("## template: jinja\n#cloud-config\n{% if x %}\n", Ok(()));
        check("#cloud-config\na: [1\nb: 2\n", Err((3, 2)));
        check("#cloud-config\n a: 1\nb: 2\n", Err((3, 1)));
        check("#cloud-config\na: 1\na: 2\n", Err((3, 1)));
        check("#cloud-config\n- a\n", Err((2, 1)));
        check("packages: [vim]\n", Err((1, 1)));
        check("", Err((1, 1)));
        // Entities that grow: refused, not expanded.
        let mut bomb = "#cloud-config\na0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for level in 1..12 {
            let inner = format!("*a{}", level - 1);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", [inner.as_str(); 9].join(",")));
        }
        assert!(check_user_data("user-data", bomb.as_bytes()).is_err());
        let large = format!("#cloud-config\nx: \"{}\"\n", "y".repeat(DOCUMENT_BYTES_MAX));
        assert!(check_user_data("user-data", large.as_bytes()).is_err());
        assert!(check_user_data("user-data", b"#cloud-config\n\xff").is_err());
    }

    #[test]
    fn a_network_has_a_version() {
        for good in [
            "version: 2\nethernets: {}\n",
            "network:\n  version: 1\n  config: []\n",
            "network: {config: disabled}\n",
            "config: disabled\n",
        ] {
            assert!(check_network_config(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in [
            "",
            "ethernets: {}\n",
            "- a\n",
            "version: [\n",
            "version: 3\n",
            "network: {version: 0}\n",
            "network: {ethernets: {}}\n",
            "network: yes\n",
            "config: off\n",
        ] {
            assert!(check_network_config(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_cd_says_who_the_guest_is() {
        let seed = Seed {
            instance_id: "i-1".into(),
            hostname: "t1".into(),
            vendor_data: Some(b"#!/bin/sh\n"),
            ..Seed::default()
        };
        let cd = image(&seed).unwrap();
        let has = |text: &[u8]| cd.windows(text.len()).any(|window| window == text);
        assert!(has(b"cidata") && has(b"instance-id: \"i-1\"") && has(b"#cloud-config\n{}"));
        assert!(!has(b"n\0e\0t\0w\0o\0r\0k"));
        assert!(image(&Seed { user_data: Some(b"x"), ..seed }).is_err());
    }
}
