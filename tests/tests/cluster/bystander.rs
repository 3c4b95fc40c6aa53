//! A kubelet beside the fleet: what the fleet does to those who were there before shows in how long the renewal of its lease takes.
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use plimsoll_cluster::{Cluster, Place, User};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::world::{client, create, object};

/// Its name, which the cluster must know as a user.
pub(crate) const NODE: &str = "bystander";
/// Where kubelets have their leases.
const LEASES: &str = "kube-node-lease";
/// A kubelet renews every ten seconds; this one more often, to see more.
const EVERY: Duration = Duration::from_millis(250);
/// What a kubelet waits for: a quarter of the time for which a lease holds.
const WITHIN: Duration = Duration::from_secs(10);

/// Renews for as long as it lives, from a thread and a runtime of its own: what plays the fleet is no matter for it.
pub(crate) struct Bystander(Arc<Mutex<Renewals>>);

/// How long each took.
#[derive(Default)]
pub(crate) struct Renewals {
    took: Vec<Duration>,
    failed: usize,
}

impl Bystander {
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let kubeconfig = cluster.kubeconfig(&User::Node(NODE.into()), Place::Here).unwrap();
        let renewals = Arc::default();
        let weak = Arc::downgrade(&renewals);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        thread::spawn(move || runtime.block_on(renew(kubeconfig, weak)));
        Self(renewals)
    }

    /// Those since the last time.
    pub(crate) fn take(&self) -> Renewals {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

async fn renew(kubeconfig: PathBuf, renewals: Weak<Mutex<Renewals>>) {
    let leases = Api::<Lease>::namespaced(client(&kubeconfig).await, LEASES);
    let lease = json!({ "metadata": { "name": NODE }, "spec": { "holderIdentity": NODE } });
    create(&leases, &object(lease)).await;
    loop {
        let (begun, renewed) =
            (Instant::now(), json!({ "spec": { "renewTime": MicroTime(Timestamp::now()) } }));
        let (params, patch) = (PatchParams::default(), Patch::Merge(renewed));
        let answer = timeout(WITHIN, leases.patch(NODE, &params, &patch)).await;
        let Some(renewals) = renewals.upgrade() else { return };
        renewals.lock().unwrap().note(begun.elapsed(), matches!(answer, Ok(Ok(_))));
        sleep(EVERY).await;
    }
}

impl Renewals {
    fn note(&mut self, took: Duration, renewed: bool) {
        if renewed {
            self.took.push(took);
        } else {
            self.failed += 1;
        }
    }
}

impl fmt::Display for Renewals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut took = self.took.clone();
        took.sort();
        let share = |percent: usize| {
            let at = (took.len() * percent / 100).min(took.len().saturating_sub(1));
            took.get(at).copied().unwrap_or_default().as_secs_f64() * 1000.0
        };
        write!(
            f,
            "{} renewals of its lease, half within {:.0} ms, 99 % within {:.0} ms, the slowest {:.0} ms, {} not within {WITHIN:?}",
            took.len(),
            share(50),
            share(99),
            share(100),
            self.failed,
        )
    }
}
