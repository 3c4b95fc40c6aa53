//! When somebody dies for a GPU, and when nobody does.

use std::collections::BTreeMap;

use plimsoll_policy::admission::{Call, Reserve};
use plimsoll_policy::appetite::Claim;
use plimsoll_policy::concession::{Concession, Gains, Level, Offer, Prospect};
use plimsoll_policy::config::DryRun;
use plimsoll_policy::pass::Pass;
use plimsoll_policy::plan::{ActResult, Evidence, Refusal, Tier};
use plimsoll_policy::sample::{Preference, Rung};
use plimsoll_policy::units::Span;

use crate::gpu::{Node, TOTAL, id, of};

/// Looks for so long; gives who is killed, and for which GPU.
fn killed(node: &mut Node, seconds: u64) -> Vec<(String, String)> {
    let mut killed: Vec<(String, String)> = Vec::new();
    for _ in 0..seconds * 2 {
        let pass = node.look();
        let new = pass.plan.workloads.iter().filter_map(|(id, w)| Some((id, w.killed_for()?)));
        for (id, gpu) in new {
            let name = id.path.rsplit('/').next().unwrap().to_owned();
            if killed.iter().all(|(known, _)| *known != name) {
                killed.push((name, gpu.to_string()));
            }
        }
    }
    killed
}

fn said(killed: &[(String, String)]) -> Vec<(&str, &str)> {
    killed.iter().map(|(name, gpu)| (name.as_str(), gpu.as_str())).collect()
}

/// A batch job with so many MiB and a service that matters more, both on `a`, and calm.
fn with_batch(mib: u64) -> Node {
    let mut node = Node::new(&["a", "b"]);
    node.add("batch", 0);
    node.add("service", 50);
    node.hold("batch", "a", mib);
    node.hold("service", "a", 10_000);
    node.looks(70);
    node
}

fn shared() -> Node {
    with_batch(12_000)
}

#[test]
fn who_matters_less_makes_room_for_who_matters_more() {
    let mut node = shared();
    node.hold("service", "a", 11_700);
    let early = node.looks(2);
    assert_eq!(of(&early, "a").tier, Tier::Emergency);
    assert_eq!(killed(&mut node, 3), [("batch".into(), "a".into())], "not at once, and not for long");
    let wanted = &node.look().plan.workloads[&id("batch")];
    let text: Vec<_> = wanted.evidence.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "on gpu:a: 98.7% used, threshold 98%",
            "on gpu:a: the tier is emergency and 900MiB are wanted",
            "on gpu:a: models/service#753 takes more and more",
            "on gpu:a: gentler rungs would free 0B of the 900MiB needed",
            "on gpu:a: expected to free 11.7GiB",
        ]
    );
}

#[test]
fn levels_alone_kill_nobody() {
    let mut node = Node::new(&["a"]);
    node.add("batch", 0);
    node.add("service", 50);
    node.hold("batch", "a", 12_000);
    node.hold("service", "a", 11_900);
    assert_eq!(said(&killed(&mut node, 200)), []);
}

#[test]
fn nobody_dies_for_one_who_matters_no_more() {
    for above in [0, 50] {
        let mut node = Node::new(&["a"]);
        node.add("old", above);
        node.add("new", 0);
        node.hold("old", "a", 23_700);
        node.hold("new", "a", 1);
        node.looks(70);
        node.ask("new", Call::CudaOutOfMemory { cgroup: id("new"), gpu: Some("a".into()) });
        assert_eq!(said(&killed(&mut node, 50)), [], "{above}");
    }
}

#[test]
fn one_who_takes_it_from_others_dies_first() {
    let mut node = Node::new(&["a"]);
    node.add("calm", 0);
    node.add("greedy", 0);
    node.hold("calm", "a", 14_000);
    node.hold("greedy", "a", 8000);
    node.looks(70);
    node.hold("greedy", "a", 9700);
    assert_eq!(said(&killed(&mut node, 10)), [("greedy", "a")], "of equals the one that grows");
}

#[test]
fn one_that_is_alone_takes_it_from_nobody() {
    let mut node = Node::new(&["a"]);
    node.add("engine", 0);
    node.hold("engine", "a", 20_000);
    node.looks(70);
    node.hold("engine", "a", 23_900);
    assert_eq!(said(&killed(&mut node, 50)), []);
}

#[test]
fn an_allocation_that_failed_or_a_reservation_that_waits_is_a_claim() {
    let claim = |node: &mut Node| {
        assert_eq!(said(&killed(node, 5)), [("batch", "a")]);
        let evidence = node.look().plan.workloads[&id("batch")].evidence.clone();
        evidence.into_iter().find_map(|fact| match fact {
            Evidence::OnGpu { fact, .. } => match *fact {
                Evidence::Claimed { claim, by } => Some((claim, by)),
                _ => None,
            },
            _ => None,
        })
    };
    let mut node = with_batch(13_700);
    node.ask("service", Call::CudaOutOfMemory { cgroup: id("service"), gpu: None });
    assert_eq!(claim(&mut node), Some((Claim::Failed, id("service"))));
    let mut node = with_batch(13_700);
    let gpus = [("a".into(), plimsoll_policy::units::Bytes::mib(4000))].into();
    let wants = Reserve { holder: id("service"), gpus, wait: Span::secs(60), ..Reserve::default() };
    node.ask("service", Call::Reserve(wants));
    assert_eq!(claim(&mut node), Some((Claim::Waits, id("service"))));
}

/// A large block is refused long before the GPU is full. `chat` is protected, and asks again every half second.
fn refused(holder: &str, offer: Option<Offer>, seconds: u64) -> (Vec<Pass>, Node) {
    let mut node = Node::new(&["a"]);
    node.add("batch", 0).offer = offer;
    node.add("batch", 0).spec.rungs = vec![Rung::Trim, Rung::Offload, Rung::Kill];
    node.config.ladder.rungs.push(Rung::Offload);
    node.add("chat", 2000);
    node.add("other", 50);
    node.hold("batch", "a", 8000);
    node.hold("chat", "a", 6000);
    node.hold("other", "a", 10);
    node.looks(70);
    let again = |node: &mut Node| {
        node.ask(holder, Call::CudaOutOfMemory { cgroup: id(holder), gpu: Some("a".into()) });
        node.look()
    };
    ((0..seconds * 2).map(|_| again(&mut node)).collect(), node)
}

#[test]
fn one_of_the_protected_who_is_refused_again_and_again_is_short_of_memory() {
    let (passes, mut node) = refused("chat", None, 10);
    let tiers: Vec<Tier> = passes.iter().map(|pass| of(pass, "a").tier).collect();
    let emergency = tiers.iter().position(|tier| *tier == Tier::Emergency);
    assert_eq!(
        (tiers[0], tiers[1], emergency),
        (Tier::Normal, Tier::Critical, Some(4)),
        "the first says little"
    );
    let dies = passes.iter().position(|pass| pass.plan.workloads[&id("batch")].kill);
    assert_eq!(dies, Some(8), "after two seconds of emergency");
    let text: Vec<_> =
        passes[8].plan.workloads[&id("batch")].evidence.iter().map(ToString::to_string).collect();
    assert_eq!(text[0], "on gpu:a: 9 allocations of models/chat#416 failed within 4.0s");
    // The room is there, and it is not heard of again.
    node.hold("batch", "a", 0);
    assert_eq!(of(&node.look(), "a").tier, Tier::Normal);
}

#[test]
fn who_can_be_asked_makes_room_for_a_large_block() {
    let (passes, _) = refused("chat", offers(&[Level::Offload]), 8);
    let wish = passes[1].plan.workloads[&id("batch")].wish.clone().unwrap();
    assert_eq!(wish.level, Level::Offload);
    assert!(passes.iter().all(|pass| pass.plan.workloads.values().all(|it| !it.kill)));
}

#[test]
fn a_refusal_of_one_who_is_not_protected_is_his_own_affair() {
    let (passes, _) = refused("other", None, 10);
    assert!(passes.iter().all(|pass| of(pass, "a").tier == Tier::Normal && of(pass, "a").contested));
}

#[test]
fn who_got_it_in_the_end_or_asks_no_more_is_short_of_nothing() {
    let (_, mut node) = refused("chat", None, 1);
    node.hold("chat", "a", 6300);
    assert_eq!(of(&node.look(), "a").tier, Tier::Normal, "it grew");
    let (_, mut node) = refused("chat", None, 1);
    assert_eq!(of(&node.looks(9), "a").tier, Tier::Critical);
    assert_eq!(of(&node.looks(1), "a").tier, Tier::Normal);
}

#[test]
fn nobody_dies_in_place_of_one_who_is_not_known() {
    let mut node = shared();
    node.add("other", -10);
    node.sample.workloads.get_mut(&id("other")).unwrap().gpus.insert("a".into(), None);
    node.looks(5);
    node.hold("service", "a", 11_700);
    assert_eq!(said(&killed(&mut node, 20)), []);
    node.gpu("a").used = None;
    node.hold("other", "b", 1);
    node.sample.workloads.get_mut(&id("other")).unwrap().gpus.remove(&"a".into());
    node.gpu("a").used = None;
    assert_eq!(said(&killed(&mut node, 20)), [], "nor by a reading that is not there");
    node.hold("service", "a", 11_700);
    node.ask("service", Call::CudaOutOfMemory { cgroup: id("service"), gpu: Some("a".into()) });
    assert_eq!(said(&killed(&mut node, 5)), [("batch", "a")]);
}

#[test]
fn who_may_not_be_touched_is_not() {
    let mut node = shared();
    node.add("batch", 0).spec.preference = Preference::Omit;
    node.hold("service", "a", 11_700);
    assert_eq!(
        said(&killed(&mut node, 20)),
        [("service", "a")],
        "it is the one that grows, and others suffer"
    );
    let mut node = shared();
    node.add("batch", 0).spec.rungs = vec![Rung::Trim];
    node.hold("service", "a", 11_700);
    node.add("vip", 2000);
    node.ask("vip", Call::CudaOutOfMemory { cgroup: id("vip"), gpu: Some("a".into()) });
    assert_eq!(
        said(&killed(&mut node, 20)),
        [("service", "a")],
        "a batch job that may not be killed holds nobody up"
    );
}

fn offers(levels: &[Level]) -> Option<Offer> {
    let levels: BTreeMap<_, _> = levels.iter().map(|level| (*level, Prospect::default())).collect();
    Some(Offer { levels, ..Offer::default() })
}

#[test]
fn who_can_be_asked_is_asked_first() {
    let mut node = shared();
    node.config.ladder.rungs.push(Rung::Offload);
    node.add("batch", 0).offer = offers(&[Level::Offload]);
    node.add("batch", 0).spec.rungs = vec![Rung::Offload, Rung::Kill];
    node.hold("service", "a", 11_700);
    let pass = node.looks(4);
    let wish = pass.plan.workloads[&id("batch")].wish.clone().unwrap();
    assert_eq!((wish.level, wish.gpus.as_slice()), (Level::Offload, &["a".into()][..]));
    assert!(!pass.plan.workloads[&id("batch")].kill);
    node.sample.conceded.push(Concession {
        workload: id("batch"),
        number: wish.number,
        level: wish.level,
        by: "engine".into(),
        result: ActResult::Failed("busy".into()),
        begun: node.sample.at,
        took: Span::millis(300),
        freed: Gains::default(),
        claimed: None,
    });
    let pass = node.look();
    node.sample.conceded.clear();
    let wanted = &pass.plan.workloads[&id("batch")];
    assert!(wanted.kill, "{wanted:?}");
    assert!(
        wanted
            .refused
            .iter()
            .any(|it| it.rung == Rung::Offload && it.why == Refusal::NotOffered { level: Level::Unload })
    );
}

#[test]
fn one_kill_at_a_time_on_the_whole_node() {
    let mut node = Node::new(&["a", "b"]);
    for (batch, service, gpu) in [("batch-a", "service-a", "a"), ("batch-b", "service-b", "b")] {
        node.add(batch, 0);
        node.add(service, 50);
        node.hold(batch, gpu, 12_000);
        node.hold(service, gpu, 10_000);
    }
    node.looks(70);
    node.hold("service-a", "a", 11_700);
    node.hold("service-b", "b", 11_700);
    assert_eq!(said(&killed(&mut node, 6)), [("batch-a", "a")]);
    let dead = id("batch-a");
    node.sample.workloads.remove(&dead);
    node.hold("service-a", "a", 11_700);
    assert_eq!(said(&killed(&mut node, 2)), [], "what that has freed is to be seen first");
    assert_eq!(said(&killed(&mut node, 3)), [("batch-b", "b")]);
}

#[test]
fn a_workload_on_two_gpus_makes_room_on_both() {
    let mut node = Node::new(&["a", "b"]);
    node.add("big", 0);
    node.add("service", 50);
    for gpu in ["a", "b"] {
        node.hold("big", gpu, 20_000);
        node.hold("service", gpu, 2000);
    }
    node.looks(70);
    for gpu in ["a", "b"] {
        node.hold("service", gpu, 3700);
    }
    assert_eq!(said(&killed(&mut node, 4)), [("big", "a")]);
    node.sample.workloads.remove(&id("big"));
    for gpu in ["a", "b"] {
        node.hold("service", gpu, 3700);
    }
    assert_eq!(said(&killed(&mut node, 30)), []);
    assert_eq!(node.sample.gpus[&"b".into()].used.unwrap().0 * 6, TOTAL.0 / 10 * 9 + (300 << 20) * 2);
}

#[test]
fn a_dry_kill_is_only_told() {
    let mut node = shared();
    node.config.ladder.dry_run = DryRun::Whole(true);
    node.hold("service", "a", 11_700);
    let pass: Pass = node.looks(10);
    let wanted = &pass.plan.workloads[&id("batch")];
    assert_eq!((wanted.rung, wanted.would.as_ref().map(|would| would.rung)), (Rung::Free, Some(Rung::Kill)));
}
