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
pub(super) fn tell(node: &Node, driver: Driver, by_hand: bool) -> Tally {
    let mut account = Account::new(format!("kubelet, {} driver", driver.name()), by_hand);
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
    account.must("pods run, and are workloads", || scenes::pods_run(&stage))?;
    account.check("no sandbox was ever a workload", || scenes::sandboxes_left_alone(&stage));
    account.must("the least grows and is frozen", || scenes::held(&stage))?;
    account.check("the first answers, is ready and was never started again", || scenes::chat_answers(&stage));
    account.check("an Event on the pod says so", || scenes::event(&stage));
    account.check("the node has the taint and the condition", || scenes::tainted(&stage));
    account.check("when all is calm the pod is thawed, and taint and condition go", || scenes::calm(&stage));
    account.check("kubelet is restarted while a pod is held", || scenes::kubelet_restarted(&stage));
    account.check("the API server is stopped while a pod is held, and comes back", || {
        scenes::api_server_away(&mut stage)
    });
    account.check_by_hand(
        "a pod that the node can't hold is evicted, once its disruption budget allows it",
        || scenes::evicted(&stage),
    );
    account.check("the DaemonSet is deleted while a pod is frozen: it is let go", || {
        scenes::uninstalled(&stage)
    });
    Ok(())
}
