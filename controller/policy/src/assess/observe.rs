//! Takes a sample's readings into the history of the same inode.

use std::collections::BTreeMap;

use super::headroom::hot;
use crate::join::join;
use crate::sample::{Meminfo, Sample, Workload, WorkloadId};
use crate::state::{State, Track};
use crate::units::{Bytes, Monotonic, Span};

/// A workload that is missing from the samples is forgotten after this long; its cgroup may only have been
/// unreadable for a moment, and it may be frozen.
const FORGET: Span = Span::secs(30);

pub(crate) fn observe(state: &mut State, sample: &Sample) {
    if let Some(psi) = sample.host.psi {
        state.host_psi.push_counter(sample.at, psi.some_us);
    }
    let armed = state.gate.armed();
    let (mut zram, mut known) = (Bytes::ZERO, 0);
    for (id, workload, track) in join(&sample.workloads, &mut state.workloads) {
        take(track, workload, sample.at);
        if let Some(probes) = workload.probes.filter(|_| armed) {
            track.minor_faults.push_counter(sample.at, probes.minor_faults);
        }
        zram = zram + track.swap_ram;
        let killed = workload.events.map_or(0, |events| killed(track, events.oom_kill));
        if killed > 0 {
            state.admission.failed(&id.path, killed, sample.at);
        }
        known += 1;
    }
    if known < sample.workloads.len() {
        zram = zram + welcome(state, sample);
    }
    if let Some(meminfo) = &sample.host.meminfo {
        host(state, meminfo, zram, sample.at);
    }
    if state.workloads.len() > sample.workloads.len() {
        state.forget(|track| sample.at.since(track.seen) < FORGET && sample.at >= track.seen);
    }
}

fn host(state: &mut State, meminfo: &Meminfo, zram: Bytes, at: Monotonic) {
    state.available.push(at, meminfo.available.0);
    state.file.push(at, meminfo.file.0);
    if meminfo.swap_total > Bytes::ZERO {
        state.swapped.push(at, meminfo.swap_total.saturating_sub(meminfo.swap_free).0);
        state.with_swap.push(at, (meminfo.available + meminfo.swap_free + zram).0);
    }
}

/// Takes in those who are new, and says what their swapped pages take of RAM.
fn welcome(state: &mut State, sample: &Sample) -> Bytes {
    let mut zram = Bytes::ZERO;
    for (id, workload) in &sample.workloads {
        if state.workloads.contains_key(id) {
            continue;
        }
        if !state.killed.is_empty() {
            state.newcomers.push(id.clone());
        }
        let track = state.welcome(id, &workload.spec);
        take(track, workload, sample.at);
        track.oom_kills = workload.events.map(|events| events.oom_kill);
        zram = zram + track.swap_ram;
    }
    zram
}

fn take(track: &mut Track, workload: &Workload, at: Monotonic) {
    track.seen = at;
    track.swap = workload.swap.unwrap_or(track.swap);
    track.swap_ram = workload.swap_ram.unwrap_or(track.swap_ram);
    if let Some(current) = workload.current {
        track.usage.push(at, (current + track.swap).0);
    }
    if let Some(psi) = workload.psi {
        track.psi.push_counter(at, psi.some_us);
    }
    if let Some(events) = workload.events {
        track.high_events.push_counter(at, events.high);
    }
    if let Some(stat) = &workload.stat {
        let read = workload.stat_at;
        track.hot = hot(stat);
        track.refaults.push_counter(read, stat.refault_file.saturating_add(stat.refault_anon));
        track.scan.push_counter(read, stat.scan);
        track.steal.push_counter(read, stat.steal);
    }
    match (&workload.probes, &workload.stat) {
        (Some(probes), _) => {
            track.reclaim.push_counter(at, probes.direct_reclaim_ns);
            track.major_faults.push_counter(at, probes.major_faults);
        }
        (None, Some(stat)) => track.major_faults.push_counter(workload.stat_at, stat.major_faults),
        (None, None) => {}
    }
}

/// Victims of the kernel's OOM killer since the last look.
fn killed(track: &mut Track, oom_kills: u64) -> u64 {
    let before = track.oom_kills.replace(oom_kills);
    before.map_or(0, |before| oom_kills.saturating_sub(before))
}

/// Growth of every workload that is known to grow or to shrink.
pub(crate) fn growth(state: &State, sample: &Sample) -> BTreeMap<WorkloadId, i64> {
    join(&sample.workloads, &state.workloads)
        .filter(|(_, workload, _)| workload.current.is_some())
        .map(|(id, _, track)| (id, track.usage.growth(sample.at).unwrap_or(0)))
        .filter(|(_, growth)| *growth != 0)
        .map(|(id, growth)| (id.clone(), growth))
        .collect()
}

/// What is positive of a growth.
pub(crate) fn positive(growth: i64) -> Bytes {
    Bytes(u64::try_from(growth).unwrap_or(0))
}
