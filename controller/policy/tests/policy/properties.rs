//! What holds in every world. The seed is fixed, so that a run tells the same everywhere; `PROPTEST_CASES` asks for more.

use std::collections::BTreeMap;

use plimsoll_policy::config::Config;
use plimsoll_policy::pass::{Pass, step};
use plimsoll_policy::plan::Tier;
use plimsoll_policy::sample::Sample;
use plimsoll_policy::state::State;
use plimsoll_policy::units::Span;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use crate::calm::Record;
use crate::worlds::world;

pub(crate) fn fixed(cases: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(cases),
        rng_seed: RngSeed::Fixed(20_261_121),
        failure_persistence: Some(Box::new(proptest::test_runner::FileFailurePersistence::WithSource(
            "regressions",
        ))),
        ..ProptestConfig::default()
    }
}

pub(crate) fn through_json(state: &State) -> State {
    serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap()
}

/// More often than this nobody is braked in ten minutes: four times until it is held off, and then not more than once for
/// each freeze that reached its maximum.
const FLAPS: usize = 9;

proptest! {
    #![proptest_config(fixed(8))]

    /// However the workloads behave: nobody flaps, and the budget of an hour holds except where survival is at stake.
    #[test]
    fn nobody_flaps(world in world()) {
        let mut machine = world.machine();
        let budget = machine.config.ladder.actions_per_hour as usize;
        let mut records: BTreeMap<_, Record> = machine.processes.keys().map(|id| (id.clone(), Record::default())).collect();
        machine.run(900_000, |sample, pass| {
            assert_eq!(pass.findings, []);
            records.iter_mut().for_each(|(id, record)| record.look(id, sample, pass));
        });
        for (id, record) in records {
            let most = record.most_within(Span::secs(600));
            prop_assert!(most <= FLAPS, "{} was braked {} times in ten minutes: {:?}", id, most, record.brakes);
            let voluntary = record.brakes.iter().filter(|(_, tier)| *tier < Tier::Emergency).count();
            prop_assert!(voluntary <= budget, "{}: {:?}", id, record.brakes);
        }
    }
}

proptest! {
    #![proptest_config(fixed(150))]

    /// Whatever is read, a pass ends, and touches nobody that it may not.
    #[test]
    fn no_sample_makes_it_panic(samples in prop::collection::vec(crate::arbitrary::sample(), 1..12)) {
        let config = Config { protect_priority: 100, ..Config::default() };
        let mut state = State::default();
        for sample in &samples {
            let Pass { state: next, plan, .. } = step(&config, state, sample);
            untouched(&config, sample, &plan);
            state = through_json(&next);
        }
    }
}

fn untouched(config: &Config, sample: &Sample, plan: &plimsoll_policy::plan::Plan) {
    for (id, wanted) in &plan.workloads {
        let workload = &sample.workloads[id];
        let bound = workload.spec.priority >= config.protect_priority
            || workload.spec.preference == plimsoll_policy::sample::Preference::Omit;
        assert!(!bound || crate::invariants::spared(workload, wanted));
    }
}
