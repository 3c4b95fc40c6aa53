//! The contract of everything by which a workload can be asked: its client, its engine, a signal, a webhook, a hook, a watch file.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use plimsoll_policy::concession::{Gains, Level, Offer};
use plimsoll_policy::gpu::GpuId;

/// What is awaited of a way, whichever it is.
pub type Answering<'a, T> = Pin<Box<dyn Future<Output = Result<T, WayError>> + Send + 'a>>;

/// One way to ask one workload. A way does as it is told and reports what it was told; whether memory came back is measured by whoever
/// asks, who also keeps the deadline: dropping the future ends what it was doing.
pub trait Way: fmt::Debug + Send + Sync {
    /// The word for it: `client`, `engine`, `watch`, `signal`, `webhook`, `hook` or `checkpoint`.
    fn name(&self) -> &'static str;

    /// What can be asked for by this way now. Costs little: it is asked every few seconds, and never while `ask` is under way.
    fn offer(&self) -> Answering<'_, Offer>;

    /// Brings the workload to a level, from whichever it is on; [`Level::Nothing`] restores it and ends when it answers again, tried
    /// with a request of its own where the way knows one. The same number twice is the same asking.
    fn ask<'a>(&'a self, asking: &'a Asking) -> Answering<'a, Answered>;
}

/// One asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// Number of the wish.
    pub number: u64,
    /// The level to be on.
    pub level: Level,
    /// GPUs that are short; empty where host memory is.
    pub gpus: Vec<GpuId>,
    /// Bytes that are wanted of it, on each of the GPUs or of the host.
    pub wanted: u64,
    /// What is left of the deadline.
    pub deadline: Duration,
    /// Why, in a short sentence for the workload's log.
    pub reason: String,
}

/// What a way has to say for itself when it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// What it claims to have freed; `None` where it does not say.
    pub claimed: Option<Gains>,
}

/// Why a way could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WayError {
    /// It does not offer this level (any more).
    #[error("it does not offer {0}")]
    NotOffered(Level),
    /// It serves requests and may not be interrupted.
    #[error("busy with {0}")]
    Busy(String),
    /// Nobody answers.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// It answered that it can't or won't.
    #[error("refused: {0}")]
    Refused(String),
    /// It answered something that is no answer.
    #[error("not understood: {0}")]
    Garbled(String),
    /// It did not answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    /// Its address, secret or command can't be used; in words that name the key.
    #[error("misconfigured: {0}")]
    Misconfigured(String),
}
