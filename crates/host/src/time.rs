//! Times for people: RFC 3339, UTC. Ten lines of calendar arithmetic are not worth a dependency.

/// Writes milliseconds since the Unix epoch as `2026-11-22T18:31:44Z`.
pub fn rfc3339(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days to a date, in years that begin in March (Hinnant, "chrono-compatible low-level date
    // algorithms").
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60
    )
}

/// Minutes since midnight, now, where this host is.
pub fn minute_of_day() -> u16 {
    let now = i64::try_from(ambient::unix_ms()).unwrap_or(i64::MAX);
    let now = jiff::Timestamp::from_millisecond(now).unwrap_or(jiff::Timestamp::MAX);
    let here = now.to_zoned(jiff::tz::TimeZone::system());
    here.hour().unsigned_abs() as u16 * 60 + here.minute().unsigned_abs() as u16
}

/// Reads `10 minutes ago`, `1 hour ago` or `5m ago`, as milliseconds.
pub fn parse_ago(text: &str) -> Option<u64> {
    let amount = text.trim().strip_suffix("ago")?.trim_end();
    let digits = amount.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = amount[..digits].parse().ok()?;
    let unit_ms: u64 = match amount[digits..].trim_start() {
        "s" | "second" | "seconds" => 1000,
        "m" | "min" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        "w" | "week" | "weeks" => 7 * 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_ago_are_read() {
        for (text, ms) in [
            ("10 minutes ago", Some(600_000)),
            ("1 hour ago", Some(3_600_000)),
            ("5m ago", Some(300_000)),
            ("2 weeksago", Some(1_209_600_000)),
            ("ago", None),
            ("minutes ago", None),
            ("10 minutes", None),
            ("18446744073709551615 weeks ago", None),
        ] {
            assert_eq!(parse_ago(text), ms, "{text}");
        }
    }

    #[test]
    fn times_are_written() {
        for (unix, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (1_763_836_304, "2025-11-22T18:31:44Z"),
        ] {
            assert_eq!(rfc3339(unix * 1000), text);
        }
    }
}
