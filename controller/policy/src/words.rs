//! Evidence, expectations and refusals in words: what `status`, `explain`, logs and events say of them.

use std::fmt;

use crate::appetite::Claim;
use crate::concession::{Gains, Level};
use crate::gpu::GpuId;
use crate::plan::{ActResult, Evidence, Expected, Refusal, Refused};
use crate::units::{Bytes, Monotonic};

/// For logs: moments are given as time since boot.
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hold { until } => write!(f, "the rung is held until {} after boot", since_boot(*until)),
            Self::Calm { since } => write!(f, "calm since {} after boot", since_boot(*since)),
            Self::Oscillation { cycles, within, until } => {
                oscillation(*cycles, *within, f)?;
                write!(f, "until {} after boot", since_boot(*until))
            }
            Self::Budget { brakes, until } => {
                budget(*brakes, f)?;
                write!(f, "until {} after boot", since_boot(*until))
            }
            Self::Reloaded { times, within, until } => {
                reloaded(*times, *within, f)?;
                until.map_or(Ok(()), |until| {
                    write!(f, ": not asked for that until {} after boot", since_boot(until))
                })
            }
            Self::Restarted { kills, until } => {
                restarted(*kills, f)?;
                write!(f, " until {} after boot", since_boot(*until))
            }
            Self::OnGpu { gpu, fact } => write!(f, "on gpu:{gpu}: {fact}"),
            fact => said(fact, f),
        }
    }
}

/// Something as said at a moment: spans from now instead of moments.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a, T> {
    what: &'a T,
    now: Monotonic,
}

impl Evidence {
    /// In words, for people who look at it `now`.
    #[must_use]
    pub const fn at(&self, now: Monotonic) -> Said<'_, Self> {
        Said { what: self, now }
    }

    /// The same fact, said of a GPU.
    #[must_use]
    pub fn on(self, gpu: &GpuId) -> Self {
        Self::OnGpu { gpu: gpu.clone(), fact: Box::new(self) }
    }
}

impl Refused {
    /// In words, for people who look at it `now`: the action and why it was not taken.
    #[must_use]
    pub const fn at(&self, now: Monotonic) -> Said<'_, Self> {
        Said { what: self, now }
    }
}

impl fmt::Display for Said<'_, Evidence> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            Evidence::Hold { until } => write!(f, "the rung is held for another {}", until.since(self.now)),
            Evidence::Calm { since } => write!(f, "calm for {}", self.now.since(*since)),
            Evidence::Oscillation { cycles, within, until } => {
                oscillation(*cycles, *within, f)?;
                write!(f, "for another {}", until.since(self.now))
            }
            Evidence::Restarted { kills, until } => {
                restarted(*kills, f)?;
                write!(f, " for another {}", until.since(self.now))
            }
            Evidence::Budget { brakes, until } => {
                budget(*brakes, f)?;
                write!(f, "for another {}", until.since(self.now))
            }
            Evidence::Reloaded { times, within, until } => {
                reloaded(*times, *within, f)?;
                let wait = until.map(|until| until.since(self.now));
                wait.map_or(Ok(()), |wait| write!(f, ": not asked for that for another {wait}"))
            }
            Evidence::OnGpu { gpu, fact } => write!(f, "on gpu:{gpu}: {}", fact.at(self.now)),
            fact => said(fact, f),
        }
    }
}

/// What needs no clock.
fn said(evidence: &Evidence, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match evidence {
        Evidence::Used { share, threshold } => write!(f, "{share} used, threshold {threshold}"),
        Evidence::Forecast { left, source, threshold } => {
            write!(f, "exhausted in {left} by {}, threshold {threshold}", source.name())
        }
        Evidence::Stall { share, threshold } => {
            write!(f, "the protected wait {share} of the time, threshold {threshold}")
        }
        Evidence::Thrash { per_second, threshold } => {
            write!(f, "the protected fault {per_second} pages back in per second, threshold {threshold}")
        }
        Evidence::Tier { tier, deficit } => write!(f, "the tier is {tier} and {deficit} are wanted"),
        Evidence::Yield { expected } => write!(f, "expected to free {expected}"),
        Evidence::Growth { bytes_per_second } => growth(*bytes_per_second, f),
        Evidence::NothingGentler { gentler, needed } => {
            write!(f, "gentler rungs would free {gentler} of the {needed} needed")
        }
        Evidence::Probed { most } => write!(f, "its probes bear no freeze that is longer than {most}"),
        Evidence::Unheld { braked } => {
            write!(f, "braked for {braked}, and the node did not become calm: it can't hold it")
        }
        Evidence::Futile { rung } => write!(f, "{rung} did not help"),
        Evidence::Claimed { by, claim } => match claim {
            Claim::Grows => write!(f, "{by} takes more and more"),
            Claim::Failed => write!(f, "an allocation of {by} failed"),
            Claim::Waits => write!(f, "{by} waits for room"),
        },
        Evidence::Insists { by, times, within } => {
            write!(f, "{times} allocations of {by} failed within {within}")
        }
        Evidence::Asked { level: Level::Nothing } => f.write_str("it is asked to take back what it gave"),
        Evidence::Asked { level } => write!(f, "it is asked for {level}"),
        Evidence::Conceded { level, by, result, freed, claimed, took } => {
            conceded(*level, by, result, f)?;
            write!(f, ": {freed} after {took}")?;
            claimed.as_ref().map_or(Ok(()), |claimed| write!(f, ", where it claims {claimed}"))
        }
        Evidence::Unanswered { level, within } => {
            write!(f, "no answer to {} within {within}", said_of(*level))
        }
        Evidence::Reloaded { .. }
        | Evidence::Hold { .. }
        | Evidence::Calm { .. }
        | Evidence::Oscillation { .. }
        | Evidence::Budget { .. }
        | Evidence::Restarted { .. }
        | Evidence::OnGpu { .. } => Ok(()),
    }
}

/// The level as what is done.
const fn said_of(level: Level) -> &'static str {
    match level {
        Level::Nothing => "restore",
        other => other.name(),
    }
}

fn conceded(level: Level, by: &str, result: &ActResult, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{} by {by} ", said_of(level))?;
    match result {
        ActResult::Done => f.write_str("done"),
        ActResult::Partial => f.write_str("done in part"),
        ActResult::Gone => f.write_str("not done, it is gone"),
        ActResult::Withdrawn => f.write_str("withdrawn"),
        ActResult::Foreign => f.write_str("not done, somebody else was first"),
        ActResult::Blocked(why) => write!(f, "not allowed now: {why}"),
        ActResult::Failed(why) => write!(f, "failed ({why})"),
    }
}

/// What came, and what it cost where memory moved.
impl fmt::Display for Gains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = Bytes(self.host.unsigned_abs());
        let verb = if self.host < 0 { "took" } else { "freed" };
        let host = (self.host != 0).then(|| format!("{verb} {host} of host memory"));
        let gpus = self.gpus.iter().filter(|(_, bytes)| **bytes > Bytes::ZERO);
        let gpus = gpus.map(|(gpu, bytes)| format!("freed {bytes} of gpu:{gpu}"));
        let parts: Vec<_> = host.into_iter().chain(gpus).collect();
        f.write_str(if parts.is_empty() { "freed nothing" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

fn reloaded(times: u32, within: crate::units::Span, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match times {
        1 => f.write_str("a request brought back what it had given"),
        _ => write!(f, "requests brought back what it had given {times} times within {within}"),
    }
}

fn oscillation(cycles: u32, within: crate::units::Span, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "let go and braked again {cycles} times within {within}: held off ")
}

fn restarted(kills: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let times = if kills == 1 { "once".to_owned() } else { format!("{kills} times") };
    write!(f, "was killed {times} lately and is here again: kept on a leash")
}

fn budget(brakes: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "braked {brakes} times within the hour, which is its budget: held off ")
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, growth, takes, observations } = *self;
        match (bytes, growth) {
            (bytes, Bytes::ZERO) => write!(f, "to free {bytes}")?,
            (Bytes::ZERO, growth) => write!(f, "to stop growth of {growth}/s")?,
            (bytes, growth) => write!(f, "to free {bytes} and stop growth of {growth}/s")?,
        }
        write!(f, " within {takes}, ")?;
        match observations {
            0 => f.write_str("by the priors"),
            1 => f.write_str("by 1 outcome"),
            n => write!(f, "by {n} outcomes"),
        }
    }
}

impl fmt::Display for Said<'_, Refused> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refused { workload, rung, why } = self.what;
        write!(f, "{rung} of {workload}: ")?;
        match why {
            Refusal::TooLittle { yields, needed } => write!(f, "yields {yields} of the {needed} needed"),
            Refusal::TooSlow { takes, left } => write!(f, "takes {takes}, {left} left"),
            Refusal::Nothing => f.write_str("nothing to free or stop"),
            Refusal::NotAllowed => f.write_str("not allowed by its rungs"),
            Refusal::Spent { brakes } => write!(f, "its {brakes} brakes of the hour are used up"),
            Refusal::Futile { until } => write!(f, "futile for another {}", until.since(self.now)),
            Refusal::Probed { until } => {
                write!(
                    f,
                    "its probes have to succeed first: not frozen for another {}",
                    until.since(self.now)
                )
            }
            Refusal::Spills { growth } => write!(f, "would go on growing into swap by {growth}/s"),
            Refusal::Tier { tier } => write!(f, "the tier is only {tier}"),
            Refusal::Gives { rung } => write!(f, "gives what it can on {rung} already"),
            Refusal::NotOffered { level } => write!(f, "it does not offer {level}"),
            Refusal::Frozen => f.write_str("frozen: it can't answer"),
            Refusal::NoHostRoom { moves, room } => {
                write!(f, "would move {moves} to the host, which has room for {room}")
            }
            Refusal::Reloads { until } => {
                write!(f, "requests undo it: left alone for another {}", until.since(self.now))
            }
            Refusal::Uncontested => f.write_str("full, but nobody needs more of it"),
            Refusal::Undying => f.write_str("was killed and did not die in time"),
            Refusal::Leaves => f.write_str("ends in order, for another node to start it"),
            Refusal::Omit => f.write_str("omit: never touched"),
            Refusal::Protected => f.write_str("protected by its priority"),
            Refusal::Unreadable => f.write_str("its memory could not be read"),
        }
    }
}

fn growth(bytes_per_second: i64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let verb = if bytes_per_second < 0 { "shrinks" } else { "grows" };
    write!(f, "{verb} by {}/s", Bytes(bytes_per_second.unsigned_abs()))
}

fn since_boot(moment: Monotonic) -> crate::units::Span {
    moment.since(Monotonic(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assess::forecast::Source;
    use crate::plan::Tier;
    use crate::sample::Rung;
    use crate::units::{Share, Span};

    #[test]
    fn every_kind_reads_well() {
        let now = Monotonic(100_000_000_000);
        let check = |evidence: Evidence, expected| assert_eq!(evidence.at(now).to_string(), expected);
        let (share, threshold) = (Share(973_000), Share::percent(95));
        check(Evidence::Used { share, threshold }, "97.3% used, threshold 95%");
        let (left, limit) = (Span::millis(2100), Span::secs(3));
        let forecast = Evidence::Forecast { left, source: Source::Available, threshold: limit };
        check(forecast, "exhausted in 2.1s by MemAvailable, threshold 3.0s");
        check(Evidence::Stall { share, threshold }, "the protected wait 97.3% of the time, threshold 95%");
        let thrash = Evidence::Thrash { per_second: 900, threshold: 500 };
        check(thrash, "the protected fault 900 pages back in per second, threshold 500");
        let tier = Evidence::Tier { tier: Tier::Critical, deficit: Bytes::mib(512) };
        check(tier, "the tier is critical and 512MiB are wanted");
        check(Evidence::Yield { expected: Bytes::mib(64) }, "expected to free 64MiB");
        check(Evidence::Growth { bytes_per_second: 200 << 20 }, "grows by 200MiB/s");
        check(Evidence::Growth { bytes_per_second: i64::MIN }, "shrinks by 8388608TiB/s");
        let gentler = Evidence::NothingGentler { gentler: Bytes::mib(10), needed: Bytes::mib(100) };
        check(gentler, "gentler rungs would free 10MiB of the 100MiB needed");
        let unheld = "braked for 30.0s, and the node did not become calm: it can't hold it";
        check(Evidence::Unheld { braked: Span::secs(30) }, unheld);
        let again = |kills| Evidence::Restarted { kills, until: now + Span::secs(30) };
        check(again(1), "was killed once lately and is here again: kept on a leash for another 30.0s");
        check(again(3), "was killed 3 times lately and is here again: kept on a leash for another 30.0s");
        let probed = Evidence::Probed { most: Span::secs(20) };
        check(probed, "its probes bear no freeze that is longer than 20.0s");
        check(Evidence::Futile { rung: Rung::Throttle }, "throttle did not help");
        check(Evidence::Hold { until: now + Span::secs(4) }, "the rung is held for another 4.0s");
        check(Evidence::Calm { since: now - Span::secs(7) }, "calm for 7.0s");
        let until = now + Span::secs(290);
        let flaps = Evidence::Oscillation { cycles: 3, within: Span::secs(81), until };
        check(flaps, "let go and braked again 3 times within 81.0s: held off for another 290.0s");
        let spent = "braked 12 times within the hour, which is its budget: held off for another 290.0s";
        check(Evidence::Budget { brakes: 12, until }, spent);
        let by = crate::sample::WorkloadId { path: "a/b".into(), inode: 7 };
        for (claim, words) in [
            (Claim::Grows, "a/b#7 takes more and more"),
            (Claim::Failed, "an allocation of a/b#7 failed"),
            (Claim::Waits, "a/b#7 waits for room"),
        ] {
            check(Evidence::Claimed { by: by.clone(), claim }, words);
        }
        let insists = Evidence::Insists { by: by.clone(), times: 4, within: Span::millis(2500) };
        check(insists, "4 allocations of a/b#7 failed within 2.5s");
        let (level, took) = (Level::Unload, Span::millis(1300));
        check(Evidence::Asked { level }, "it is asked for unload");
        check(Evidence::Asked { level: Level::Nothing }, "it is asked to take back what it gave");
        let freed = Gains { host: -(64 << 20), gpus: [("GPU-7".into(), Bytes::mib(512))].into() };
        let (by, result) = ("engine".to_owned(), ActResult::Failed("not now".into()));
        let conceded = Evidence::Conceded { level, by, result, freed, claimed: Some(Gains::default()), took };
        check(
            conceded,
            "unload by engine failed (not now): took 64MiB of host memory, freed 512MiB of gpu:GPU-7 after 1.3s, \
             where it claims freed nothing",
        );
        check(Evidence::Unanswered { level, within: took }, "no answer to unload within 1.3s");
        let undone = |times, until| Evidence::Reloaded { times, within: Span::secs(81), until };
        check(undone(1, None), "a request brought back what it had given");
        let often = "requests brought back what it had given 3 times within 81.0s: not asked for that for another 290.0s";
        check(undone(3, Some(until)), often);
        let fact = Evidence::Used { share, threshold };
        check(fact.on(&"GPU-7".into()), "on gpu:GPU-7: 97.3% used, threshold 95%");
    }

    #[test]
    fn expectations_and_refusals_read_well() {
        let now = Monotonic(100_000_000_000);
        let (growth, takes) = (Bytes::mib(90), Span::millis(400));
        let freeze = Expected { growth, takes, observations: 3, ..Expected::default() };
        assert_eq!(freeze.to_string(), "to stop growth of 90MiB/s within 400ms, by 3 outcomes");
        let kill = Expected { bytes: Bytes::mib(64), takes, ..Expected::default() };
        assert_eq!(kill.to_string(), "to free 64MiB within 400ms, by the priors");
        let workload = crate::sample::WorkloadId { path: "a/b".into(), inode: 7 };
        let why = Refusal::TooLittle { yields: Bytes::mib(3), needed: Bytes::mib(64) };
        let little = Refused { workload: workload.clone(), rung: Rung::Trim, why };
        assert_eq!(little.at(now).to_string(), "trim of a/b#7: yields 3MiB of the 64MiB needed");
        let say = |why| Refused { workload: workload.clone(), rung: Rung::Offload, why }.at(now).to_string();
        let (moves, room) = (Bytes::mib(900), Bytes::mib(100));
        assert_eq!(
            say(Refusal::NoHostRoom { moves, room }),
            "offload of a/b#7: would move 900MiB to the host, which has room for 100MiB"
        );
        assert_eq!(
            say(Refusal::NotOffered { level: Level::Unload }),
            "offload of a/b#7: it does not offer unload"
        );
        assert_eq!(say(Refusal::Frozen), "offload of a/b#7: frozen: it can't answer");
        let until = now + Span::secs(8);
        assert_eq!(
            say(Refusal::Reloads { until }),
            "offload of a/b#7: requests undo it: left alone for another 8.0s"
        );
        assert_eq!(say(Refusal::Uncontested), "offload of a/b#7: full, but nobody needs more of it");
        let why = Refusal::Futile { until };
        let probed =
            Refused { workload: workload.clone(), rung: Rung::Freeze, why: Refusal::Probed { until } };
        let words = "freeze of a/b#7: its probes have to succeed first: not frozen for another 8.0s";
        assert_eq!(probed.at(now).to_string(), words);
        let futile = Refused { workload, rung: Rung::Throttle, why };
        assert_eq!(futile.at(now).to_string(), "throttle of a/b#7: futile for another 8.0s");
    }

    #[test]
    fn logs_need_no_clock() {
        let hold = Evidence::Hold { until: Monotonic(5_000_000_000) };
        assert_eq!(hold.to_string(), "the rung is held until 5.0s after boot");
    }
}
