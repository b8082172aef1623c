//! What is said about automatic checkpoints: `5m,dirtied=256MiB,last=6,hourly=24`, or `off`.

use std::fmt;

use crate::size::{Exactly, parse_bytes};

/// Most automatic checkpoints that can be kept: each is a root of the head.
pub const KEPT_MAX: u32 = 200;
/// Longest time between two: 31 days.
const EVERY_S_MAX: u64 = 31 * 86_400;
/// The least that can be meant by so much written, and its unit: 1 MiB.
const DIRTIED_BYTES_MIN: u64 = 1 << 20;

/// Whether there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auto {
    Off,
    On(Policy),
}

/// When one is taken, and which of them stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Seconds between two; at most this much is lost with a host.
    pub every_s: u64,
    /// One is taken sooner when the guest has written so much since the last: whole MiB.
    pub dirtied_bytes: Option<u64>,
    pub keep: Keep,
}

/// Which stay: the last ones, and the last of each of so many hours, days and weeks (UTC) that have
/// any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// At least 1.
    pub last: u32,
    pub hourly: u32,
    pub daily: u32,
    pub weekly: u32,
}

/// What `--every` alone means.
impl Default for Keep {
    fn default() -> Self {
        Self { last: 6, hourly: 24, daily: 7, weekly: 4 }
    }
}

/// Why a text is no policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyError {
    Every(String),
    Dirtied(String),
    Keep(String),
    TooMany(u64),
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(text) => write!(f, "{text:?} is no time between checkpoints"),
            Self::Dirtied(text) => write!(f, "{text:?} does not say how much is written"),
            Self::Keep(text) => write!(f, "{text:?} does not say what to keep"),
            Self::TooMany(sum) => {
                write!(f, "{sum} automatic checkpoints are too many to keep: at most {KEPT_MAX}")
            }
        }
    }
}

impl std::error::Error for PolicyError {}

impl PolicyError {
    /// How it is written.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Every(_) => "write for example 30s, 5m, 2h or 1d (at most 31d), or off",
            Self::Dirtied(_) => "write for example 256MiB (whole MiB), or off",
            Self::Keep(_) | Self::TooMany(_) => {
                "write for example last=6,hourly=24,daily=7,weekly=4"
            }
        }
    }
}

impl Auto {
    /// Reads `off`, `5m`, `5m,last=6,hourly=24` or `5m,dirtied=256MiB,last=6`.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.trim() == "off" {
            return Ok(Self::Off);
        }
        let (every, rest) = match text.split_once(',') {
            Some((every, rest)) => (every, Some(rest)),
            None => (text, None),
        };
        let (dirtied, keep) = match rest.and_then(|rest| rest.trim().strip_prefix("dirtied=")) {
            Some(rest) => match rest.split_once(',') {
                Some((dirtied, keep)) => (Some(dirtied), Some(keep)),
                None => (Some(rest), None),
            },
            None => (None, rest),
        };
        Ok(Self::On(Policy {
            every_s: parse_every(every)?,
            dirtied_bytes: dirtied.map(parse_dirtied).transpose()?,
            keep: keep.map_or(Ok(Keep::default()), Keep::parse)?,
        }))
    }

    /// The policy, unless it is off.
    pub fn policy(self) -> Option<Policy> {
        match self {
            Self::Off => None,
            Self::On(policy) => Some(policy),
        }
    }
}

impl Keep {
    /// Reads `last=6,hourly=24`: what is not named is 0, but the newest one always stays.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let wrong = || PolicyError::Keep(text.to_owned());
        let mut keep = Self { last: 0, hourly: 0, daily: 0, weekly: 0 };
        for part in text.split(',') {
            let (name, number) = part.trim().split_once('=').ok_or_else(wrong)?;
            let number: u32 = number.parse().map_err(|_| wrong())?;
            let field = match name {
                "last" => &mut keep.last,
                "hourly" => &mut keep.hourly,
                "daily" => &mut keep.daily,
                "weekly" => &mut keep.weekly,
                _ => return Err(wrong()),
            };
            *field = number;
        }
        keep.checked()
    }

    /// With at least the newest, and not more than a head holds.
    pub fn checked(self) -> Result<Self, PolicyError> {
        let keep = Self { last: self.last.max(1), ..self };
        let Self { last, hourly, daily, weekly } = keep;
        let sum: u64 = [last, hourly, daily, weekly].map(u64::from).iter().sum();
        if sum > u64::from(KEPT_MAX) { Err(PolicyError::TooMany(sum)) } else { Ok(keep) }
    }
}

/// Reads `30s`, `5m`, `2h` or `1d`, as seconds.
pub fn parse_every(text: &str) -> Result<u64, PolicyError> {
    let wrong = || PolicyError::Every(text.to_owned());
    let trimmed = text.trim();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = trimmed.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds) {
        Some(every) if (1..=EVERY_S_MAX).contains(&every) => Ok(every),
        _ => Err(wrong()),
    }
}

/// Reads `256MiB`, as bytes.
pub fn parse_dirtied(text: &str) -> Result<u64, PolicyError> {
    match parse_bytes(text) {
        Ok(bytes) if bytes > 0 && bytes.is_multiple_of(DIRTIED_BYTES_MIN) => Ok(bytes),
        _ => Err(PolicyError::Dirtied(text.to_owned())),
    }
}

impl Policy {
    /// As it should be, however it was made.
    pub fn checked(self) -> Result<Self, PolicyError> {
        if !(1..=EVERY_S_MAX).contains(&self.every_s) {
            return Err(PolicyError::Every(format!("{}s", self.every_s)));
        }
        if let Some(bytes) = self.dirtied_bytes {
            parse_dirtied(&bytes.to_string())?;
        }
        Ok(Self { keep: self.keep.checked()?, ..self })
    }
}

impl fmt::Display for Auto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::On(Policy { every_s, dirtied_bytes, keep }) => {
                write!(f, "{},", Every(*every_s))?;
                if let Some(bytes) = dirtied_bytes {
                    write!(f, "dirtied={},", Exactly(*bytes))?;
                }
                write!(f, "{keep}")
            }
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "last={}", self.last)?;
        for (name, number) in
            [("hourly", self.hourly), ("daily", self.daily), ("weekly", self.weekly)]
        {
            if number > 0 {
                write!(f, ",{name}={number}")?;
            }
        }
        Ok(())
    }
}

/// Seconds as they are written: in the largest unit that leaves no rest.
pub struct Every(pub u64);

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = [(86_400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')]
            .into_iter()
            .find(|(unit, _)| self.0.is_multiple_of(*unit))
            .unwrap_or((1, 's'));
        write!(f, "{}{name}", self.0 / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_and_written() {
        for (text, written) in [
            ("off", "off"),
            ("5m", "5m,last=6,hourly=24,daily=7,weekly=4"),
            ("120s,hourly=3", "2m,last=1,hourly=3"),
            ("36h,last=2,daily=7", "36h,last=2,daily=7"),
            ("31d,last=200", "31d,last=200"),
            ("5m,dirtied=1024MiB", "5m,dirtied=1GiB,last=6,hourly=24,daily=7,weekly=4"),
            ("1h, dirtied=1536M,last=2", "1h,dirtied=1536MiB,last=2"),
        ] {
            let read = Auto::parse(text).unwrap();
            assert_eq!(read.to_string(), written, "{text}");
            assert_eq!(Auto::parse(written), Ok(read));
        }
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        for text in [
            "",
            "5",
            "m",
            "0s",
            "5 minutes",
            "-1m",
            "32d",
            "99999999999999999999d",
            "5m,",
            "5m,last",
            "5m,dirtied=",
            "5m,dirtied=0",
            "5m,dirtied=1KiB",
            "5m,dirtied=1MiB,",
            "5m,last=1,dirtied=1MiB",
            "dirtied=1MiB",
            "5m,last=x",
            "5m,yearly=1",
            "5m,last=201",
            "5m,last=4294967295,hourly=4294967295",
            "é",
        ] {
            assert!(Auto::parse(text).is_err(), "{text}");
        }
    }
}
