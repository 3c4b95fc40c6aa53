//! How long a pass takes, and what it allocates: `cargo xtask bench`.
//!
//! The cost must grow with the workloads that do something, not with those that are there. Times depend on the machine
//! and on what else runs there, so each is given beside a fixed piece of work timed in the same run.
#![expect(clippy::print_stdout, reason = "a table is what it is for")]

mod crowd;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use crowd::Crowd;

/// Passes before anything is measured: histories are full, rungs are taken.
const WARM_UP: usize = 400;
/// Passes that are timed.
const PASSES: usize = 2000;
/// Passes after which not a byte more may be in use than before.
const LONG: usize = 10_000;

fn main() {
    let reference = reference();
    println!("reference: a BTreeMap of 1000 strings cloned in {:.0} us\n", micros(reference));
    println!("workloads  active  held  us/pass    p99   /reference  allocations  growth");
    for (all, active) in [(1000, 10), (1000, 0), (1000, 100), (100, 10), (10, 10)] {
        row(all, active, reference);
    }
}

fn row(all: usize, active: usize, reference: Duration) {
    let mut crowd = Crowd::new(all, active);
    run(&mut crowd, WARM_UP);
    let mut times = run(&mut crowd, PASSES);
    let held = crowd.most_held();
    times.sort_unstable();
    let (median, late) = (times[PASSES / 2], times[PASSES * 99 / 100]);
    let info = allocation_counter::measure(|| drop(run(&mut crowd, PASSES)));
    let growth = allocation_counter::measure(|| drop(run(&mut crowd, LONG))).bytes_current;
    println!(
        "{all:>9}  {active:>6}  {held:>4}  {:>7.1}  {:>5.0}  {:>10.2}  {:>11.1}  {growth:>4} B",
        micros(median),
        micros(late),
        median.as_secs_f64() / reference.as_secs_f64(),
        info.count_total as f64 / PASSES as f64,
    );
}

/// How long each pass took.
fn run(crowd: &mut Crowd, passes: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(passes);
    for _ in 0..passes {
        let begun = Instant::now();
        let plan = black_box(crowd.pass());
        times.push(begun.elapsed());
        crowd.advance(&plan);
    }
    times
}

/// The median time of something that every machine does: it says how fast this one is right now.
fn reference() -> Duration {
    let map: BTreeMap<String, u64> = (0..1000).map(|n| (format!("{n:0>100}"), n)).collect();
    let mut times: Vec<_> = (0..500)
        .map(|_| {
            let begun = Instant::now();
            black_box(map.clone());
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
