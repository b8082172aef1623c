//! The form: which values an appliance asks for, and which answers are right.

use std::fmt::Write as _;

use crate::error::{ImportError, Result};

/// Longest value, bytes.
const VALUE_BYTES_MAX: usize = 16 << 10;
/// A whole form with its answers, bytes: it is kept in the version's record.
const FORM_BYTES_MAX: usize = 256 << 10;

/// One field of the form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    /// As the guest knows it: `class.key.instance`.
    pub key: String,
    /// OVF's word: `string`, `boolean`, `uint16` ...
    pub kind: String,
    /// Bounds in CIM's words: `MinLen(1)`, `MaxLen(20)`, `ValueMap{"a","b"}`.
    pub qualifiers: String,
    /// What it is called to people; may be empty.
    pub label: String,
    /// Whether the user may choose it.
    pub configurable: bool,
    /// Whether it is a secret.
    pub password: bool,
    /// What it is unless the user says otherwise; none: the user must say.
    pub value: Option<String>,
}

impl Property {
    /// Why this cannot be its value.
    fn wrong(&self, value: &str) -> Option<String> {
        if value.len() > VALUE_BYTES_MAX {
            return Some("is too long".to_owned());
        }
        if value.chars().any(|c| c.is_control() && !"\t\n\r".contains(c)) {
            return Some("has characters that nobody can see".to_owned());
        }
        let fits = |low: i128, high: i128| {
            value.parse::<i128>().is_ok_and(|number| (low..=high).contains(&number))
        };
        let unsigned = |bits: u32| fits(0, (1_i128 << bits) - 1);
        let signed = |bits: u32| fits(-(1_i128 << (bits - 1)), (1_i128 << (bits - 1)) - 1);
        let right = match self.kind.as_str() {
            "boolean" => ["true", "false"].iter().any(|word| value.eq_ignore_ascii_case(word)),
            "uint8" => unsigned(8),
            "uint16" => unsigned(16),
            "uint32" => unsigned(32),
            "uint64" => unsigned(64),
            "sint8" => signed(8),
            "sint16" => signed(16),
            "sint32" => signed(32),
            "sint64" | "int" => signed(64),
            "real32" | "real64" => value.parse::<f64>().is_ok_and(f64::is_finite),
            _ => true,
        };
        if !right {
            return Some(format!("is no {}", self.kind));
        }
        let characters = value.chars().count() as u64;
        if self.number("MinLen").is_some_and(|least| characters < least) {
            return Some(format!("is shorter than {}", self.number("MinLen").unwrap_or(0)));
        }
        if self.number("MaxLen").is_some_and(|most| characters > most) {
            return Some(format!("is longer than {}", self.number("MaxLen").unwrap_or(0)));
        }
        match self.choices() {
            Some(choices) if !choices.iter().any(|choice| choice == value) => {
                Some(format!("is none of {}", choices.join(", ")))
            }
            _ => None,
        }
    }

    /// The number in `Name(number)`.
    fn number(&self, name: &str) -> Option<u64> {
        let (_, rest) = self.qualifiers.split_once(name)?;
        let inside = rest.trim_start().strip_prefix('(')?.split(')').next()?;
        inside.trim().parse().ok()
    }

    /// The words in `ValueMap{"a", "b"}`.
    fn choices(&self) -> Option<Vec<String>> {
        let (_, rest) = self.qualifiers.split_once("ValueMap")?;
        let inside = rest.trim_start().strip_prefix('{')?.split('}').next()?;
        Some(inside.split(',').map(|word| word.trim().trim_matches('"').to_owned()).collect())
    }

    fn text_bytes(&self) -> usize {
        let value = self.value.as_ref().map_or(0, String::len);
        self.key.len() + self.kind.len() + self.qualifiers.len() + self.label.len() + value
    }

    /// One line of the form.
    fn line(&self) -> String {
        let mut line = format!("  {} ({}", self.key, self.kind);
        if !self.qualifiers.is_empty() {
            let _ = write!(line, ", {}", self.qualifiers);
        }
        line.push(')');
        if !self.label.is_empty() {
            let _ = write!(line, " {}", self.label);
        }
        match &self.value {
            _ if !self.configurable => line.push_str(" [fixed by its maker]"),
            None => line.push_str(" [required]"),
            Some(_) if self.password => line.push_str(" [has a default]"),
            Some(value) => {
                let _ = write!(line, " [default: {}]", value.chars().take(60).collect::<String>());
            }
        }
        line
    }
}

/// Fills in the form: defaults, and what the user gives. With `complete` no required value may be
/// missing.
pub fn fill(
    properties: &[Property],
    given: &[(String, String)],
    complete: bool,
) -> Result<Vec<Property>> {
    let form = || {
        let lines: Vec<String> = properties.iter().map(Property::line).collect();
        if lines.is_empty() { "  (nothing)".to_owned() } else { lines.join("\n") }
    };
    let wrong = |what: String| ImportError::Form { what, form: form() };
    let mut filled = properties.to_vec();
    for (key, value) in given {
        let Some(property) = filled.iter_mut().find(|property| property.key == *key) else {
            return Err(wrong(format!("there is no property {key:?}; it has:")));
        };
        if !property.configurable {
            return Err(wrong(format!("the property {key} is fixed by its maker; it has:")));
        }
        if let Some(why) = property.wrong(value) {
            let shown =
                if property.password { "its value".to_owned() } else { format!("{value:?}") };
            return Err(wrong(format!("the property {key}: {shown} {why}; it has:")));
        }
        property.value = Some(value.clone());
    }
    let text: usize = filled.iter().map(Property::text_bytes).sum();
    if text > FORM_BYTES_MAX {
        return Err(ImportError::TooLarge {
            what: "the form and its answers, bytes",
            found: text.to_string(),
            max: FORM_BYTES_MAX.to_string(),
        });
    }
    let missing: Vec<&str> = filled
        .iter()
        .filter(|property| property.value.is_none())
        .map(|property| property.key.as_str())
        .collect();
    if complete && !missing.is_empty() {
        return Err(wrong(format!("required and not given: {}; it has:", missing.join(", "))));
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn property(kind: &str, qualifiers: &str) -> Property {
        Property {
            key: "k".into(),
            kind: kind.into(),
            qualifiers: qualifiers.into(),
            label: "Some key".into(),
            configurable: true,
            password: false,
            value: None,
        }
    }

    #[track_caller]
    fn check(kind: &str, qualifiers: &str, good: &[&str], bad: &[&str]) {
        let form = [property(kind, qualifiers)];
        let given = |value: &str| [("k".to_owned(), value.to_owned())];
        for value in good {
            let filled = fill(&form, &given(value), true).unwrap();
            assert_eq!(filled[0].value.as_deref(), Some(*value));
        }
        for value in bad {
            let error = fill(&form, &given(value), true).unwrap_err().to_string();
            assert!(error.contains("k (") && error.contains("required"), "{error}");
        }
    }

    #[test]
    fn answers_are_checked() {
        check("boolean", "", &["True", "false"], &["yes", ""]);
        check("uint8", "", &["0", "255"], &["256", "-1", "x", ""]);
        check("sint16", "", &["-32768"], &["-32769"]);
        check("uint64", "", &["18446744073709551615"], &["18446744073709551616"]);
        check("real32", "", &["1.5"], &["inf", "x"]);
        check("string", "MinLen(2) MaxLen(3)", &["ab", "äöü"], &["a", "abcd"]);
        check("string", "ValueMap{\"a\", \"b\"}", &["a", "b"], &["c", ""]);
        check("string", "", &["", "<&>\"'", "ä\n"], &["\u{1}"]);
    }

    #[test]
    fn the_form_is_shown_when_it_is_not_right() {
        let mut fixed = property("string", "");
        (fixed.key, fixed.configurable, fixed.value) = ("f".into(), false, Some("x".into()));
        let form = [property("string", ""), fixed];
        let missing = fill(&form, &[], true).unwrap_err().to_string();
        assert!(missing.contains("required and not given: k"), "{missing}");
        assert!(fill(&form, &[], false).is_ok());
        for (key, want) in [("x", "no property"), ("f", "fixed")] {
            let error = fill(&form, &[(key.into(), "v".into())], false).unwrap_err().to_string();
            assert!(error.contains(want) && error.contains("Some key"), "{error}");
        }
        let mut secret = property("string", "MinLen(9)");
        secret.password = true;
        let error = fill(&[secret], &[("k".into(), "hunter2".into())], true).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
