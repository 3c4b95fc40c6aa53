//! Whether a pod can be handed to another node, and how long it takes to end in order.

use plimsoll_policy::config::annotations::Annotations;
use plimsoll_policy::units::Span;

use super::object::ApiPod;

/// What Kubernetes waits for where nothing is said.
const GRACE: u64 = 30;
/// A pod that may take longer to end is not waited for any longer.
const LONGEST: u64 = 3600;

/// How long it takes to end in order; why it stays, in words, where nobody would start it elsewhere.
pub(super) fn evictable(pod: &ApiPod, said: &Annotations) -> Result<Span, String> {
    let grace = pod.spec.termination_grace_period_seconds.unwrap_or(GRACE).min(LONGEST);
    let grace = said.grace.unwrap_or(Span::secs(grace));
    let stays = match pod.owner() {
        _ if pod.is_leaving() => "it is ending already",
        None => "no controller owns it: it would be gone",
        Some("DaemonSet") => "its DaemonSet would start it on this node again",
        // Its controller counts it as a failure, unless told otherwise, and what was computed is lost.
        Some("Job") if said.grace.is_none() => "a Job counts that as a failure: only with plimsoll.dev/grace",
        Some(_) => return Ok(grace),
    };
    Err(stays.into())
}
