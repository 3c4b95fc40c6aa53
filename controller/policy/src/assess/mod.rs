//! Rates, headroom, forecast, stall, thrash, tier: what the sample means.
//!
//! Sense on the protected, act on the expendable. Four things keep the signals honest:
//!
//! * `MemAvailable` counts a mapped model as available, so a machine that evicts its own model looks half empty.
//!   File pages of the protected that are mapped or active count as used ([`headroom`]).
//! * Time that a workload stalls because *we* throttle or freeze it is not pressure, so such a workload is
//!   left out of the stall, and host PSI (which contains it) is not used at all meanwhile ([`stall`]).
//! * Stall and thrash need corroboration by the used share before they raise the tier past what the share
//!   allows: a scanner of a big file makes others wait and refault now and then although there is
//!   plenty of memory (its page cache), and trimming it is all that this calls for. The same holds for a protected
//!   workload that runs into a limit of its own: taking memory from others would not help it ([`signals`]).
//! * Faults that add a page to a growing workload are a model being loaded, not thrash ([`thrash`]).

pub mod forecast;
pub(crate) mod gpu;
pub(crate) mod headroom;
pub(crate) mod observe;
pub(crate) mod signals;
pub(crate) mod stall;
pub(crate) mod thrash;
pub mod thrashing;
pub mod tier;

use self::forecast::{Forecast, Unknown};
use crate::admission;
use crate::config::{Config, HostThresholds};
use crate::plan::Assessment;
use crate::roles;
use crate::sample::Sample;
use crate::state::State;
use crate::units::{Bytes, Share, Span};

/// A rate across a longer time without readings is history, unless the pace of calm is slower still.
const CONTINUOUS: Span = Span::secs(1);

/// An assessment with the intermediate figures that decide needs and nobody else.
pub(crate) struct Assessed {
    pub(crate) report: Assessment,
    /// `None` where meminfo was a gap: then nothing new is decided on it.
    pub(crate) memory: Option<Memory>,
}

/// The host's memory at this moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) total: Bytes,
    pub(crate) free: Bytes,
    pub(crate) headroom: Bytes,
    /// Promised to somebody who has not used it yet.
    pub(crate) reserved: Bytes,
    /// Bytes per second by which headroom falls; zero where it does not.
    pub(crate) decline: Bytes,
    /// Growth of the protected, as far as headroom pays for it.
    pub(crate) protected_growth: Bytes,
    pub(crate) swap_free: Bytes,
}

impl Memory {
    /// With what is promised.
    pub(crate) fn used(&self) -> Bytes {
        (self.total.saturating_sub(self.headroom) + self.reserved).min(self.total)
    }

    /// The same memory, had nobody been promised anything: nobody is killed for a promise.
    pub(crate) fn without_promises(self) -> Self {
        Self { reserved: Bytes::ZERO, ..self }
    }

    /// The used share that the tier goes by. Promises may trim and throttle others, so that they can be kept; frozen is nobody
    /// for bytes that nobody uses yet.
    fn used_share(&self, host: &HostThresholds) -> Option<Share> {
        let real = Share::of(self.without_promises().used().0, self.total.0)?;
        let below_critical = Share(host.critical.used.0.saturating_sub(1));
        Some(Share::of(self.used().0, self.total.0)?.min(below_critical.max(real)))
    }

    /// Bytes above this share of the total, `ahead` from now at the present rate.
    pub(crate) fn above(&self, share: Share, growth: Bytes, ahead: Span) -> Bytes {
        (self.used() + per(growth, ahead)).saturating_sub(self.total.share(share))
    }
}

/// What `rate` per second amounts to in `span`.
pub(crate) fn per(rate: Bytes, span: Span) -> Bytes {
    let bytes = u128::from(rate.0) * u128::from(span.0) / 1_000_000_000;
    Bytes(u64::try_from(bytes).unwrap_or(u64::MAX))
}

/// The time in which `rate` per second eats `bytes`; `None` where there is no rate.
pub(crate) fn time_for(bytes: Bytes, rate: Bytes) -> Option<Span> {
    let nanos = (u128::from(bytes.0) * 1_000_000_000).checked_div(u128::from(rate.0))?;
    Some(Span(u64::try_from(nanos).unwrap_or(u64::MAX)))
}

/// Takes the sample into the state's history and says what it means.
pub(crate) fn assess(config: &Config, state: &mut State, sample: &Sample) -> Assessed {
    observe::observe(state, sample);
    admission::settle::settle(config, &mut state.admission, sample);
    let growth = observe::growth(state, sample);
    let decline = decline(config, state, sample);
    let falling = decline.map_or(Bytes::ZERO, |(rate, _)| rate);
    let memory = headroom::memory(config, state, sample, &growth, falling);
    let used = memory.and_then(|m| m.used_share(&config.host));
    let forecast =
        memory.map_or(Forecast::Unknown(Unknown::Gap), |m| forecast::forecast(state, sample, &m, decline));
    let stall = stall::stall(config, state, sample);
    let thrash = thrash::thrash(config, state, sample, &growth);
    let context = thrashing::Context { tier: state.tier.tier, used };
    let thrashing = thrashing::advance(&mut state.thrash, &config.host, thrash, context, sample.at);
    let thrash = thrash.map(|rates| signals::Thrash { rate: rates.worst(), state: thrashing });
    let now = signals::Signals { used, forecast, stall, thrash, ..signals::Signals::default() };
    let (tier, because) = tier::advance(&mut state.tier, &config.host, &now, sample.at);
    let deficit =
        memory.map_or(Bytes::ZERO, |m| m.above(config.host.elevated.leave, Bytes::ZERO, Span::ZERO));
    let report = Assessment {
        tier,
        because,
        used,
        headroom: memory.map(|m| m.headroom),
        forecast,
        stall,
        thrash_per_second: thrash.map(|t| t.rate),
        thrash: thrashing,
        deficit,
        growth,
        gpus: gpu::assess(config, state, sample),
    };
    Assessed { report, memory }
}

fn decline(config: &Config, state: &State, sample: &Sample) -> forecast::Fall {
    let meminfo = sample.host.meminfo.ok_or(Unknown::Gap)?;
    let patience = Span(config.pace.calm.0.saturating_mul(2)).max(CONTINUOUS);
    forecast::decline(state, meminfo.total, sample.at, patience)
}

/// Whether anybody's stall is of our own making at the moment.
pub(crate) fn we_brake_somebody(config: &Config, state: &State, sample: &Sample) -> bool {
    use crate::sample::Rung;
    let braked = state.workloads.iter().filter(|(_, track)| track.held.rung >= Rung::Throttle);
    braked.filter_map(|(id, _)| sample.workloads.get(id)).any(|w| !roles::is_protected(config, w))
}
