//! The listening socket, and how many may come in.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::connection::serve;
use super::{Control, Counts};

/// Clients at a time. A node has tens of models, each with some workers, and each of these keeps one or two.
const CLIENTS: usize = 512;
/// Of these, so many are kept for root: whoever fills the others must not keep `exec` out.
const FOR_ROOT: usize = 32;
/// So many are let in of one user that is not root.
const OF_A_USER: usize = 128;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at the control socket {}", path.display())]
pub struct ControlError {
    /// Its path.
    path: PathBuf,
    /// What the kernel said.
    #[source]
    source: io::Error,
}

/// Listens until it is dropped; then the socket is gone as well.
#[derive(Debug)]
pub struct Listening {
    path: PathBuf,
    accepting: JoinHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.accepting.abort();
        // Somebody may have removed it already.
        let _ = fs::remove_file(&self.path);
    }
}

/// Listens at a path, on the runtime that this is called on. What a predecessor left there is replaced: the ledger's lock has
/// shown that none is alive.
///
/// # Errors
/// [`ControlError`] where the path is not to be had.
pub fn listen(path: &Path, control: Control) -> Result<Listening, ControlError> {
    let listener = bind(path).map_err(|source| ControlError { path: path.to_owned(), source })?;
    let accepting = tokio::spawn(accept(listener, Arc::new(control)));
    Ok(Listening { path: path.to_owned(), accepting })
}

/// Everybody may connect, whatever the umask: who may do what is decided by whom the kernel names.
fn bind(path: &Path) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|old| old.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

async fn accept(listener: UnixListener, control: Arc<Control>) {
    let mut doors = Doors::default();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others will close theirs.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let Some(place) = doors.let_in(&stream) else {
            Counts::add(&control.counts.turned_away);
            continue;
        };
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            let counted = Counts::hold(&control.counts.clients);
            serve(stream, &control).await;
            drop((counted, place));
        });
    }
}

/// Who may come in.
struct Doors {
    anybody: Arc<Semaphore>,
    root: Arc<Semaphore>,
    users: Arc<Mutex<HashMap<u32, usize>>>,
    /// That is said once: whoever fills the socket must not fill the log as well.
    full: bool,
}

impl Default for Doors {
    fn default() -> Self {
        Self {
            anybody: Arc::new(Semaphore::new(CLIENTS - FOR_ROOT)),
            root: Arc::new(Semaphore::new(FOR_ROOT)),
            users: Arc::default(),
            full: false,
        }
    }
}

/// One client's place, free again when it is dropped.
struct Place {
    user: u32,
    users: Arc<Mutex<HashMap<u32, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Doors {
    fn let_in(&mut self, stream: &UnixStream) -> Option<Place> {
        let user = stream.peer_cred().map_or(u32::MAX, |peer| peer.uid());
        let place = self.place(user);
        if place.is_none() && !self.full {
            tracing::warn!(clients = CLIENTS, user, "the control socket is full, clients are turned away");
        }
        self.full = place.is_none();
        place
    }

    fn place(&self, user: u32) -> Option<Place> {
        if user != 0 && count(&self.users).get(&user).is_some_and(|clients| *clients >= OF_A_USER) {
            return None;
        }
        let free = |doors: &Arc<Semaphore>| Arc::clone(doors).try_acquire_owned().ok();
        let permit = free(&self.anybody).or_else(|| free(&self.root).filter(|_| user == 0))?;
        *count(&self.users).entry(user).or_default() += 1;
        Some(Place { user, users: Arc::clone(&self.users), _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut users = count(&self.users);
        if let Entry::Occupied(mut clients) = users.entry(self.user) {
            *clients.get_mut() -= 1;
            if *clients.get() == 0 {
                clients.remove();
            }
        }
    }
}

fn count(users: &Mutex<HashMap<u32, usize>>) -> MutexGuard<'_, HashMap<u32, usize>> {
    users.lock().unwrap_or_else(PoisonError::into_inner)
}
