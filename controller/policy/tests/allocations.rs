//! What a pass allocates: with a thousand workloads as with ten, and never more as time goes on. Time is for the benchmark.

#[path = "../benches/pass/crowd.rs"]
mod crowd;

use crowd::Crowd;

/// Histories are full and rungs taken.
const WARM_UP: usize = 300;
const PASSES: usize = 300;

/// Blocks allocated per pass, and bytes in use that came on top.
fn measure(all: usize, active: usize) -> (u64, i64) {
    let mut crowd = Crowd::new(all, active);
    run(&mut crowd, WARM_UP);
    assert_eq!(crowd.most_held() > 0, active > 0, "the active ones are to be braked");
    let info = allocation_counter::measure(|| run(&mut crowd, PASSES));
    (info.count_total / PASSES as u64, info.bytes_current)
}

fn run(crowd: &mut Crowd, passes: usize) {
    for _ in 0..passes {
        let plan = crowd.pass();
        crowd.advance(&plan);
    }
}

#[test]
fn nothing_is_allocated_for_those_who_stand_still() {
    let (few, _) = measure(10, 0);
    let (many, _) = measure(1000, 0);
    assert!(many <= few + 2, "{few} blocks a pass for 10 workloads, {many} for 1000");
}

#[test]
fn memory_does_not_grow_with_the_passes() {
    let (blocks, growth) = measure(200, 10);
    // Evidence and points of a history come and go with the rungs; a leak of a byte per pass and workload would be 60 kB.
    assert!(growth.abs() < 4096, "{growth} bytes more after {PASSES} passes");
    assert!(blocks < 2000, "{blocks} blocks a pass");
}
