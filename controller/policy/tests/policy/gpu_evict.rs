//! Who would be killed for a GPU goes to another node instead, where somebody takes it; otherwise it is killed as ever.

use plimsoll_policy::admission::Call;
use plimsoll_policy::config::DryRun;
use plimsoll_policy::pass::Pass;
use plimsoll_policy::plan::{Act, ActResult, Evidence, Outcome, Wanted};
use plimsoll_policy::sample::{Rung, WorkloadId};
use plimsoll_policy::units::Span;

use crate::gpu::{Node, id};

/// What it has to end in order.
const GRACE: Span = Span::secs(20);

/// A batch job that can be handed over, and a service that matters more and takes the last of the GPU.
fn short() -> Node {
    let mut node = Node::new(&["a"]);
    node.config.kubernetes.enabled = true;
    let batch = &mut node.add("batch", 0).spec;
    (batch.name, batch.evictable) = ("ns/batch/main".into(), Some(GRACE));
    node.add("service", 50);
    node.hold("batch", "a", 12_000);
    node.hold("service", "a", 10_000);
    node.looks(70);
    node.hold("service", "a", 11_700);
    node
}

/// Looks until an eviction is asked for; nobody is killed meanwhile.
fn asked(node: &mut Node) -> (WorkloadId, Wanted) {
    for _ in 0..20 {
        let pass = node.look();
        assert_eq!(killed(&pass), []);
        if let Some((id, wanted)) = pass.plan.workloads.into_iter().find(|(_, wanted)| wanted.evict) {
            return (id, wanted);
        }
    }
    panic!("nobody is evicted");
}

fn killed(pass: &Pass) -> Vec<WorkloadId> {
    let all = pass.plan.workloads.iter().filter(|(_, wanted)| wanted.kill);
    all.map(|(id, _)| id.clone()).collect()
}

/// The API server's answer, and what follows at once.
fn answer(node: &mut Node, result: ActResult) -> Pass {
    let (workload, act, begun) = (id("batch"), Act::Evict, node.sample.at);
    let outcome = Outcome { workload, act, result, begun, took: Span::millis(40), freed: None };
    node.sample.outcomes.push(outcome);
    let pass = node.look();
    node.sample.outcomes.clear();
    pass
}

#[test]
fn who_can_be_handed_over_is_evicted_and_not_killed() {
    let mut node = short();
    let (who, wanted) = asked(&mut node);
    assert_eq!((who, wanted.rung), (id("batch"), Rung::Free));
    let on_gpu = |fact: &Evidence| matches!(fact, Evidence::OnGpu { gpu, .. } if *gpu == "a".into());
    assert!(wanted.action > 0 && wanted.evidence.iter().all(on_gpu), "{wanted:?}");
    answer(&mut node, ActResult::Done);
    // It has its grace and some seconds for the way; nobody dies in its place.
    for _ in 0..2 * 29 {
        let pass = node.look();
        assert!(killed(&pass).is_empty() && pass.plan.workloads[&id("batch")].evict);
    }
    node.sample.workloads.remove(&id("batch"));
    node.hold("service", "a", 11_700);
    let pass = node.looks(10);
    assert!(pass.plan.workloads.values().all(|wanted| !wanted.evict && !wanted.kill));
}

#[test]
fn what_one_that_left_gave_back_is_seen_before_anybody_else_goes() {
    let mut node = short();
    node.add("other", 10);
    node.hold("other", "a", 1500);
    node.hold("service", "a", 10_200);
    asked(&mut node);
    answer(&mut node, ActResult::Done);
    node.looks(5);
    // Its cgroup is gone; the next reading of the GPU is not there yet.
    node.sample.workloads.remove(&id("batch"));
    for _ in 0..3 {
        let pass = node.look();
        assert!(pass.plan.workloads.values().all(|wanted| !wanted.evict && !wanted.kill), "{:?}", pass.plan);
    }
}

#[test]
fn who_is_refused_is_killed_as_ever() {
    let refusals = [
        ActResult::Blocked("the budget allows none".into()),
        ActResult::Failed("the API server is away".into()),
    ];
    for refusal in refusals {
        let mut node = short();
        asked(&mut node);
        assert_eq!(killed(&answer(&mut node, refusal)), [id("batch")]);
    }
}

#[test]
fn who_does_not_go_in_time_is_killed() {
    let mut node = short();
    asked(&mut node);
    answer(&mut node, ActResult::Done);
    let mut lasts = 0;
    while killed(&node.look()).is_empty() {
        lasts += 500;
        assert!(lasts < 60_000);
    }
    assert!((29_000..33_000).contains(&lasts), "grace and the way: {lasts} ms");
}

#[test]
fn an_api_server_that_says_nothing_is_waited_for_for_a_minute() {
    let mut node = short();
    asked(&mut node);
    let mut lasts = 0;
    loop {
        // It goes on to want room, or nobody had to go any more.
        node.ask("service", Call::CudaOutOfMemory { cgroup: id("service"), gpu: Some("a".into()) });
        if !killed(&node.look()).is_empty() {
            break;
        }
        lasts += 500;
        assert!(lasts < 90_000);
    }
    assert!((59_000..61_000).contains(&lasts), "{lasts} ms");
}

#[test]
fn who_can_not_be_handed_over_or_shall_not_be_is_killed_at_once() {
    let dies = |change: fn(&mut Node)| {
        let mut node = short();
        change(&mut node);
        let pass = (0..8).map(|_| node.look()).find(|pass| !killed(pass).is_empty());
        let pass = pass.expect("somebody is killed");
        assert_eq!(killed(&pass), [id("batch")]);
        assert!(!pass.plan.workloads[&id("batch")].evict);
    };
    dies(|node| node.config.kubernetes.enabled = false);
    dies(|node| node.config.kubernetes.evict = false);
    dies(|node| node.add("batch", 0).spec.evictable = None);
}

#[test]
fn a_dry_kill_is_a_dry_eviction() {
    let mut node = short();
    node.config.ladder.dry_run = DryRun::Rungs(vec![Rung::Kill]);
    let pass = node.looks(10);
    let wanted = &pass.plan.workloads[&id("batch")];
    assert!(!wanted.evict && !wanted.kill && wanted.would.as_ref().is_some_and(|would| would.evict));
}
