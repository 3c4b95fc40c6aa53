//! The listening socket, and how many may come in.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::Desk;
use super::connection::serve;

/// Clients at a time. A node has tens of models, and each needs one while it loads.
const CLIENTS: usize = 128;
/// Of these, so many are kept for root: whoever fills the others must not keep `exec` out.
const FOR_ROOT: usize = 16;

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
pub fn listen(path: &Path, desk: Desk, cgroup_root: &Path) -> Result<Listening, ControlError> {
    let listener = bind(path).map_err(|source| ControlError { path: path.to_owned(), source })?;
    let accepting = tokio::spawn(accept(listener, desk, cgroup_root.into()));
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

async fn accept(listener: UnixListener, desk: Desk, cgroup_root: Arc<Path>) {
    let (anybody, root) = (Arc::new(Semaphore::new(CLIENTS - FOR_ROOT)), Arc::new(Semaphore::new(FOR_ROOT)));
    let mut full = false;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others will close theirs.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let place = Arc::clone(&anybody).try_acquire_owned();
        let place = place
            .or_else(|full| if is_root(&stream) { Arc::clone(&root).try_acquire_owned() } else { Err(full) });
        let Ok(place) = place else {
            // Said once: whoever fills the socket must not fill the log as well.
            if !std::mem::replace(&mut full, true) {
                tracing::warn!(clients = CLIENTS, "the control socket is full, clients are turned away");
            }
            continue;
        };
        full = false;
        let (desk, cgroup_root) = (desk.clone(), Arc::clone(&cgroup_root));
        tokio::spawn(async move {
            serve(stream, desk, &cgroup_root).await;
            drop(place);
        });
    }
}

fn is_root(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0)
}
