//! Asks for room before the command is started.
//!
//! The asking process *becomes* the command, so nobody is left to send heartbeats or to commit: the reservation is detached, it lives
//! by the cgroup and settles as the model grows.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use plimsoll_policy::config::Daemon;
use plimsoll_policy::units::Bytes;

use crate::control;
use crate::control::client::{AskError, Grant, reserve};

/// A daemon that is being restarted is back soon.
const RETRY: Duration = Duration::from_millis(200);

/// What a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Sizes that would do, the most wanted first.
    pub sizes: Vec<Bytes>,
    /// How long to wait for room, or for a daemon that is not there yet.
    pub wait: Duration,
}

/// What was granted, as the command is told it in its environment.
pub(super) fn ask(needs: Option<&Needs>, daemon: &Daemon) -> Result<Vec<(&'static str, String)>, AskError> {
    let Some(needs) = needs else { return Ok(Vec::new()) };
    let Some(socket) = control::path(daemon) else { return Err(AskError::Off) };
    let Grant { id, size } = keep_asking(&socket, needs)?;
    Ok(vec![("PLIMSOLL_GRANTED_BYTES", size.to_string()), ("PLIMSOLL_RESERVATION", id.to_string())])
}

/// Until there is an answer, or it has waited long enough for somebody who could give one.
fn keep_asking(socket: &Path, needs: &Needs) -> Result<Grant, AskError> {
    let begun = Instant::now();
    let sizes: Vec<u64> = needs.sizes.iter().map(|size| size.0).collect();
    loop {
        let left = needs.wait.saturating_sub(begun.elapsed());
        let answer = control::client::block_on(reserve(socket, &sizes, left))?;
        match answer {
            Err(error) if error.may_pass() && left > RETRY => sleep(RETRY),
            answer => return answer,
        }
    }
}
