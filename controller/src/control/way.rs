//! The way `client`: the programs of a workload that registered at the control socket are asked, all of them.

use std::sync::Arc;

use plimsoll_policy::concession::{Gains, Offer};
use plimsoll_policy::sample::WorkloadId;
use plimsoll_policy::units::Bytes;

use super::sessions::{Said, Sessions};
use crate::ask::way::{Answered, Answering, Asking, Way, WayError};

/// A workload by way of its own programs.
#[derive(Clone, Debug)]
pub struct ClientWay {
    /// Where they are registered.
    pub sessions: Arc<Sessions>,
    /// Whose they are.
    pub workload: WorkloadId,
}

impl Way for ClientWay {
    fn name(&self) -> &'static str {
        "client"
    }

    fn offer(&self) -> Answering<'_, Offer> {
        Box::pin(async { Ok(self.sessions.offer(&self.workload)) })
    }

    fn ask<'a>(&'a self, asking: &'a Asking) -> Answering<'a, Answered> {
        Box::pin(async move {
            // From the first request on it is withdrawn when nobody waits any more.
            let _withdrawn = Withdrawn(self, asking.number);
            let answers = self.sessions.ask(&self.workload, asking)?;
            let mut all = Vec::new();
            for answer in answers {
                let hung_up = || WayError::Unreachable("a program hung up before it answered".into());
                all.push(answer.await.unwrap_or_else(|_| Err(hung_up())));
            }
            join(all)
        })
    }
}

struct Withdrawn<'a>(&'a ClientWay, u64);

impl Drop for Withdrawn<'_> {
    fn drop(&mut self) {
        self.0.sessions.withdraw(&self.0.workload, self.1);
    }
}

/// The worst that any of them says, or the sum of what they claim.
fn join(all: Vec<Said>) -> Said {
    let answered = all.into_iter().collect::<Result<Vec<_>, _>>()?;
    let claimed = answered.into_iter().filter_map(|answered| answered.claimed).reduce(sum);
    Ok(Answered { claimed })
}

/// Of each resource.
pub(super) fn sum(one: Gains, other: Gains) -> Gains {
    let mut gpus = one.gpus;
    for (gpu, bytes) in other.gpus {
        let of_gpu = gpus.entry(gpu).or_default();
        *of_gpu = Bytes(of_gpu.0.saturating_add(bytes.0));
    }
    Gains { host: one.host.saturating_add(other.host), gpus }
}
