//! Sizes as people write and read them: `4GiB`, `512MiB`, `1.5 GiB`.

use std::fmt;

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SizeError {
    /// What was written.
    pub text: String,
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a size: write for example 512MiB or 4GiB", self.text)
    }
}

impl std::error::Error for SizeError {}

/// Reads a size in bytes: a whole number with `B`, `KiB`, `MiB`, `GiB`, `TiB` (or the short
/// `K`, `M`, `G`, `T`, meaning the same powers of 1024), or a bare number of bytes.
pub fn parse_bytes(text: &str) -> Result<u64, SizeError> {
    let error = || SizeError { text: text.to_owned() };
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = trimmed[..digits].parse().map_err(|_| error())?;
    let shift = match trimmed[digits..].trim() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err(error()),
    };
    number.checked_mul(1 << shift).ok_or_else(error)
}

/// Writes a size for people, with one decimal from KiB up: `1.5 GiB`.
pub fn format_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Bytes as [`parse_bytes`] reads them: in the largest unit that leaves no rest.
#[derive(Debug, Clone, Copy)]
pub struct Exactly(pub u64);

impl fmt::Display for Exactly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |shift: &u32| self.0 > 0 && self.0.trailing_zeros() >= *shift;
        let shift = [40, 30, 20, 10].into_iter().find(fits).unwrap_or(0);
        let unit = ["B", "KiB", "MiB", "GiB", "TiB"][shift as usize / 10];
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("512MiB", 512 << 20), ("4G", 4 << 30), ("2 KiB", 2048)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "1.5G", "1MB", "99999999999TiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_exactly_is_read_again() {
        for text in ["0B", "1B", "1023B", "1KiB", "1025KiB", "256MiB", "1025GiB", "3TiB"] {
            assert_eq!(Exactly(parse_bytes(text).unwrap()).to_string(), text);
        }
    }

    #[test]
    fn sizes_are_written() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (3 << 29, "1.5 GiB"),
        ] {
            assert_eq!(format_bytes(bytes), text);
        }
    }
}
