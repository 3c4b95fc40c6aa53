//! The guest's two virtio-serial ports: lines of output as they come, and the result stream at the end.
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

use anyhow::{Context as _, Result};
use plimsoll_init::VERDICT_ENTRY;

use super::qemu::{RESULT_SOCKET, STDOUT_SOCKET};

/// What comes from the guest.
pub(super) enum Event {
    /// A line that the command printed.
    Line(String),
    /// The results are unpacked, or could not be.
    Results(Result<()>),
}

/// Readers of both ports.
pub(super) struct Channels {
    events: Receiver<Event>,
    ended: Arc<AtomicBool>,
    readers: Vec<JoinHandle<()>>,
}

impl Channels {
    /// Listens in `work` for the emulator, and unpacks results into `results`.
    pub(super) fn open(work: &Path, results: &Path) -> Result<Self> {
        let (sender, events) = channel();
        let ended = Arc::new(AtomicBool::new(false));
        let stdout = Port::listen(&work.join(STDOUT_SOCKET), &ended)?;
        let result = Port::listen(&work.join(RESULT_SOCKET), &ended)?;
        let results = results.to_owned();
        let lines = sender.clone();
        let readers = vec![
            spawn(move || read_lines(&stdout, &lines)),
            spawn(move || {
                if let Some(taken) = result.accept().map(|stream| take(&stream, &results)) {
                    // Nobody listens any more when the boot was given up.
                    let _ = sender.send(Event::Results(taken));
                }
            }),
        ];
        Ok(Self { events, ended, readers })
    }

    /// What has come.
    pub(super) fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// Call when the emulator is gone: waits until all that it sent is read, and returns what was not taken yet.
    pub(super) fn finish(self) -> Vec<Event> {
        self.ended.store(true, Ordering::Release);
        for reader in self.readers {
            // A panic of a reader shows as missing results.
            let _ = reader.join();
        }
        self.events.try_iter().collect()
    }
}

/// A socket that the emulator will connect to, unless it dies first.
struct Port {
    listener: UnixListener,
    ended: Arc<AtomicBool>,
}

impl Port {
    fn listen(path: &PathBuf, ended: &Arc<AtomicBool>) -> Result<Self> {
        let listener = UnixListener::bind(path).with_context(|| path.display().to_string())?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, ended: Arc::clone(ended) })
    }

    fn accept(&self) -> Option<UnixStream> {
        loop {
            let ended = self.ended.load(Ordering::Acquire);
            match self.listener.accept() {
                Ok((stream, _)) => return stream.set_nonblocking(false).is_ok().then_some(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ended => {
                    sleep(Duration::from_millis(10));
                }
                Err(_) => return None,
            }
        }
    }
}

fn read_lines(port: &Port, events: &Sender<Event>) {
    let Some(stream) = port.accept() else { return };
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if events.send(Event::Line(text)).is_err() {
            return;
        }
    }
}

/// Unpacks the stream and tells the guest that all of it has arrived.
fn take(mut stream: &UnixStream, results: &Path) -> Result<()> {
    std::fs::create_dir_all(results)?;
    let mut archive = tar::Archive::new(BufReader::new(stream));
    archive.set_preserve_mtime(false);
    archive.unpack(results).with_context(|| results.display().to_string())?;
    if !results.join(VERDICT_ENTRY).is_file() {
        // The guest died, and the stream ended before its end: whoever looks for the verdict will say so.
        return Ok(());
    }
    stream.write_all(b"k").context("answering the guest")
}
