//! The containers of a pod that are workloads, and how each may be treated.

use plimsoll_policy::config::Config;
use plimsoll_policy::config::annotations::{Annotations, PREFIX};
use plimsoll_policy::config::ways::Means;
use plimsoll_policy::sample::{Qos, Rung, Spec};

use super::object::{self, ApiPod, ContainerStatus};
use super::probes::{Freeze, freeze};
use super::{engine, evict};
use crate::kubernetes::PodRef;
use crate::kubernetes::pods::{Container, Problem};

/// Containers of one pod that are looked at.
const MOST: usize = 64;

/// Why the pod stays on this node, where it does, and its workloads: the first of them is the one that an engine and needs are about.
pub(super) fn containers(
    pod: &ApiPod,
    said: &Annotations,
    config: &Config,
    problems: &mut Vec<Problem>,
) -> (Option<String>, Vec<Container>) {
    let evictable = evict::evictable(pod, said);
    let engine = engine::engine(pod, said, &config.ask).unwrap_or_else(|(key, why)| {
        problems.push(Problem { annotation: format!("{PREFIX}{key}"), why });
        None
    });
    let general = Spec {
        priority: said.priority.or(pod.spec.priority).unwrap_or_default(),
        preference: said.preference.unwrap_or_default(),
        rungs: rungs(said, config),
        restart_cost_ms: said.restart_cost.map_or(0, |cost| cost.0 / 1_000_000),
        qos: qos(pod),
        evictable: evictable.as_ref().ok().copied(),
        ..Spec::default()
    };
    let one = |(container, status): (&object::Container, Option<&ContainerStatus>)| Container {
        of: of(pod, &container.name),
        id: status.and_then(|status| id(&status.container_id)),
        spec: spec(pod, &general, container, status, config),
        means: Means::default(),
        needs: None,
    };
    let mut containers: Vec<Container> = chosen(pod, said, problems).into_iter().map(one).collect();
    if let Some(first) = containers.first_mut() {
        first.means.engine = engine;
        first.needs = said.needs;
    }
    (evictable.err(), containers)
}

/// The IDs of those that are none of these and run or may; none where it is not known yet.
pub(super) fn others(pod: &ApiPod, taken: &[Container]) -> Vec<Option<String>> {
    let (spec, status) = (&pod.spec, &pod.status);
    if spec.containers.len() + spec.init_containers.len() + spec.ephemeral_containers.len() > MOST {
        return vec![None];
    }
    let other =
        |container: &&object::Container| taken.iter().all(|taken| taken.of.container != container.name);
    let status_of = |container: &object::Container, all: &[ContainerStatus]| {
        all.iter().find(|status| status.name == container.name).cloned().unwrap_or_default()
    };
    let ordinary = spec.containers.iter().filter(other);
    let ordinary = ordinary.map(|container| status_of(container, &status.container_statuses));
    // An init container that has done its work comes back only with a new sandbox.
    let init = spec.init_containers.iter().filter(other);
    let init = init.filter_map(|container| {
        let status = status_of(container, &status.init_container_statuses);
        let done = status.state.terminated.as_ref().is_some_and(|ended| ended.exit_code == Some(0));
        (container.restart_policy == "Always" || !done).then_some(status)
    });
    let ephemeral = spec.ephemeral_containers.iter().filter(other);
    let ephemeral = ephemeral.map(|container| status_of(container, &status.ephemeral_container_statuses));
    let ephemeral = ephemeral.filter(|status| status.state.terminated.is_none());
    ordinary.chain(init).chain(ephemeral).map(|status| id(&status.container_id)).collect()
}

/// Those that are meant, in that order: every ordinary one, or those that are named, init containers among them.
fn chosen<'a>(
    pod: &'a ApiPod,
    said: &Annotations,
    problems: &mut Vec<Problem>,
) -> Vec<(&'a object::Container, Option<&'a ContainerStatus>)> {
    let (ordinary, init) = (&pod.spec.containers, &pod.spec.init_containers);
    let ordinary = ordinary.iter().map(|container| (container, &pod.status.container_statuses));
    let init = init.iter().map(|container| (container, &pod.status.init_container_statuses));
    let known: Vec<_> =
        ordinary.clone().chain(init).take(MOST).filter(|(one, _)| is_name(&one.name)).collect();
    let named: Vec<_> = said
        .containers
        .iter()
        .filter_map(|name| known.iter().find(|(one, _)| one.name == *name))
        .copied()
        .collect();
    let missing = said.containers.iter().find(|name| known.iter().all(|(one, _)| one.name != **name));
    if let Some(name) = missing {
        let holds = if named.is_empty() { "every ordinary container holds" } else { "the others hold" };
        let why = format!("names {name:?}, and the pod has no such container; {holds}");
        problems.push(Problem { annotation: format!("{PREFIX}container"), why });
    }
    let meant = if named.is_empty() {
        let count = ordinary.take(MOST).filter(|(one, _)| is_name(&one.name)).count();
        known.into_iter().take(count).collect()
    } else {
        named
    };
    let with_status = |(one, all): (&'a object::Container, &'a Vec<ContainerStatus>)| {
        (one, all.iter().find(|status| status.name == one.name))
    };
    meant.into_iter().map(with_status).collect()
}

/// The API server takes no other; it becomes part of a name that is shown everywhere.
fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn of(pod: &ApiPod, container: &str) -> PodRef {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    PodRef {
        namespace: text(&pod.metadata.namespace),
        pod: text(&pod.metadata.name),
        uid: text(&pod.metadata.uid),
        container: container.to_owned(),
    }
}

/// What stands after the runtime, as in `containerd://0123...`.
fn id(text: &str) -> Option<String> {
    let (_, id) = text.split_once("://")?;
    let plain =
        (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    plain.then(|| id.to_owned())
}

fn spec(
    pod: &ApiPod,
    general: &Spec,
    container: &object::Container,
    status: Option<&ContainerStatus>,
    config: &Config,
) -> Spec {
    let PodRef { namespace, pod, container: name, .. } = of(pod, &container.name);
    let mut spec = Spec { name: format!("{namespace}/{pod}/{name}"), by_name: true, ..general.clone() };
    match freeze(container, status) {
        Freeze::Unbound => {}
        Freeze::Within(within) => {
            spec.freeze_max = Some(within).filter(|most| *most < config.ladder.freeze_max);
        }
        Freeze::Never => spec.rungs.retain(|rung| *rung != Rung::Freeze),
    }
    spec
}

/// What the pod allows and the node's ladder has.
fn rungs(said: &Annotations, config: &Config) -> Vec<Rung> {
    let allowed = &config.ladder.rungs;
    said.rungs.as_ref().map_or_else(
        || allowed.clone(),
        |rungs| rungs.iter().copied().filter(|rung| allowed.contains(rung)).collect(),
    )
}

/// As the API server says; an object without a status is judged as it would.
fn qos(pod: &ApiPod) -> Qos {
    match pod.status.qos_class.as_str() {
        "BestEffort" => return Qos::BestEffort,
        "Burstable" => return Qos::Burstable,
        "Guaranteed" => return Qos::Guaranteed,
        _ => {}
    }
    let all = || pod.spec.containers.iter().chain(&pod.spec.init_containers).map(|one| &one.resources);
    let counted = ["cpu", "memory"];
    if all()
        .all(|r| counted.iter().all(|what| !r.requests.contains_key(*what) && !r.limits.contains_key(*what)))
    {
        return Qos::BestEffort;
    }
    let limited = |what: &str| {
        // A request that is not given is the limit.
        all().all(|r| r.limits.get(what).is_some_and(|limit| r.requests.get(what).unwrap_or(limit) == limit))
    };
    if counted.into_iter().all(limited) { Qos::Guaranteed } else { Qos::Burstable }
}
