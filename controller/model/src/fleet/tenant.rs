//! One tenant over the hours: when it comes, what it wants next, and when its supervisor starts it again.

use plimsoll_policy::sample::WorkloadId;

use super::random::Random;
use super::role::Role;
use crate::machine::{Habit, MIB, Machine, Process};

/// A supervisor waits this long before it starts again what died; twice as long each time.
const BACKOFF_MS: u64 = 2_000;
/// It waits no longer than this, as kubelet does.
const LONGEST_MS: u64 = 300_000;
/// One that lived this long starts afresh.
const LIVED_MS: u64 = 600_000;
/// A day, over which the requests of a service rise and fall.
const DAY_MS: u64 = 86_400_000;
/// Some threads that touch new pages get no further than this, in MiB/s.
const FASTEST: u64 = 4096;

/// One tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// What it is there for.
    pub role: Role,
    /// Its process, while there is one.
    pub id: Option<WorkloadId>,
    /// Killed, and not back yet with all that it had.
    pub down: bool,
    /// When it does something next, in milliseconds.
    pub(crate) next_ms: u64,
    name: String,
    random: Random,
    size: Sizes,
    step: u32,
    born_ms: u64,
    deaths: u32,
    /// Work after which a job is done, in microseconds.
    job_us: u64,
}

/// MiB.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sizes {
    total: u64,
    model: u64,
    base: u64,
    most: u64,
    /// MiB/s.
    rate: u64,
}

impl Tenant {
    pub(crate) fn new(n: usize, role: Role, total: u64, mut random: Random) -> Self {
        let size = Sizes::draw(role, total, &mut random);
        // Services are there from the start; the others come within the first minutes.
        let next_ms =
            if matches!(role, Role::Service | Role::Agent) { 0 } else { random.between(0, 300_000) };
        Self {
            role,
            id: None,
            down: false,
            next_ms,
            name: format!("{}-{n}", role.name()),
            random,
            size,
            step: 0,
            born_ms: 0,
            deaths: 0,
            job_us: 0,
        }
    }

    /// Its process, if it lives.
    #[must_use]
    pub fn process<'m>(&self, machine: &'m Machine) -> Option<&'m Process> {
        machine.processes.get(self.id.as_ref()?).filter(|p| !p.dead)
    }

    /// Whether a death throws away all that it did: jobs keep nothing of it.
    #[must_use]
    pub const fn loses_work(&self) -> bool {
        matches!(self.role, Role::Batch | Role::Pinned)
    }

    /// Takes note of a death: the supervisor will start it again.
    pub(crate) fn died(&mut self, now: u64) {
        let lived = now.saturating_sub(self.born_ms);
        self.deaths = if lived > LIVED_MS { 0 } else { self.deaths };
        self.next_ms = now + (BACKOFF_MS << self.deaths.min(16)).min(LONGEST_MS);
        self.deaths += 1;
        (self.id, self.down, self.step) = (None, true, 0);
    }

    /// Does what is due.
    pub(crate) fn act(&mut self, machine: &mut Machine) {
        let now = machine.now_ms;
        let Some(id) = self.id.clone() else { return self.start(machine) };
        let habit = match self.role {
            Role::Service => self.serve(now, machine),
            Role::Model => self.model(now, machine),
            Role::Batch | Role::Pinned => return self.work(now, machine),
            Role::Notebook => self.notebook(now),
            Role::Scanner => self.scan(now),
            Role::Leak | Role::Agent => self.stay(now),
        };
        match habit {
            Some(habit) => machine.entry(&id).habit = habit,
            None => self.leave(now, machine),
        }
    }

    fn start(&mut self, machine: &mut Machine) {
        let now = machine.now_ms;
        let priority = machine.config.protect_priority.saturating_sub(self.role.below());
        let fresh = self.role == Role::Service && now == 0;
        let model = if fresh { self.size.model } else { 0 };
        let id = machine.add(&self.name, priority, 0, model, Habit::Idle);
        let process = machine.entry(&id);
        process.spec.preference = self.role.preference();
        process.oom_score_adj = self.role.oom_score_adj();
        // Not everybody's readings fail at the same time.
        process.reads = self.random.between(0, 10_000);
        process.hot = self.role.hot();
        process.habit = self.first_habit(model);
        // What has a model has to load it before it serves.
        process.spec.restart_cost_ms = self.size.model * 1000 / 1536;
        self.job_us = self.random.between(60, 1200) * 1_000_000;
        (self.id, self.born_ms, self.step) = (Some(id), now, 0);
        self.next_ms = now + 1000;
        self.down &= self.role == Role::Service;
    }

    fn first_habit(&mut self, model: u64) -> Habit {
        let Sizes { model: size, base, most, rate, .. } = self.size;
        match self.role {
            Role::Service | Role::Model if size > model => Habit::Load { rate: 1536, from_ms: 0, size },
            Role::Batch | Role::Pinned => {
                let until = self.random.between(base, most);
                Habit::Grow { rate, from_ms: 0, until }
            }
            Role::Leak => Habit::Grow { rate, from_ms: 0, until: most },
            _ => Habit::Seek { rate: rate.max(64), to: base },
        }
    }

    /// Follows its requests, second by second; now and then there is a spike.
    fn serve(&mut self, now: u64, machine: &Machine) -> Option<Habit> {
        let loaded = self.process(machine).is_some_and(|p| p.model >= self.size.model * MIB);
        if !loaded {
            self.next_ms = now + 100;
            return Some(Habit::Load { rate: 1536, from_ms: 0, size: self.size.model });
        }
        self.down = false;
        let Sizes { total, base, most, rate, .. } = self.size;
        if self.random.once_in(600) {
            self.next_ms = now + self.random.between(10_000, 60_000);
            let spike = self.random.part(total, 20, 100);
            return Some(Habit::Seek { rate: (total / 40).min(FASTEST), to: most + spike });
        }
        self.next_ms = now + self.random.between(1000, 4000);
        let load = (day(now + self.born_phase()) + self.random.between(0, 300)).min(1000);
        Some(Habit::Seek { rate, to: base + (most - base) * load / 1000 })
    }

    /// Every service has its own time of day.
    const fn born_phase(&self) -> u64 {
        self.size.base.wrapping_mul(7_919_000) % DAY_MS
    }

    /// Loads, serves for a while, goes.
    fn model(&mut self, now: u64, machine: &Machine) -> Option<Habit> {
        let loaded = self.process(machine).is_some_and(|p| p.model >= self.size.model * MIB);
        if !loaded {
            self.next_ms = now + 1000;
            return Some(Habit::Load { rate: 1536, from_ms: 0, size: self.size.model });
        }
        if self.step == 0 {
            self.step = u32::try_from(self.random.between(60, 600)).unwrap_or(60);
        }
        self.step -= 1;
        self.next_ms = now + self.random.between(2000, 6000);
        let to = self.random.between(self.size.base, self.size.most);
        (self.step > 0).then_some(Habit::Seek { rate: self.size.rate, to })
    }

    /// Works until the job is done.
    fn work(&mut self, now: u64, machine: &mut Machine) {
        let done = self.process(machine).map_or(0, |p| p.work_us);
        let left = self.job_us.saturating_sub(done);
        if left == 0 {
            return self.leave(now, machine);
        }
        self.next_ms = now + left.div_ceil(1000).max(1000);
        if self.role == Role::Pinned {
            let id = self.id.clone();
            if let Some(process) = id.and_then(|id| machine.processes.get_mut(&id)) {
                process.locked = process.anon / 2;
            }
            self.next_ms = now + 5000;
        }
    }

    fn notebook(&mut self, now: u64) -> Option<Habit> {
        self.step = 1 - self.step.min(1);
        let Sizes { total, base, most, .. } = self.size;
        let (wait, to) = if self.step == 1 {
            (self.random.between(5_000, 120_000), self.random.between(base, most))
        } else {
            (self.random.between(60_000, 900_000), base)
        };
        self.next_ms = now + wait;
        Some(Habit::Seek { rate: (total / 10).clamp(64, FASTEST), to })
    }

    fn scan(&mut self, now: u64) -> Option<Habit> {
        self.step = 1 - self.step.min(1);
        self.next_ms = now + self.random.between(20_000, if self.step == 1 { 200_000 } else { 1_200_000 });
        Some(if self.step == 1 { Habit::Scan { rate: self.size.rate } } else { Habit::Idle })
    }

    /// What goes on as it is.
    fn stay(&mut self, now: u64) -> Option<Habit> {
        self.next_ms = now + 3_600_000;
        Some(self.first_habit(0))
    }

    /// Ends by itself, and comes again later.
    fn leave(&mut self, now: u64, machine: &mut Machine) {
        if let Some(id) = self.id.take() {
            machine.processes.remove(&id);
        }
        let longest = if self.role == Role::Model { 1_200_000 } else { 300_000 };
        self.next_ms = now + self.random.between(10_000, longest);
        (self.step, self.deaths, self.down) = (0, 0, false);
    }
}

impl Sizes {
    /// Shares of the machine in per mille; together the peaks are more than there is, the means are less.
    fn draw(role: Role, total: u64, random: &mut Random) -> Self {
        let part = |random: &mut Random, (least, most)| random.part(total, least, most);
        let mut parts = |model, base, most, rate| {
            (
                part(random, model),
                part(random, base),
                part(random, most),
                part(random, rate).clamp(8, FASTEST / 2),
            )
        };
        let none = (0, 0);
        let (model, base, most, rate) = match role {
            Role::Service => parts((80, 200), (20, 50), (70, 150), (5, 20)),
            Role::Model => parts((40, 120), (10, 30), (40, 80), (5, 20)),
            Role::Batch => parts(none, (30, 60), (80, 350), (3, 50)),
            Role::Notebook => parts(none, (5, 20), (50, 250), none),
            Role::Pinned => parts(none, (20, 40), (50, 120), (3, 20)),
            Role::Agent => parts(none, (3, 6), none, none),
            // It fills the machine within ten minutes to two hours.
            Role::Leak => (0, 0, total, (total / random.between(600, 7200)).max(1)),
            Role::Scanner => (0, part(random, (2, 5)), 0, random.between(200, 1500)),
        };
        Self { total, model, base, most: most.max(base), rate }
    }
}

/// The day's load in per mille: a parabola from 200 at night to 1000 at noon.
fn day(now: u64) -> u64 {
    let t = now % DAY_MS * 2000 / DAY_MS;
    let from_noon = t.abs_diff(1000);
    1000 - from_noon * from_noon * 800 / 1_000_000
}
