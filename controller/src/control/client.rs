//! Asks a running daemon: for room, for `exec`; and what the command line is asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll_policy::admission::Reason;
use serde::{Deserialize, Serialize};
use zlink::Call;

use super::operator::OperatorRefusal;
use super::protocol::{ControlRefusal, Granted};
use crate::report::status::Status;

/// An answer comes with the next pass; a daemon that takes this much longer than it was asked to wait is not well.
const PATIENCE: Duration = Duration::from_secs(10);

/// A large journal is read in this time.
const READING: Duration = Duration::from_secs(60);

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
    /// Only operators may ask that.
    #[error("only root, and the user that the daemon runs as, may ask that of the daemon at {0}")]
    Denied(PathBuf),
    /// The daemon says no.
    #[error(transparent)]
    Refused(Box<ControlRefusal>),
    /// The daemon says no to an operator.
    #[error(transparent)]
    Operator(Box<OperatorRefusal>),
}

impl AskError {
    /// Whether there is no daemon to ask.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::Off | Self::Unreachable { .. })
    }

    /// Whether a daemon that is being restarted would explain it.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(refusal) => refusal.is_for(Reason::Stopping),
            Self::Off | Self::Runtime(_) | Self::Silent(_) | Self::Denied(_) | Self::Operator(_) => false,
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

/// What an operator may call for.
#[derive(Debug, Serialize)]
#[serde(tag = "method", content = "parameters")]
pub enum Operation<'a> {
    /// What the daemon sees and does.
    #[serde(rename = "dev.plimsoll.Operator.Status")]
    Status {
        /// Only this one.
        workload: Option<&'a str>,
    },
    /// Why an action was taken.
    #[serde(rename = "dev.plimsoll.Operator.Explain")]
    Explain {
        /// Its number.
        action: u64,
    },
    /// Let go.
    #[serde(rename = "dev.plimsoll.Operator.Release")]
    Release {
        /// Only this one.
        workload: Option<&'a str>,
    },
    /// Let everything go and do nothing.
    #[serde(rename = "dev.plimsoll.Operator.Pause")]
    Pause {
        /// For so long.
        seconds: u64,
    },
    /// End that.
    #[serde(rename = "dev.plimsoll.Operator.Resume")]
    Resume {},
}

/// Reply to [`Operation::Status`].
#[derive(Debug, Deserialize)]
pub struct StatusReply {
    /// As `/status` has it.
    pub status: Status,
}

/// Reply to [`Operation::Explain`].
#[derive(Debug, Deserialize)]
pub struct ExplainReply {
    /// For people.
    pub lines: Vec<String>,
    /// For programs.
    pub story: serde_json::Value,
}

/// Reply to [`Operation::Release`] and [`Operation::Pause`].
#[derive(Debug, Deserialize)]
pub struct ReleaseReply {
    /// One sentence for each that was let go.
    pub released: Vec<String>,
}

/// Reply to [`Operation::Resume`].
#[derive(Debug, Deserialize)]
pub struct ResumeReply {
    /// Whether there was a pause.
    pub paused: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum No {
    Operator(OperatorRefusal),
    Control(ControlRefusal),
}

/// Calls for something as an operator.
///
/// # Errors
/// [`AskError`].
pub async fn operate<T>(socket: &Path, operation: Operation<'_>) -> Result<T, AskError>
where
    T: for<'de> Deserialize<'de> + std::fmt::Debug,
{
    let failed = |error| match error {
        zlink::Error::VarlinkService(error) if is_denial(error.inner()) => {
            AskError::Denied(socket.to_owned())
        }
        error => AskError::Unreachable { path: socket.to_owned(), error: Box::new(error) },
    };
    let ask = async {
        let mut connection = zlink::tokio::unix::connect(socket).await.map_err(failed)?;
        let call = Call::new(operation);
        let (answer, _) = connection.call_method::<_, T, No>(&call, Vec::new()).await.map_err(failed)?;
        let answer = answer.map_err(|no| match no {
            No::Operator(refusal) => AskError::Operator(Box::new(refusal)),
            No::Control(refusal) => AskError::Refused(Box::new(refusal)),
        })?;
        answer.into_parameters().ok_or_else(|| failed(zlink::Error::MissingParameters))
    };
    tokio::time::timeout(READING, ask).await.map_err(|_| AskError::Silent(socket.to_owned()))?
}

const fn is_denial(error: &zlink::varlink_service::Error<'_>) -> bool {
    matches!(error, zlink::varlink_service::Error::PermissionDenied)
}

/// Rounded up: whoever waits half a second does wait.
fn whole_seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}
