//! The targets, by the crate whose parsers they are.

mod build;
mod chunk;
mod delta;
mod export;
mod files;
mod host;
mod import;
mod manifest;
mod overlay;
mod peer;
mod plane;
mod repository;
mod spans;
mod vmm;
mod volume;

use crate::Target;

/// All of them.
pub const TARGETS: &[Target] = &[
    target("recipe", build::recipe, build::recipes, 3_000),
    target("kernel", ::build::fuzz::kernel, build::kernels, 3_000),
    target("listings", ::build::fuzz::listings, build::listings, 20_000),
    target("header", chunk::header, chunk::headers, 50_000),
    target("delta", delta::delta, delta::deltas, 20_000),
    target("frame", chunk::frame, chunk::frames, 20_000),
    target("sealed", chunk::sealed, chunk::seals, 20_000),
    target("manifest", manifest::manifest, manifest::manifests, 5_000),
    target("config", ::repository::fuzz::config, repository::configs, 20_000),
    target("index", ::repository::fuzz::index, repository::indexes, 20_000),
    target("table", ::repository::fuzz::table, repository::tables, 20_000),
    target("pack", ::repository::fuzz::pack, repository::packs, 20_000),
    target("record", ::repository::fuzz::record, repository::records, 20_000),
    target("ref", ::repository::fuzz::reference, repository::references, 20_000),
    target("key", ::repository::fuzz::key, repository::keys, 20_000),
    target("local-index", repository::local_index, repository::local_indexes, 3_000),
    target("overlay", overlay::overlay, overlay::overlays, 5_000),
    target("state", ::volume::fuzz::state, volume::states, 20_000),
    target("trace", volume::trace, volume::traces, 20_000),
    target("cache", volume::cache, volume::caches, 3_000),
    target("range", export::range, export::ranges, 50_000),
    target("names", ::export::fuzz::names, export::names, 10_000),
    target("parts", files::parts, files::disks, 10_000),
    target("ext4", files::ext4, files::systems, 1_000),
    target("monitor", ::vmm::fuzz::monitor, vmm::monitors, 20_000),
    target("agent", ::vmm::fuzz::agent, vmm::agents, 5_000),
    target("base64", ::vmm::fuzz::encoded, vmm::texts_of_base64, 20_000),
    target("orders", ::vmm::fuzz::orders, vmm::orders, 20_000),
    target("format", import::format, import::heads, 20_000),
    target("guard", import::guard, import::heads, 10_000),
    target("descriptor", import::descriptor, import::descriptors, 10_000),
    target("archive", import::archive, import::archives, 3_000),
    target("ovf", import::ovf, import::ovfs, 3_000),
    target("digests", import::digests, import::digest_files, 10_000),
    target("box", import::vagrant, import::boxes, 10_000),
    target("seed", import::seed, import::seeds, 3_000),
    target("cd", import::cd, import::cds, 5_000),
    target("disk-info", import::info, import::infos, 10_000),
    target("version", host::version, host::versions, 5_000),
    target("checkpoint", host::checkpoint, host::checkpoints, 5_000),
    target("head", host::head, host::heads, 5_000),
    target("signed", host::signed, host::documents, 5_000),
    target("peer", peer::peer, peer::peers, 10_000),
    target("plane-backup", ::plane::fuzz::backup, plane::backups, 10_000),
    target("plane-request", ::plane::fuzz::request, plane::requests, 10_000),
    target("traceparent", ::spans::fuzz::traceparent, spans::traceparents, 50_000),
    target("etcd", ::kv::fuzz::etcd, plane::answers, 20_000),
    target("shim", ::host::fuzz::shim, host::lines, 10_000),
    target("host-file", host::file, host::files, 3_000),
    target("tpm", ::host::fuzz::tpm_volume, host::tpms, 20_000),
    target("words", ::host::fuzz::words, host::words, 30_000),
];

const fn target(
    name: &'static str,
    run: fn(&[u8]),
    seeds: fn() -> Vec<Vec<u8>>,
    runs: u32,
) -> Target {
    Target { name, run, seeds, runs }
}

/// Texts as examples.
fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
