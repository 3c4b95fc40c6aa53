//! What the daemon keeps of a pod of this node. The API server's object is read into this once, and then forgotten.

use std::collections::BTreeMap;
use std::net::IpAddr;

use plimsoll_policy::config::ways::Means;
use plimsoll_policy::sample::Spec;
use plimsoll_policy::units::Bytes;
use serde::{Deserialize, Serialize};

/// Which container of which pod a workload is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID: another pod of the same name has another.
    pub uid: String,
    /// The name of the container.
    pub container: String,
}

/// A pod of this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, as the API server writes it.
    pub uid: String,
    /// Its address; none before it has one.
    pub ip: Option<IpAddr>,
    /// Why none of its containers is a workload, in words: not selected, static, system-critical, ended.
    pub unmanaged: Option<String>,
    /// Why it is not handed to another node, in words: nobody would start it there.
    pub stays: Option<String>,
    /// Those that are workloads as soon as they run, and no others.
    pub containers: Vec<Container>,
    /// The IDs of its other containers that run or may (sidecars, init and ephemeral containers), without the runtime's prefix;
    /// none before it is known. What has ended for good is not among them.
    #[serde(default)]
    pub others: Vec<Option<String>>,
    /// What is wrong with its annotations; each of them has its safe default.
    pub problems: Vec<Problem>,
}

/// A container that is a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// Which one.
    pub of: PodRef,
    /// Its ID without the runtime's prefix; none before it is known. Each restart brings another.
    pub id: Option<String>,
    /// How it may be treated. Its name is `namespace/pod/container`.
    pub spec: Spec,
    /// By what means it can be asked to give memory back.
    pub means: Means,
    /// What it will need; promised to it from the moment on at which it is known until it has it.
    pub needs: Option<Bytes>,
}

/// A mistake in an annotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("annotation {annotation}: {why}")]
pub struct Problem {
    /// Its whole name.
    pub annotation: String,
    /// What was found, what was expected, and what holds instead.
    pub why: String,
}

/// All pods of this node, and how fresh that is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pods {
    /// By UID; those that are not managed are listed too, so that their cgroups are left alone.
    pub pods: BTreeMap<String, Pod>,
    /// Whether the API server has said so in this run of the daemon; otherwise an earlier run wrote it down, or nobody knows.
    pub confirmed: bool,
}
