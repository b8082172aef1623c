//! What a host does about makers' new versions by itself: `6h,rate=1MiB,window=02:00-05:00`, or `off`.

use std::fmt;

use crate::auto::{Every, PolicyError, parse_every};
use crate::size::{Exactly, parse_bytes};

/// How often makers are asked for news, and what may be done then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Updates {
    /// Seconds between two questions.
    pub every_s: u64,
    /// A new version is fetched at this many bytes a second at most.
    pub rate: Option<u64>,
    /// When a running instance may be stopped and started again for its new version. None: never; it
    /// has it when it next starts after a stop.
    pub window: Option<Window>,
}

/// A time of day, in the host's own time zone: `02:00-05:00`, over midnight where it ends before it
/// begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Minutes since midnight.
    pub from: u16,
    /// Minutes since midnight; not in it any more.
    pub to: u16,
}

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// Where nobody says: four times a day, as fast as it goes, and nothing that runs is stopped.
impl Default for Updates {
    fn default() -> Self {
        Self { every_s: 6 * 3600, rate: None, window: None }
    }
}

/// Why a text does not say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdatesError(String);

impl fmt::Display for UpdatesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UpdatesError {}

impl Updates {
    /// Reads `off` (none), `6h`, or `6h,rate=1MiB,window=02:00-05:00`.
    pub fn parse(text: &str) -> Result<Option<Self>, UpdatesError> {
        if text.trim() == "off" {
            return Ok(None);
        }
        let mut parts = text.split(',').map(str::trim);
        let every = parts.next().unwrap_or_default();
        let every_s = parse_every(every).map_err(|error: PolicyError| {
            UpdatesError(format!("{every:?} is no time between questions: {}", error.hint()))
        })?;
        let mut updates = Self { every_s, ..Self::default() };
        for part in parts {
            match part.split_once('=') {
                Some(("rate", rate)) => match parse_bytes(rate) {
                    Ok(bytes) if bytes > 0 => updates.rate = Some(bytes),
                    _ => return Err(UpdatesError(format!("{rate:?} is no size, like 500KiB"))),
                },
                Some(("window", window)) => updates.window = Some(Window::parse(window)?),
                _ => return Err(UpdatesError(format!("{part:?} is neither rate= nor window="))),
            }
        }
        Ok(Some(updates))
    }
}

impl Window {
    /// Reads `02:00-05:00`.
    pub fn parse(text: &str) -> Result<Self, UpdatesError> {
        let wrong = || UpdatesError(format!("{text:?} is no time of day, like 02:00-05:00"));
        let (from, to) = text.split_once('-').ok_or_else(wrong)?;
        let minutes = |text: &str| -> Option<u16> {
            let (hours, minutes) = text.trim().split_once(':')?;
            let short = |text: &str| (1..=2).contains(&text.len()).then(|| text.parse().ok())?;
            let (hours, minutes): (u16, u16) = (short(hours)?, short(minutes)?);
            (minutes < 60 && hours * 60 + minutes <= DAY).then_some(hours * 60 + minutes)
        };
        let (from, to) = (minutes(from).ok_or_else(wrong)?, minutes(to).ok_or_else(wrong)?);
        if from == to || from == DAY {
            return Err(UpdatesError(format!(
                "{text:?} is no time of day: nothing lies in it (00:00-24:00 is all day)"
            )));
        }
        Ok(Self { from, to })
    }

    /// Whether it is open so many minutes after midnight.
    pub fn is_open(self, minute: u16) -> bool {
        let Self { from, to } = self;
        if from < to { (from..to).contains(&minute) } else { minute >= from || minute < to }
    }
}

impl fmt::Display for Updates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Every(self.every_s))?;
        if let Some(rate) = self.rate {
            write!(f, ",rate={}", Exactly(rate))?;
        }
        if let Some(window) = self.window {
            write!(f, ",window={window}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        write!(f, "{}-{}", clock(self.from), clock(self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for text in
            ["6h", "1m,rate=1MiB", "1d,rate=1000B,window=02:00-05:00", "90s,window=23:30-01:00"]
        {
            let updates = Updates::parse(text).unwrap().unwrap();
            assert_eq!(updates.to_string(), text);
        }
        assert_eq!(Updates::parse("off"), Ok(None));
        assert_eq!(Updates::parse("6h"), Ok(Some(Updates::default())));
        for wrong in [
            "",
            "6",
            "6h,rate=",
            "6h,rate=0",
            "6h,window=2",
            "6h,window=25:00-26:00",
            "6h,often",
            "6h,window=02:60-03:00",
            "6h,window=02:00-02:00",
            "6h,window=-1:00-02:00",
            "1h,window=+2:00-3:00x",
        ] {
            assert!(Updates::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_window_may_lie_over_midnight() {
        let night = Window::parse("23:30-01:00").unwrap();
        let open = |minute| night.is_open(minute);
        assert!(!open(23 * 60 + 29) && open(23 * 60 + 30) && open(0) && open(59) && !open(60));
        let all_day = Window::parse("00:00-24:00").unwrap();
        assert!((0..DAY).all(|minute| all_day.is_open(minute)));
    }
}
