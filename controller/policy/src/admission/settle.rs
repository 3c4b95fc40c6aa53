//! Settled by evidence: what a holder was promised and now has is no longer promised, and what shows no life expires.

use super::claims;
use super::desk::{Desk, Stage};
use crate::assess::headroom::hot;
use crate::config::Config;
use crate::roles;
use crate::sample::{Sample, Workload, WorkloadId};
use crate::units::Bytes;

/// Brings all reservations up to date, before anything is made of them.
pub(crate) fn settle(config: &Config, desk: &mut Desk, sample: &Sample) {
    desk.reservations.retain(|r| !r.stage.is_over());
    if desk.reservations.is_empty() {
        desk.peaks.clear();
        desk.gpu_peaks.clear();
        return;
    }
    forget_peaks(desk, sample);
    for reservation in &mut desk.reservations {
        let Some((id, workload)) = workload_of(sample, &reservation.holder) else { continue };
        reservation.lived |= workload.populated == Some(true);
        let Some(claim) = claim(config, workload) else { continue };
        // Several reservations of one holder: what it grew settles the oldest first, and each byte once.
        let peak = desk.peaks.entry(id.clone()).or_insert(claim);
        let take = claim.saturating_sub(*peak).min(reservation.promised.saturating_sub(reservation.settled));
        if take > Bytes::ZERO {
            *peak = *peak + take;
            reservation.settled = reservation.settled + take;
            reservation.grew = sample.at;
        }
    }
    raise_peaks(config, desk, sample);
    claims::settle(config, desk, sample);
    expire(config, desk, sample);
}

/// Growth that no reservation was for is not to settle a later one.
fn raise_peaks(config: &Config, desk: &mut Desk, sample: &Sample) {
    for (id, peak) in &mut desk.peaks {
        if let Some(claim) = sample.workloads.get(id).and_then(|w| claim(config, w)) {
            *peak = claim.max(*peak);
        }
    }
}

fn forget_peaks(desk: &mut Desk, sample: &Sample) {
    let Desk { peaks, reservations, .. } = desk;
    peaks.retain(|id, _| {
        reservations
            .iter()
            .any(|r| r.holder == *id || workload_of(sample, &r.holder).is_some_and(|(w, _)| w == id))
    });
}

/// From now on, growth beyond what the holder has is growth that was promised.
pub(super) fn begin(config: &Config, desk: &mut Desk, sample: &Sample, holder: &WorkloadId, current: Bytes) {
    let known = workload_of(sample, holder);
    let id = known.map_or(holder, |(id, _)| id).clone();
    let now = known.and_then(|(_, workload)| claim(config, workload));
    match now {
        Some(claim) => desk.peaks.insert(id, claim),
        None => Some(*desk.peaks.entry(id).or_insert(current)),
    };
}

fn expire(config: &Config, desk: &mut Desk, sample: &Sample) {
    let at = sample.at;
    let load = config.admission.load;
    for reservation in desk.live() {
        let populated = workload_of(sample, &reservation.holder).and_then(|(_, w)| w.populated);
        let used = reservation.is_used();
        let loading = at.since(reservation.since) < load || at.since(reservation.grew) < reservation.ttl;
        let breathes = reservation.detached && reservation.stage == Stage::Granted && loading;
        if reservation.lived && populated == Some(false) {
            reservation.stage = Stage::Released;
        } else if breathes && populated == Some(true) && !used {
            reservation.until = at + reservation.ttl;
        } else if at >= reservation.until {
            reservation.stage = if used { Stage::Settled } else { Stage::Expired };
        }
    }
}

/// What headroom lacks because of this workload: all that can't be dropped, and the file pages in use of a protected one. A
/// file that is only read on the way grows memory.current as well, and takes nothing from headroom.
fn claim(config: &Config, workload: &Workload) -> Option<Bytes> {
    let stat = workload.stat.as_ref()?;
    let file = if roles::is_protected(config, workload) { hot(stat) } else { Bytes::ZERO };
    let kernel = stat.kernel.saturating_sub(stat.slab_reclaimable);
    Some(stat.anon + stat.shmem + kernel + file + workload.swap.unwrap_or_default())
}

/// The workload that a cgroup is, or is within.
pub(crate) fn workload_of<'a>(
    sample: &'a Sample,
    cgroup: &WorkloadId,
) -> Option<(&'a WorkloadId, &'a Workload)> {
    sample.workloads.get_key_value(cgroup).or_else(|| {
        let ancestors = cgroup.path.match_indices('/').rev().map(|(end, _)| &cgroup.path[..end]);
        ancestors.into_iter().find_map(|path| at_path(sample, path))
    })
}

fn at_path<'a>(sample: &'a Sample, path: &str) -> Option<(&'a WorkloadId, &'a Workload)> {
    let first = WorkloadId { path: path.into(), inode: 0 };
    sample.workloads.range(first..).next().filter(|(id, _)| *id.path == *path)
}
