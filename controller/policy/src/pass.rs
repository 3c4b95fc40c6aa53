//! One pass: assess, decide, answer, lint.

use serde::{Deserialize, Serialize};

use crate::admission;
use crate::assess::{self, Assessed};
use crate::config::Config;
use crate::decide::{self, Turn};
use crate::dry;
use crate::lint;
use crate::pause;
use crate::plan::{Assessment, Finding, Plan};
use crate::sample::Sample;
use crate::state::State;

/// What a pass gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// To be handed to the next pass.
    pub state: State,
    /// What the sample means.
    pub assessment: Assessment,
    /// What is wanted. Actions with a fatal finding are not in it.
    pub plan: Plan,
    /// What the lint had to say.
    pub findings: Vec<Finding>,
}

/// Takes one sample from the readings to the plan.
#[must_use]
pub fn step(config: &Config, mut state: State, sample: &Sample) -> Pass {
    let before = lint::Before::of(&state);
    let assessed = assess::assess(config, &mut state, sample);
    let obeyed = pause::obey(&mut state, sample);
    let (config, seen) = (&pause::config(config, &state), pause::sample(sample, &state));
    let sample: &Sample = &seen;
    let talk = dry::talk(config, &state, sample, &assessed, &before);
    let real = dry::without(config);
    let (mut plan, mut findings) = decided(&real, &mut state, sample, &assessed, &before);
    dry::keep(config, talk, &before, &mut state, sample, (&mut plan, &mut findings));
    plan.answers = admission::answer(config, &mut state.admission, sample, &assessed);
    plan.answers.extend(obeyed);
    plan.paused = state.pause.until;
    plan.reservations.clone_from(&state.admission.reservations);
    plan.waiting.clone_from(&state.admission.waiting);
    Pass { state, assessment: assessed.report, plan, findings }
}

/// Decides, and takes what must not be done out of the plan and the state.
pub(crate) fn decided(
    config: &Config,
    state: &mut State,
    sample: &Sample,
    assessed: &Assessed,
    before: &lint::Before,
) -> (Plan, Vec<Finding>) {
    let eased = state.tier.eased;
    let mut plan = decide::decide(&mut Turn::new(config, sample, assessed, state));
    let (tier, gpus) = (assessed.report.tier, &assessed.report.gpus);
    let case = lint::Case { config, before, sample, tier, gpus, eased };
    let findings = lint::lint(case, &plan);
    lint::block(case, &findings, state, &mut plan);
    (plan, findings)
}
