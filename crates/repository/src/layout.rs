//! Where everything lies in the store, and the formats' headers.

use chunk::crypt::PackId;
use chunk::header::Format;
use model::Generation;

use crate::wire::{hex, unhex};

/// The repository's configuration.
pub(crate) const CONFIG: &str = "config";
/// The key, in a private repository in a folder whose owner wanted it there.
pub(crate) const KEY: &str = "key";
/// Folder of the packs.
pub(crate) const PACKS: &str = "packs";
/// Folder of the log of index objects.
pub(crate) const INDEX: &str = "index";
/// Where a reader that cannot list begins to look for index objects.
pub(crate) const INDEX_HINT: &str = "index-hint";
/// Folder of the tables that snapshots name.
pub(crate) const TABLES: &str = "tables";
/// Folder of the refs.
pub(crate) const REFS: &str = "refs";
/// Folder of collectors' markers.
pub(crate) const MARKERS: &str = "gc";

pub(crate) const CONFIG_FORMAT: Format = format("repository configuration", b"cltvconf");
pub(crate) const PACK_FORMAT: Format = format("pack", b"cltvpack");
pub(crate) const INDEX_FORMAT: Format = format("index object", b"cltvindx");
pub(crate) const TABLE_FORMAT: Format = format("index table", b"cltvtabl");
pub(crate) const REF_FORMAT: Format =
    Format { incompatible: REF_GONE, ..format("ref", b"cltvref\0") };
/// A ref says what is gone of what its roots lead to.
pub(crate) const REF_GONE: u64 = 1;
pub(crate) const RECORD_FORMAT: Format = format("record", b"cltvrecd");

const fn format(name: &'static str, magic: &[u8; 8]) -> Format {
    Format { name, magic: *magic, version: 1, read_only_compatible: 0, incompatible: 0 }
}

pub(crate) fn pack_key(pack: &PackId) -> String {
    let name = hex(&pack.0);
    format!("{PACKS}/{}/{name}", &name[..2])
}

pub(crate) fn pack_of(key: &str) -> Option<PackId> {
    unhex(key.rsplit('/').next()?).map(PackId).filter(|pack| pack_key(pack) == key)
}

pub(crate) fn index_key(number: u64) -> String {
    format!("{INDEX}/{number:020}")
}

pub(crate) fn table_key(table: &[u8; 16]) -> String {
    format!("{TABLES}/{}", hex(table))
}

pub(crate) fn ref_dir(stored_name: &[u8; 32]) -> String {
    format!("{REFS}/{}", hex(stored_name))
}

pub(crate) fn ref_key(stored_name: &[u8; 32], generation: Generation) -> String {
    format!("{}/{:020}", ref_dir(stored_name), generation.0)
}

pub(crate) fn ref_hint_key(stored_name: &[u8; 32]) -> String {
    format!("{}/hint", ref_dir(stored_name))
}

/// A number of 20 digits, as index objects and generations have; nothing else is one.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    if name.len() != 20 || !name.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    name.parse().ok()
}
