//! The story with a real kubelet: our image as a DaemonSet with the rights it is shipped with, and pods that the kubelet brings up.
mod join;
mod pods;
mod scenes;

use anyhow::Result;
use plimsoll_cluster::Cluster;

use super::account::Account;
use super::guest::Node;
use super::pods::Driver;
use crate::tally::Tally;

/// The node's name.
const NODE: &str = "node";

/// What is there.
struct Stage<'a> {
    node: &'a Node,
    cluster: Cluster,
    driver: Driver,
}

/// Tells the story on a fresh node.
pub(super) fn tell(node: &Node, driver: Driver) -> Tally {
    let mut account = Account::new(format!("kubelet, {} driver", driver.name()));
    // Where it could not go on is in the account.
    let _ = story(node, driver, &mut account);
    account.tally()
}

fn story(node: &Node, driver: Driver, account: &mut Account) -> Result<()> {
    let cluster = account.must("a kubelet registers and is ready", || {
        let cluster = join::control_plane()?;
        join::join(node, &cluster, driver)?;
        Ok(cluster)
    })?;
    let mut stage = Stage { node, cluster, driver };
    account.must("the DaemonSet as shipped becomes ready", || join::install(&stage.cluster))?;
    account.check("`plimsoll check` in the pod misses nothing that the node has", || scenes::checked(&stage));
    account.must("pods run, and are workloads", || scenes::pods_run(&stage))?;
    account.check("no sandbox was ever a workload", || scenes::sandboxes_left_alone(&stage));
    account.must("the least grows and is frozen", || scenes::held(&stage))?;
    account.check("its sidecar and its pod are left alone", || scenes::sidecar_untouched(&stage));
    account.check("the first answers, is ready and was never started again", || scenes::chat_answers(&stage));
    account.check("an Event on the pod says so", || scenes::event(&stage));
    account.check("the node has taint and condition, and a new pod has to wait", || scenes::tainted(&stage));
    account.check("when all is calm the pod is thawed, taint and condition go, the new pod comes", || {
        scenes::calm(&stage)
    });
    account.check("a pod that the node can't hold is evicted, once its disruption budget allows it", || {
        scenes::evicted(&stage)
    });
    account.check("kubelet is restarted while a pod is held", || scenes::kubelet_restarted(&stage));
    account.check("the API server is stopped while a pod is held, and comes back", || {
        scenes::api_server_away(&mut stage)
    });
    account.check(
        "our container is killed while a pod is frozen: thawed within two seconds, and taken over",
        || scenes::killed(&stage),
    );
    account.check("no plan broke an invariant", || {
        node.no_plan_broke_an_invariant("cat /var/log/pods/plimsoll_*/plimsoll/*.log")
    });
    account.check("the DaemonSet is deleted while a pod is frozen: it is let go", || {
        scenes::uninstalled(&stage)
    });
    Ok(())
}
