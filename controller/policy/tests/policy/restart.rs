//! What is killed is started again within seconds: it comes up on a leash, and nobody has died in vain.

use plimsoll_model::machine::{Habit, Machine};
use plimsoll_policy::plan::{Evidence, Tier};
use plimsoll_policy::sample::{Rung, WorkloadId};
use plimsoll_policy::units::Span;

/// A container with the name of the one before, in a cgroup of its own.
fn start(machine: &mut Machine, path: &str, habit: Habit) -> WorkloadId {
    let id = machine.add(path, 0, 60, 0, habit);
    let spec = &mut machine.entry(&id).spec;
    (spec.name, spec.by_name) = ("ns/pod/main".into(), true);
    id
}

/// A job that grows faster than anything but a kill could stop, beside a service that needs the memory, again and again.
fn storm(by_name: bool) -> (Machine, Vec<(u64, WorkloadId)>, Vec<WorkloadId>) {
    let mut machine = Machine::new(1000, 0);
    machine.add("service", 1000, 300, 0, Habit::Grow { rate: 30, from_ms: 1000, until: 420 });
    let (mut kills, mut leashed, mut starts) = (vec![], vec![], 0);
    for _ in 0..40 {
        let alive = machine.processes.iter().any(|(id, p)| !p.dead && id.path.contains("run"));
        if !alive {
            machine.processes.retain(|id, _| !id.path.contains("run"));
            let from_ms = machine.now_ms;
            let id =
                start(&mut machine, &format!("run{starts}"), Habit::Grow { rate: 300, from_ms, until: 600 });
            let spec = &mut machine.entry(&id).spec;
            (spec.rungs, spec.by_name) = (vec![Rung::Trim, Rung::Throttle, Rung::Kill], by_name);
            starts += 1;
        }
        machine.run(3000, |sample, pass| {
            assert_eq!(pass.findings, []);
            for (id, wanted) in &pass.plan.workloads {
                if wanted.kill && kills.iter().all(|(_, known)| known != id) {
                    kills.push((sample.at.0 / 1_000_000_000 - 10, id.clone()));
                }
                let again = wanted.evidence.iter().any(|fact| matches!(fact, Evidence::Restarted { .. }));
                if again && wanted.leash && !leashed.contains(id) {
                    assert_ne!(pass.assessment.tier, Tier::Normal);
                    let until = sample.at + Span::secs(25);
                    assert!(wanted.held_off.is_some_and(|held_off| held_off > until));
                    leashed.push(id.clone());
                }
            }
        });
    }
    (machine, kills, leashed)
}

#[test]
fn the_next_one_of_the_same_name_begins_on_a_leash() {
    let (machine, kills, leashed) = storm(true);
    assert!(!kills.is_empty() && !leashed.is_empty(), "{kills:?} {leashed:?}");
    // All but the first, which nobody knew.
    assert!(kills.iter().skip(1).all(|(_, id)| leashed.contains(id)), "{kills:?} {leashed:?}");
    let (other, others, leashed) = storm(false);
    let deaths = [kills.len() + machine.oom.len(), others.len() + other.oom.len()];
    assert!(deaths[0] * 3 <= deaths[1], "it dies far less often than without the leash: {deaths:?}");
    assert!(leashed.is_empty(), "another path without a name is another workload: {leashed:?}");
}
