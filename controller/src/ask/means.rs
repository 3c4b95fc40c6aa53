//! The ways that the configuration names for a workload.

use std::path::Path;
use std::sync::Arc;

use plimsoll_policy::config::ask::Ask;
use plimsoll_policy::config::ways::Means;
use tokio::sync::watch;

use super::checkpoint::Checkpoint;
use super::hook::Hooked;
use super::signal::Signalled;
use super::way::{Way, WayError};
use super::webhook::Posted;
use crate::engines;
use crate::sense::cgroup::Cgroup;

/// Makes them. What can't be used is said once, when the workload is found, and left out.
pub(super) fn ways(
    means: &Means,
    config: &Ask,
    cgroup: &Arc<Cgroup>,
    root: &Path,
    short: &watch::Sender<bool>,
) -> Vec<Arc<dyn Way>> {
    let Means { engine, signal, webhook, hook, cuda_checkpoint, watch: _ } = means;
    let signalled = |signals| Ok(Arc::new(Signalled::new(signals, Arc::clone(cgroup), root)) as Arc<dyn Way>);
    let posted = |webhook| Ok(Arc::new(Posted::new(webhook, config, &cgroup.id)?) as Arc<dyn Way>);
    let hooked = |hook| Ok(Arc::new(Hooked::start(hook, &cgroup.id, short.subscribe())) as Arc<dyn Way>);
    let checkpoint = |config| Ok(Arc::new(Checkpoint::new(config, Arc::clone(cgroup), root)) as Arc<dyn Way>);
    let ways: [Option<Result<Arc<dyn Way>, WayError>>; 5] = [
        engine.as_ref().map(|at| engines::way(at, config)),
        signal.clone().map(signalled),
        webhook.as_ref().map(posted),
        hook.as_ref().map(hooked),
        cuda_checkpoint.clone().map(checkpoint),
    ];
    let usable = |way: Result<_, WayError>| {
        let unusable =
            |error| tracing::error!(workload = %cgroup.id, %error, "a workload can't be asked in this way");
        way.map_err(unusable).ok()
    };
    ways.into_iter().flatten().filter_map(usable).collect()
}
