//! Quantities with units, as CIM writes them: `byte * 2^20`, `MegaBytes`.

/// How many bytes one of this unit is; none: it is no unit of bytes.
pub(super) fn bytes_in(unit: &str) -> Option<u64> {
    let compact: String = unit.chars().filter(|c| !c.is_whitespace()).collect();
    let lower = compact.to_ascii_lowercase();
    match lower.as_str() {
        "byte" | "bytes" => return Some(1),
        // The older words, which always meant powers of 1024.
        "kilobytes" | "kb" | "kibibytes" => return Some(1 << 10),
        "megabytes" | "mb" | "mibibytes" | "mebibytes" => return Some(1 << 20),
        "gigabytes" | "gb" | "gibibytes" => return Some(1 << 30),
        "terabytes" | "tb" | "tebibytes" => return Some(1 << 40),
        _ => {}
    }
    let power = lower.strip_prefix("byte*")?;
    if let Some(exponent) = power.strip_prefix("2^") {
        return exponent.parse().ok().filter(|e| *e < 64).map(|e: u32| 1 << e);
    }
    let exponent: u32 = power.strip_prefix("10^")?.parse().ok()?;
    10_u64.checked_pow(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        for (unit, bytes) in [
            ("byte", 1),
            ("byte * 2^20", 1 << 20),
            ("byte*2^30", 1 << 30),
            ("byte * 10^9", 1_000_000_000),
            ("MegaBytes", 1 << 20),
            ("GigaBytes", 1 << 30),
        ] {
            assert_eq!(bytes_in(unit), Some(bytes), "{unit}");
        }
        for bad in ["", "hertz * 10^6", "byte * 2^64", "byte * 10^20", "byte * 2^-1", "byte*"] {
            assert_eq!(bytes_in(bad), None, "{bad}");
        }
    }
}
