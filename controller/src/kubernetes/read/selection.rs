//! Which pods are managed at all.

use std::collections::BTreeMap;

use plimsoll_policy::config::{Kubernetes, Selector};

use super::object::ApiPod;

/// Priorities from here on are the system's; no user can give them.
const SYSTEM: i32 = 2_000_000_000;

/// Which pod this daemon itself is, if it is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Its UID.
    pub uid: Option<String>,
}

impl Own {
    /// As `POD_UID` in the environment says, else as the path of the daemon's own cgroup does.
    #[must_use]
    pub fn of(pod_uid: Option<&str>, cgroup: &str) -> Self {
        let given = pod_uid.filter(|uid| is_uid(uid)).map(str::to_owned);
        Self { uid: given.or_else(|| cgroup.split('/').rev().find_map(uid_in)) }
    }
}

/// The UID in the name of a pod's cgroup: `pod1234-...` or `kubepods-besteffort-pod1234_....slice`.
fn uid_in(part: &str) -> Option<String> {
    let (_, uid) = part.trim_end_matches(".slice").rsplit_once("pod")?;
    let uid = uid.replace('_', "-");
    is_uid(&uid).then_some(uid)
}

fn is_uid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// Why a pod is not managed, in words; `None` where it is.
pub(super) fn unmanaged(pod: &ApiPod, config: &Kubernetes, own: &Own) -> Option<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let selected = || {
        let Some(text) = &config.select else { return true };
        let none = BTreeMap::new();
        let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
        // The configuration was refused at start where this is none.
        Selector::parse(text).is_some_and(|selector| selector.matches(labels))
    };
    let why = if pod.metadata.uid.is_none() {
        "it has no UID"
    } else if pod.metadata.uid == own.uid {
        "it is plimsoll itself"
    } else if matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
        "it has ended"
    } else if pod.spec.priority.is_some_and(|priority| priority >= SYSTEM) {
        "it is critical for the system"
    } else if is_static(pod) {
        "it is a static pod"
    } else if config.omit_namespaces.iter().any(|omitted| omitted == namespace) {
        "its namespace is omitted"
    } else if !config.namespaces.is_empty() && config.namespaces.iter().all(|taken| taken != namespace) {
        "its namespace is not one of those that are managed"
    } else if !selected() {
        "its labels do not select it"
    } else {
        return None;
    };
    Some(why.into())
}

/// The kubelet starts those from files, whatever the API server says: they are parts of the node.
fn is_static(pod: &ApiPod) -> bool {
    let source = pod.annotation("kubernetes.io/config.source");
    let by_node = pod.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "Node");
    source.is_some_and(|source| source != "api")
        || pod.annotation("kubernetes.io/config.mirror").is_some()
        || by_node
}
