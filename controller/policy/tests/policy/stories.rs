//! The worlds that the scenario files were recorded in.

use plimsoll_policy::concession::Level;
use plimsoll_policy::pass::Pass;
use plimsoll_policy::sample::{Rung, Sample, WorkloadId};
use plimsoll_policy::units::Span;

use plimsoll_model::machine::{Giver, Habit, MIB, Machine, Manner};

/// Every sample of a story, with the machine at its end.
pub(crate) struct Story {
    pub(crate) machine: Machine,
    pub(crate) samples: Vec<Sample>,
}

impl Story {
    fn new(mut machine: Machine) -> Self {
        // A file that people read need not have twenty samples for every second.
        machine.config.pace.busy = Span::millis(100);
        Self { machine, samples: Vec::new() }
    }

    fn run(mut self, ms: u64) -> Self {
        let samples = &mut self.samples;
        self.machine.run(ms, |sample: &Sample, _: &Pass| samples.push(sample.clone()));
        self
    }

    fn then(mut self, change: impl FnOnce(&mut Machine)) -> Self {
        change(&mut self.machine);
        self
    }
}

/// A service with a model of 240 MiB, and somebody who matters less.
fn with(swap: u64, name: &str, anon: u64, habit: Habit) -> (Machine, WorkloadId) {
    let mut machine = Machine::new(1000, swap);
    machine.add("service", 1000, 80, 240, Habit::Idle);
    let id = machine.add(name, 0, anon, 0, habit);
    (machine, id)
}

const HOG: Habit = Habit::Grow { rate: 200, from_ms: 1000, until: 900 };

/// The hog grows fast, and would fill the machine.
pub(crate) fn story_a(swap: u64) -> Story {
    Story::new(with(swap, "batch", 20, HOG).0).run(20_000)
}

/// The service itself grows, while somebody sits idle on a lot.
/// As long as swap takes what is needed nobody dies for it.
pub(crate) fn story_b(swap: u64, swap_speed: u64) -> Story {
    let mut machine = Machine::new(1000, swap);
    machine.swap_speed = swap_speed * MIB;
    let burst = Habit::Burst { rate: 100, from_ms: 1000, until: 380, drop_ms: 9000 };
    machine.add("service", 1000, 80, 240, burst);
    machine.add("batch", 0, 400, 0, Habit::Idle);
    Story::new(machine).run(if swap > 0 { 24_000 } else { 10_000 })
}

/// Somebody reads a file that is larger than the memory. There is plenty: it is all cache.
pub(crate) fn page_cache_scanner() -> Story {
    Story::new(with(0, "scanner", 10, Habit::Scan { rate: 300 }).0).run(10_000)
}

/// A job that fills the machine again and again: it is held longer each time.
pub(crate) fn flap_guard() -> Story {
    let saw = Habit::Saw { rate: 300, until: 700, every_ms: 4000 };
    Story::new(with(0, "job", 20, saw).0).run(60_000)
}

/// One that may only be throttled, without swap: it is let go within a second, not tormented.
pub(crate) fn throttle_futile() -> Story {
    let (mut machine, id) = with(0, "batch", 20, HOG);
    machine.entry(&id).spec.rungs = vec![Rung::Trim, Rung::Throttle];
    Story::new(machine).run(4000)
}

/// Nothing can be read for two seconds in the middle of it.
pub(crate) fn gap_everywhere() -> Story {
    let (mut machine, _) = with(0, "batch", 20, HOG);
    machine.gap = 2000..4000;
    Story::new(machine).run(8000)
}

/// A cgroup is made anew under the same path, while its predecessor is still going.
pub(crate) fn two_inodes_same_path() -> Story {
    let (machine, old) = with(0, "batch", 300, Habit::Idle);
    let twin = WorkloadId { path: old.path.clone(), inode: 900 };
    let (gone, new) = (old.clone(), twin.clone());
    Story::new(machine)
        .run(2000)
        .then(|m| {
            let mut process = m.processes[&old].clone();
            (process.anon, process.habit) = (0, Habit::Grow { rate: 30, from_ms: 0, until: 200 });
            m.processes.insert(new, process);
        })
        .run(2000)
        .then(|m| drop(m.processes.remove(&gone)))
        .run(2000)
}

/// A protected service loads its model: faults without end, and no thrash.
pub(crate) fn protected_model_load() -> Story {
    let mut machine = Machine::new(1000, 0);
    machine.add("service", 1000, 80, 0, Habit::Load { rate: 200, from_ms: 1000, size: 500 });
    machine.add("batch", 0, 100, 0, Habit::Idle);
    Story::new(machine).run(6000)
}

/// A slow leak, with swap.
pub(crate) fn leak_swap() -> Story {
    let leak = Habit::Grow { rate: 60, from_ms: 1000, until: 900 };
    Story::new(with(600, "leak", 200, leak).0).run(25_000)
}

/// Two of unequal priority: the lower one is killed, the higher one left alone.
pub(crate) fn lower_one_first() -> Story {
    let mut machine = Machine::new(1000, 0);
    let burst = Habit::Burst { rate: 150, from_ms: 1000, until: 300, drop_ms: 8000 };
    machine.add("service", 1000, 80, 200, burst);
    machine.add("batch", 10, 250, 0, Habit::Idle);
    machine.add("scratch", 0, 200, 0, Habit::Idle);
    Story::new(machine).run(10_000)
}

/// A model server is asked to trim and to unload while a batch job that matters more bursts, and is restored afterwards.
pub(crate) fn asked_and_restored() -> Story {
    let mut machine = Machine::new(2000, 0);
    machine.add("service", 1000, 80, 100, Habit::Idle);
    let burst = Habit::Burst { rate: 60, from_ms: 1000, until: 1000, drop_ms: 24_000 };
    machine.add("batch", 50, 80, 0, burst);
    let embed = machine.add("embed", 0, 700, 0, Habit::Idle);
    let gives = [(Level::Gc, 20), (Level::Aggressive, 60), (Level::Unload, 600)];
    machine.entry(&embed).giver = Some(Giver::new(&gives, 1000));
    Story::new(machine).run(45_000)
}

/// The same server says that it has unloaded, and has not.
pub(crate) fn asked_in_vain() -> Story {
    let mut machine = Machine::new(2000, 0);
    machine.add("service", 1000, 80, 100, Habit::Grow { rate: 60, from_ms: 1000, until: 1000 });
    let embed = machine.add("embed", 0, 700, 0, Habit::Idle);
    let mut liar = Giver::new(&[(Level::Unload, 600)], 1000);
    liar.manner = Manner::Lies;
    machine.entry(&embed).giver = Some(liar);
    Story::new(machine).run(20_000)
}

type Record = fn() -> Story;

/// Every story by the name of its file.
pub(crate) const STORIES: [(&str, Record); 16] = [
    ("story_a_noswap", || story_a(0)),
    ("story_a_swap", || story_a(1000)),
    ("story_b_noswap", || story_b(0, 0)),
    ("story_b_swap", || story_b(1000, 45)),
    ("story_b_slow_swap", || story_b(1000, 10)),
    ("page_cache_scanner", page_cache_scanner),
    ("flap_guard", flap_guard),
    ("throttle_futile", throttle_futile),
    ("gap_everywhere", gap_everywhere),
    ("two_inodes_same_path", two_inodes_same_path),
    ("protected_model_load", protected_model_load),
    ("leak_swap", leak_swap),
    ("lower_one_first", lower_one_first),
    ("asked_and_restored", asked_and_restored),
    ("asked_in_vain", asked_in_vain),
    ("gpu_ladder", crate::gpu_lives::gpu_ladder),
];

#[test]
fn the_stories_end_well() {
    for (name, story) in STORIES {
        let machine = story().machine;
        let killed: &[&str] = match name {
            "story_b_noswap" | "story_b_slow_swap" => &["batch"],
            // Nobody could see it fill the machine; when the readings come back the service suffers already.
            "gap_everywhere" => &["batch"],
            "lower_one_first" => &["scratch"],
            "asked_in_vain" => &["embed"],
            _ => &[],
        };
        assert_eq!(machine.killed, killed, "{name}: killed by us");
        // Where the only rung there is can't help, the kernel has the last word: it was told to leave the hog alone.
        let oom: &[&str] = if name == "throttle_futile" { &["batch"] } else { &[] };
        assert!(
            machine.oom.is_empty() || machine.oom == oom,
            "{name}: killed by the kernel: {:?}",
            machine.oom
        );
    }
}
