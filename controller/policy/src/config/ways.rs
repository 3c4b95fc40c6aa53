//! The section `ask` of a rule: by what means its workloads can be asked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::engine::{EngineAt, engine};
use super::node::Node;
use super::scalar::{Flag, Form, Kind, OneOf, Time};
use super::section::Section;
use super::signals::{Signals, signals};
use crate::concession::Level;
use crate::plan::Tier;
use crate::units::{Span, is_default};

/// By what means the workloads of a rule can be asked, besides the clients that register themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Means {
    /// The engine that serves the models.
    #[serde(skip_serializing_if = "is_default")]
    pub engine: Option<EngineAt>,
    /// Signals.
    #[serde(skip_serializing_if = "is_default")]
    pub signal: Option<Signals>,
    /// HTTP POST.
    #[serde(skip_serializing_if = "is_default")]
    pub webhook: Option<Webhook>,
    /// A program of the operator's.
    #[serde(skip_serializing_if = "is_default")]
    pub hook: Option<Hook>,
    /// NVIDIA's `cuda-checkpoint`, for programs that can't be asked; `None` = not used.
    #[serde(skip_serializing_if = "is_default")]
    pub cuda_checkpoint: Option<CudaCheckpoint>,
    /// When those are poked that listen to `MEMORY_PRESSURE_WATCH`.
    #[serde(skip_serializing_if = "is_default")]
    pub watch: Watch,
}

/// Moving GPU memory to the host and back from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CudaCheckpoint {
    /// Where the program is.
    pub program: String,
    /// Whether it is used on models of several processes or GPUs.
    pub several: bool,
    /// How long work that is under way is waited for.
    pub lock: Span,
}

impl Default for CudaCheckpoint {
    fn default() -> Self {
        Self { program: "/usr/bin/cuda-checkpoint".into(), several: false, lock: Span::secs(5) }
    }
}

/// Where to POST.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// `http://ADDRESS:PORT/PATH`; the address is an IP address or `localhost`.
    pub url: String,
    /// What can be asked for, gentlest first.
    pub levels: Vec<Level>,
    /// File whose first line is sent as a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<String>,
    /// Whether requests are held off while it is offloaded or unloaded.
    #[serde(skip_serializing_if = "is_default")]
    pub gated: bool,
}

/// A program that is told what to ask for, and is kept running.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hook {
    /// The program's absolute path, and its arguments.
    pub command: Vec<String>,
    /// What can be asked for, gentlest first.
    pub levels: Vec<Level>,
    /// Whether requests are held off while it is offloaded or unloaded.
    #[serde(skip_serializing_if = "is_default")]
    pub gated: bool,
}

/// When those are poked that listen to `MEMORY_PRESSURE_WATCH`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Watch {
    /// When the workload's turn has come to trim.
    #[default]
    Asked,
    /// Also when the host enters this tier or a worse one.
    Elevated,
    /// See above.
    Constrained,
    /// See above.
    Critical,
    /// See above.
    Emergency,
}

impl Watch {
    /// All values.
    pub const ALL: [Self; 5] =
        [Self::Asked, Self::Elevated, Self::Constrained, Self::Critical, Self::Emergency];

    /// The tier that pokes by itself.
    #[must_use]
    pub const fn tier(self) -> Option<Tier> {
        match self {
            Self::Asked => None,
            Self::Elevated => Some(Tier::Elevated),
            Self::Constrained => Some(Tier::Constrained),
            Self::Critical => Some(Tier::Critical),
            Self::Emergency => Some(Tier::Emergency),
        }
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tier().map_or("asked", Tier::name))
    }
}

impl FromStr for Watch {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|watch| watch.to_string() == text)
            .ok_or_else(|| format!("expected {}", OneOf(&Self::ALL).expected()))
    }
}

const LOCK: Time = Time(Span::millis(100), Span::secs(60));
const LEVELS: OneOf<'static, Level> = OneOf(&Level::ALL);
const FILE: Form = Form(super::daemon::absolute, "an absolute path");
const ARGUMENT: Form = Form(|text| !text.contains('\0'), "a text");
const URL: Form = Form(
    |text| text.starts_with("http://") && text.len() < 2048 && !text.contains(char::is_whitespace),
    "a URL like http://127.0.0.1:8000/memory",
);

pub(super) fn means(section: &mut Section<'_>) -> Means {
    let mut means = Means {
        engine: section.optional("engine", engine),
        signal: section.optional("signal", signals),
        webhook: section.optional("webhook", webhook),
        hook: section.optional("hook", hook),
        cuda_checkpoint: section.optional("cuda_checkpoint", cuda_checkpoint),
        watch: Watch::default(),
    };
    section.set("watch", &mut means.watch, &OneOf(&Watch::ALL));
    means
}

fn webhook(section: &mut Section<'_>) -> Webhook {
    let mut webhook = Webhook { url: section.need("url", &URL).unwrap_or_default(), ..Webhook::default() };
    webhook.levels = levels(section);
    webhook.secret_file = section.get("secret_file", &FILE);
    section.set("gated", &mut webhook.gated, &Flag);
    webhook
}

fn hook(section: &mut Section<'_>) -> Hook {
    let mut hook = Hook { command: command(section), levels: levels(section), gated: false };
    section.set("gated", &mut hook.gated, &Flag);
    hook
}

fn cuda_checkpoint(section: &mut Section<'_>) -> CudaCheckpoint {
    let mut checkpoint = CudaCheckpoint::default();
    section.set("program", &mut checkpoint.program, &FILE);
    section.set("several", &mut checkpoint.several, &Flag);
    section.set("lock", &mut checkpoint.lock, &LOCK);
    checkpoint
}

fn command(section: &mut Section<'_>) -> Vec<String> {
    if !section.has("command") {
        section.need("command", &ARGUMENT);
        return Vec::new();
    }
    let command = section.list("command", &ARGUMENT).unwrap_or_default();
    if section.clean() && command.first().and_then(|path| FILE.read(&Node::Text(path.clone()))).is_none() {
        section.conflict("command", "has to begin with the absolute path of a program".into());
    }
    command
}

/// Levels that can be asked for, gentlest first whatever the order they were written in.
fn levels(section: &mut Section<'_>) -> Vec<Level> {
    if !section.has("levels") {
        section.need("levels", &LEVELS);
        return Vec::new();
    }
    let mut levels = section.list("levels", &LEVELS).unwrap_or_default();
    levels.sort();
    levels.dedup();
    if section.clean() && levels.is_empty() {
        section.conflict("levels", "is empty: then it can't be asked for anything".into());
    }
    levels
}
