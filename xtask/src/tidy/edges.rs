//! Who may know whom.

use super::Finding;
use super::tree::Tree;

/// A crate and the crates of this workspace that it may use. The drawing is in ARCHITECTURE.md.
const EDGES: &[(&str, &[&str])] = &[
    ("ambient", &[]),
    ("spans", &["ambient"]),
    ("kv", &["ambient"]),
    ("model", &[]),
    ("chunk", &["model"]),
    ("manifest", &["chunk", "model"]),
    ("delta", &["chunk"]),
    ("objects", &["ambient"]),
    ("trust", &["objects", "ambient"]),
    ("repository", &["objects", "chunk", "manifest", "model", "ambient"]),
    ("peer", &["chunk", "model", "ambient"]),
    ("volume", &["chunk", "manifest", "model", "ambient"]),
    ("export", &["volume", "model", "ambient"]),
    ("files", &[]),
    ("network", &["model"]),
    ("vmm", &["network", "model", "ambient"]),
    ("build", &["model", "ambient"]),
    ("import", &["model"]),
    ("api", &["model"]),
    ("plane", &["kv", "api", "model", "ambient", "spans"]),
    (
        "host",
        &[
            "ambient",
            "api",
            "build",
            "chunk",
            "delta",
            "export",
            "files",
            "import",
            "manifest",
            "model",
            "network",
            "objects",
            "peer",
            "repository",
            "spans",
            "trust",
            "vmm",
            "volume",
        ],
    ),
    ("agent", &["host", "plane", "peer", "api", "model", "ambient", "spans"]),
    (
        "fuzz",
        &[
            "build",
            "chunk",
            "delta",
            "export",
            "files",
            "host",
            "import",
            "kv",
            "manifest",
            "model",
            "peer",
            "plane",
            "repository",
            "spans",
            "vmm",
            "volume",
        ],
    ),
    (
        "collective",
        &[
            "agent",
            "ambient",
            "api",
            "build",
            "host",
            "import",
            "kv",
            "model",
            "objects",
            "plane",
            "repository",
            "spans",
            "vmm",
        ],
    ),
    ("s3-server", &[]),
    (
        "simulation",
        &[
            "ambient",
            "api",
            "chunk",
            "host",
            "manifest",
            "model",
            "objects",
            "repository",
            "vmm",
            "volume",
        ],
    ),
    ("xtask", &["ambient"]),
];

/// What tests may know beyond that and all that lies below it: a clock for their deadlines, and a
/// server to talk to.
const TEST_EDGES: &[&str] = &["ambient", "s3-server"];

/// An outside library and the only crates that may use it, with the reason.
const LIBRARIES: &[(&[&str], &[&str], &str)] = &[
    (
        &["serde", "serde_json", "serde_yaml_ng", "schemars"],
        &[
            "api",
            "build",
            "import",
            "kv",
            "plane",
            "repository",
            "trust",
            "vmm",
            "host",
            "agent",
            "collective",
            "xtask",
        ],
        "internal types never serialize: wire and disk types live where they are encoded",
    ),
    (
        &["anyhow"],
        &["collective", "xtask"],
        "a library says what went wrong in an enum of its own (thiserror)",
    ),
    (
        &["tokio", "object_store", "futures"],
        &["objects", "kv", "plane", "s3-server", "trust"],
        "the core is synchronous: only `objects` and `kv` talk to stores over sockets, `plane` serves \
         one, and `trust` waits for its library",
    ),
    (
        &["hyper", "hyper-util", "http-body-util"],
        &["plane", "s3-server"],
        "the plane's HTTP, by the libraries that are here for clients anyway (a framework would bring \
         routing, which is one table of ours that the OpenAPI document is made of too)",
    ),
    (
        &["redb"],
        &["kv"],
        "the plane's state on one machine: pure Rust, one file, a sync for each commit (rusqlite would \
         compile SQLite's C for tables that are keys and values)",
    ),
    (
        &["reqwest"],
        &["kv", "plane"],
        "the plane's callers, and etcd by its JSON gateway, with the HTTP client that `object_store` brings anyway \
         (etcd-client would need protoc wherever Collective is built, and some forty crates)",
    ),
    (
        &["opentelemetry", "opentelemetry-otlp", "opentelemetry_sdk"],
        &["spans"],
        "what is said of a request to a collector is said in one place, where it is bounded what that may be",
    ),
    (&["getrandom", "rand", "fastrand"], &["ambient"], "chance enters through `ambient`"),
    (&["aes-gcm"], &["chunk"], "sealing is `chunk`'s"),
    (&["zeroize"], &["chunk", "repository", "trust", "collective"], "nobody else holds keys"),
    (
        &["tough", "aws-lc-rs", "pkcs8", "url"],
        &["trust"],
        "makers' signatures are made and believed in one place, by the library that is kept for it",
    ),
    (
        &["jiff"],
        &["trust", "host"],
        "dates of signatures, and the time of day where the host is: nobody else knows a time zone",
    ),
    (
        &["blake3"],
        &["chunk", "repository", "build", "host", "plane", "xtask"],
        "ids are `chunk`'s; the others check and key what is no chunk",
    ),
    (
        &["rustls", "rustls-pki-types"],
        &["plane", "peer", "kv"],
        "the TLS that `reqwest` brings anyway, between hosts and their plane, between hosts, and to etcd",
    ),
    (
        &["rcgen", "tokio-rustls", "webpki", "time"],
        &["plane"],
        "who planes and hosts are is certified and read in one place; \
         `rcgen` writes the certificates, `webpki` reads the names in them, `time` is how `rcgen` takes dates",
    ),
    (&["ext4-view"], &["files"], "what a guest wrote on its disks is parsed in one place"),
    (&["fuser"], &["export"], "FUSE is `export`'s door"),
    (&["clap", "indicatif", "comfy-table"], &["collective"], "only the CLI talks to people"),
    (&["landlock", "seccompiler"], &["vmm"], "QEMU is confined where it is started"),
    (&["lz4"], &["delta"], "only its own library compresses a kernel again to the same bytes"),
    (
        &["tar", "flate2", "roxmltree", "sha1"],
        &["import"],
        "what strangers made is unpacked and parsed in one place, within bounds",
    ),
    (
        &["sha2"],
        &["import", "plane"],
        "what others have hashed by it: packages of strangers, and the challenge of a login (RFC 7636)",
    ),
    (
        &["jsonwebtoken"],
        &["plane"],
        "who a provider says that somebody is is believed in one place, by the cryptography that TLS is \
         here by (openidconnect would bring a second one, and a hundred crates)",
    ),
    (
        &["insta"],
        &["collective"],
        "the CLI's text is agreed on in files (chosen over snapbox and trycmd: fewer \
         dependencies, and filters for what is volatile); bytes have golden files",
    ),
];

/// Those of [`LIBRARIES`] that only tests use: their place is held to in `dev-dependencies` too.
const FOR_TESTS: &[&str] = &["insta"];

pub fn between_crates(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in &tree.crates {
        let manifest = format!("{}/Cargo.toml", member.dir);
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == member.name) else {
            findings.push(Finding::at(
                manifest,
                format!(
                    "`{}` has no place in the table: add it to EDGES in xtask/src/tidy/edges.rs \
                     and to ARCHITECTURE.md",
                    member.name
                ),
            ));
            continue;
        };
        for dependency in &member.dependencies {
            let name = dependency.name.as_str();
            let ours = tree.crates.iter().any(|c| c.name == name);
            let for_tests =
                dependency.dev && (TEST_EDGES.contains(&name) || lies_below(&member.name, name));
            if ours && !allowed.contains(&name) && !for_tests {
                findings.push(Finding::at(
                    &manifest,
                    format!(
                        "`{}` must not know `{name}`; it may know: {}",
                        member.name,
                        if allowed.is_empty() { "nobody".to_owned() } else { allowed.join(", ") }
                    ),
                ));
            }
        }
    }
    findings
}

/// Whether the table leads from `upper` to `lower`, over any number of edges.
fn lies_below(upper: &str, lower: &str) -> bool {
    let (_, uses) = EDGES.iter().find(|(name, _)| *name == upper).unwrap_or(&("", &[]));
    uses.iter().any(|used| *used == lower || lies_below(used, lower))
}

pub fn to_libraries(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in &tree.crates {
        for dependency in &member.dependencies {
            // Tests may use anything, but for what exists for tests only.
            if dependency.dev && !FOR_TESTS.contains(&dependency.name.as_str()) {
                continue;
            }
            let rule = LIBRARIES.iter().find(|(names, allowed, _)| {
                names.contains(&dependency.name.as_str())
                    && !allowed.contains(&member.name.as_str())
            });
            if let Some((_, allowed, reason)) = rule {
                findings.push(Finding::at(
                    format!("{}/Cargo.toml", member.dir),
                    format!("`{}` is for {} only: {reason}", dependency.name, allowed.join(", ")),
                ));
            }
        }
    }
    findings
}

pub fn lints(tree: &Tree) -> Vec<Finding> {
    tree.crates
        .iter()
        .map(|member| format!("{}/Cargo.toml", member.dir))
        .filter(|manifest| {
            !tree
                .text(manifest)
                .is_some_and(|t| t.replace(' ', "").contains("[lints]\nworkspace=true"))
        })
        .map(|manifest| Finding::at(manifest, "add `[lints]` with `workspace = true`"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::places;
    use super::*;

    #[test]
    fn a_wrong_edge_is_found() {
        let tree = Tree::default()
            .with_crate("model", &[])
            .with_crate("ambient", &[])
            .with_crate("objects", &["ambient", "bytes"])
            .with_crate("chunk", &["model", "dev:ambient"])
            .with_crate("volume", &["chunk", "objects"])
            .with_crate("export", &["volume", "dev:chunk", "dev:objects"])
            .with_crate("newcomer", &[]);
        assert_eq!(
            places(&between_crates(&tree)),
            ["crates/volume/Cargo.toml", "crates/export/Cargo.toml", "crates/newcomer/Cargo.toml"]
        );
    }

    #[test]
    fn every_edge_goes_down() {
        for (at, (name, uses)) in EDGES.iter().enumerate() {
            for used in *uses {
                let below = EDGES[..at].iter().any(|(earlier, _)| earlier == used);
                assert!(below, "{name} uses {used}, which stands below it in the table");
            }
        }
    }

    #[test]
    fn a_library_out_of_place_is_found() {
        let tree = Tree::default()
            .with_crate("objects", &["tokio"])
            .with_crate("model", &["serde"])
            .with_crate("volume", &["dev:serde_json", "anyhow"])
            .with_crate("chunk", &["dev:insta"])
            .with_crate("collective", &["anyhow", "clap", "dev:insta"]);
        assert_eq!(
            places(&to_libraries(&tree)),
            ["crates/model/Cargo.toml", "crates/volume/Cargo.toml", "crates/chunk/Cargo.toml"]
        );
    }

    #[test]
    fn missing_lints_are_found() {
        let tree = Tree::of(&[
            ("crates/model/Cargo.toml", "[package]\n\n[lints]\nworkspace = true\n"),
            ("crates/chunk/Cargo.toml", "[package]\n"),
        ])
        .with_crate("model", &[])
        .with_crate("chunk", &[]);
        assert_eq!(places(&lints(&tree)), ["crates/chunk/Cargo.toml"]);
    }
}
