//! The model itself: memory is conserved in every world (`Machine` asserts it in each tick), and skipping changes nothing.

use plimsoll_model::machine::{Habit, Hardware, Machine, Process, Swap};
use plimsoll_policy::pass::Pass;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Total, swap, and tenants with priority, anon, file, hot, locked share and habit.
type World = (u64, u64, Hardware, Vec<(i32, u64, u64, u64, u64, Habit)>);

fn machine((total, swap, hardware, tenants): &World) -> Machine {
    let mut machine = Machine::new(*total, *swap);
    machine.hardware = hardware.clone();
    let room = total * 7 / 10 / tenants.len() as u64;
    for (n, (priority, anon, file, hot, locked, habit)) in tenants.iter().enumerate() {
        let id = machine.add(&format!("w{n}"), *priority, anon % (room / 2), file % (room / 2), *habit);
        let process = machine.entry(&id);
        process.hot = *hot;
        process.locked = process.anon / 100 * locked;
    }
    machine
}

fn hardware() -> impl Strategy<Value = Hardware> {
    prop_oneof![
        Just(Hardware::plain()),
        Just(Hardware::server()),
        (10_u64..90).prop_map(|percent| Hardware {
            swap: Swap::Zram { percent },
            gap_every: 37,
            ..Hardware::server()
        }),
    ]
}

fn habit() -> impl Strategy<Value = Habit> {
    let grow = (1_u64..1500, 0_u64..10_000, 50_u64..3000);
    prop_oneof![
        2 => Just(Habit::Idle),
        3 => grow.clone().prop_map(|(rate, from_ms, until)| Habit::Grow { rate, from_ms, until }),
        2 => grow.clone().prop_map(|(rate, from_ms, until)| {
            Habit::Burst { rate, from_ms, until, drop_ms: from_ms + 6000 }
        }),
        2 => grow.clone().prop_map(|(rate, every, until)| Habit::Saw { rate, until, every_ms: every / 10 * 10 + 500 }),
        2 => (1_u64..900, 10_u64..2000).prop_map(|(rate, to)| Habit::Seek { rate, to }),
        1 => (10_u64..2000).prop_map(|rate| Habit::Scan { rate }),
        1 => grow.prop_map(|(rate, from_ms, size)| Habit::Load { rate, from_ms, size }),
    ]
}

fn world() -> impl Strategy<Value = World> {
    let swap = prop_oneof![Just(0), 100_u64..2000];
    let priority = prop_oneof![Just(0), Just(50), Just(1000)];
    let tenant = (priority, 4_u64..800, 0_u64..600, 0_u64..100, 0_u64..100, habit());
    (1000_u64..8000, swap, hardware(), prop::collection::vec(tenant, 1..6))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        rng_seed: RngSeed::Fixed(20_261_122),
        ..ProptestConfig::default()
    })]

    /// Every pass, and the machine at the end, are the same to the byte; with and without a policy.
    #[test]
    fn skipping_ahead_changes_nothing(world in world(), watched in any::<bool>()) {
        let mut quick = machine(&world);
        quick.watched = watched;
        let mut slow = quick.clone();
        slow.skips = false;
        let mut passes: Vec<Pass> = Vec::new();
        quick.run(30_000, |_, pass| passes.push(pass.clone()));
        let mut passes = passes.into_iter();
        slow.run(30_000, |_, pass| assert_eq!(Some(pass), passes.next().as_ref()));
        quick.skips = false;
        prop_assert_eq!(quick, slow);
    }
}

#[test]
fn the_kernel_kills_by_badness_where_nobody_watches() {
    let mut machine = Machine::new(2000, 0);
    (machine.watched, machine.hardware) = (false, Hardware::server());
    let large = machine.add("service", 1000, 900, 200, Habit::Idle);
    machine.add("batch", 0, 20, 0, Habit::Grow { rate: 400, from_ms: 0, until: 4000 });
    machine.entry(&large).oom_score_adj = -500;
    machine.run(20_000, |_, _| ());
    assert_eq!(machine.oom, ["batch"]);
}

#[test]
fn what_is_in_zram_takes_ram() {
    let mut machine = Machine::new(2000, 2000);
    machine.watched = false;
    machine.hardware = Hardware { swap: Swap::Zram { percent: 50 }, ..Hardware::server() };
    let id = machine.add("idle", 0, 1000, 0, Habit::Idle);
    machine.add("grows", 0, 100, 0, Habit::Grow { rate: 300, from_ms: 0, until: 1300 });
    machine.run(20_000, |_, _| ());
    let swapped = machine.entry(&id).swap;
    assert!(swapped > 0 && machine.oom.is_empty());
    let resident: u64 = machine.processes.values().map(Process::resident).sum();
    let swap: u64 = machine.processes.values().map(|p| p.swap).sum();
    assert!(machine.free() + resident + machine.system + swap / 2 >= machine.total);
}
