//! The OVF environment: the filled-in form as the guest reads it from a CD (transport `iso`).

use std::fmt::Write as _;

use super::Property;
use super::write::escaped;

/// The file's name on the CD, by the specification.
pub const ENVIRONMENT_FILE: &str = "ovf-env.xml";

/// The document for a system that is called `id`.
pub fn environment(id: &str, properties: &[Property]) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Environment xmlns=\"http://schemas.dmtf.org/ovf/environment/1\" \
         xmlns:oe=\"http://schemas.dmtf.org/ovf/environment/1\" oe:id=\"{}\">\n\
         \x20 <PlatformSection>\n    <Kind>Collective</Kind>\n    <Version>1</Version>\n\
         \x20   <Vendor>Collective</Vendor>\n    <Locale>en</Locale>\n  </PlatformSection>\n\
         \x20 <PropertySection>\n",
        escaped(id)
    );
    for property in properties {
        let value = property.value.as_deref().unwrap_or_default();
        let _ = writeln!(
            text,
            "    <Property oe:key=\"{}\" oe:value=\"{}\"/>",
            escaped(&property.key),
            escaped(value)
        );
    }
    text.push_str("  </PropertySection>\n</Environment>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_arrive_as_they_were_given() {
        let value = "<a & \"b\">\n\t'ä'";
        let property = Property {
            key: "class.key".into(),
            kind: "string".into(),
            qualifiers: String::new(),
            label: String::new(),
            configurable: true,
            password: false,
            value: Some(value.into()),
        };
        let text = environment("it", &[property]);
        let document = roxmltree::Document::parse(&text).unwrap();
        let node = document.descendants().find(|node| {
            node.has_tag_name(("http://schemas.dmtf.org/ovf/environment/1", "Property"))
        });
        let attribute =
            |name| node.unwrap().attribute(("http://schemas.dmtf.org/ovf/environment/1", name));
        assert_eq!(attribute("key"), Some("class.key"));
        assert_eq!(attribute("value"), Some(value));
    }
}
