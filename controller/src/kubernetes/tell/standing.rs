//! How a node stands: what its condition and its taint are made from.

use std::fmt;

use plimsoll_policy::gpu::GpuId;
use plimsoll_policy::plan::{Assessment, Evidence, GpuAssessment, Tier};
use plimsoll_policy::units::{Bytes, Share};

/// The newest is all that counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Standing {
    /// The host's tier.
    pub(super) host: Tier,
    used: Option<Share>,
    headroom: Option<Bytes>,
    because: Option<Evidence>,
    /// The worst GPU that somebody needs more of. Engines fill a GPU once and for all: one that is merely full is not short.
    gpu: Option<(GpuId, GpuAssessment)>,
}

impl Standing {
    pub(super) fn of(assessment: &Assessment) -> Self {
        let contested = assessment.gpus.iter().filter(|(_, gpu)| gpu.contested);
        let worst = contested.max_by_key(|(_, gpu)| gpu.tier);
        Self {
            host: assessment.tier,
            used: assessment.used,
            headroom: assessment.headroom,
            because: assessment.because.clone(),
            gpu: worst.map(|(id, gpu)| (id.clone(), gpu.clone())),
        }
    }

    /// The tier of the worst contested GPU.
    pub(super) fn gpu_tier(&self) -> Tier {
        self.gpu.as_ref().map_or(Tier::Normal, |(_, gpu)| gpu.tier)
    }

    /// The worst of all resources.
    pub(super) fn worst(&self) -> Tier {
        self.host.max(self.gpu_tier())
    }

    /// Whether somebody would do something else for this than for `former`.
    pub(super) fn differs(&self, former: &Self) -> bool {
        (self.host, self.gpu_tier()) != (former.host, former.gpu_tier())
    }
}

/// In one sentence for people.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host memory is {}", self.host)?;
        numbers(f, self.used, self.headroom, self.because.as_ref())?;
        let Some((id, gpu)) = self.gpu.as_ref().filter(|(_, gpu)| gpu.tier > Tier::Normal) else {
            return Ok(());
        };
        write!(f, "; gpu:{id} is {}", gpu.tier)?;
        numbers(f, gpu.used, gpu.headroom, gpu.because.as_ref())
    }
}

fn numbers(
    f: &mut fmt::Formatter<'_>,
    used: Option<Share>,
    headroom: Option<Bytes>,
    because: Option<&Evidence>,
) -> fmt::Result {
    used.map_or(Ok(()), |used| write!(f, ", {used} used"))?;
    headroom.map_or(Ok(()), |headroom| write!(f, ", {headroom} until it is exhausted"))?;
    because.map_or(Ok(()), |because| write!(f, " ({because})"))
}
