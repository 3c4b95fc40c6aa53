//! The protocol of systemd's PRESSURE.md, with us as the manager: what `plimsoll exec` starts finds our socket in
//! `MEMORY_PRESSURE_WATCH`, connects, and is poked with a few bytes when it shall trim.
//!
//! There is one socket for all. Who has connected is known from the kernel, so no path has to be made for a workload before it is
//! started, and nobody can listen in another's place. Anybody may connect: only a process in a workload is ever told something.

use std::fmt;
use std::future::ready;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, os::unix::net::UnixListener as Bound};

use plimsoll_policy::concession::{Level, Offer, Prospect};
use plimsoll_policy::config::Daemon;
use plimsoll_policy::sample::WorkloadId;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::Ways;
use super::way::{Answered, Answering, Asking, Way, WayError};
use crate::sense::discover::cgroup_of;

/// The socket's name below the run directory.
const NAME: &str = "watch.sock";
/// The variable that programs look at.
pub const VARIABLE: &str = "MEMORY_PRESSURE_WATCH";
/// What they would write after they have connected; we ask for nothing.
pub const GREETING: &str = "MEMORY_PRESSURE_WRITE";
/// Connections at a time. Workloads are few; what comes beyond waits to be accepted.
const CONNECTIONS: usize = 1024;
/// What a program may write in all; the protocol has it write once, a short text.
const GREETING_AT_MOST: usize = 64 << 10;
/// What is written to poke somebody: what it is does not matter.
const POKE: &[u8] = b"trim\n";

/// The socket while it listens; removed at the end.
#[derive(Debug)]
pub struct Listening {
    path: PathBuf,
    task: AbortHandle,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
        // A successor may have bound anew; then it is not ours, and removing fails to find it or it is made again.
        let _ = fs::remove_file(&self.path);
    }
}

/// Where it listens.
#[must_use]
pub fn path(daemon: &Daemon) -> PathBuf {
    Path::new(&daemon.run_dir).join(NAME)
}

/// Begins to listen. Call it on the runtime.
///
/// # Errors
/// When the socket can't be bound.
pub fn listen(daemon: &Daemon, ways: Ways) -> io::Result<Listening> {
    let path = path(daemon);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Bound::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))?;
    socket.set_nonblocking(true)?;
    let listener = UnixListener::from_std(socket)?;
    let root = PathBuf::from(&daemon.cgroup_root);
    let task = tokio::spawn(accept(listener, root, ways)).abort_handle();
    Ok(Listening { path, task })
}

async fn accept(listener: UnixListener, root: PathBuf, ways: Ways) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (root, ways) = (root.clone(), ways.clone());
                tokio::spawn(async move {
                    attend(stream, &root, &ways).await;
                    drop(place);
                });
            }
            // No descriptor is left, most likely: whoever closes one makes room.
            Err(error) => {
                tracing::warn!(error = %error, "can't accept a connection of MEMORY_PRESSURE_WATCH");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

/// Keeps one program known for as long as it is connected.
async fn attend(stream: UnixStream, root: &Path, ways: &Ways) {
    let Some(cgroup) = cgroup(&stream, root) else { return };
    let connection = Arc::new(Connection(stream));
    let known: Arc<dyn Way> = Arc::clone(&connection) as Arc<dyn Way>;
    let _registered = ways.register(&cgroup, known);
    let mut buffer = [0; 256];
    let mut written = 0;
    while written <= GREETING_AT_MOST && connection.0.readable().await.is_ok() {
        match connection.0.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(len) => written += len,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// The cgroup of whoever has connected.
fn cgroup(stream: &UnixStream, root: &Path) -> Option<WorkloadId> {
    let path = cgroup_of(stream.peer_cred().ok()?.pid()?)?;
    let inode = fs::metadata(root.join(&path)).ok()?.ino();
    Some(WorkloadId { path: path.into(), inode })
}

/// A program that listens.
struct Connection(UnixStream);

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl Connection {
    /// A program that has not read the pokes before is told enough by them.
    fn poke(&self) -> Result<Answered, WayError> {
        match self.0.try_write(POKE) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                Err(WayError::Unreachable(error.to_string()))
            }
            _ => Ok(Answered::default()),
        }
    }
}

impl Way for Connection {
    fn name(&self) -> &'static str {
        "watch"
    }

    fn offer(&self) -> Answering<'_, Offer> {
        let levels = [(Level::Gc, Prospect::default())].into();
        Box::pin(ready(Ok(Offer { levels, ..Offer::default() })))
    }

    fn ask<'a>(&'a self, asking: &'a Asking) -> Answering<'a, Answered> {
        let trims = matches!(asking.level, Level::Gc | Level::Aggressive);
        Box::pin(ready(if trims { self.poke() } else { Err(WayError::NotOffered(asking.level)) }))
    }
}
