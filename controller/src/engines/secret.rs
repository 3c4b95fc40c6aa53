//! Secrets of engines: read from their file at every use, so that a new one counts at once; never kept, never logged.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;

use super::http::Problem;

/// Keys and tokens are shorter.
const LARGEST: u64 = 16 << 10;

/// Where a secret is.
#[derive(Debug)]
pub(super) struct SecretFile {
    path: PathBuf,
    warned: AtomicBool,
}

/// A secret while it is used. It has no `Debug` that would show it.
pub(super) struct Secret(String);

impl Secret {
    /// The secret itself.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl SecretFile {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), warned: AtomicBool::new(false) }
    }

    /// Its first line, without blanks at its ends. Read on a thread of its own: under pressure a disk keeps waiting.
    pub(super) async fn read(&self) -> Result<Secret, Problem> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        let why = match read {
            Ok(Ok((secret, mode))) => {
                self.warn_once(mode);
                return Ok(secret);
            }
            Ok(Err(why)) => why,
            Err(_) => "reading it was given up".into(),
        };
        Err(Problem::Misconfigured(format!("`secret_file` {} can't be used: {why}", self.path.display())))
    }

    /// A key that everybody can read is none; but refusing it would leave the workload without its engine.
    fn warn_once(&self, mode: u32) {
        if mode & 0o077 != 0 && !self.warned.swap(true, Ordering::Relaxed) {
            let (path, mode) = (self.path.display(), format!("{:o}", mode & 0o777));
            tracing::warn!(%path, %mode, "a secret file is open to others");
        }
    }
}

/// The secret and the mode of its file. A FIFO in its place must not keep anybody waiting either.
fn read(path: &Path) -> Result<(Secret, u32), String> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let said = |error: std::io::Error| error.to_string();
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(said)?;
    let metadata = file.metadata().map_err(said)?;
    if !metadata.is_file() {
        return Err("it is no regular file".into());
    }
    let mut text = String::new();
    Read::by_ref(&mut file).take(LARGEST).read_to_string(&mut text).map_err(said)?;
    match text.lines().next().unwrap_or_default().trim() {
        "" => Err("its first line is empty".into()),
        secret => Ok((Secret(secret.to_owned()), metadata.permissions().mode())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn secret(content: &str) -> Result<String, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, content).unwrap();
        let read = SecretFile::new(path).read().await;
        read.map(|secret| secret.expose().to_owned()).map_err(|problem| problem.to_string())
    }

    #[tokio::test]
    async fn the_first_line_is_the_secret() {
        assert_eq!(secret(" key \nmore\n").await.as_deref(), Ok("key"));
        assert!(secret("").await.unwrap_err().ends_with("its first line is empty"));
        assert!(secret("\nkey").await.is_err());
    }

    #[tokio::test]
    async fn a_fifo_in_its_place_keeps_nobody_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let problem = SecretFile::new(path).read().await.err().unwrap();
        assert!(problem.to_string().ends_with("it is no regular file"), "{problem}");
    }
}
