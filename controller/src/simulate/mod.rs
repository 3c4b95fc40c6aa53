//! `plimsoll simulate`: the real policy against modelled machines, many at once, hours in seconds.

mod table;
mod trace;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use plimsoll_model::fleet::{Fleet, Policy};
use plimsoll_model::judge::{Event, Tally, judge};

pub use table::{Report, render};
pub use trace::trace;

/// What is to be simulated.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// Where the machines come from.
    pub fleet: Fleet,
    /// Numbers of the machines.
    pub machines: std::ops::Range<u64>,
    /// Virtual time of each machine.
    pub duration: Duration,
    /// All of them are tried on the same machines.
    pub policies: Vec<Policy>,
    /// `None` is one for each processor.
    pub threads: Option<NonZeroUsize>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One tally for each policy.
    pub tallies: Vec<Tally>,
    /// By policy and machine: what is worth a look.
    pub notable: BTreeMap<(usize, u64), Notable>,
}

/// Why a machine is worth a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notable {
    /// Kills that were needless, or of the wrong one, or that the kernel had to do.
    pub events: Vec<String>,
    /// Findings of the lint.
    pub findings: u64,
    /// The policy or the model panicked.
    pub panicked: bool,
}

impl Simulation {
    /// Runs every machine under every policy. The result does not depend on the number of threads.
    #[must_use]
    pub fn run(&self) -> Outcome {
        let jobs: Vec<(usize, u64)> = (0..self.policies.len())
            .flat_map(|policy| self.machines.clone().map(move |machine| (policy, machine)))
            .collect();
        let next = AtomicUsize::new(0);
        let outcome = Mutex::new(Outcome {
            tallies: vec![Tally::default(); self.policies.len()],
            ..Outcome::default()
        });
        let progress = Progress::new(jobs.len());
        let threads = self.threads.or_else(|| std::thread::available_parallelism().ok());
        std::thread::scope(|scope| {
            for _ in 0..threads.map_or(1, NonZeroUsize::get) {
                scope.spawn(|| {
                    while let Some(&job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let (tally, notable) = self.machine(job);
                        let mut outcome = outcome.lock().expect("nobody panics while he holds it");
                        outcome.tallies[job.0].add(&tally);
                        outcome.notable.extend(notable.map(|notable| (job, notable)));
                        progress.show(outcome.tallies.iter().map(|t| t.machines).sum());
                    }
                });
            }
        });
        progress.end();
        outcome.into_inner().expect("nobody panics while he holds it")
    }

    fn machine(&self, (policy, number): (usize, u64)) -> (Tally, Option<Notable>) {
        let millis = u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX);
        let mut notable = Notable::default();
        let run = AssertUnwindSafe(|| {
            let tell = |machine: &plimsoll_model::Machine, event| {
                notable.events.extend(note(machine.now_ms, event));
            };
            judge(&self.fleet, number, &self.policies[policy], millis, |_, _| (), tell)
        });
        let tally = catch_unwind(run).unwrap_or_else(|_| {
            notable.panicked = true;
            Tally::panicked()
        });
        notable.findings = tally.findings;
        let worth = notable != Notable::default() && self.policies[policy].config.is_some();
        (tally, worth.then_some(notable))
    }
}

/// A line where an event speaks against the policy.
fn note(now_ms: u64, event: Event) -> Option<String> {
    let second = now_ms / 1000;
    match event {
        Event::Oom { name } => Some(format!("{second} s: the kernel killed {name}")),
        Event::Killed { name, instead: Some(other), .. } => {
            Some(format!("{second} s: {name} was killed, {other} should have been"))
        }
        Event::Killed { name, needless: true, .. } => {
            Some(format!("{second} s: {name} was killed needlessly"))
        }
        Event::Killed { .. } => None,
    }
}

/// A line on stderr, where somebody sees it.
struct Progress {
    jobs: usize,
    begun: Instant,
    shown: Mutex<Instant>,
    on: bool,
}

impl Progress {
    fn new(jobs: usize) -> Self {
        let now = Instant::now();
        Self { jobs, begun: now, shown: Mutex::new(now), on: io::stderr().is_terminal() }
    }

    fn show(&self, done: u64) {
        let Ok(mut shown) = self.shown.lock() else { return };
        if self.on && shown.elapsed() > Duration::from_millis(200) {
            *shown = Instant::now();
            let (jobs, seconds) = (self.jobs, self.begun.elapsed().as_secs());
            let _ = write!(io::stderr(), "\r{done} of {jobs} machines, {seconds} s");
        }
    }

    fn end(&self) {
        if self.on {
            let _ = write!(io::stderr(), "\r{:40}\r", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulation(threads: usize, machines: std::ops::Range<u64>) -> Simulation {
        let config = Some(plimsoll_policy::config::Config::default());
        Simulation {
            fleet: Fleet::default(),
            machines,
            duration: Duration::from_secs(400),
            policies: vec![Policy::kernel(), Policy { name: "default".into(), config }],
            threads: NonZeroUsize::new(threads),
        }
    }

    #[test]
    fn the_number_of_threads_does_not_matter() {
        let (one, three) = (simulation(1, 0..4).run(), simulation(3, 0..4).run());
        assert_eq!(one, three);
        assert_eq!(one.tallies.iter().map(|t| t.machines).collect::<Vec<_>>(), [4, 4]);
        let mut halves = simulation(2, 0..2).run().tallies;
        for (sum, more) in halves.iter_mut().zip(simulation(2, 2..4).run().tallies) {
            sum.add(&more);
        }
        assert_eq!(halves, one.tallies, "every machine is its own");
    }

    #[test]
    fn the_table_has_a_column_for_each_policy() {
        let simulation = simulation(2, 2..3);
        let outcome = simulation.run();
        let text = render(&simulation, &outcome);
        let head: Vec<&str> = text.lines().next().unwrap_or_default().split_whitespace().collect();
        assert_eq!(head, ["none", "default"]);
        assert!(text.lines().all(|line| !line.ends_with(' ')));
        let json = serde_json::to_value(Report::new(&simulation, &outcome)).unwrap_or_default();
        assert_eq!(json["policies"][1]["policy"], "default");
        assert_eq!(json["policies"][0]["passes"], 0);
    }
}
