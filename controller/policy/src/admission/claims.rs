//! What of GPU memory that was promised is seen to be used, and what is no longer believed in.

use std::collections::BTreeMap;

use super::desk::{Desk, Hold, Reservation};
use super::settle::workload_of;
use crate::config::Config;
use crate::gpu::GpuId;
use crate::sample::{Sample, WorkloadId};
use crate::units::{Bytes, Monotonic};

/// Where nobody knows what the holder has, the device's own use is the evidence. Less than this may be anybody's buffers.
const EPSILON: Bytes = Bytes::mib(256);

/// Brings what is held of GPUs up to date. What was promised and shows no sign of life for as long as the configuration says is
/// given back: a loader that died, or found out that it needs less.
pub(super) fn settle(config: &Config, desk: &mut Desk, sample: &Sample) {
    let Desk { gpu_peaks: peaks, reservations, .. } = desk;
    peaks.retain(|id, _| reservations.iter().any(|r| !r.gpus.is_empty() && owner(sample, r) == id));
    for reservation in reservations.iter_mut().filter(|r| !r.gpus.is_empty()) {
        let of_holder = peaks.entry(owner(sample, reservation).clone()).or_default();
        let mut grew = false;
        for (gpu, hold) in &mut reservation.gpus {
            let known = known_use(sample, &reservation.holder, gpu);
            grew |= match (known, device_use(sample, gpu)) {
                (Some(used), _) => take(hold, of_holder.entry(gpu.clone()).or_default(), used),
                (None, Some(used)) => guess(hold, used),
                (None, None) => false,
            };
        }
        if grew {
            reservation.grew = sample.at;
        }
        if sample.at.since(last_life(reservation)) >= config.gpu.claim {
            reservation.gpus.values_mut().for_each(|hold| hold.promised = hold.promised.min(hold.settled));
        }
    }
    raise_peaks(peaks, sample);
}

/// From now on, growth beyond what the holder has is growth that was promised.
pub(super) fn begin(
    desk: &mut Desk,
    sample: &Sample,
    holder: &WorkloadId,
    holds: &mut BTreeMap<GpuId, Hold>,
) {
    let id = workload_of(sample, holder).map_or(holder, |(id, _)| id);
    for (gpu, hold) in holds {
        hold.level = device_use(sample, gpu).unwrap_or_default();
        if let Some(used) = known_use(sample, holder, gpu) {
            desk.gpu_peaks.entry(id.clone()).or_default().insert(gpu.clone(), used);
        }
    }
}

/// Several reservations of one holder: what it grew settles the oldest first, and each byte once.
fn take(hold: &mut Hold, peak: &mut Bytes, used: Bytes) -> bool {
    let taken = used.saturating_sub(*peak).min(hold.unsettled());
    *peak = *peak + taken;
    hold.settled = hold.settled + taken;
    taken > Bytes::ZERO
}

fn guess(hold: &mut Hold, used: Bytes) -> bool {
    let grown = used.saturating_sub(hold.level);
    hold.level = hold.level.min(used);
    if grown < EPSILON {
        return false;
    }
    let taken = grown.min(hold.unsettled());
    hold.level = used;
    hold.settled = hold.settled + taken;
    taken > Bytes::ZERO
}

/// Growth that no reservation was for is not to settle a later one.
fn raise_peaks(peaks: &mut BTreeMap<WorkloadId, BTreeMap<GpuId, Bytes>>, sample: &Sample) {
    for (id, of_holder) in peaks {
        for (gpu, peak) in of_holder {
            *peak = known_use(sample, id, gpu).unwrap_or_default().max(*peak);
        }
    }
}

fn owner<'a>(sample: &'a Sample, reservation: &'a Reservation) -> &'a WorkloadId {
    workload_of(sample, &reservation.holder).map_or(&reservation.holder, |(id, _)| id)
}

/// What the holder has there; `None` where nobody knows. A device that it does not use is known.
fn known_use(sample: &Sample, holder: &WorkloadId, gpu: &GpuId) -> Option<Bytes> {
    let (_, workload) = workload_of(sample, holder)?;
    workload.gpus.get(gpu).copied().unwrap_or(Some(Bytes::ZERO))
}

fn device_use(sample: &Sample, gpu: &GpuId) -> Option<Bytes> {
    sample.gpus.get(gpu)?.used
}

fn last_life(reservation: &Reservation) -> Monotonic {
    reservation.since.max(reservation.grew).max(reservation.heard)
}
