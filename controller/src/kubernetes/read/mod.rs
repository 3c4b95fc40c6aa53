//! From a pod as the API server writes it to what is kept of it.
//!
//! Whoever may create pods decides what stands in them, and the API server may be of any version: nothing here fails or panics,
//! and whatever is wrong has a safe default and is told in a few words.

mod containers;
mod engine;
mod evict;
mod object;
mod probes;
mod selection;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use plimsoll_policy::config::annotations::{Mistake, PREFIX};
use plimsoll_policy::config::{Config, annotations};

pub use self::object::ApiPod;
pub use self::selection::Own;
use super::pods::{Pod, Problem};

/// What is kept of a pod of this node.
#[must_use]
pub fn read(object: &ApiPod, config: &Config, own: &Own) -> Pod {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut pod = Pod {
        namespace: text(&object.metadata.namespace),
        name: text(&object.metadata.name),
        uid: text(&object.metadata.uid),
        ip: engine::address(object),
        unmanaged: selection::unmanaged(object, &config.kubernetes, own),
        ..Pod::default()
    };
    if pod.unmanaged.is_some() {
        return pod;
    }
    let none = BTreeMap::new();
    let (said, mistakes) = annotations::read(object.metadata.annotations.as_ref().unwrap_or(&none));
    pod.problems = mistakes.into_iter().map(problem).collect();
    (pod.stays, pod.containers) = containers::containers(object, &said, config, &mut pod.problems);
    pod.others = containers::others(object, &pod.containers);
    pod
}

fn problem(Mistake { key, why }: Mistake) -> Problem {
    Problem { annotation: format!("{PREFIX}{key}"), why }
}
