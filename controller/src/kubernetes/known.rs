//! The last known pods in a file of the run directory, so that a daemon that starts while the API server is away goes on with them.
//! A reboot clears it, as it does the pods.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::book::Bell;
use super::pods::Pods;

/// Version of the format.
const VERSION: u64 = 1;
/// Time between two writes: pods that start change a few times in a second.
const EVERY: Duration = Duration::from_secs(3);
/// A pod takes about 1 KiB. What is larger is not ours.
const LARGEST: u64 = 16 << 20;

/// The file.
#[derive(Serialize, Deserialize)]
struct Saved<P> {
    v: u64,
    pods: P,
}

/// Why a file says nothing.
#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("it can't be read")]
    Io(#[from] io::Error),
    #[error("it is no list of pods")]
    Text(#[from] serde_json::Error),
    #[error("its format is version {0}, this program reads version {VERSION}")]
    Version(u64),
}

/// Where it is.
pub(super) fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("pods.json")
}

/// What an earlier run wrote down. Nobody has confirmed it; a file that can't be understood says nothing, and is said once.
pub(super) fn read(path: &Path) -> Pods {
    match parse(path) {
        Ok(pods) => {
            tracing::info!(pods = pods.pods.len(), "remembers the pods of this node");
            Pods { confirmed: false, ..pods }
        }
        Err(Damage::Io(error)) if error.kind() == io::ErrorKind::NotFound => Pods::default(),
        Err(damage) => {
            let cause = std::error::Error::source(&damage).map(ToString::to_string);
            tracing::warn!(path = %path.display(), why = %damage, cause, "does not know the pods of this node from before");
            Pods::default()
        }
    }
}

fn parse(path: &Path) -> Result<Pods, Damage> {
    #[derive(Deserialize)]
    struct Version {
        v: u64,
    }
    let mut text = Vec::new();
    File::open(path)?.take(LARGEST).read_to_end(&mut text)?;
    match serde_json::from_slice::<Version>(&text)?.v {
        VERSION => Ok(serde_json::from_slice::<Saved<Pods>>(&text)?.pods),
        other => Err(Damage::Version(other)),
    }
}

/// Starts the thread that writes what changes. It ends with the book whose bell this is.
pub(super) fn keep(path: PathBuf, pods: watch::Receiver<Arc<Pods>>, bell: Bell) -> io::Result<()> {
    let thread = thread::Builder::new().name("pods".into());
    thread.spawn(move || {
        let mut failing = false;
        while bell.recv().is_ok() {
            let now = Arc::clone(&pods.borrow());
            match replace(&path, &now) {
                Err(error) if !failing => {
                    tracing::warn!(path = %path.display(), %error, "can't write down the pods of this node");
                    failing = true;
                }
                result => failing = result.is_err(),
            }
            thread::sleep(EVERY);
        }
    })?;
    Ok(())
}

/// Whoever dies in between leaves the old file or the new one.
fn replace(path: &Path, pods: &Pods) -> io::Result<()> {
    let new = path.with_extension("json.new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(&Saved { v: VERSION, pods })?)?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::pods::{Container, Pod};

    fn pods() -> Pods {
        let pod = Pod { uid: "u".into(), containers: vec![Container::default()], ..Pod::default() };
        Pods { pods: [("u".to_owned(), pod)].into(), confirmed: true }
    }

    #[test]
    fn what_was_written_is_known_but_not_confirmed() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path());
        assert_eq!(read(&path), Pods::default());
        replace(&path, &pods()).unwrap();
        assert_eq!(read(&path), Pods { confirmed: false, ..pods() });
    }

    #[test]
    fn a_damaged_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path());
        for text in
            ["", "{", "[]", "{\"v\":1}", "{\"v\":2,\"pods\":{}}", "{\"v\":1,\"pods\":{\"pods\":[]}}", "\u{0}"]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(read(&path), Pods::default(), "{text}");
        }
    }

    #[test]
    fn the_thread_writes_what_changed_and_ends_with_its_book() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path());
        let (mut book, readers) = super::super::book::Book::new(Pods::default());
        keep(path.clone(), readers, book.bell()).unwrap();
        book.replace(pods().pods);
        let began = std::time::Instant::now();
        while read(&path).pods.is_empty() {
            assert!(began.elapsed() < Duration::from_secs(10), "nothing was written");
            thread::yield_now();
        }
    }
}
