//! A trace's bytes: see docs/format/trace.md.
//!
//! ```text
//! 0   40  common header, magic "cltvtrce"
//! 40  4   starts
//! 44  2   number of volumes
//! 46  2   reserved, zero
//! 48  4   number of runs
//! 52  ..  the volumes' names: length (u8, 1 to 255) and UTF-8
//! ..  ..  the runs: volume * 4 + age, where it begins, its pages - 1: three variable numbers
//! ```
//! Canonical: what is read writes the same bytes.

use chunk::header::{Format, HeaderError, Intent};

use super::{AGE_MAX, PAGES_MAX, RUNS_MAX, Run, Trace, VOLUMES_MAX};

const FORMAT: Format = Format {
    name: "trace",
    magic: *b"cltvtrce",
    version: 1,
    read_only_compatible: 0,
    incompatible: 0,
};

/// Pages lie below this: no volume is larger than 2^52 of them.
const PAGE_MAX: u64 = 1 << 52;

/// Why bytes are not a trace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// It is something else, or newer than this program.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It is damaged.
    #[error("not a trace: {0}")]
    Malformed(&'static str),
}

impl Trace {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = FORMAT.header().encode().to_vec();
        out.extend_from_slice(&self.starts.to_le_bytes());
        out.extend_from_slice(&(self.volumes.len() as u16).to_le_bytes());
        out.extend_from_slice(&[0; 2]);
        out.extend_from_slice(&(self.runs.len() as u32).to_le_bytes());
        for name in &self.volumes {
            out.push(name.len() as u8);
            out.extend_from_slice(name.as_bytes());
        }
        let mut ends = vec![0; self.volumes.len()];
        for run in &self.runs {
            put(&mut out, u64::from(run.volume) << 2 | u64::from(run.age));
            let end: &mut u64 = &mut ends[usize::from(run.volume)];
            put(&mut out, zigzag(run.first as i64 - *end as i64));
            put(&mut out, run.count - 1);
            *end = run.first + run.count;
        }
        out
    }

    /// Reads bytes that may come from anybody.
    pub fn decode(bytes: &[u8]) -> Result<Self, TraceError> {
        let (_, rest) = FORMAT.read(bytes, Intent::Read)?;
        let mut fields = Fields(rest);
        let starts = u32::from_le_bytes(fields.array()?);
        let volumes = usize::from(u16::from_le_bytes(fields.array()?));
        if fields.array()? != [0; 2] {
            return malformed("a reserved byte is set");
        }
        let runs = u32::from_le_bytes(fields.array()?) as usize;
        // A run takes 3 bytes at least.
        if volumes > VOLUMES_MAX || runs > RUNS_MAX || runs * 3 > fields.0.len() {
            return malformed("too many volumes or runs");
        }
        let mut trace = Self { starts, volumes: Vec::new(), runs: Vec::with_capacity(runs) };
        for _ in 0..volumes {
            let name = fields.text()?.to_owned();
            if trace.volumes.contains(&name) {
                return malformed("two volumes have one name");
            }
            trace.volumes.push(name);
        }
        let mut ends = vec![0; volumes];
        for _ in 0..runs {
            let run = fields.run(&mut ends)?;
            trace.runs.push(run);
        }
        match () {
            () if !fields.0.is_empty() => malformed("bytes after its end"),
            () if trace.pages() > PAGES_MAX as u64 => malformed("too many pages"),
            () if trace.overlaps() => malformed("a page is in it twice"),
            () if trace.has_cut_runs() => malformed("a run goes on in the next"),
            () => Ok(trace),
        }
    }

    fn overlaps(&self) -> bool {
        let mut sorted: Vec<_> =
            self.runs.iter().map(|run| (run.volume, run.first, run.count)).collect();
        sorted.sort_unstable();
        sorted.windows(2).any(|pair| {
            let [(volume, first, count), (next, start, _)] = [pair[0], pair[1]];
            volume == next && first + count > start
        })
    }

    fn has_cut_runs(&self) -> bool {
        self.runs.windows(2).any(|pair| {
            let [run, next] = [pair[0], pair[1]];
            (run.volume, run.age, run.first + run.count) == (next.volume, next.age, next.first)
        })
    }
}

fn malformed<T>(what: &'static str) -> Result<T, TraceError> {
    Err(TraceError::Malformed(what))
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// 7 bits a byte, the lowest first; all but the last byte have the top bit.
fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], TraceError> {
        let Some((taken, rest)) = self.0.split_at_checked(count) else {
            return malformed("it is cut");
        };
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TraceError> {
        let taken = self.take(N)?;
        Ok(std::array::from_fn(|i| taken[i]))
    }

    fn text(&mut self) -> Result<&'a str, TraceError> {
        let [len] = self.array()?;
        let bytes = self.take(usize::from(len))?;
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.is_empty() => Ok(text),
            _ => malformed("a volume's name is not text"),
        }
    }

    fn number(&mut self) -> Result<u64, TraceError> {
        let mut value = 0;
        // 63 bits: more than any number here may have.
        for shift in (0..63).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                let shortest = byte != 0 || shift == 0;
                return if shortest { Ok(value) } else { malformed("a number is too long") };
            }
        }
        malformed("a number is too large")
    }

    fn run(&mut self, ends: &mut [u64]) -> Result<Run, TraceError> {
        let key = self.number()?;
        let (volume, age) = (key >> 2, (key & 3) as u8);
        let Some(end) = usize::try_from(volume).ok().and_then(|at| ends.get_mut(at)) else {
            return malformed("a run of a volume that is not there");
        };
        let first = end.checked_add_signed(unzigzag(self.number()?));
        let count = self.number()? + 1;
        match first {
            Some(first) if first < PAGE_MAX && count <= PAGES_MAX as u64 => {
                *end = first + count;
                Ok(Run { volume: volume as u8, age, first, count })
            }
            _ => malformed("a run lies beyond any volume"),
        }
    }
}

const _: () = assert!(AGE_MAX == 3 && VOLUMES_MAX <= 1 << 8);
