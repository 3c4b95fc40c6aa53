//! Asks a running daemon for room, for `exec`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll_policy::admission::Reason;
use serde::Serialize;
use zlink::Call;

use super::protocol::{ControlRefusal, Granted};

/// An answer comes with the next pass; a daemon that takes this much longer than it was asked to wait is not well.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no room, or no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no control socket.
    #[error("`daemon.control` is none: there is nobody to ask for room")]
    Off,
    /// The kernel gives no descriptors to wait with.
    #[error("can't wait for an answer")]
    Runtime(#[source] std::io::Error),
    /// Nobody listens there.
    #[error("no daemon answers at {path}; is `plimsoll run` running, and `daemon.control` the same path?")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the kernel or the connection said.
        #[source]
        error: Box<zlink::Error>,
    },
    /// Somebody listens there and does not answer.
    #[error("the daemon at {0} does not answer")]
    Silent(PathBuf),
    /// The daemon says no.
    #[error(transparent)]
    Refused(Box<ControlRefusal>),
}

impl AskError {
    /// Whether a daemon that is being restarted would explain it.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(refusal) => refusal.is_for(Reason::Stopping),
            Self::Off | Self::Runtime(_) | Self::Silent(_) => false,
        }
    }
}

/// Waits for an answer where nothing else is going on.
///
/// # Errors
/// [`AskError::Runtime`].
pub fn block_on<T>(answer: impl Future<Output = T>) -> Result<T, AskError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(AskError::Runtime)?.block_on(answer))
}

/// What was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Number of the reservation.
    pub id: u64,
    /// The size that was chosen, in bytes.
    pub size: u64,
}

#[derive(Debug, Serialize)]
#[serde(tag = "method", content = "parameters")]
enum Method<'a> {
    #[serde(rename = "dev.plimsoll.Control.Reserve", rename_all = "camelCase")]
    Reserve { sizes: &'a [u64], wait_seconds: u64, detached: bool },
}

/// Reserves memory for the cgroup that this process is in, by which the reservation then lives.
///
/// # Errors
/// [`AskError`].
pub async fn reserve(socket: &Path, sizes: &[u64], wait: Duration) -> Result<Grant, AskError> {
    let unreachable = |error| AskError::Unreachable { path: socket.to_owned(), error: Box::new(error) };
    let ask = async {
        let mut connection = zlink::tokio::unix::connect(socket).await.map_err(unreachable)?;
        let call = Call::new(Method::Reserve { sizes, wait_seconds: whole_seconds(wait), detached: true });
        let answer = connection.call_method::<_, Granted, ControlRefusal>(&call, Vec::new()).await;
        let (answer, _) = answer.map_err(unreachable)?;
        let granted = answer.map_err(|refusal| AskError::Refused(Box::new(refusal)))?.into_parameters();
        let Granted { id, size, .. } = granted.ok_or_else(|| unreachable(zlink::Error::MissingParameters))?;
        Ok(Grant { id, size })
    };
    let silent = |_| AskError::Silent(socket.to_owned());
    tokio::time::timeout(wait + PATIENCE, ask).await.map_err(silent)?
}

/// Rounded up: whoever waits half a second does wait.
fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}
