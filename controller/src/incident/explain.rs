//! One action told from its journal: why it was taken, what was expected of it and measured, and what followed.

use std::collections::BTreeMap;

use plimsoll_policy::concession::{Concession, Gains, Level};
use plimsoll_policy::journal::{Entry, Line};
use plimsoll_policy::plan::{Act, ActResult, Outcome};
use plimsoll_policy::sample::Rung;
use plimsoll_policy::units::{Bytes, Monotonic, Span};
use serde::Serialize;

use super::actions::{Action, Actions, Kind};
use super::read::{Journal, Place, Read, ReadError};
use super::wall::Wall;
use crate::report::result;

/// An action and everything that belongs to it, for programs and for [`super::say::story`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Story {
    /// Number of the action.
    pub action: u64,
    /// Name of the workload.
    pub workload: String,
    /// Its cgroup, below the root.
    pub cgroup: String,
    /// The rung before, where the journal reaches back that far.
    pub from: Option<Rung>,
    /// The rung that it was put on.
    pub rung: Rung,
    /// `planned`; `gate` where the kernel stopped it and the plan took that over; `dry` where nothing was done.
    pub kind: &'static str,
    /// When, as people call it.
    pub time: String,
    /// Line of the journal.
    pub place: Place,
    /// The host at that moment, in words.
    pub host: String,
    /// Evidence, in words.
    pub evidence: Vec<String>,
    /// What it was to bring, in words.
    pub expected: Option<String>,
    /// What was not done instead and why not, in words.
    pub refused: Vec<String>,
    /// What was measured, by act.
    pub measured: BTreeMap<&'static str, Measured>,
    /// What followed, until the workload was free again or the journal ended.
    pub followed: Vec<Followed>,
    /// Other actions with this number, in runs of the daemon before that one.
    pub earlier: u64,
    #[serde(skip)]
    window: Window,
}

/// What acts of one kind achieved together.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measured {
    /// How many ended.
    pub times: u64,
    /// Of how they ended.
    pub results: BTreeMap<String, u64>,
    /// What they freed; `None` where freeing is not their purpose.
    pub freed: Option<Bytes>,
    /// What a workload gave when it was asked; `None` where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gave: Option<Gains>,
    /// What it said itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Gains>,
    /// From the beginning of the first to the end of the last.
    pub within: Span,
}

/// A later rung of the same workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Followed {
    /// Number of that action.
    pub action: u64,
    /// When, as people call it.
    pub time: String,
    /// Since the action that is explained.
    pub after: Span,
    /// The rung.
    pub rung: Rung,
    /// Why, in words.
    pub evidence: Vec<String>,
}

/// Outcomes that were begun in it are of this action.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Window {
    at: Monotonic,
    from: Monotonic,
    to: Option<Monotonic>,
    /// The workload is free again: nothing more belongs to it.
    over: bool,
}

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// No such action.
    #[error("no action {id} in the journal, which has {}", known(*.has))]
    Unknown {
        /// What was asked for.
        id: u64,
        /// The first and the last that are there.
        has: Option<(u64, u64)>,
    },
    /// A file can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

fn known(has: Option<(u64, u64)>) -> String {
    has.map_or_else(|| "none at all".into(), |(first, last)| format!("actions {first} to {last}"))
}

/// Looks for an action; of several with one number it tells the last.
///
/// # Errors
/// When there is none, or a file can't be read.
pub fn explain(journal: Journal, id: u64) -> Result<Story, ExplainError> {
    let (mut actions, mut wall) = (Actions::default(), Wall::default());
    let mut story: Option<Story> = None;
    let mut has: Option<(u64, u64)> = None;
    let mut former = Monotonic::default();
    for next in journal {
        let (place, read) = next?;
        let line = match read {
            Read::Whole(Entry::Line(line)) | Read::Salvaged(Entry::Line(line), _) => line,
            Read::Whole(Entry::Head(head)) | Read::Salvaged(Entry::Head(head), _) => {
                wall.head(&head);
                continue;
            }
            Read::Damaged(_) => continue,
        };
        let taken = actions.line(&line);
        for action in &taken {
            has = Some(has.map_or((action.id, action.id), |(a, b)| (a.min(action.id), b.max(action.id))));
            if action.id == id {
                let earlier = story.as_ref().map_or(0, |story| story.earlier + 1);
                story = Some(Story { earlier, ..begin(action, &line, place.clone(), wall, former) });
            } else if let Some(story) = &mut story {
                story.follow(action, wall);
            }
        }
        if let Some(story) = &mut story {
            line.sample.outcomes.iter().for_each(|outcome| story.measure(outcome));
            line.sample.conceded.iter().for_each(|concession| story.hear(concession));
        }
        former = line.sample.at;
    }
    story.ok_or(ExplainError::Unknown { id, has })
}

fn begin(action: &Action, line: &Line<'_>, place: Place, wall: Wall, former: Monotonic) -> Story {
    // What the gate did was begun before the pass that took it over.
    let from = if action.kind == Kind::Gate { former } else { action.at };
    Story {
        action: action.id,
        workload: action.name.clone(),
        cgroup: action.workload.to_string(),
        from: action.from,
        rung: action.to,
        kind: match action.kind {
            Kind::Planned => "planned",
            Kind::Gate => "gate",
            Kind::Dry => "dry",
        },
        time: wall.say(action.at),
        place,
        host: host(line),
        evidence: words(action),
        expected: action.expected.map(|it| it.to_string()),
        refused: action.refused.iter().map(|it| it.at(action.at).to_string()).collect(),
        measured: BTreeMap::new(),
        followed: Vec::new(),
        earlier: 0,
        window: Window { at: action.at, from, to: None, over: action.kind == Kind::Dry },
    }
}

fn words(action: &Action) -> Vec<String> {
    action.evidence.iter().map(|it| it.at(action.at).to_string()).collect()
}

/// The resource in one line, as the pass saw it.
fn host(line: &Line<'_>) -> String {
    let Some(seen) = &line.assessment else { return "not known".into() };
    let mut said = seen.tier.to_string();
    if let Some(because) = &seen.because {
        said += &format!(": {}", because.at(line.sample.at));
    }
    if let Some(used) = seen.used {
        said += &format!("; {used} used");
    }
    if let Some(headroom) = seen.headroom {
        said += &format!(", {headroom} until exhaustion");
    }
    said
}

impl Story {
    fn follow(&mut self, action: &Action, wall: Wall) {
        if self.window.over || action.workload.to_string() != self.cgroup || action.kind == Kind::Dry {
            return;
        }
        self.window.to.get_or_insert(action.at);
        self.window.over = action.to == Rung::Free;
        self.followed.push(Followed {
            action: action.id,
            time: wall.say(action.at),
            after: action.at.since(self.window.at),
            rung: action.to,
            evidence: words(action),
        });
    }

    /// An asking has the number of the action that it was.
    fn hear(&mut self, concession: &Concession) {
        if self.kind == "dry" || concession.number != self.action {
            return;
        }
        let what = if concession.level == Level::Nothing { "restore" } else { concession.level.name() };
        let measured = self.measured.entry(what).or_default();
        measured.times += 1;
        *measured.results.entry(format!("{} by {}", said(&concession.result), concession.by)).or_default() +=
            1;
        measured.gave = Some(concession.freed.clone());
        measured.claimed.clone_from(&concession.claimed);
        measured.within = (concession.begun + concession.took).since(self.window.at);
    }

    fn measure(&mut self, outcome: &Outcome) {
        let Window { from, to, .. } = self.window;
        let ours = outcome.begun >= from && to.is_none_or(|to| outcome.begun < to);
        if self.kind == "dry" || !ours || outcome.workload.to_string() != self.cgroup {
            return;
        }
        let measured = self.measured.entry(outcome.act.name()).or_default();
        measured.times += 1;
        *measured.results.entry(said(&outcome.result)).or_default() += 1;
        if matches!(outcome.act, Act::Reclaim(_) | Act::Kill) {
            measured.freed = Some(measured.freed.unwrap_or_default() + outcome.freed.unwrap_or_default());
        }
        measured.within = (outcome.begun + outcome.took).since(self.window.from);
    }
}

fn said(ended: &ActResult) -> String {
    match ended {
        ActResult::Failed(why) => format!("failed: {why}"),
        other => result(other).into(),
    }
}

#[cfg(test)]
mod tests;
