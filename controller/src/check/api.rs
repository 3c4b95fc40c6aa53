//! What the API server lets the daemon do: the server itself is asked, a question for each verb.

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use plimsoll_policy::config::{Config, Kubernetes};

use super::Capability;
use super::hooks::chain;
use crate::kubernetes::client::client;

/// All questions together; a server that is slower than that is as good as none.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something that the daemon does at the API server, and what it has to be allowed for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Name of its row.
    pub name: &'static str,
    /// API group; empty = core.
    pub group: &'static str,
    /// Resource, with a subresource after a slash.
    pub resource: &'static str,
    /// Verbs.
    pub verbs: &'static [&'static str],
    /// What is not done without.
    pub lost: &'static str,
}

/// All of it: the DaemonSet's ClusterRole has these and no others.
pub const NEEDS: [Need; 5] = [
    Need {
        name: "api:pods",
        group: "",
        resource: "pods",
        verbs: &["list", "watch"],
        lost: "annotations, priorities and names of pods",
    },
    Need {
        name: "api:events",
        group: "events.k8s.io",
        resource: "events",
        verbs: &["create", "patch"],
        lost: "Events on pods: what is done to them, and why, stands in the journal alone",
    },
    Need {
        name: "api:taint",
        group: "",
        resource: "nodes",
        verbs: &["get", "patch"],
        lost: "the taint: new pods come while memory is short",
    },
    Need {
        name: "api:condition",
        group: "",
        resource: "nodes/status",
        verbs: &["patch"],
        lost: "the node's condition",
    },
    Need {
        name: "api:evict",
        group: "",
        resource: "pods/eviction",
        verbs: &["create"],
        lost: "handing pods to other nodes: what this one can't hold is frozen or killed here",
    },
];

impl Need {
    /// Whether the configuration has the daemon do it.
    fn wanted(&self, config: &Kubernetes) -> bool {
        match self.name {
            "api:events" => config.events,
            "api:taint" => config.taint,
            "api:condition" => config.condition,
            "api:evict" => config.evict,
            _ => true,
        }
    }

    fn question(&self, verb: &str) -> SelfSubjectAccessReview {
        let (resource, part) = self.resource.split_once('/').unwrap_or((self.resource, ""));
        let attributes = ResourceAttributes {
            group: Some(self.group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource: (!part.is_empty()).then(|| part.to_owned()),
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec =
            SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() }
    }
}

/// Rows for a node of a cluster; none where pods are no workloads.
#[must_use]
pub fn api(config: &Config) -> Vec<Capability> {
    if !config.kubernetes.enabled {
        return Vec::new();
    }
    let asked = async {
        let client = client(&config.kubernetes).await.map_err(|error| chain(&error))?;
        let asking = access(&client, &config.kubernetes);
        let silence = |_| format!("does not answer within {} s", PATIENCE.as_secs());
        tokio::time::timeout(PATIENCE, asking).await.map_err(silence)?.map_err(|error| chain(&error))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let rows = runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(asked));
    rows.unwrap_or_else(|why| vec![away(&why)])
}

fn away(why: &str) -> Capability {
    Capability::there("api_server", why).lost(
        "news of pods, and everything that the API server is told; the cgroup tree and the last known pods go on being protected",
        "see service_account above; a network policy or a proxy may be in the way",
    )
}

/// A row for the server, and one for each thing that the daemon would do there.
async fn access(client: &Client, config: &Kubernetes) -> kube::Result<Vec<Capability>> {
    let mut rows = Vec::new();
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    for need in NEEDS.iter().filter(|need| need.wanted(config)) {
        let mut refused = Vec::new();
        for verb in need.verbs {
            let answer = reviews.create(&PostParams::default(), &need.question(verb)).await?;
            if !answer.status.is_some_and(|status| status.allowed) {
                refused.push(*verb);
            }
        }
        rows.push(allowed(need, &refused));
    }
    rows.insert(0, Capability::there("api_server", "answers"));
    Ok(rows)
}

fn allowed(need: &Need, refused: &[&str]) -> Capability {
    let all = format!("may {} {}", need.verbs.join(" and "), need.resource);
    if refused.is_empty() {
        return Capability::there(need.name, all);
    }
    let group = if need.group.is_empty() { "\"\"" } else { need.group };
    let verbs = refused.join(", ");
    Capability::there(need.name, format!("may not {verbs} {}", need.resource)).lost(
        need.lost,
        format!(
            "add {{apiGroups: [{group}], resources: [{}], verbs: [{verbs}]}} to its ClusterRole",
            need.resource
        ),
    )
}
