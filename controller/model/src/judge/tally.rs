//! What a policy did to a fleet, in sums. Adding tallies in any order gives the same.

use serde::Serialize;

/// Shares of a second in which a protected service waited: from none to all of it, in thousandths.
const BUCKETS: usize = 1001;

/// Counts, and microseconds of virtual time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Machines that were run.
    pub machines: u64,
    /// Virtual time of all machines together.
    pub time_us: u64,
    /// Passes of the policy.
    pub passes: u64,
    /// Victims of the kernel's OOM killer.
    pub oom_kills: u64,
    /// Those of them who were protected.
    pub oom_protected: u64,
    /// Those of them who were expendable although one of lower priority had enough.
    pub oom_wrong: u64,
    /// Kills by the policy.
    pub kills: u64,
    /// Those without which nothing bad would have happened.
    pub needless: u64,
    /// Those of somebody although one of lower priority had enough.
    pub wrong: u64,
    /// Those of somebody who is protected, or not to be touched.
    pub forbidden: u64,
    /// Time that protected services waited for memory.
    pub stall_us: u64,
    /// Time in which protected services were dead, or not yet loaded again.
    pub down_us: u64,
    /// Time for which there was a protected service.
    pub served_us: u64,
    /// Braked again within a minute after a brake had ended.
    pub flaps: u64,
    /// Time that the expendable would have worked with memory without end.
    pub wanted_us: u64,
    /// Time that they did, less what a kill threw away.
    pub done_us: u64,
    /// Time that a workload was frozen.
    pub frozen_us: u64,
    /// Time that a workload was limited.
    pub throttled_us: u64,
    /// Plans that the lint found fault with.
    pub findings: u64,
    /// Machines on which the policy or the model panicked.
    pub panics: u64,
    /// Seconds of protected services by the share of them that was stall.
    #[serde(skip)]
    pub(super) seconds: Vec<u64>,
}

impl Tally {
    /// All that is known of a machine on which something panicked.
    #[must_use]
    pub fn panicked() -> Self {
        Self { machines: 1, panics: 1, ..Self::default() }
    }

    /// Takes a second of a protected service, of which so much was stall.
    pub(super) fn second(&mut self, stalled_us: u64) {
        self.seconds.resize(BUCKETS, 0);
        let bucket = usize::try_from(stalled_us.div_ceil(1000)).unwrap_or(BUCKETS);
        self.seconds[bucket.min(BUCKETS - 1)] += 1;
    }

    /// The share of a second in thousandths that `per_mille` of all seconds do not exceed.
    #[must_use]
    pub fn stall_share(&self, per_mille: u64) -> u64 {
        let all: u64 = self.seconds.iter().sum();
        let rank = (all * per_mille).div_ceil(1000);
        let mut seen = 0;
        let found = self.seconds.iter().position(|n| {
            seen += n;
            seen >= rank
        });
        found.unwrap_or(0) as u64
    }

    /// Adds what another machine gave.
    pub fn add(&mut self, other: &Self) {
        // Destructured in full, so that a new count can't be forgotten.
        let Self {
            machines,
            time_us,
            passes,
            oom_kills,
            oom_protected,
            oom_wrong,
            kills,
            needless,
            wrong,
            forbidden,
            stall_us,
            down_us,
            served_us,
            flaps,
            wanted_us,
            done_us,
            frozen_us,
            throttled_us,
            findings,
            panics,
            seconds,
        } = other;
        for (sum, more) in [
            (&mut self.machines, machines),
            (&mut self.time_us, time_us),
            (&mut self.passes, passes),
            (&mut self.oom_kills, oom_kills),
            (&mut self.oom_protected, oom_protected),
            (&mut self.oom_wrong, oom_wrong),
            (&mut self.kills, kills),
            (&mut self.needless, needless),
            (&mut self.wrong, wrong),
            (&mut self.forbidden, forbidden),
            (&mut self.stall_us, stall_us),
            (&mut self.down_us, down_us),
            (&mut self.served_us, served_us),
            (&mut self.flaps, flaps),
            (&mut self.wanted_us, wanted_us),
            (&mut self.done_us, done_us),
            (&mut self.frozen_us, frozen_us),
            (&mut self.throttled_us, throttled_us),
            (&mut self.findings, findings),
            (&mut self.panics, panics),
        ] {
            *sum += more;
        }
        self.seconds.resize(BUCKETS, 0);
        for (sum, more) in self.seconds.iter_mut().zip(seconds) {
            *sum += more;
        }
    }
}
