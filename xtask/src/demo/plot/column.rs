//! What one run looks like over time, in seconds from the moment when growth began.
use plimsoll_policy::plan::Tier;
use plimsoll_policy::sample::Rung;
use plimsoll_workload::record::Reading;

use super::super::material::Material;
use super::super::play::Take;
use super::super::report::RunReport;
use super::super::runs::{Protection, Run};

/// A value over time.
pub(super) type Line = Vec<(f64, f64)>;

/// A state that holds from one moment to another.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stretch<T> {
    /// From.
    pub(super) from: f64,
    /// To.
    pub(super) to: f64,
    /// What.
    pub(super) state: T,
}

const MIB: f64 = 1_048_576.0;

/// One run.
pub(super) struct Column {
    /// Which.
    pub(super) run: Run,
    /// In words, above it.
    pub(super) heading: String,
    /// From calm to the end of the watch.
    pub(super) span: (f64, f64),
    /// `memory.current` of the server, MiB.
    pub(super) server: Line,
    /// The batch job's.
    pub(super) batch: Line,
    /// `memory.high` of the batch job, one line for each time that it was set.
    pub(super) high: Vec<Line>,
    /// `MemFree`.
    pub(super) free: Line,
    /// Swap in use; empty where there is no swap.
    pub(super) swap: Line,
    /// The controller's view of the host; empty without one.
    pub(super) tiers: Vec<Stretch<Tier>>,
    /// Rungs by load, `batch` first.
    pub(super) rungs: [(&'static str, Vec<Stretch<Rung>>); 2],
    /// When the batch job's cgroup was frozen, as the kernel says.
    pub(super) frozen: Vec<Stretch<bool>>,
    /// Milliseconds of each request that was answered in time, by when it was due.
    pub(super) answered: Line,
    /// Of each that was lost.
    pub(super) lost: Line,
    /// First action.
    pub(super) action: Option<(f64, String)>,
    /// When the batch job was gone.
    pub(super) killed: Option<f64>,
    /// Below the heading.
    pub(super) summary: String,
}

impl Column {
    /// Takes a run apart.
    pub(super) fn new(run: Run, take: &Take, report: &RunReport) -> Self {
        let material = &take.material;
        let time = Time { origin: material.ending.growth_ns };
        let span = (time.of(material.ending.began_ns), time.of(material.ending.ended_ns));
        let readings: Vec<_> =
            material.readings.iter().filter(|it| it.at_ns <= material.ending.ended_ns).collect();
        // Every fifth reading: more than a pixel can show.
        let line = |value: fn(&Reading) -> Option<u64>| -> Line {
            let points = readings.iter().step_by(5);
            points.filter_map(|it| Some((time.of(it.at_ns), value(it)? as f64 / MIB))).collect()
        };
        let swap = line(|it| it.swap_used);
        let request = |lost: bool| -> Line {
            let those = material.requests.iter().filter(|it| it.lost() == lost);
            those.map(|it| (time.of(it.due_ns), it.latency_ns as f64 / 1e6)).collect()
        };
        Self {
            run,
            heading: heading(run),
            span,
            server: line(|it| it.server.current),
            batch: line(|it| it.batch.current),
            high: high(&readings, &time),
            free: line(|it| it.free),
            swap: if swap.iter().any(|(_, used)| *used > 0.0) { swap } else { Line::new() },
            tiers: stretches(material.journal.moments.iter().map(|it| (time.of(it.at_ns), it.tier)), span.1),
            rungs: [
                (
                    "batch",
                    stretches(
                        material.journal.moments.iter().map(|it| (time.of(it.at_ns), it.batch)),
                        span.1,
                    ),
                ),
                (
                    "server",
                    stretches(
                        material.journal.moments.iter().map(|it| (time.of(it.at_ns), it.server)),
                        span.1,
                    ),
                ),
            ],
            frozen: stretches(
                readings.iter().filter_map(|it| Some((time.of(it.at_ns), it.batch.frozen?))),
                span.1,
            ),
            answered: request(false),
            lost: request(true),
            action: report.growth_to_first_action_ms.map(|ms| ms / 1e3).zip(report.first_action.clone()),
            killed: death(material).map(|at| time.of(at)),
            summary: summary(report),
        }
    }
}

struct Time {
    origin: u64,
}

impl Time {
    fn of(&self, at_ns: u64) -> f64 {
        (i128::from(at_ns) - i128::from(self.origin)) as f64 / 1e9
    }
}

/// The limit while there was one.
fn high(readings: &[&Reading], time: &Time) -> Vec<Line> {
    let limited = readings.chunk_by(|a, b| a.batch.high.is_some() == b.batch.high.is_some());
    let line = |part: &[&Reading]| -> Line {
        let points = part.iter().filter_map(|it| Some((time.of(it.at_ns), it.batch.high? as f64 / MIB)));
        points.collect()
    };
    limited.map(line).filter(|line| !line.is_empty()).collect()
}

fn heading(run: Run) -> String {
    let who = match run.protection {
        Protection::Bare => "the kernel alone",
        Protection::Plimsoll => "with Plimsoll",
    };
    format!("{who}, {}", run.swap.title())
}

fn summary(report: &RunReport) -> String {
    let requests = report.protected;
    let killed: Vec<_> = report.killed.iter().map(|it| format!("{} killed by {}", it.load, it.by)).collect();
    let killed = if killed.is_empty() { "nobody killed".to_owned() } else { killed.join(", ") };
    format!(
        "{} of {} requests lost, p99 {:.1} ms; {killed}",
        requests.lost,
        requests.answered + requests.lost,
        requests.p99_ms
    )
}

/// When the batch job's cgroup became empty.
fn death(material: &Material) -> Option<u64> {
    let alive = |it: &Reading| it.batch.populated == Some(true);
    let readings = material.readings.iter().filter(|it| it.at_ns <= material.ending.ended_ns);
    let mut pairs = readings.clone().zip(readings.skip(1));
    pairs
        .find(|(before, after)| alive(before) && after.batch.populated == Some(false))
        .map(|(_, after)| after.at_ns)
}

/// Joins equal neighbours; the last one holds until `end`.
fn stretches<T: Copy + PartialEq>(states: impl Iterator<Item = (f64, T)>, end: f64) -> Vec<Stretch<T>> {
    let mut joined: Vec<Stretch<T>> = Vec::new();
    for (at, state) in states.filter(|(at, _)| *at <= end) {
        if let Some(last) = joined.last_mut() {
            last.to = at;
            if last.state == state {
                continue;
            }
        }
        joined.push(Stretch { from: at, to: at, state });
    }
    if let Some(last) = joined.last_mut() {
        last.to = end;
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::{Stretch, stretches};

    #[test]
    fn equal_neighbours_are_one_stretch() {
        let states = [(0.0, 'a'), (1.0, 'a'), (2.0, 'b'), (9.0, 'c')];
        assert_eq!(
            stretches(states.into_iter(), 5.0),
            [Stretch { from: 0.0, to: 2.0, state: 'a' }, Stretch { from: 2.0, to: 5.0, state: 'b' }]
        );
    }
}
