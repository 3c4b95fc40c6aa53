//! Reads journals line by line: what is damaged is named with its place, and reading goes on. Memory is bounded by one line.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use plimsoll_policy::journal::{Entry, Line, VERSION};
use plimsoll_policy::sample::Sample;
use plimsoll_policy::state::State;
use serde::{Deserialize, Serialize, Serializer};

/// The longest line that is read: ten times a keyframe with a thousand workloads.
const LONGEST: u64 = 64 << 20;

/// Where a line stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named; `-` is stdin.
    pub file: Arc<str>,
    /// Counted from one.
    pub line: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// No JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// The beginning of a line.
    #[error("cut off after {0} bytes")]
    CutOff(usize),
    /// No journal has such lines.
    #[error("longer than {0} bytes")]
    TooLong(u64),
    /// Of another format.
    #[error("the format is version {0}, this program reads version {VERSION}")]
    Version(u64),
    /// JSON, but no line of a journal, or of a program with other fields.
    #[error("{0}")]
    Wrong(String),
}

/// A line, as far as it can be read.
#[derive(Clone, Debug, PartialEq)]
pub enum Read {
    /// All of it.
    Whole(Entry),
    /// What was seen, and not what was made of it: another version of the program wrote it.
    Salvaged(Entry, Damage),
    /// Nothing.
    Damaged(Damage),
}

/// A file can't be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read journal {}", path.display())]
pub struct ReadError {
    /// Its path.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub error: io::Error,
}

/// The lines of several files, as if they were one.
pub struct Journal {
    waiting: VecDeque<PathBuf>,
    open: Option<(Box<dyn BufRead>, Place)>,
    longest: u64,
    line: Vec<u8>,
    /// Bytes read so far.
    read: u64,
    /// Bytes of all files; zero where that is not known.
    size: u64,
}

impl Journal {
    /// Will read these files in this order; `-` is stdin.
    #[must_use]
    pub fn of(files: impl IntoIterator<Item = PathBuf>) -> Self {
        let waiting: VecDeque<_> = files.into_iter().collect();
        let size = waiting.iter().map(|path| path.metadata().map_or(0, |meta| meta.len())).sum();
        Self { waiting, open: None, longest: LONGEST, line: Vec::new(), read: 0, size }
    }

    /// How much of the files has been read, in per cent.
    #[must_use]
    pub fn percent(&self) -> u64 {
        (self.read * 100).checked_div(self.size).unwrap_or(0).min(100)
    }

    /// Whether reading takes long enough for somebody to wonder.
    #[must_use]
    pub const fn is_large(&self) -> bool {
        self.size > 64 << 20
    }

    /// Reads a line; `None` at the end of the file.
    fn fetch(&mut self) -> io::Result<Option<Read>> {
        let Some((file, place)) = &mut self.open else { return Ok(None) };
        self.line.clear();
        let mut length = file.by_ref().take(self.longest + 1).read_until(b'\n', &mut self.line)? as u64;
        place.line += 1;
        let too_long = length > self.longest;
        if too_long {
            length += skip_line(file)?;
        }
        self.read += length;
        Ok(match length {
            0 => None,
            _ if too_long => Some(Read::Damaged(Damage::TooLong(self.longest))),
            _ => Some(parse(self.line.strip_suffix(b"\n").unwrap_or(&self.line))),
        })
    }

    fn open_next(&mut self) -> Option<Result<(), ReadError>> {
        let path = self.waiting.pop_front()?;
        Some(match open(&path) {
            Ok(file) => {
                self.open = Some((file, Place { file: path.to_string_lossy().into(), line: 0 }));
                Ok(())
            }
            Err(error) => Err(ReadError { path, error }),
        })
    }
}

impl Iterator for Journal {
    type Item = Result<(Place, Read), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.open.is_none()
                && let Err(error) = self.open_next()?
            {
                return Some(Err(error));
            }
            let read = self.fetch();
            let place = self.open.as_ref()?.1.clone();
            match read {
                Ok(Some(read)) => return Some(Ok((place, read))),
                Ok(None) => self.open = None,
                Err(error) => {
                    self.open = None;
                    return Some(Err(ReadError { path: PathBuf::from(&*place.file), error }));
                }
            }
        }
    }
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    Ok(Box::new(BufReader::with_capacity(64 << 10, File::open(path)?)))
}

/// Passes over the rest of a line without keeping it. Returns its length.
fn skip_line(file: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = file.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(buffer.len(), |end| end + 1);
        file.consume(length);
        skipped += length as u64;
        if end.is_some() || length == 0 {
            return Ok(skipped);
        }
    }
}

fn parse(line: &[u8]) -> Read {
    match serde_json::from_slice(line) {
        Ok(entry) => Read::Whole(entry),
        Err(error) => {
            let damage = damage(line, &error);
            match salvage(line).filter(|_| matches!(damage, Damage::Wrong(_))) {
                Some(entry) => Read::Salvaged(entry, damage),
                None => Read::Damaged(damage),
            }
        }
    }
}

fn damage(line: &[u8], error: &serde_json::Error) -> Damage {
    #[derive(Deserialize)]
    struct Versioned {
        v: u64,
    }
    match error.classify() {
        serde_json::error::Category::Eof => Damage::CutOff(line.len()),
        serde_json::error::Category::Data => match serde_json::from_slice(line) {
            Ok(Versioned { v }) if v != VERSION => Damage::Version(v),
            _ => Damage::Wrong(words(error)),
        },
        _ => Damage::NotJson(words(error)),
    }
}

/// What a pass took, where what it gave has other fields than today.
fn salvage(line: &[u8]) -> Option<Entry> {
    #[derive(Deserialize)]
    struct Taken {
        n: Option<u64>,
        sample: Sample,
        state: Option<State>,
    }
    let Taken { n, sample, state } = serde_json::from_slice(line).ok()?;
    Some(Entry::Line(Box::new(Line {
        v: VERSION,
        n,
        sample: std::borrow::Cow::Owned(sample),
        assessment: None,
        plan: None,
        findings: None,
        state: state.map(std::borrow::Cow::Owned),
    })))
}

/// The parser counts lines too, and always says one.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.split_once(" at line 1 column ") {
        Some((what, column)) if column != "0" => format!("{what}, column {column}"),
        Some((what, _)) => what.to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests;
