//! What to do after a CUDA call failed: try again, wait for whoever is asked for memory, or do without the GPU.

use std::time::Duration;

use plimsoll_policy::concession::Level;
use plimsoll_policy::gpu::GpuId;
use plimsoll_policy::plan::Tier;
use serde::Serialize;

use super::conditions::{Conditions, Doing};
use super::counts::CudaError;
use super::programs::CudaFailure;

/// Where a resource is short and nobody in particular is asked, it is worth to look again after this.
const A_MOMENT: Duration = Duration::from_secs(1);
/// Whoever is asked has longer, but memory may be there before he is done.
const LONGEST: Duration = Duration::from_secs(30);

/// So many errors in a row, and it is not tried again.
const STRIKES: u64 = 3;
/// While others are asked, or may yet have to die, there is hope for longer; not for ever, or who stays offloaded would be hope enough.
const STRIKES_WITH_HOPE: u64 = 12;

/// The reply to `ReportCudaError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Advice {
    advice: &'static str,
    wait_milliseconds: u64,
}

impl Advice {
    const RETRY: Self = Self { advice: "retry", wait_milliseconds: 0 };
    const FALLBACK: Self = Self { advice: "fallback", wait_milliseconds: 0 };

    fn wait(span: Duration) -> Self {
        let wait_milliseconds = u64::try_from(span.min(LONGEST).as_millis()).unwrap_or(u64::MAX);
        Self { advice: "wait", wait_milliseconds }
    }

    /// As it stands now, after the pass that took note of the failure.
    pub(super) fn on(failure: &CudaFailure, how: &Conditions, protected: bool) -> Self {
        let tier = tier(failure.gpu.as_ref(), how);
        let hope = failure.strikes < STRIKES_WITH_HOPE;
        match (failure.kind, tier) {
            (CudaError::Sticky, _) => Self::FALLBACK,
            (CudaError::Other, _) if failure.strikes >= STRIKES => Self::FALLBACK,
            (CudaError::Other, _) => Self::RETRY,
            (CudaError::OutOfMemory, tier) => match asked(failure.gpu.as_ref(), how) {
                Some(doing) if hope => Self::wait(doing.deadline.into()),
                _ if hope && protected && tier >= Tier::Critical => Self::wait(A_MOMENT),
                _ if failure.strikes >= STRIKES || tier == Tier::Emergency => Self::FALLBACK,
                _ if tier >= Tier::Critical => Self::wait(A_MOMENT),
                _ => Self::RETRY,
            },
        }
    }
}

/// Of the GPU; of the shortest resource where it is not known which one it was.
fn tier(gpu: Option<&GpuId>, how: &Conditions) -> Tier {
    match gpu.and_then(|gpu| how.gpus.get(gpu)) {
        Some(tier) => *tier,
        // Unified memory is the host's.
        None => how.gpus.values().copied().max().unwrap_or(how.host),
    }
}

/// Somebody who is being asked for memory of that GPU, or of any where it is not known which one it was.
fn asked<'a>(gpu: Option<&GpuId>, how: &'a Conditions) -> Option<&'a Doing> {
    let concerns = |doing: &Doing| gpu.is_none_or(|gpu| doing.gpus.is_empty() || doing.gpus.contains(gpu));
    how.doing.values().find(|doing| doing.level > Level::Nothing && concerns(doing))
}

#[cfg(test)]
mod tests {
    use plimsoll_policy::sample::{Rung, WorkloadId};
    use plimsoll_policy::units::Span;

    use super::*;

    #[test]
    fn the_advice_follows_from_how_it_stands() {
        let asked = Doing {
            rung: Rung::Offload,
            level: Level::Unload,
            gpus: vec!["a".into()],
            deadline: Span::secs(5),
        };
        let id = WorkloadId { path: "m".into(), inode: 1 };
        let gpus = |tier| [("a".into(), tier), ("b".into(), Tier::Normal)].into();
        let how = |tier| Conditions { gpus: gpus(tier), ..Conditions::default() };
        let making = Conditions { doing: [(id, asked)].into(), ..how(Tier::Critical) };
        let failure = |gpu: Option<&str>, kind, strikes| CudaFailure {
            gpu: gpu.map(Into::into),
            error: String::new(),
            kind,
            strikes,
        };
        use CudaError::{Other, OutOfMemory, Sticky};
        for (failure, how, protected, advice, wait) in [
            (failure(Some("a"), OutOfMemory, 1), &how(Tier::Elevated), true, "retry", 0),
            (failure(Some("a"), OutOfMemory, 3), &how(Tier::Elevated), true, "fallback", 0),
            (failure(Some("a"), OutOfMemory, 1), &how(Tier::Critical), false, "wait", 1000),
            (failure(None, OutOfMemory, 1), &how(Tier::Critical), false, "wait", 1000),
            (failure(Some("b"), OutOfMemory, 1), &how(Tier::Critical), false, "retry", 0),
            (failure(Some("a"), OutOfMemory, 3), &how(Tier::Critical), false, "fallback", 0),
            (failure(Some("a"), OutOfMemory, 1), &how(Tier::Emergency), false, "fallback", 0),
            (failure(Some("a"), OutOfMemory, 11), &how(Tier::Emergency), true, "wait", 1000),
            (failure(Some("a"), OutOfMemory, 12), &how(Tier::Emergency), true, "fallback", 0),
            (failure(Some("a"), OutOfMemory, 1), &making, false, "wait", 5000),
            (failure(Some("a"), OutOfMemory, 11), &making, false, "wait", 5000),
            (failure(Some("a"), OutOfMemory, 12), &making, false, "fallback", 0),
            (failure(Some("b"), OutOfMemory, 1), &making, false, "retry", 0),
            (failure(Some("a"), Sticky, 1), &how(Tier::Normal), true, "fallback", 0),
            (failure(Some("a"), Other, 1), &making, true, "retry", 0),
            (failure(Some("a"), Other, 3), &making, true, "fallback", 0),
        ] {
            let expected = Advice { advice, wait_milliseconds: wait };
            assert_eq!(Advice::on(&failure, how, protected), expected, "{failure:?}");
        }
    }
}
