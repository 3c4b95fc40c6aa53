//! Decides again what a journal tells. The caller reads the lines and compares.

use crate::config::Config;
use crate::journal::{Head, Line};
use crate::pass::{Pass, step};
use crate::plan::{Assessment, Finding, Plan};
use crate::state::State;

/// A journal's lines decided anew, one after the other.
#[derive(Debug, Default)]
pub struct Replay {
    config: Option<Config>,
    /// Nothing came since the head.
    headed: bool,
    /// Number of the last line, and the state after it.
    last: Option<(Option<u64>, State)>,
}

/// What a line gives today.
#[derive(Clone, Debug, PartialEq)]
pub struct Redone {
    /// What the sample means.
    pub assessment: Assessment,
    /// What is wanted.
    pub plan: Plan,
    /// What lint has to say.
    pub findings: Vec<Finding>,
    /// The state that earlier lines lead to, where a keyframe has another one. It went on from the keyframe's.
    pub strayed: Option<Box<State>>,
}

/// Why a line can't be decided again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Adrift {
    /// The configuration is not known.
    #[error("no head came before it")]
    NoHead,
    /// The state is not known.
    #[error("no keyframe came before it")]
    NoKeyframe,
    /// Lines are missing, and with them the state.
    #[error("the line before it is missing")]
    Gap,
}

impl Replay {
    /// Takes a head: what follows was decided with its configuration.
    pub fn head(&mut self, head: Head) {
        self.config = Some(head.config);
        self.headed = true;
    }

    /// A line could not be read: what follows can't be decided again until the next keyframe.
    pub fn lose(&mut self) {
        self.last = None;
        self.headed = false;
    }

    /// Whether the state before this line is known without a keyframe.
    #[must_use]
    pub fn follows(&self, line: &Line<'_>) -> bool {
        match (&self.last, line.n) {
            (Some((Some(before), _)), Some(n)) => before.checked_add(1) == Some(n),
            (last, None) => self.headed || matches!(last, Some((None, _))),
            _ => false,
        }
    }

    /// Decides a line again.
    ///
    /// # Errors
    /// Where configuration or state are not known; a later head or keyframe mends that.
    pub fn line(&mut self, line: &Line<'_>) -> Result<Redone, Adrift> {
        let config = self.config.as_ref().ok_or(Adrift::NoHead)?;
        let lost = if self.last.is_some() { Adrift::Gap } else { Adrift::NoKeyframe };
        let follows = self.follows(line);
        let start = std::mem::take(&mut self.headed) && line.n.is_none();
        let last = self.last.take().map(|(_, state)| state).filter(|_| !start).unwrap_or_default();
        let mine = follows.then_some(last);
        let (state, strayed) = match (&line.state, mine) {
            (Some(frame), Some(mine)) if **frame != mine => (frame.as_ref().clone(), Some(Box::new(mine))),
            (_, Some(mine)) => (mine, None),
            (Some(frame), None) => (frame.as_ref().clone(), None),
            (None, None) => return Err(lost),
        };
        let Pass { state, assessment, plan, findings } = step(config, state, &line.sample);
        self.last = Some((line.n, state));
        Ok(Redone { assessment, plan, findings, strayed })
    }
}
