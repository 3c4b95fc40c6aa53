//! What another policy would have decided on the same samples. They are of a world in which the first policy acted.

use std::path::PathBuf;

use plimsoll_policy::config::{Config, Rule};
use plimsoll_policy::journal::{Entry, Line};
use plimsoll_policy::pass::{Pass, step};
use plimsoll_policy::replay::Replay;
use plimsoll_policy::sample::{Sample, Spec};
use plimsoll_policy::state::State;
use plimsoll_policy::units::{Monotonic, Span};
use serde::Serialize;

use super::course::Course;
use super::read::{Journal, Read, ReadError};
use crate::config::{LoadError, resolve};

/// Two courses of one journal.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Passes that were compared.
    pub passes: u64,
    /// From the first to the last of them.
    pub span: Span,
    /// What was decided.
    pub recorded: Course,
    /// What the other policy would have decided; `None` without one.
    pub other: Option<Course>,
}

/// A configuration to compare with, as its file has it.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What errors call it.
    pub path: PathBuf,
    /// Not yet resolved for the size of a host: that is the host of the journal.
    pub config: Config,
}

/// Why nothing can be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// The journal can't be read.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// The other configuration contradicts itself on a host of that size.
    #[error(transparent)]
    Policy(#[from] LoadError),
}

/// The other policy with its own state.
struct Other {
    policy: Policy,
    /// As it is on the host of the journal, once its size is known.
    config: Option<Config>,
    state: Option<State>,
    course: Course,
}

/// Follows a journal, and what another policy makes of its samples.
///
/// # Errors
/// When a file can't be read, or the other policy is wrong on that host. What is damaged is passed over: a replay without another policy names it.
pub fn compare(
    journal: &mut Journal,
    other: Option<Policy>,
    mut progress: impl FnMut(&Journal),
) -> Result<Comparison, CompareError> {
    let (mut again, mut recorded) = (Replay::default(), Course::default());
    let mut other =
        other.map(|policy| Other { policy, config: None, state: None, course: Course::default() });
    let (mut passes, mut begun, mut last) = (0, None, None);
    while let Some(next) = journal.next() {
        let line = match next?.1 {
            Read::Whole(Entry::Line(line)) | Read::Salvaged(Entry::Line(line), _) => line,
            Read::Whole(Entry::Head(head)) | Read::Salvaged(Entry::Head(head), _) => {
                again.head(*head);
                continue;
            }
            Read::Damaged(_) => continue,
        };
        progress(journal);
        let follows = follows(last, line.n);
        last = Some(line.n);
        // A scenario says what was decided only where something changed.
        let redone = again.line(&line).ok();
        let seen = line.assessment.as_deref().or(redone.as_ref().map(|it| &it.assessment));
        let plan = line.plan.as_deref().or(redone.as_ref().map(|it| &it.plan));
        let Some((seen, plan)) = seen.zip(plan) else { continue };
        let at = line.sample.at;
        begun.get_or_insert(at);
        passes += 1;
        recorded.pass(at, follows, seen, plan);
        if let Some(other) = &mut other {
            other.pass(&line, follows)?;
        }
    }
    let end = recorded.last.as_ref().map_or(Monotonic(0), |last| last.at);
    let span = begun.map_or(Span::ZERO, |begun| end.since(begun));
    Ok(Comparison { passes, span, recorded, other: other.map(|other| other.course) })
}

fn follows(last: Option<Option<u64>>, n: Option<u64>) -> bool {
    match (last, n) {
        (Some(Some(last)), Some(n)) => last.checked_add(1) == Some(n),
        (Some(None), None) => true,
        _ => false,
    }
}

impl Other {
    /// A daemon that begins does so with what it remembers; after that the state is this policy's own.
    fn pass(&mut self, line: &Line<'_>, follows: bool) -> Result<(), LoadError> {
        if let (None, Some(meminfo)) = (&self.config, line.sample.host.meminfo) {
            self.config = Some(resolve(&self.policy.path, self.policy.config.clone(), meminfo.total)?);
        }
        let Some(config) = &self.config else { return Ok(()) };
        let begins = line.n == Some(1) || self.state.is_none();
        let recorded = || line.state.as_deref().cloned().unwrap_or_default();
        let state = if begins { recorded() } else { self.state.take().unwrap_or_default() };
        let sample = respecified(config, &line.sample);
        let Pass { state, assessment, plan, .. } = step(config, state, &sample);
        self.course.pass(sample.at, follows, &assessment, &plan);
        self.state = Some(state);
        Ok(())
    }
}

/// The sample with what this policy's rules say of its workloads, which are known here by their names only.
fn respecified(config: &Config, sample: &Sample) -> Sample {
    let mut sample = sample.clone();
    for workload in sample.workloads.values_mut() {
        let named = |rule: &&Rule| {
            let name = workload.spec.name.strip_prefix(rule.name.as_str());
            !rule.name.is_empty() && name.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if let Some(rule) = config.workloads.iter().find(named) {
            workload.spec = Spec {
                name: workload.spec.name.clone(),
                priority: rule.priority,
                preference: rule.preference,
                rungs: rule.rungs.clone().unwrap_or_else(|| config.ladder.rungs.clone()),
                restart_cost_ms: rule.restart_cost.0 / 1_000_000,
                ..workload.spec.clone()
            };
        }
    }
    sample
}

#[cfg(test)]
mod tests;
