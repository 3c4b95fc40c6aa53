//! The calls of those who run the machine. They are told what the command line would tell them.

use std::fmt;

use plimsoll_policy::admission::Call;
use plimsoll_policy::pause;
use plimsoll_policy::sample::WorkloadId;
use plimsoll_policy::units::Span;
use serde_json::Value;
use tokio::task::spawn_blocking;
use zlink::ReplyError;

use super::Control;
use super::calls::Rejection;
use super::conditions::Conditions;
use super::parameters::Parameters;
use crate::incident::read::Journal;
use crate::incident::{explain, say};
use crate::report::journal_files;
use crate::report::status::NoSuchWorkload;

const ACTION: std::ops::RangeInclusive<u64> = 1..=i64::MAX as u64;
/// Who is let go is spared for so long where nothing else is said: long enough to be seen, too short to be forgotten.
const SPARED: u64 = 10;

/// One call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Status { workload: Option<String> },
    Explain { action: u64 },
    Release { workload: Option<String>, lasts: Span },
    Pause { lasts: Span },
    Resume,
}

/// Errors of `dev.plimsoll.Operator`.
#[derive(Clone, Debug, PartialEq, Eq, ReplyError)]
#[zlink(interface = "dev.plimsoll.Operator")]
pub enum OperatorRefusal {
    /// There is none of that name.
    NoSuchWorkload {
        /// The name that was given.
        name: String,
        /// Those that there are.
        present: Vec<String>,
    },
    /// The journal can't tell.
    NotExplained {
        /// Why not.
        message: String,
    },
}

impl fmt::Display for OperatorRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchWorkload { name, present } => {
                NoSuchWorkload { name: name.clone(), present: present.clone() }.fmt(f)
            }
            Self::NotExplained { message } => f.write_str(message),
        }
    }
}

impl std::error::Error for OperatorRefusal {}

impl From<NoSuchWorkload> for OperatorRefusal {
    fn from(error: NoSuchWorkload) -> Self {
        Self::NoSuchWorkload { name: error.name, present: error.present }
    }
}

/// Reads a call; `None` where the method is none of these.
pub(super) fn read(name: &str, given: &mut Parameters) -> Option<Result<Operation, Rejection>> {
    let operation = match name {
        "Status" => given.text("workload").map(|workload| Operation::Status { workload }),
        "Explain" => given.needed("action", ACTION).map(|action| Operation::Explain { action }),
        "Release" => release(given),
        "Pause" => {
            let longest = pause::LONGEST.0 / 1_000_000_000;
            given.needed("seconds", 1..=longest).map(|s| Operation::Pause { lasts: Span::secs(s) })
        }
        "Resume" => Ok(Operation::Resume),
        _ => return None,
    };
    Some(operation.map_err(Rejection::from))
}

fn release(given: &mut Parameters) -> Result<Operation, super::ControlRefusal> {
    let workload = given.text("workload")?;
    let seconds = given.number("seconds", 1..=3600)?.unwrap_or(SPARED);
    Ok(Operation::Release { workload, lasts: Span::secs(seconds) })
}

/// What of an operation the pass has to do.
pub(super) fn call(operation: &Operation, how: &Conditions) -> Result<Option<Call>, OperatorRefusal> {
    Ok(match operation {
        Operation::Status { .. } | Operation::Explain { .. } => None,
        Operation::Release { workload, lasts } => {
            let workload = workload.as_deref().map(|name| named(name, how)).transpose()?;
            Some(Call::LetGo { workload, lasts: *lasts })
        }
        Operation::Pause { lasts } => Some(Call::Pause { lasts: *lasts }),
        Operation::Resume => Some(Call::Resume),
    })
}

/// By its name, or by its path.
fn named(name: &str, how: &Conditions) -> Result<WorkloadId, OperatorRefusal> {
    let found = how.workloads.iter().find(|(id, known)| known.name == name || *id.path == *name);
    found.map(|(id, _)| id.clone()).ok_or_else(|| OperatorRefusal::NoSuchWorkload {
        name: name.chars().take(256).collect(),
        present: how.workloads.values().map(|known| known.name.clone()).collect(),
    })
}

/// Everything that the daemon sees and does. The keeper of it may be busy with a scrape, so it is waited for elsewhere.
pub(super) async fn status(control: &Control, workload: Option<String>) -> Result<Value, OperatorRefusal> {
    let showing = control.showing.clone();
    let told = spawn_blocking(move || {
        let status = showing.status();
        let status = match workload {
            Some(name) => status.only(&name)?,
            None => status,
        };
        Ok(serde_json::to_value(status).unwrap_or_default())
    });
    told.await.unwrap_or(Ok(Value::Null))
}

/// An action in words and as JSON, from the journal: files are read elsewhere, and for one who asks at a time.
pub(super) async fn story(control: &Control, action: u64) -> Result<(Vec<String>, Value), OperatorRefusal> {
    let _turn = control.explaining.acquire().await;
    let daemon = control.daemon.clone();
    let told = spawn_blocking(move || {
        let files = journal_files(&daemon);
        if files.is_empty() {
            return Err("there is no journal".to_owned());
        }
        let story = explain::explain(Journal::of(files), action).map_err(|error| error.to_string())?;
        let lines = say::story(&story).lines().map(str::to_owned).collect();
        Ok((lines, serde_json::to_value(&story).unwrap_or_default()))
    });
    let told = told.await.unwrap_or_else(|_| Err("the journal could not be read".into()));
    told.map_err(|message| OperatorRefusal::NotExplained { message })
}
