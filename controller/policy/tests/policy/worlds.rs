//! Machines with anything on them.

use plimsoll_policy::sample::{Preference, Qos, Rung, Spec};
use plimsoll_policy::units::Span;
use proptest::prelude::*;

use plimsoll_model::machine::{Giver, Habit, Machine, Manner};
use plimsoll_policy::concession::Level;

/// One workload of a generated machine.
#[derive(Clone, Debug)]
pub(crate) struct Tenant {
    priority: i32,
    preference: Preference,
    rungs: Vec<Rung>,
    anon: u64,
    file: u64,
    habit: Habit,
    giver: Option<Giver>,
}

impl Tenant {
    /// Adds it with no more than `room` MiB.
    pub(crate) fn settle(&self, machine: &mut Machine, name: &str, room: u64) {
        let (anon, file) = (self.anon.min(room / 2), self.file.min(room / 2));
        let id = machine.add(name, self.priority, anon, file, self.habit);
        let process = machine.entry(&id);
        process.giver.clone_from(&self.giver);
        let spec = &mut process.spec;
        spec.preference = self.preference;
        spec.rungs.clone_from(&self.rungs);
    }
}

/// What a pod brings with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pod {
    qos: Qos,
    freeze_max: Option<Span>,
    evictable: Option<Span>,
}

impl Pod {
    /// Makes a workload its container.
    pub(crate) fn put_on(self, spec: &mut Spec) {
        let Self { qos, freeze_max, evictable } = self;
        (spec.qos, spec.freeze_max, spec.evictable) = (qos, freeze_max, evictable);
    }
}

/// A generated machine.
#[derive(Clone, Debug)]
pub(crate) struct World {
    total: u64,
    swap: u64,
    swap_speed: u64,
    tenants: Vec<Tenant>,
}

impl World {
    pub(crate) fn machine(&self) -> Machine {
        let mut machine = Machine::new(self.total, self.swap);
        machine.swap_speed = self.swap_speed << 20;
        // What is there at the start has to fit.
        let room = self.total * 8 / 10 / self.tenants.len() as u64;
        for (n, tenant) in self.tenants.iter().enumerate() {
            tenant.settle(&mut machine, &format!("w{n}"), room);
        }
        machine
    }
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    let swap = prop_oneof![Just(0), Just(0), 100_u64..2000];
    (500_u64..4000, swap, 5_u64..500, prop::collection::vec(tenant(), 1..6))
        .prop_map(|(total, swap, swap_speed, tenants)| World { total, swap, swap_speed, tenants })
}

pub(crate) fn tenant() -> impl Strategy<Value = Tenant> {
    let priority = prop_oneof![Just(-10), Just(0), Just(0), Just(50), Just(100), Just(1000)];
    let preference =
        prop_oneof![6 => Just(Preference::None), 1 => Just(Preference::Avoid), 1 => Just(Preference::Omit)];
    (priority, preference, rungs(), 4_u64..800, 0_u64..600, habit(), prop::option::weighted(0.6, giver()))
        .prop_map(|(priority, preference, rungs, anon, file, habit, giver)| Tenant {
            priority,
            preference,
            rungs,
            anon,
            file,
            habit,
            giver,
        })
}

pub(crate) fn pod() -> impl Strategy<Value = Pod> {
    let qos = prop_oneof![Just(Qos::BestEffort), Just(Qos::Burstable), Just(Qos::Guaranteed)];
    let seconds = |range| prop::option::of(range).prop_map(|s: Option<u64>| s.map(Span::secs));
    (qos, seconds(2_u64..30), seconds(0_u64..40)).prop_map(|(qos, freeze_max, evictable)| Pod {
        qos,
        freeze_max,
        evictable,
    })
}

/// One that can be asked, and keeps its word or not.
fn giver() -> impl Strategy<Value = Giver> {
    let all = vec![Level::Gc, Level::Aggressive, Level::Unload];
    let levels = prop_oneof![Just(all.clone()), prop::sample::subsequence(all, 0..=3)];
    let manner = prop_oneof![
        3 => Just(Manner::Gives),
        1 => Just(Manner::Fails),
        1 => Just(Manner::Lies),
        1 => Just(Manner::Silent),
    ];
    let reload = prop::option::weighted(0.2, 10_u64..5000);
    (levels, 4_u64..800, 1_u64..8000, manner, reload).prop_map(|(levels, mib, takes, manner, reload)| {
        let part = |level| if level < Level::Unload { mib / 10 } else { mib };
        let gives: Vec<_> = levels.into_iter().map(|level| (level, part(level))).collect();
        let mut giver = Giver::new(&gives, takes / 10 * 10);
        (giver.manner, giver.reload_ms) = (manner, reload.map(|ms| ms / 10 * 10));
        giver
    })
}

fn rungs() -> impl Strategy<Value = Vec<Rung>> {
    let all = vec![Rung::Trim, Rung::Throttle, Rung::Offload, Rung::Freeze, Rung::Kill];
    prop_oneof![3 => Just(all.clone()), 1 => prop::sample::subsequence(all, 0..=5)]
}

fn habit() -> impl Strategy<Value = Habit> {
    let grow = (1_u64..1500, 0_u64..10_000, 50_u64..3000);
    prop_oneof![
        2 => Just(Habit::Idle),
        3 => grow.clone().prop_map(|(rate, from_ms, until)| Habit::Grow { rate, from_ms, until }),
        2 => grow.clone().prop_map(|(rate, from_ms, until)| {
            Habit::Burst { rate, from_ms, until, drop_ms: from_ms + 6000 }
        }),
        1 => (10_u64..2000).prop_map(|rate| Habit::Scan { rate }),
        1 => (50_u64..1500, 50_u64..3000, 1000_u64..20_000).prop_map(|(rate, until, every_ms)| {
            // The machine moves in steps.
            Habit::Saw { rate, until, every_ms: every_ms / 10 * 10 }
        }),
        1 => grow.prop_map(|(rate, from_ms, size)| Habit::Load { rate, from_ms, size }),
    ]
}
