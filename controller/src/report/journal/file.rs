//! A file that only ever holds whole lines, and makes room for itself by becoming `.1`, `.2` and so on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use plimsoll_policy::units::Bytes;

/// The journal's newest file and its predecessors.
pub(super) struct LogFile {
    path: PathBuf,
    largest: u64,
    /// How many files there may be, this one included.
    files: u32,
    /// The file and the length of what is whole in it; `None` until it could be opened.
    open: Option<(File, u64)>,
}

impl LogFile {
    pub(super) fn new(path: &Path, largest: Bytes, files: u32) -> Self {
        Self { path: path.to_owned(), largest: largest.0, files, open: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a new file shall begin with the next keyframe. The rest is room for the lines until that comes.
    pub(super) fn is_nearly_full(&self) -> bool {
        self.length() > self.largest - self.largest / 16
    }

    fn length(&self) -> u64 {
        self.open.as_ref().map_or(0, |(_, length)| *length)
    }

    /// Begins a new file where the line has no room in this one, or is the keyframe that was waited for. True where the file was
    /// opened for it: it needs a head then.
    pub(super) fn make_room(&mut self, line: usize, keyframe: bool) -> io::Result<bool> {
        let mut opened = self.ensure_open()?;
        let full = self.length() > 0 && self.length() + line as u64 > self.largest;
        if full || (keyframe && self.is_nearly_full()) {
            self.rotate()?;
            opened = self.ensure_open()?;
        }
        Ok(opened)
    }

    fn ensure_open(&mut self) -> io::Result<bool> {
        let closed = self.open.is_none();
        if closed {
            self.open = Some(open(&self.path)?);
        }
        Ok(closed)
    }

    /// Adds whole lines, or nothing.
    pub(super) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let (file, length) = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(open(&self.path)?),
        };
        let written = file.write_all(lines);
        if written.is_ok() {
            *length += lines.len() as u64;
        } else {
            // Half a line would spoil the next one. Where it can't be taken back, opening anew closes it.
            let _ = file.set_len(*length);
            self.open = None;
        }
        written
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        for older in (1..self.files.saturating_sub(1)).rev() {
            gone_is_fine(fs::rename(rotated(&self.path, older), rotated(&self.path, older + 1)))?;
        }
        gone_is_fine(match self.files {
            0 | 1 => fs::remove_file(&self.path),
            _ => fs::rename(&self.path, rotated(&self.path, 1)),
        })
    }
}

/// What the file is called after so many others came.
pub(super) fn rotated(path: &Path, age: u32) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(format!(".{age}"));
    name.into()
}

/// Somebody has cleaned up: there is room already.
fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Opens for appending. A predecessor may have died within a line: that one is closed, for the next to be whole.
fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().append(true).read(true).create(true).open(path)?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.read_exact_at(&mut last, length - 1)?;
    }
    if last == [b'\n'] {
        return Ok((file, length));
    }
    file.write_all(b"\n")?;
    Ok((file, length + 1))
}
