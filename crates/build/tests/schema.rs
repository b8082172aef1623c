//! The published schema and the shipped appliances agree with the code.

use std::path::Path;

fn repository_root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// After a wanted change: `UPDATE_SCHEMA=1 cargo test -p build --test schema`.
#[test]
fn the_published_schema_is_up_to_date() {
    let path = repository_root().join("docs/format/appliance.schema.json");
    let mut current = serde_json::to_string_pretty(&build::schema()).expect("a schema is JSON");
    current.push('\n');
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        std::fs::write(&path, &current).expect("the schema can be written");
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == current,
        "docs/format/appliance.schema.json is out of date: \
         run UPDATE_SCHEMA=1 cargo test -p build --test schema"
    );
}

/// Every field of the format has its place in the guide.
#[test]
fn the_guide_names_every_field() {
    let path = repository_root().join("docs/format/appliance.md");
    let guide = std::fs::read_to_string(path).expect("the guide is there");
    let mut fields = Vec::new();
    collect_fields(&build::schema(), &mut fields);
    assert!(fields.len() > 30, "the schema has its fields");
    for field in fields {
        assert!(guide.contains(&format!("`{field}`")), "docs/format/appliance.md lacks `{field}`");
    }
}

fn collect_fields(schema: &serde_json::Value, fields: &mut Vec<String>) {
    match schema {
        serde_json::Value::Object(map) => {
            if let Some(serde_json::Value::Object(properties)) = map.get("properties") {
                fields.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| collect_fields(value, fields));
        }
        serde_json::Value::Array(list) => {
            list.iter().for_each(|value| collect_fields(value, fields));
        }
        _ => {}
    }
}

#[test]
fn the_shipped_appliances_are_right() {
    for name in ["tiny", "web", "nano", "memtest", "desktop", "alpine"] {
        let folder = repository_root().join("appliances").join(name);
        let recipe = build::Recipe::load(&folder).expect("the recipe is right");
        assert_eq!(recipe.name().as_str(), name);
    }
}

/// The examples of the guide are recipes.
#[test]
fn the_examples_of_the_guide_are_right() {
    let path = repository_root().join("docs/format/appliance.md");
    let guide = std::fs::read_to_string(path).expect("the guide is there");
    let examples: Vec<&str> = guide
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .filter(|example| example.starts_with("name:"))
        .collect();
    assert!(examples.len() >= 3, "there are examples");
    for example in examples {
        if let Err(error) = build::Recipe::parse(example, "example") {
            panic!("{error} ({})\n{example}", error.hint);
        }
    }
}
