//! A pod as the API server writes it: of all its fields those that we need, and none of them relied on.
//!
//! A field that is missing or of another kind is as if nobody had written it: one odd pod must not hide all others, and later
//! versions may write what they like.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::Resource;
use kube::core::ObjectMeta;
use plimsoll_policy::config::annotations::PREFIX;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Annotations that tell where a pod came from.
const SOURCES: &str = "kubernetes.io/config.";

/// A pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ApiPod {
    /// Who it is; of its annotations only ours and those that tell where it came from.
    pub metadata: ObjectMeta,
    pub(super) spec: Spec,
    pub(super) status: Status,
}

/// What is wanted of it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(deserialize_with = "lenient")]
    pub(super) node_name: String,
    #[serde(deserialize_with = "lenient")]
    pub(super) priority: Option<i32>,
    #[serde(deserialize_with = "lenient")]
    pub(super) host_network: bool,
    #[serde(deserialize_with = "lenient")]
    pub(super) termination_grace_period_seconds: Option<u64>,
    #[serde(deserialize_with = "each")]
    pub(super) containers: Vec<Container>,
    #[serde(deserialize_with = "each")]
    pub(super) init_containers: Vec<Container>,
    #[serde(deserialize_with = "each")]
    pub(super) ephemeral_containers: Vec<Container>,
}

/// One of its containers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Container {
    #[serde(deserialize_with = "lenient")]
    pub(super) name: String,
    #[serde(deserialize_with = "lenient")]
    pub(super) resources: Resources,
    #[serde(deserialize_with = "lenient")]
    pub(super) liveness_probe: Option<Probe>,
    #[serde(deserialize_with = "lenient")]
    pub(super) startup_probe: Option<Probe>,
    /// Of an init container `Always` says that it stays, as a sidecar.
    #[serde(deserialize_with = "lenient")]
    pub(super) restart_policy: String,
}

/// What a container requests and is limited to, as quantities in words.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Resources {
    #[serde(deserialize_with = "texts")]
    pub(super) requests: BTreeMap<String, String>,
    #[serde(deserialize_with = "texts")]
    pub(super) limits: BTreeMap<String, String>,
}

/// How somebody finds out whether a container lives, of whatever kind.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Probe {
    #[serde(deserialize_with = "lenient")]
    pub(super) period_seconds: Option<u32>,
    #[serde(deserialize_with = "lenient")]
    pub(super) timeout_seconds: Option<u32>,
    #[serde(deserialize_with = "lenient")]
    pub(super) failure_threshold: Option<u32>,
}

/// How it is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Status {
    #[serde(deserialize_with = "lenient")]
    pub(super) phase: String,
    #[serde(deserialize_with = "lenient")]
    pub(super) qos_class: String,
    #[serde(rename = "podIP", deserialize_with = "lenient")]
    pub(super) pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "each")]
    pub(super) pod_ips: Vec<Ip>,
    #[serde(rename = "hostIP", deserialize_with = "lenient")]
    pub(super) host_ip: String,
    #[serde(deserialize_with = "each")]
    pub(super) container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "each")]
    pub(super) init_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "each")]
    pub(super) ephemeral_container_statuses: Vec<ContainerStatus>,
}

/// One of its addresses.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Ip {
    #[serde(deserialize_with = "lenient")]
    pub(super) ip: String,
}

/// How one of its containers is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ContainerStatus {
    #[serde(deserialize_with = "lenient")]
    pub(super) name: String,
    #[serde(rename = "containerID", deserialize_with = "lenient")]
    pub(super) container_id: String,
    #[serde(deserialize_with = "lenient")]
    pub(super) started: Option<bool>,
    #[serde(deserialize_with = "lenient")]
    pub(super) state: ContainerState,
}

/// In which state.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct ContainerState {
    #[serde(deserialize_with = "lenient")]
    pub(super) terminated: Option<Terminated>,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Terminated {
    #[serde(deserialize_with = "lenient")]
    pub(super) exit_code: Option<i32>,
}

impl ApiPod {
    /// The node that it is bound to; empty before it is.
    pub(in crate::kubernetes) fn node(&self) -> &str {
        &self.spec.node_name
    }

    /// Whether it is about to end.
    pub(super) fn is_leaving(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// The kind of the controller that owns it.
    pub(super) fn owner(&self) -> Option<&str> {
        let mut owners = self.metadata.owner_references.iter().flatten();
        owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.kind.as_str())
    }
}

impl Resource for ApiPod {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Pod".into()
    }
    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        "pods".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<'de> Deserialize<'de> for ApiPod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Object { metadata, spec, status } = lenient(deserializer)?;
        Ok(Self { metadata: metadata.into(), spec, status })
    }
}

/// The same, as it is written.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Object {
    #[serde(deserialize_with = "lenient")]
    metadata: Metadata,
    #[serde(deserialize_with = "lenient")]
    spec: Spec,
    #[serde(deserialize_with = "lenient")]
    status: Status,
}

/// Who an object is, as far as it is of use here: most of a pod's bytes are who managed which field.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    #[serde(deserialize_with = "lenient")]
    name: Option<String>,
    #[serde(deserialize_with = "lenient")]
    namespace: Option<String>,
    #[serde(deserialize_with = "lenient")]
    uid: Option<String>,
    #[serde(deserialize_with = "lenient")]
    resource_version: Option<String>,
    #[serde(deserialize_with = "lenient")]
    deletion_timestamp: Option<Time>,
    #[serde(deserialize_with = "texts")]
    labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "texts")]
    annotations: BTreeMap<String, String>,
    #[serde(deserialize_with = "each")]
    owner_references: Vec<Owner>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Owner {
    #[serde(deserialize_with = "lenient")]
    kind: String,
    #[serde(deserialize_with = "lenient")]
    name: String,
    #[serde(deserialize_with = "lenient")]
    controller: Option<bool>,
}

impl From<Metadata> for ObjectMeta {
    fn from(read: Metadata) -> Self {
        let mut annotations = read.annotations;
        annotations.retain(|key, _| key.starts_with(PREFIX) || key.starts_with(SOURCES));
        let owner = |Owner { kind, name, controller }| OwnerReference {
            kind,
            name,
            controller,
            ..OwnerReference::default()
        };
        Self {
            name: read.name,
            namespace: read.namespace,
            uid: read.uid,
            resource_version: read.resource_version,
            deletion_timestamp: read.deletion_timestamp,
            labels: Some(read.labels),
            annotations: Some(annotations),
            owner_references: Some(read.owner_references.into_iter().map(owner).collect()),
            ..Self::default()
        }
    }
}

/// A value, or its default where it is of another kind.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

/// The items of a list that are of the right kind.
fn each<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let Value::Array(items) = Value::deserialize(deserializer)? else { return Ok(Vec::new()) };
    Ok(items.into_iter().filter_map(|item| serde_json::from_value(item).ok()).collect())
}

/// Those of a map that are texts; of quantities, numbers as well.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let Value::Object(entries) = Value::deserialize(deserializer)? else { return Ok(BTreeMap::new()) };
    let text = |(key, value)| match value {
        Value::String(text) => Some((key, text)),
        Value::Number(number) => Some((key, number.to_string())),
        _ => None,
    };
    Ok(entries.into_iter().filter_map(text).collect())
}
