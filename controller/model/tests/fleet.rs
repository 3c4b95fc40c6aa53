//! The default policy on a small fleet: what has to hold on every machine. `plimsoll simulate` does the same on a large one.

use plimsoll_model::fleet::{Fleet, Policy};
use plimsoll_model::judge::{Tally, judge};
use plimsoll_model::machine::Habit;
use plimsoll_policy::config::Config;
use plimsoll_policy::pass::Pass;
use plimsoll_policy::sample::Rung;

const MACHINES: u64 = 40;
const MINUTE_MS: u64 = 60_000;

fn policy() -> Policy {
    Policy { name: "default".into(), config: Some(Config::default()) }
}

fn run(fleet: &Fleet, machines: u64, minutes: u64) -> Tally {
    let mut sum = Tally::default();
    for machine in 0..machines {
        sum.add(&judge(fleet, machine, &policy(), minutes * MINUTE_MS, |_, _| (), |_, _| ()));
    }
    sum
}

#[test]
fn a_small_fleet_is_protected() {
    let sum = run(&Fleet::default(), MACHINES, 6);
    assert_eq!((sum.machines, sum.time_us), (MACHINES, MACHINES * 6 * MINUTE_MS * 1000));
    assert_eq!(sum.forbidden, 0, "the protected, and who may not be touched, are never killed");
    assert_eq!(sum.oom_kills, 0, "there was always somebody to take from before the kernel had to");
    assert_eq!(sum.wrong, 0, "nobody is killed in the place of a lower one");
    assert_eq!(sum.findings, 0);
    assert!(sum.kills < MACHINES, "{} kills on {MACHINES} machines", sum.kills);
    assert!(sum.stall_us < sum.served_us / 1000, "the protected wait less than a thousandth of the time");
    assert!(sum.done_us > sum.wanted_us / 2, "and the others still get most of their work done");
}

#[test]
fn the_same_seed_gives_the_same_and_another_one_does_not() {
    let other = Fleet { seed: 2, ..Fleet::default() };
    let (first, again, second) =
        (run(&Fleet::default(), 3, 5), run(&Fleet::default(), 3, 5), run(&other, 3, 5));
    assert_eq!(first, again);
    assert_ne!(first, second);
}

#[test]
fn the_demand_is_the_same_whoever_watches() {
    let fleet = Fleet { memory_gib: (64, 64), ..Fleet::default() };
    let (watched, alone) = (fleet.node(7, &policy()), fleet.node(7, &Policy::kernel()));
    assert_eq!(watched.tenants, alone.tenants);
    assert_eq!(watched.machine.total, alone.machine.total);
}

#[test]
fn everybody_is_free_when_calm_has_returned() {
    for number in 0..MACHINES / 4 {
        let mut node = Fleet::default().node(number, &policy());
        while node.machine.now_ms < 6 * MINUTE_MS {
            node.slice(|_, _| ());
        }
        let machine = &mut node.machine;
        for process in machine.processes.values_mut() {
            process.habit = Habit::Seek { rate: 4096, to: 1 };
            process.model = process.model.min(machine.total / 50);
        }
        let mut last = Pass::default();
        machine.run(15 * MINUTE_MS, |_, pass| last.clone_from(pass));
        let held: Vec<_> = last.plan.workloads.values().filter(|w| w.rung > Rung::Free).collect();
        assert!(held.is_empty(), "machine {number}: {held:?}");
    }
}
