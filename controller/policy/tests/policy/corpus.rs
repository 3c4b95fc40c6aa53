//! Which lives are lived: those of the seeds, those that broke a law once, and as many more as are asked for.

use std::collections::BTreeMap;

use plimsoll_policy::concession::Level;
use plimsoll_policy::plan::ActResult;
use plimsoll_policy::sample::Rung;
use plimsoll_policy::state::State;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config as Settings, RngSeed, TestRunner};

use crate::lives::{Law, Life, Sight, life};
use crate::properties::fixed;

/// Seeds that are tried whatever `PROPTEST_CASES` asks for: those that found something once, and some others.
const SEEDS: &str = include_str!("seeds.txt");
/// Lives for each of them.
const EACH: u32 = 2;

/// Steps that a life that breaks a law is shrunk by, at most.
const SHRINKS: u32 = 200;

/// Lives many lives under a law, and shrinks one that breaks it: those of the seeds, those that `corpus.regressions` has,
/// and as many more as are asked for.
pub(crate) fn holds<L: Law>(cases: u32, law: impl Fn() -> L) {
    let test = |life: Life| {
        life.live(&mut law());
        Ok(())
    };
    let asked = Settings { source_file: Some(file!()), max_shrink_iters: SHRINKS, ..fixed(cases) };
    for settings in corpus(&asked).chain([asked.clone()]) {
        let seed = settings.rng_seed;
        if let Err(broken) = TestRunner::new(settings).run(&life(), test) {
            panic!("{seed:?}: {broken}");
        }
    }
}

/// A few lives for each seed.
fn corpus(like: &Settings) -> impl Iterator<Item = Settings> {
    let seeds = SEEDS.lines().filter(|line| !line.starts_with('#')).map(|line| line.parse().unwrap());
    seeds.map(|seed| Settings {
        rng_seed: RngSeed::Fixed(seed),
        cases: EACH,
        failure_persistence: None,
        ..like.clone()
    })
}

/// What the lives of the seeds have in them.
#[derive(Default)]
struct Census {
    rungs: BTreeMap<Rung, u32>,
    refused: u32,
    withdrawn: u32,
    blind: u32,
    restarts: u32,
    /// What was asked for, and what came of it.
    asked: BTreeMap<Level, u32>,
    conceded: u32,
    declined: u32,
}

impl Law for &mut Census {
    fn look(&mut self, sight: &Sight<'_>) {
        for wanted in sight.pass.plan.workloads.values() {
            *self.rungs.entry(wanted.rung).or_default() += 1;
        }
        for wish in sight.pass.plan.workloads.values().filter_map(|wanted| wanted.wish.as_ref()) {
            *self.asked.entry(wish.level).or_default() += 1;
        }
        let done = sight.sample.conceded.iter().filter(|it| it.result == ActResult::Done).count();
        self.conceded += done as u32;
        self.declined += (sight.sample.conceded.len() - done) as u32;
        let ended =
            |result: &ActResult| sight.sample.outcomes.iter().filter(|o| o.result == *result).count() as u32;
        self.withdrawn += ended(&ActResult::Withdrawn);
        self.refused += ended(&ActResult::Failed("no".into()));
        self.blind += sight.sample.workloads.values().filter(|w| w.current.is_none()).count() as u32;
    }

    fn restarted(&mut self, _: &State) {
        self.restarts += 1;
    }
}

/// Nothing above is true for want of trouble.
#[test]
fn the_seeds_have_every_kind_of_trouble() {
    let mut census = Census::default();
    for settings in corpus(&fixed(EACH)) {
        let mut runner = TestRunner::new(settings);
        for _ in 0..EACH {
            life().new_tree(&mut runner).unwrap().current().live(&mut &mut census);
        }
    }
    let Census { rungs, refused, withdrawn, blind, restarts, asked, conceded, declined } = census;
    assert!(Rung::ALL[1..].iter().all(|rung| rungs.contains_key(rung)), "{rungs:?}");
    // A restore waits for calm, which comes after the trouble.
    assert!(
        [Level::Gc, Level::Aggressive, Level::Unload].iter().all(|it| asked.contains_key(it)),
        "{asked:?}"
    );
    let troubles = [refused, withdrawn, blind, restarts, conceded, declined];
    assert!(troubles.iter().all(|n| *n > 0), "{troubles:?}");
}
