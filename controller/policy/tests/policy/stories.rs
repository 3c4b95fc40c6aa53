//! The stories as a table to look at: `cargo test --test stories -- --nocapture`.

use crate::machine::{Habit, Machine};
use plimsoll_policy::sample::Rung;

fn show(name: &str, m: &mut Machine, ms: u64) {
    println!("== {name}");
    let mut last = String::new();
    let mut n = 0;
    m.run(ms, |s, p| {
        n += 1;
        let mut line = format!("{}", p.assessment.tier);
        for (id, w) in &p.plan.workloads {
            if w.rung > Rung::Free {
                line += &format!(" {}={}", id.path, w.rung);
            }
        }
        if !p.plan.gate.targets.is_empty() {
            line += " gate";
        }
        for f in &p.findings {
            line += &format!(" !{}", f.message);
        }
        if line != last {
            let a = &p.assessment;
            println!(
                "{:>7} ms used {} fc {} stall {} thrash {:?} next {} | {line} | {:?}",
                (s.at.0 / 1_000_000) - 10_000,
                a.used.map_or("-".into(), |u| u.to_string()),
                a.forecast.map_or("-".into(), |u| u.to_string()),
                a.stall.map_or("-".into(), |u| u.to_string()),
                a.thrash_per_second,
                p.plan.next,
                p.plan
                    .workloads
                    .values()
                    .filter(|w| w.rung > Rung::Free)
                    .map(|w| (w.reclaim.map(|b| b.to_string()), w.high.map(|b| b.to_string())))
                    .collect::<Vec<_>>()
            );
            last = line;
        }
    });
    println!(
        "   passes {n} killed {:?} oom {:?} refaults {:?}",
        m.killed,
        m.oom,
        m.processes.values().map(|p| p.refaults / crate::machine::MIB).collect::<Vec<_>>()
    );
}

fn hog(swap: u64) -> Machine {
    let mut m = Machine::new(1000, swap);
    m.add("service", 1000, 80, 240, Habit::Idle);
    m.add("batch", 0, 20, 0, Habit::Grow { rate: 200, from_ms: 2000, until: 900 });
    m
}

fn own(swap: u64) -> Machine {
    let mut m = Machine::new(1000, swap);
    m.add("service", 1000, 80, 240, Habit::Burst { rate: 100, from_ms: 2000, until: 380, drop_ms: 20_000 });
    m.add("batch", 0, 400, 0, Habit::Idle);
    m
}

#[test]
fn stories() {
    show("a noswap", &mut hog(0), 60_000);
    show("a swap", &mut hog(1000), 60_000);
    show("b noswap", &mut own(0), 60_000);
    show("b swap", &mut own(1000), 60_000);
    let mut m = Machine::new(1000, 0);
    m.add("service", 1000, 80, 240, Habit::Idle);
    m.add("scan", 0, 10, 0, Habit::Scan { rate: 300 });
    show("scan", &mut m, 30_000);
    let mut m = Machine::new(1000, 0);
    m.add("service", 1000, 80, 0, Habit::Load { rate: 200, from_ms: 2000, size: 500 });
    m.add("batch", 0, 100, 0, Habit::Idle);
    show("load", &mut m, 30_000);
    let mut m = Machine::new(1000, 0);
    m.add("service", 1000, 80, 240, Habit::Idle);
    m.add("leak", 0, 200, 0, Habit::Grow { rate: 30, from_ms: 1000, until: 900 });
    show("leak noswap", &mut m, 60_000);
    let mut m = Machine::new(1000, 1000);
    m.add("service", 1000, 80, 240, Habit::Idle);
    m.add("leak", 0, 200, 0, Habit::Grow { rate: 30, from_ms: 1000, until: 900 });
    show("leak swap", &mut m, 60_000);
}
