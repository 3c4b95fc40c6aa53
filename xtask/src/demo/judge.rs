//! From what was written down to the figures of one run.
use plimsoll_workload::record::{Fate, Group, Reading, Request};

use super::material::Material;
use super::play::Take;
use super::report::{Killed, Requests, RunReport};
use super::runs::Protection;

/// New PSI memory time in one reading that counts as pressure.
const PRESSURE_US: u64 = 1000;
/// An answer that takes longer is late.
const LATE_NS: u64 = 100_000_000;

/// The figures of one run.
pub(super) fn judge(take: &Take) -> RunReport {
    let material = &take.material;
    let ending = &material.ending;
    let growth = ending.growth_ns;
    let (calm, hot): (Vec<_>, Vec<_>) = material.requests.iter().partition(|request| request.due_ns < growth);
    let action = first_action(material);
    let pressure = pressure(&material.readings, growth);
    let onset = pressure.into_iter().chain(action.as_ref().map(|(at, _)| *at)).min();
    let after_growth = |at: u64| millis(at.saturating_sub(growth));
    let protected = take.run.protection == Protection::Plimsoll;
    let restored = restored(material);
    RunReport {
        name: take.run.name(),
        story: take.run.story.letter().into(),
        swap: take.run.swap.name().into(),
        protection: take.run.protection.name().into(),
        kernel: ending.kernel.clone(),
        protected: requests(&hot),
        calm: requests(&calm),
        onset_to_first_action_ms: action
            .as_ref()
            .zip(onset)
            .map(|((at, _), onset)| millis(at.saturating_sub(onset))),
        growth_to_first_action_ms: action.as_ref().map(|(at, _)| after_growth(*at)),
        growth_to_onset_ms: pressure.map(after_growth),
        first_action: action.map(|(_, what)| what),
        killed: killed(material),
        kernel_oom_kills: kernel_oom_kills(&material.readings),
        freed_bytes: material.journal.actions.iter().filter(|it| it.at_ns >= growth).map(|it| it.freed).sum(),
        server_stall_ms: server_stall_ms(&material.readings, growth),
        restored: protected.then_some(restored.is_some()),
        restored_after_ms: restored.filter(|_| protected).map(after_growth),
        released: ending.after_release.as_ref().map(|groups| groups.values().all(untouched)),
        tier: material.journal.moments.iter().map(|it| it.tier).max().map(|tier| tier.to_string()),
        rung: material
            .journal
            .moments
            .iter()
            .map(|it| it.server.max(it.batch))
            .max()
            .map(|rung| rung.to_string()),
        hooks: material.hooks,
        controller_exit: ending.controller_exit,
        controller_peak_bytes: ending.controller_memory.map(|(_, peak)| peak),
        controller_cpu_share: cpu_share(material),
        guest_faults: take.faults,
        lost_boots: take.lost_boots,
        wall_seconds: take.wall.as_secs_f64(),
    }
}

fn millis(ns: u64) -> f64 {
    // Three digits: more would only be noise in the file.
    (ns as f64 / 1e3).round() / 1e3
}

fn requests(all: &[&Request]) -> Requests {
    let mut latencies: Vec<u64> = all.iter().map(|request| request.latency_ns).collect();
    latencies.sort_unstable();
    let rank = |share: f64| {
        let index = (latencies.len() as f64 * share).ceil() as usize;
        latencies.get(index.saturating_sub(1)).map_or(0.0, |ns| millis(*ns))
    };
    let lost = all.iter().filter(|request| request.lost()).count();
    let late = all.iter().filter(|request| !request.lost() && request.latency_ns > LATE_NS).count();
    Requests {
        answered: all.len() - lost,
        late,
        lost,
        p50_ms: rank(0.5),
        p99_ms: rank(0.99),
        max_ms: rank(1.0),
    }
}

/// When the kernel first showed pressure after growth began: a direct reclaim, or a millisecond of new stall within
/// one reading.
fn pressure(readings: &[Reading], growth: u64) -> Option<u64> {
    let grew =
        |old: Option<u64>, new: Option<u64>| old.zip(new).map_or(0, |(old, new)| new.saturating_sub(old));
    let shows = |pair: &&[Reading]| {
        grew(pair[0].direct_reclaims, pair[1].direct_reclaims) > 0
            || grew(pair[0].psi_some_us, pair[1].psi_some_us) >= PRESSURE_US
    };
    readings.windows(2).filter(|pair| pair[1].at_ns >= growth).find(shows).map(|pair| pair[1].at_ns)
}

/// The first thing that anybody did about it after growth began: the controller by its journal, the kernel's OOM killer
/// by its counter, and either by what the cgroups show, which needs no word of the controller's.
fn first_action(material: &Material) -> Option<(u64, String)> {
    let growth = material.ending.growth_ns;
    let told = material.journal.actions.iter().find(|it| it.at_ns >= growth && it.mitigates());
    let told = told.map(|it| (it.at_ns, format!("{} {} by plimsoll", it.act.name(), it.whom)));
    let pairs = material.readings.windows(2).filter(|pair| pair[1].at_ns >= growth);
    let seen = pairs.into_iter().find_map(|pair| Some((pair[1].at_ns, visible(&pair[0], &pair[1])?)));
    told.into_iter().chain(seen).min_by_key(|(at, _)| *at)
}

/// What the second of two readings shows to have been done.
fn visible(before: &Reading, after: &Reading) -> Option<String> {
    if after.oom_kills > before.oom_kills {
        return Some("OOM kill by the kernel".into());
    }
    let loads = [("server", before.server, after.server), ("batch", before.batch, after.batch)];
    loads.into_iter().find_map(|(name, old, new)| Some(format!("{} {name}", change(old, new)?)))
}

/// What was done to a cgroup between two looks, if anything.
fn change(old: Group, new: Group) -> Option<&'static str> {
    if new.frozen == Some(true) && old.frozen == Some(false) {
        return Some("freeze");
    }
    if new.high.is_some() && new.high != old.high {
        return Some("high");
    }
    (new.populated == Some(false) && old.populated == Some(true)).then_some("kill")
}

fn killed(material: &Material) -> Vec<Killed> {
    let by = |kernel_oom: u64| if kernel_oom > 0 { "kernel" } else { "plimsoll" };
    let loads = material.ending.loads.iter();
    loads
        .filter_map(|(load, fate)| match fate {
            Fate::Killed { kernel_oom, .. } => {
                Some(Killed { load: load.clone(), by: by(*kernel_oom).into() })
            }
            Fate::Running | Fate::Exited(_) => None,
        })
        .collect()
}

fn kernel_oom_kills(readings: &[Reading]) -> u64 {
    let first = readings.iter().find_map(|reading| reading.oom_kills);
    let last = readings.iter().rev().find_map(|reading| reading.oom_kills);
    first.zip(last).map_or(0, |(first, last)| last.saturating_sub(first))
}

fn server_stall_ms(readings: &[Reading], growth: u64) -> f64 {
    let stall = |reading: &Reading| reading.server.psi_some_us;
    let first = readings.iter().filter(|reading| reading.at_ns >= growth).find_map(stall);
    let last = readings.iter().rev().find_map(stall);
    first.zip(last).map_or(0.0, |(first, last)| millis(last.saturating_sub(first) * 1000))
}

/// Neither frozen nor limited.
fn untouched(group: &Group) -> bool {
    group.frozen != Some(true) && group.high.is_none()
}

/// From when on, until the end of the watch, every load was alive and untouched; none where it was not so at the end.
fn restored(material: &Material) -> Option<u64> {
    let ending = &material.ending;
    if ending.loads.values().any(|fate| *fate != Fate::Running) {
        return None;
    }
    let watched = material.readings.iter().filter(|reading| reading.at_ns <= ending.ended_ns);
    let mut since = None;
    for reading in watched.rev().take_while(|it| untouched(&it.server) && untouched(&it.batch)) {
        since = Some(reading.at_ns.max(ending.growth_ns));
    }
    since
}

fn cpu_share(material: &Material) -> Option<f64> {
    let (before, after) = material.ending.controller_cpu_us?;
    let span = material.ending.ended_ns.saturating_sub(material.ending.growth_ns);
    (span > 0).then(|| after.saturating_sub(before) as f64 * 1e3 / span as f64)
}

#[cfg(test)]
mod tests {
    use super::{Group, Reading, Request, pressure, requests, untouched};

    fn request(latency_ms: u64, answered: bool) -> Request {
        Request { due_ns: 0, latency_ns: latency_ms * 1_000_000, answered }
    }

    #[test]
    fn late_and_lost_requests_stay_in_the_percentiles() {
        let all = [request(2, true), request(200, true), request(1500, true), request(9000, false)];
        let figures = requests(&all.iter().collect::<Vec<_>>());
        assert_eq!((figures.answered, figures.late, figures.lost), (2, 1, 2));
        assert_eq!((figures.p50_ms, figures.p99_ms, figures.max_ms), (200.0, 9000.0, 9000.0));
    }

    #[test]
    fn no_requests_give_no_figures() {
        assert_eq!(requests(&[]), super::Requests::default());
    }

    #[test]
    fn pressure_is_a_direct_reclaim_or_a_millisecond_of_stall_after_growth() {
        let reading = |at_ns, direct, stall| Reading {
            at_ns,
            direct_reclaims: Some(direct),
            psi_some_us: Some(stall),
            ..Reading::default()
        };
        let early = [reading(1, 0, 0), reading(2, 5, 5000), reading(3, 5, 5000)];
        assert_eq!(pressure(&early, 3), None);
        let stalled = [reading(1, 0, 0), reading(2, 0, 999), reading(3, 0, 1999)];
        assert_eq!(pressure(&stalled, 0), Some(3));
        let reclaimed = [reading(1, 0, 0), reading(2, 1, 0)];
        assert_eq!(pressure(&reclaimed, 0), Some(2));
    }

    #[test]
    fn a_limit_or_a_freeze_is_a_touch() {
        assert!(untouched(&Group::default()));
        assert!(!untouched(&Group { high: Some(1), ..Group::default() }));
        assert!(!untouched(&Group { frozen: Some(true), ..Group::default() }));
    }
}
