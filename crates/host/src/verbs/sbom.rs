//! The packages of a version's system disk, as SPDX 2.3 in JSON
//! (<https://spdx.github.io/spdx-spec/v2.3/>).

use serde_json::json;

use crate::failure::{Failure, Result};
use crate::time;

/// The document of a version: its name, its number, its packages and its id.
pub fn spdx(name: &str, number: &str, listed: &[(String, String)], id: &str) -> Result<Vec<u8>> {
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
    for (at, (package, version)) in listed.iter().enumerate() {
        let element = format!("SPDXRef-package-{at}");
        packages.push(json!({
            "SPDXID": element,
            "name": package,
            "versionInfo": version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": format!("pkg:deb/debian/{package}@{}", escaped(version)),
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

/// As a package URL writes a version.
fn escaped(version: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    version
        .bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_is_in_it_with_its_version() {
        let listed = [("bash".to_owned(), "1:5.2-2+b7".to_owned())];
        let text = spdx("acme/web", "1.0", &listed, "ab").unwrap();
        let document: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(document["spdxVersion"], "SPDX-2.3");
        assert_eq!(document["packages"][0]["name"], "acme/web");
        let package = &document["packages"][1];
        assert_eq!(
            (&package["name"], &package["versionInfo"]),
            (&"bash".into(), &"1:5.2-2+b7".into())
        );
        let purl = &package["externalRefs"][0]["referenceLocator"];
        assert_eq!(purl, "pkg:deb/debian/bash@1%3A5.2-2%2Bb7");
        assert_eq!(document["relationships"][1]["relatedSpdxElement"], package["SPDXID"]);
    }
}
