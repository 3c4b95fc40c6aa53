//! Every GPU whose memory is its own, as a resource: how full, for how long, and whether anybody wants more of it.
//!
//! The tiers are those of the host, by two signals: the used share and the forecast. What could not be read holds the tier where
//! it is and calls for nothing new; a GPU that is lost has no tier, and is remembered no longer than one that was unplugged.

use std::collections::BTreeMap;

use super::forecast::{self, Forecast, Unknown};
use super::signals::Signals;
use super::tier;
use crate::admission::Call;
use crate::admission::settle::workload_of;
use crate::appetite::{Refusals, Step};
use crate::config::{Config, Gpu as Thresholds, GpuThreshold, HostThresholds, Threshold};
use crate::gpu::{Gpu, GpuId};
use crate::history::Trend;
use crate::plan::{GpuAssessment, Tier};
use crate::roles;
use crate::sample::{Sample, WorkloadId};
use crate::state::{GpuTrack, State};
use crate::units::{Bytes, Monotonic, Share, Span};

/// One that is missing from the samples is forgotten after this long: its driver may only have been busy.
const FORGET: Span = Span::secs(30);
/// A rate across a longer time without readings is history. Drivers are asked about once a second.
const PATIENCE: Span = Span::secs(3);
/// Growth by this part of the memory is somebody who wants more, and not the come and go of small buffers.
const STIR: u64 = 100;

/// Takes the readings into the state's history and says what they mean.
pub(crate) fn assess(config: &Config, state: &mut State, sample: &Sample) -> BTreeMap<GpuId, GpuAssessment> {
    forget(state, sample);
    let mut all = BTreeMap::new();
    for (id, gpu) in sample.gpus.iter().filter(|(_, gpu)| gpu.is_resource()) {
        let reserved = state.admission.reserved_on(id);
        let waits = state.admission.waits_for(id);
        let track = state.gpus.entry(id.clone()).or_default();
        observe(track, id, gpu, sample, config.gpu.contested_for);
        failures(config, track, (id, gpu), sample);
        all.insert(id.clone(), one(config, track, gpu, sample.at, reserved, waits));
    }
    all
}

fn forget(state: &mut State, sample: &Sample) {
    state.gpus.retain(|id, track| match sample.gpus.get(id) {
        Some(gpu) => gpu.is_resource(),
        None => sample.at.since(track.seen) < FORGET && sample.at >= track.seen,
    });
}

/// A reading that the sample only repeats is ignored by the trend, and adds nothing to an appetite.
fn observe(track: &mut GpuTrack, id: &GpuId, gpu: &Gpu, sample: &Sample, within: Span) {
    let known = track.seen != Monotonic::default();
    track.seen = sample.at;
    let (Some(total), Some(used)) = (gpu.total, gpu.used) else { return };
    let read = if gpu.at == Monotonic::default() { sample.at } else { gpu.at };
    track.free.push(read, total.saturating_sub(used).0);
    let step = Step { at: sample.at, by: Bytes(total.0 / STIR), within };
    track.appetite.take(used, step);
    for (holder, used) in sample.workloads.iter().filter_map(|(holder, w)| Some((holder, *w.gpus.get(id)?))) {
        let new = !track.holders.contains_key(holder);
        let appetite = track.holders.entry(holder.clone()).or_default();
        let Some(used) = used else { continue };
        if new && known {
            // Whoever was not seen here before began with nothing.
            appetite.start(Bytes::ZERO, sample.at);
        }
        appetite.take(used, step);
    }
    let holds = |holder: &WorkloadId| sample.workloads.get(holder).is_some_and(|w| w.gpus.contains_key(id));
    track.holders.retain(|holder, appetite| holds(holder) || appetite.lasts(sample.at, within));
}

/// What processes report: nobody else can see it.
fn failures(config: &Config, track: &mut GpuTrack, (id, reading): (&GpuId, &Gpu), sample: &Sample) {
    for request in &sample.requests {
        let Call::CudaOutOfMemory { cgroup, gpu } = &request.call else { continue };
        let Some((holder, workload)) = workload_of(sample, cgroup) else { continue };
        let here = match gpu {
            Some(gpu) => gpu == id,
            None => workload.gpus.is_empty() || workload.gpus.contains_key(id),
        };
        if here {
            track.appetite.fail(sample.at);
            track.holders.entry(holder.clone()).or_default().fail(sample.at);
            if let Some(free) = free(reading).filter(|_| roles::is_protected(config, workload)) {
                track.refused = Some(Refusals::and(track.refused.take(), holder, free, sample.at));
            }
        }
    }
    let step =
        |total: Bytes| Step { at: sample.at, by: Bytes(total.0 / STIR), within: config.gpu.contested_for };
    if let Some((free, step)) = free(reading).zip(reading.total.map(step)) {
        let holders = &track.holders;
        track.refused = track.refused.take().filter(|it| it.stands(free, step, holders.get(&it.by)));
    }
}

fn free(gpu: &Gpu) -> Option<Bytes> {
    gpu.total.zip(gpu.used).map(|(total, used)| total.saturating_sub(used))
}

fn one(
    config: &Config,
    track: &mut GpuTrack,
    gpu: &Gpu,
    at: Monotonic,
    reserved: Bytes,
    waits: bool,
) -> GpuAssessment {
    let scale = scale(&config.gpu);
    let read = gpu.total.zip(gpu.used).filter(|(total, _)| *total > Bytes::ZERO);
    let used = read.and_then(|(total, used)| used_share(&config.gpu, total, used, reserved));
    let free = free(gpu).filter(|_| read.is_some());
    let forecast = read.zip(free).map(|((total, _), free)| forecast(&track.free, total, free, at));
    let forecast = forecast.unwrap_or(Forecast::Unknown(Unknown::Gap));
    let forecast_up_to = believed(&config.gpu, track, used, forecast, at);
    let signals = Signals { used, forecast, forecast_up_to, ..Signals::default() };
    let (seen, because) = tier::advance(&mut track.tier, &scale, &signals, at);
    // Large blocks are refused long before a GPU is full.
    let refused = track.refused.as_ref().filter(|it| it.tier() > seen && used.is_some());
    let tier = refused.map_or(seen, Refusals::tier);
    let because = refused.map(Refusals::evidence).or(because);
    // It is not known how much was wanted: enough that the first one who can give something is asked.
    let enough = |(total, _): (Bytes, Bytes)| {
        let between = config.gpu.constrained.leave.0.saturating_sub(config.gpu.elevated.leave.0);
        total.share(Share(between)) + Bytes(total.0 / STIR)
    };
    let least = read.filter(|_| refused.is_some()).map_or(Bytes::ZERO, enough);
    let wanted = |(total, used): (Bytes, Bytes)| {
        (used + reserved).saturating_sub(total.share(config.gpu.elevated.leave)).max(least)
    };
    GpuAssessment {
        tier,
        because,
        used,
        headroom: free.map(|free| free.saturating_sub(reserved)),
        forecast: signals.forecast,
        deficit: read.map_or(Bytes::ZERO, wanted),
        contested: waits || track.appetite.lasts(at, config.gpu.contested_for),
    }
}

/// What is promised counts as used, so that it can be kept; nobody suffers more than a request for bytes that nobody uses yet.
fn used_share(gpu: &Thresholds, total: Bytes, used: Bytes, reserved: Bytes) -> Option<Share> {
    let real = Share::of(used.0, total.0)?;
    let below_critical = Share(gpu.critical.used.0.saturating_sub(1));
    Some(Share::of((used + reserved).0, total.0)?.min(below_critical.max(real)))
}

/// How far the forecast is believed. A model that is loaded fills a GPU at the speed of the bus, and then stops: as long as there is
/// plenty of room that calls for caches and no more, and a single step is no rate.
fn believed(
    gpu: &Thresholds,
    track: &mut GpuTrack,
    used: Option<Share>,
    forecast: Forecast,
    at: Monotonic,
) -> Tier {
    let at_once = forecast.left().zip(gpu.emergency.forecast).is_some_and(|(left, limit)| left < limit);
    track.filling = at_once.then(|| track.filling.unwrap_or(at).min(at));
    if used.is_none_or(|used| used < gpu.elevated.used) {
        Tier::Constrained
    } else if track.filling.is_some_and(|since| at.since(since) < gpu.dwell) {
        Tier::Critical
    } else {
        Tier::Emergency
    }
}

fn forecast(trend: &Trend, total: Bytes, free: Bytes, at: Monotonic) -> Forecast {
    if !trend.is_continuous(PATIENCE) {
        let first = trend.is_first();
        return Forecast::Unknown(if first { Unknown::FewReadings } else { Unknown::Gap });
    }
    forecast::of_free(trend, total, free, at)
}

/// The thresholds in the form that the tiers of the host have. The two signals that a GPU lacks are never known.
fn scale(gpu: &Thresholds) -> HostThresholds {
    let tier = |tier: &GpuThreshold| Threshold {
        used: tier.used,
        leave: tier.leave,
        forecast: tier.forecast,
        stall: Share::ONE,
        thrash: None,
    };
    let host = HostThresholds::default();
    HostThresholds {
        elevated: tier(&gpu.elevated),
        constrained: tier(&gpu.constrained),
        critical: tier(&gpu.critical),
        emergency: tier(&gpu.emergency),
        dwell: crate::config::Dwell { used: gpu.dwell, forecast: gpu.dwell, ..host.dwell },
        dwell_down: gpu.dwell_down,
        ..host
    }
}
