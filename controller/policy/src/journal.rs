//! The journal's lines, which are those of a test scenario too: a head says how it was decided, a line holds one pass.
//!
//! `step(config, state, sample)` gives the rest of a line bit for bit. The configuration stands in the head, the state on
//! some lines only (keyframes): it is as large as many samples, and follows from the line before.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::plan::{Assessment, Finding, Plan};
use crate::sample::Sample;
use crate::state::State;
use crate::units::Monotonic;

/// Version of the format, in every line.
pub const VERSION: u64 = 2;

/// The first line of a file, and of every run of the daemon.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Head {
    /// [`VERSION`].
    pub v: u64,
    /// Version of the program that decided; `None` in a scenario, which is checked against the present one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// `/proc/sys/kernel/random/boot_id`: moments of different boots can't be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
    /// One moment on both clocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<Clock>,
    /// The configuration with every default filled in.
    pub config: Config,
}

/// A moment on the kernel's clock and on that of people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// The moment as samples have it.
    pub at: Monotonic,
    /// The same in milliseconds since 1970, UTC.
    pub unix_ms: u64,
}

/// One pass.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line<'a> {
    /// [`VERSION`].
    pub v: u64,
    /// Number of the pass since the daemon's start, from one: a number left out is a line that was lost. A scenario has none; its
    /// lines follow each other, the first one from the state of a start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// What was seen, with the outcomes of earlier actions.
    pub sample: Cow<'a, Sample>,
    /// What it meant; `None` = not to be checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assessment: Option<Cow<'a, Assessment>>,
    /// What was wanted; `None` = not to be checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<Cow<'a, Plan>>,
    /// What lint had to say; `None` = not to be checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub findings: Option<Cow<'a, [Finding]>>,
    /// The state before the pass, on a keyframe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Cow<'a, State>>,
}

/// Any line.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Fields")]
pub enum Entry {
    /// How the lines after it were decided.
    Head(Box<Head>),
    /// One pass.
    Line(Box<Line<'static>>),
}

/// A line that is JSON and no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// Another format.
    #[error("the format is version {0}, this program reads version {VERSION}")]
    Version(u64),
    /// Neither a head nor a pass.
    #[error("neither `config` nor `sample` is there")]
    Neither,
}

/// All fields of both kinds.
#[derive(Deserialize)]
#[serde(expecting = "a line of a journal")]
struct Fields {
    v: u64,
    program: Option<String>,
    boot: Option<String>,
    clock: Option<Clock>,
    config: Option<Config>,
    n: Option<u64>,
    sample: Option<Sample>,
    assessment: Option<Assessment>,
    plan: Option<Plan>,
    findings: Option<Vec<Finding>>,
    state: Option<State>,
}

impl TryFrom<Fields> for Entry {
    type Error = BadEntry;

    fn try_from(fields: Fields) -> Result<Self, BadEntry> {
        let Fields { v, program, boot, clock, config, n, sample, assessment, plan, findings, state } = fields;
        if v != VERSION {
            return Err(BadEntry::Version(v));
        }
        if let Some(config) = config {
            return Ok(Self::Head(Box::new(Head { v, program, boot, clock, config })));
        }
        Ok(Self::Line(Box::new(Line {
            v,
            n,
            sample: Cow::Owned(sample.ok_or(BadEntry::Neither)?),
            assessment: assessment.map(Cow::Owned),
            plan: plan.map(Cow::Owned),
            findings: findings.map(Cow::Owned),
            state: state.map(Cow::Owned),
        })))
    }
}
