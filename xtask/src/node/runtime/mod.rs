//! The story without a kubelet: pods that `ctr` makes in kubelet's layout, by either driver, and Plimsoll as a service of the node.
mod daemon;
mod pod;
mod scenes;

use anyhow::{Result, ensure};
use plimsoll_cluster::{Cluster, Options};
use serde_json::json;

use super::account::Account;
use super::guest::Node;
use super::pods::Driver;
use crate::setup;
use crate::tally::Tally;
use pod::{Pod, Wanted};

/// The node's name.
const NODE: &str = "node";
/// What the workload grows to that may be throttled and nothing else.
const NIGHTLY_MIB: u32 = 600;

/// Who is on the node.
struct Stage<'a> {
    node: &'a Node,
    cluster: Cluster,
    driver: Driver,
    /// Matters most, and answers requests.
    chat: Pod,
    /// Matters least, and may be frozen.
    batch: Pod,
    /// Matters little, and may be throttled and nothing else.
    nightly: Pod,
}

/// Tells the story for one driver after the other, on one node.
pub(super) fn tell(node: &Node, drivers: &[Driver]) -> Tally {
    let mut tally = Tally::default();
    for driver in drivers {
        let mut account = Account::new(format!("containers, {} driver", driver.name()));
        // Where it could not go on is in the account.
        let _ = story(node, *driver, &mut account);
        tally += account.tally();
    }
    tally
}

fn story(node: &Node, driver: Driver, account: &mut Account) -> Result<()> {
    let mut stage = account.must("pods run where kubelet would have them", || set(node, driver))?;
    account.must("Plimsoll finds the containers and no sandbox", || scenes::found(&stage))?;
    account.must("the least grows and is held, the first answers every request", || scenes::held(&stage))?;
    account.check("the pause containers were never touched", || scenes::sandboxes_untouched(&stage));
    account.must("when all is calm everything is let go", || scenes::let_go(&stage))?;
    account.check("a container that is started again is the same workload in another cgroup", || {
        scenes::started_again(&mut stage)
    });
    account.check("what somebody lowers is never raised, and stands there afterwards", || {
        scenes::lowered(&mut stage)
    });
    account.check("a reload of systemd during a throttle", || scenes::reloaded(&mut stage));
    account.check("kubelet's memory.swap.max 0 and memory.oom.group 1 stay and are known", || {
        scenes::as_a_modern_kubelet(&mut stage)
    });
    account.check("with the API server away it holds and lets go as before", || {
        scenes::api_server_away(&mut stage)
    });
    account.check("SIGKILL while a pod is frozen: thawed within two seconds", || scenes::killed(&mut stage));
    account.check("a pod deleted while it is held is gone and forgotten", || scenes::deleted(&mut stage));
    account.check("no plan broke an invariant", || {
        node.no_plan_broke_an_invariant("journalctl -u plimsoll -o cat --no-pager")
    });
    strike(&stage)
}

/// A control plane, a container runtime, three pods, and the daemon.
fn set(node: &Node, driver: Driver) -> Result<Stage<'_>> {
    let options = Options { programs: setup::kubernetes()?, nodes: vec![NODE.into()], ..Options::default() };
    let cluster = Cluster::start(options)?;
    cluster.kubectl_with(
        &["create", "-f", "-"],
        &json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } }).to_string(),
    )?;
    node.start_containerd(driver)?;
    let make = |name, priority: &str, rungs: Option<&str>, command: String| {
        let mut annotations = json!({ "plimsoll.dev/priority": priority });
        if let Some(rungs) = rungs {
            annotations["plimsoll.dev/rungs"] = rungs.into();
        }
        Pod::start(node, &cluster, driver, Wanted { name, annotations, command })
    };
    let server = "plimsoll-workload weights --mib 32 /weights && exec plimsoll-workload model-server \
                  --listen 0.0.0.0:8000 --weights /weights --kv-mib 150";
    let chat = make("chat", "2000", None, server.into())?;
    let batch = make("batch", "-10", None, grows(1200))?;
    let nightly = make("nightly", "-5", Some("throttle"), grows(NIGHTLY_MIB))?;
    for pod in [&chat, &batch, &nightly] {
        let procs = node.cgroup(&pod.cgroup(), "cgroup.procs")?;
        ensure!(!procs.is_empty(), "{} has no processes", pod.cgroup());
    }
    daemon::start(node, &cluster)?;
    Ok(Stage { node, cluster, driver, chat, batch, nightly })
}

/// A load that grows when it is told to.
fn grows(mib: u32) -> String {
    format!(
        "exec plimsoll-workload batch-job --idle --from-mib 60 --to-mib {mib} --rate-mib 60 --grow-on-line < /trigger/go"
    )
}

/// Removes everything, for the other driver.
fn strike(stage: &Stage<'_>) -> Result<()> {
    stage.node.script("systemctl stop plimsoll; for c in $(ctr -n k8s.io container ls -q); do ctr -n k8s.io task rm -f $c; ctr -n k8s.io container rm $c; done; rm -rf /run/pods /run/plimsoll /var/lib/plimsoll/*").map(drop)
}
