//! The packages of a version's system disk, as SPDX 2.3 in JSON
//! (<https://spdx.github.io/spdx-spec/v2.3/>).

use serde_json::json;

use crate::failure::{Failure, Result};
use crate::record::Version;
use crate::time;

/// Whose packages they are where a version does not say it, as a package URL begins.
const USUAL: &str = "deb/debian";

/// The document of a version with this id.
pub fn spdx(version: &Version, id: &str) -> Result<Vec<u8>> {
    let (name, number) = (version.appliance.as_str(), &version.version);
    let of = version.packages_of.as_deref().unwrap_or(USUAL);
    let root = "SPDXRef-appliance";
    let mut packages = vec![json!({
        "SPDXID": root,
        "name": name,
        "versionInfo": number,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
    })];
    let mut relationships = vec![json!({
        "spdxElementId": "SPDXRef-DOCUMENT",
        "relationshipType": "DESCRIBES",
        "relatedSpdxElement": root,
    })];
    for (at, (package, number)) in version.packages.iter().enumerate() {
        let element = format!("SPDXRef-package-{at}");
        packages.push(json!({
            "SPDXID": element,
            "name": package,
            "versionInfo": number,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": format!("pkg:{of}/{}@{}", escaped(package), escaped(number)),
            }],
        }));
        relationships.push(json!({
            "spdxElementId": root,
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": element,
        }));
    }
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{name}-{number}"),
        "documentNamespace": format!("https://spdx.org/spdxdocs/collective-{id}"),
        "creationInfo": {
            "created": time::rfc3339(ambient::unix_ms() / 1000 * 1000),
            "creators": [format!("Tool: collective-{}", env!("CARGO_PKG_VERSION"))],
        },
        "packages": packages,
        "relationships": relationships,
    });
    serde_json::to_vec_pretty(&document).map_err(|e| Failure::new("internal", e.to_string(), ""))
}

/// As a package URL writes a name or a version.
fn escaped(version: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_~".contains(&b);
    version
        .bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
