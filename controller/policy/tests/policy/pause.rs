//! What operators hold off: nothing is done, everything is let go, and it ends by itself.

use plimsoll_model::machine::{Habit, Machine};
use plimsoll_policy::admission::{Call, Caller, Reply, Request};
use plimsoll_policy::pass::Pass;
use plimsoll_policy::plan::Wanted;
use plimsoll_policy::sample::{Rung, Trigger, WorkloadId};
use plimsoll_policy::units::Span;

const HOG: Habit = Habit::Grow { rate: 20, from_ms: 500, until: 2000 };

/// A protected service, and two batch jobs that have more than is there for them.
fn machine() -> (Machine, WorkloadId, WorkloadId) {
    let mut machine = Machine::new(1000, 0);
    machine.add("service", 1000, 200, 0, Habit::Idle);
    let low = machine.add("low", -10, 300, 0, HOG);
    let high = machine.add("high", 10, 60, 0, Habit::Grow { rate: 10, from_ms: 500, until: 130 });
    (machine, low, high)
}

/// Runs with one call in the first pass; gives its reply and looks at every pass.
fn told(machine: &mut Machine, call: &Call, ms: u64, mut look: impl FnMut(&Pass)) -> Option<Reply> {
    let mut calls = vec![Request { ticket: 7, caller: Caller::Root, call: call.clone() }];
    let mut reply = None;
    machine.run_with(
        ms,
        |_, sample| sample.requests.append(&mut calls),
        |_, pass| {
            assert_eq!(pass.findings, []);
            reply = reply.take().or_else(|| pass.plan.answers.first().map(|answer| answer.reply.clone()));
            look(pass);
        },
    );
    reply
}

fn is_free(wanted: &Wanted) -> bool {
    (wanted.rung, wanted.high, wanted.low, wanted.frozen, wanted.kill, wanted.reclaim)
        == (Rung::Free, None, None, false, false, None)
}

/// Runs until the low one is braked.
fn brake(machine: &mut Machine, low: &WorkloadId) -> Rung {
    let mut rung = Rung::Free;
    while rung < Rung::Throttle {
        assert!(machine.now_ms < 60_000, "it is never braked");
        machine.run(100, |_, pass| rung = pass.plan.workloads[low].rung);
    }
    rung
}

#[test]
fn a_pause_lets_everything_go_does_nothing_and_ends_by_itself() {
    let (mut machine, low, _) = machine();
    let rung = brake(&mut machine, &low);
    let (mut would, mut passes) = (false, 0);
    let reply = told(&mut machine, &Call::Pause { lasts: Span::secs(3) }, 2900, |pass| {
        assert!(pass.plan.paused.is_some() && !pass.plan.gate.armed());
        assert!(pass.plan.workloads.values().all(is_free), "{:?}", pass.plan.workloads);
        would |= pass.plan.workloads[&low].would.is_some();
        passes += 1;
    });
    let Some(Reply::LetGo { held }) = reply else { panic!("{reply:?}") };
    assert_eq!(held.get(&low), Some(&rung));
    assert!(would && passes > 3, "what would be done is told");
    let (mut paused, mut rungs) = (true, Rung::Free);
    machine.run(3000, |_, pass| {
        paused = pass.plan.paused.is_some();
        rungs = rungs.max(pass.plan.workloads[&low].rung);
    });
    assert!(!paused && rungs >= Rung::Throttle, "it is braked again: {rungs}");
}

#[test]
fn a_pause_is_ended_by_a_word() {
    let (mut machine, low, _) = machine();
    brake(&mut machine, &low);
    told(&mut machine, &Call::Pause { lasts: Span::secs(3600) }, 1000, |_| {});
    let reply = told(&mut machine, &Call::Resume, 1000, |pass| assert_eq!(pass.plan.paused, None));
    assert_eq!(reply, Some(Reply::Resumed { paused: true }));
    let reply = told(&mut machine, &Call::Resume, 100, |_| {});
    assert_eq!(reply, Some(Reply::Resumed { paused: false }));
}

#[test]
fn one_that_is_let_go_is_spared_for_a_while_and_nobody_else() {
    let (mut machine, low, high) = machine();
    let rung = brake(&mut machine, &low);
    let call = Call::LetGo { workload: Some(low.clone()), lasts: Span::secs(3) };
    let mut others = Rung::Free;
    let reply = told(&mut machine, &call, 2900, |pass| {
        let wanted = &pass.plan.workloads[&low];
        assert!(is_free(wanted) && pass.plan.paused.is_none(), "{wanted:?}");
        others = others.max(pass.plan.workloads[&high].rung);
    });
    assert_eq!(reply, Some(Reply::LetGo { held: [(low.clone(), rung)].into() }));
    assert!(others >= Rung::Throttle, "the next one yields in its place: {others}");
    let mut again = Rung::Free;
    machine.run(5000, |_, pass| again = again.max(pass.plan.workloads[&low].rung));
    assert!(again > Rung::Free, "it yields as before");
}

#[test]
fn to_let_all_go_does_not_shorten_a_pause() {
    let (mut machine, ..) = machine();
    told(&mut machine, &Call::Pause { lasts: Span::secs(60) }, 200, |_| {});
    let mut until = None;
    let all = Call::LetGo { workload: None, lasts: Span::secs(1) };
    told(&mut machine, &all, 3000, |pass| until = pass.plan.paused);
    assert!(until.is_some());
}

#[test]
fn only_operators_are_obeyed_and_nobody_at_the_end() {
    let (mut machine, low, _) = machine();
    let check = |machine: &mut Machine, caller: Caller, trigger: Trigger| {
        let mut calls = vec![Request { ticket: 7, caller, call: Call::Pause { lasts: Span::secs(9) } }];
        machine.run_with(
            1,
            |_, sample| {
                sample.trigger = trigger;
                sample.requests.append(&mut calls);
            },
            |_, pass| assert_eq!((pass.plan.paused, pass.plan.answers.len()), (None, 1)),
        );
    };
    check(&mut machine, Caller::Cgroup(low), Trigger::Request);
    check(&mut machine, Caller::Root, Trigger::Shutdown);
}
