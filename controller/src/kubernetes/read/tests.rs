//! Pods as kubelets write them, pods as nobody should, and what is kept of them.

use plimsoll_policy::config::Config;
use plimsoll_policy::config::engine::EngineKind;
use plimsoll_policy::sample::{Preference, Qos, Rung};
use plimsoll_policy::units::{Bytes, Span};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const KUBELET_1_20: &str = include_str!("tests/kubelet-1.20.json");
const KUBELET_1_36: &str = include_str!("tests/kubelet-1.36.json");

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn kept(pod: Value) -> Pod {
    let object: ApiPod = serde_json::from_value(pod).unwrap();
    read(&object, &Config::default(), &Own::default())
}

/// The first fixture with something changed.
fn changed(change: impl FnOnce(&mut Value)) -> Pod {
    let mut pod = value(KUBELET_1_20);
    change(&mut pod);
    kept(pod)
}

fn annotated(pairs: &[(&str, &str)]) -> Pod {
    changed(|pod| {
        let all = pairs.iter().map(|(key, value)| (format!("plimsoll.dev/{key}"), json!(value))).collect();
        pod["metadata"]["annotations"] = Value::Object(all);
    })
}

fn said(pod: &Pod) -> Vec<String> {
    pod.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_pod_of_1_20() {
    let pod = kept(value(KUBELET_1_20));
    assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("models", "chat-6d4cf56db6-x2x8p"));
    assert_eq!((pod.unmanaged, pod.stays, pod.problems), (None, None, Vec::new()));
    assert_eq!(pod.ip, Some("10.244.0.7".parse().unwrap()));
    let [server] = &pod.containers[..] else { panic!("{:?}", pod.containers) };
    assert_eq!(server.of.container, "server");
    let id = "3f4e9c1b2a5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7";
    assert_eq!((server.id.as_deref(), server.needs), (Some(id), Some(Bytes::mib(6 << 10))));
    let spec = &server.spec;
    assert_eq!(spec.name, "models/chat-6d4cf56db6-x2x8p/server");
    assert_eq!((spec.priority, spec.preference, spec.qos), (500, Preference::None, Qos::Burstable));
    assert_eq!((spec.restart_cost_ms, spec.evictable), (90_000, Some(Span::secs(45))));
    assert_eq!(spec.freeze_max, Some(Span::secs(2 * 10 + 2 - 1)), "liveness, not readiness");
    let engine = server.means.engine.as_ref().unwrap();
    assert_eq!((engine.kind, engine.url.as_str()), (EngineKind::Vllm, "http://10.244.0.7:8000"));
    assert_eq!(engine.only, pod.ip);
}

#[test]
fn a_pod_of_1_36() {
    let pod = kept(value(KUBELET_1_36));
    assert_eq!((&pod.unmanaged, &pod.stays, said(&pod)), (&None, &None, Vec::new()));
    let [proxy, server] = &pod.containers[..] else { panic!("{:?}", pod.containers) };
    assert_eq!((proxy.of.container.as_str(), server.of.container.as_str()), ("proxy", "server"));
    assert_eq!((proxy.id.as_deref(), server.id.as_deref()), (Some("2222"), Some("3333")));
    assert_eq!(proxy.spec.freeze_max, None, "it has started, and nothing watches it any more");
    assert!(proxy.spec.rungs.contains(&Rung::Freeze) && !proxy.spec.rungs.contains(&Rung::Offload));
    assert_eq!(server.spec.freeze_max, Some(Span::secs(5 + 4 - 1)), "the shorter of both while it starts");
    assert_eq!(server.spec.evictable, Some(Span::secs(30)));
    let engine = proxy.means.engine.as_ref().unwrap();
    assert_eq!(engine.url, "http://[fd00:10:244::7]:11434/api-root", "the first that is named has it");
    assert_eq!(server.means.engine, None);
}

#[test]
fn what_is_not_managed_is_said_and_left_alone() {
    let mut config = Config::default();
    let why = |config: &Config, change: &dyn Fn(&mut Value)| {
        let mut pod = value(KUBELET_1_20);
        change(&mut pod);
        let own = Own::of(None, "kubepods/burstable/pod11111111-2222-3333-4444-555555555555/0123");
        let pod = read(&serde_json::from_value(pod).unwrap(), config, &own);
        assert!(pod.unmanaged.is_none() || (pod.containers.is_empty() && pod.problems.is_empty()));
        pod.unmanaged.unwrap_or_default()
    };
    let metadata = |key: &'static str, new: Value| move |pod: &mut Value| pod["metadata"][key] = new.clone();
    assert_eq!(why(&config, &|_| {}), "");
    assert_eq!(why(&config, &|pod| pod["status"]["phase"] = json!("Failed")), "it has ended");
    assert_eq!(
        why(&config, &|pod| pod["spec"]["priority"] = json!(2_000_001_000)),
        "it is critical for the system"
    );
    let mirror = json!({"kubernetes.io/config.mirror": "x"});
    assert_eq!(why(&config, &metadata("annotations", mirror)), "it is a static pod");
    assert_eq!(why(&config, &metadata("annotations", json!({"kubernetes.io/config.source": "api"}))), "");
    assert_eq!(why(&config, &metadata("ownerReferences", json!([{"kind": "Node"}]))), "it is a static pod");
    let own = json!("11111111-2222-3333-4444-555555555555");
    assert_eq!(why(&config, &metadata("uid", own)), "it is plimsoll itself");
    assert_eq!(why(&config, &metadata("namespace", json!("kube-system"))), "its namespace is omitted");
    let unwanted = json!({"plimsoll.dev/managed": "false"});
    assert_eq!(why(&config, &metadata("labels", unwanted)), "its labels do not select it");
    config.kubernetes.namespaces = vec!["other".into()];
    assert_eq!(why(&config, &|_| {}), "its namespace is not one of those that are managed");
}

#[test]
fn its_own_pod_is_found_by_environment_or_cgroup() {
    let uid = "0f7c2b9e-5d1a-4f0e-9a0b-3a7e1c5d2b44";
    let of = |env, cgroup| Own::of(env, cgroup).uid;
    assert_eq!(of(Some(uid), "").as_deref(), Some(uid));
    let systemd = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0f7c2b9e_5d1a_4f0e_9a0b_3a7e1c5d2b44.slice/\
                   cri-containerd-01.scope";
    assert_eq!(of(None, systemd).as_deref(), Some(uid));
    assert_eq!(of(Some(""), "system.slice/plimsoll.service"), None);
}

#[test]
fn only_who_would_be_started_elsewhere_is_evicted() {
    let owned = |kind: &str, extra: &[(&str, &str)]| {
        let pod = changed(|pod| {
            pod["metadata"]["ownerReferences"][0]["kind"] = json!(kind);
            for (key, value) in extra {
                pod["metadata"]["annotations"][format!("plimsoll.dev/{key}")] = json!(value);
            }
        });
        (pod.containers[0].spec.evictable, pod.stays)
    };
    assert_eq!(owned("StatefulSet", &[]), (Some(Span::secs(45)), None));
    assert_eq!(owned("LeaderWorkerSet", &[("grace", "2m")]), (Some(Span::secs(120)), None));
    let stays = |why: &str| (None, Some(why.to_owned()));
    assert_eq!(owned("DaemonSet", &[]), stays("its DaemonSet would start it on this node again"));
    assert_eq!(owned("Job", &[]), stays("a Job counts that as a failure: only with plimsoll.dev/grace"));
    assert_eq!(owned("Job", &[("grace", "10s")]), (Some(Span::secs(10)), None));
    let bare = changed(|pod| pod["metadata"]["ownerReferences"] = Value::Null);
    assert_eq!(bare.stays.as_deref(), Some("no controller owns it: it would be gone"));
    let going = changed(|pod| pod["metadata"]["deletionTimestamp"] = json!("2026-11-22T10:00:00Z"));
    assert_eq!((going.containers[0].spec.evictable, going.stays.is_some()), (None, true));
}

#[test]
fn probes_bound_the_freeze() {
    let with = |probe: Value| {
        let pod = changed(|pod| pod["spec"]["containers"][0]["livenessProbe"] = probe);
        let spec = &pod.containers[0].spec;
        (spec.freeze_max, spec.rungs.contains(&Rung::Freeze))
    };
    assert_eq!(with(Value::Null), (None, true));
    assert_eq!(with(json!({})), (Some(Span::secs(20)), true), "as the API server would fill in");
    assert_eq!(with(json!({"failureThreshold": 1, "timeoutSeconds": 3})), (Some(Span::secs(2)), true));
    assert_eq!(
        with(json!({"failureThreshold": 1, "timeoutSeconds": 2})),
        (None, false),
        "a second frees nothing"
    );
    assert_eq!(
        with(json!({"failureThreshold": 100, "periodSeconds": 60})),
        (None, true),
        "the ladder allows less"
    );
    assert_eq!(with(json!({"failureThreshold": u32::MAX, "periodSeconds": u32::MAX})), (None, true));
}

#[test]
fn the_containers_that_are_meant() {
    let names = |pod: &Pod| pod.containers.iter().map(|one| one.of.container.clone()).collect::<Vec<_>>();
    assert_eq!(names(&annotated(&[])), ["server"], "init containers only by name");
    assert_eq!(names(&annotated(&[("container", "server,fetch")])), ["server", "fetch"]);
    let half = annotated(&[("container", "fetch,nobody")]);
    let why = "annotation plimsoll.dev/container: names \"nobody\", and the pod has no such container; the others hold";
    assert_eq!((names(&half), said(&half)), (vec!["fetch".to_owned()], vec![why.to_owned()]));
    let none = annotated(&[("container", "nobody")]);
    assert_eq!(names(&none), ["server"]);
    assert!(said(&none)[0].ends_with("every ordinary container holds"));
    let debugger = changed(|pod| pod["spec"]["ephemeralContainers"] = json!([{"name": "debugger"}]));
    assert_eq!(names(&debugger), ["server"]);
}

#[test]
fn an_engine_is_at_the_pods_address_or_nowhere() {
    let engine = |pod: &Pod| pod.containers[0].means.engine.clone().map(|at| (at.url, at.only));
    let at = |url: &str| annotated(&[("engine-url", url)]);
    let pods = Some(("http://10.244.0.7:8000/v".to_owned(), Some("10.244.0.7".parse().unwrap())));
    for own in ["localhost", "127.0.0.1", "[::1]", "10.244.0.7", "[::ffff:10.244.0.7]"] {
        assert_eq!(engine(&at(&format!("http://{own}:8000/v"))), pods, "{own}");
    }
    for other in
        ["10.244.0.8", "169.254.169.254", "kubernetes.default", "192.168.1.10", "0.0.0.0", "localhost.evil"]
    {
        let pod = at(&format!("http://{other}:8000/v"));
        assert_eq!((engine(&pod), pod.problems.len()), (None, 1), "{other}");
    }
    let early = changed(|pod| pod["status"]["podIP"] = Value::Null);
    assert_eq!(engine(&early), engine(&kept(value(KUBELET_1_20))), "another field has it as well");
    let earlier = changed(|pod| pod["status"] = json!({"phase": "Pending"}));
    assert_eq!((engine(&earlier), earlier.problems.len(), earlier.ip), (None, 0, None));
    for odd in ["127.0.0.1", "169.254.169.254", "::1", "224.0.0.1", "0.0.0.0", "fe80::1", "here"] {
        let pod = changed(|pod| {
            pod["status"]["podIP"] = json!(odd);
            pod["status"]["podIPs"] = Value::Null;
        });
        assert_eq!((engine(&pod), pod.ip), (None, None), "{odd}");
    }
}

#[test]
fn a_pod_with_the_nodes_address_needs_the_operators_word() {
    let mut pod = value(KUBELET_1_20);
    pod["spec"]["hostNetwork"] = json!(true);
    (pod["status"]["podIP"], pod["status"]["podIPs"]) = (json!("192.168.1.10"), Value::Null);
    let object: ApiPod = serde_json::from_value(pod).unwrap();
    let mut config = Config::default();
    let refused = read(&object, &config, &Own::default());
    let why = "annotation plimsoll.dev/engine-port: the pod has the node's address, 192.168.1.10, which is not in \
               `ask.addresses`; no engine is asked";
    assert_eq!((refused.containers[0].means.engine.is_none(), said(&refused)), (true, vec![why.to_owned()]));
    config.ask.addresses = vec!["192.168.0.0/16".parse().unwrap()];
    let allowed = read(&object, &config, &Own::default());
    assert_eq!(allowed.containers[0].means.engine.as_ref().unwrap().url, "http://192.168.1.10:8000");
}

#[test]
fn without_a_class_the_quality_of_service_is_counted() {
    let of = |resources: Value| {
        changed(|pod| {
            pod["status"]["qosClass"] = Value::Null;
            pod["spec"]["containers"][0]["resources"] = resources;
            pod["spec"]["initContainers"] = Value::Null;
        })
        .containers[0]
            .spec
            .qos
    };
    assert_eq!(of(json!({})), Qos::BestEffort);
    assert_eq!(of(json!({"limits": {"nvidia.com/gpu": 1}})), Qos::BestEffort, "only CPU and memory count");
    assert_eq!(of(json!({"limits": {"cpu": 2, "memory": "1Gi"}})), Qos::Guaranteed);
    assert_eq!(
        of(json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}})),
        Qos::Burstable
    );
    assert_eq!(of(json!({"requests": {"memory": "1Gi"}})), Qos::Burstable);
}

/// Any JSON, with the keys of pods here and there.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,40}|10\\.0\\.0\\.[0-9]|containerd://[0-9a-f]{0,200}|(trim,|kill,|x){0,9}"
            .prop_map(Value::from),
    ];
    let key = "metadata|spec|status|uid|name|namespace|labels|annotations|ownerReferences|controller|kind|containers|\
               initContainers|livenessProbe|startupProbe|periodSeconds|failureThreshold|containerStatuses|containerID|podIP|\
               podIPs|ip|hostNetwork|priority|plimsoll\\.dev/(rungs|needs|priority|engine-url|container|[a-z]{0,9})|deletionTimestamp";
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Puts a value somewhere into another one.
fn planted(into: &mut Value, path: &[usize], what: Value) {
    let Some((first, rest)) = path.split_first() else { return *into = what };
    match into {
        Value::Object(map) if !map.is_empty() => {
            let at = first % map.len();
            if let Some((_, inner)) = map.iter_mut().nth(at) {
                planted(inner, rest, what);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            let at = first % list.len();
            planted(&mut list[at], rest, what);
        }
        other => *other = what,
    }
}

/// What holds of whatever was read.
fn sound(pod: &Pod) {
    assert!(pod.problems.len() <= 20 && pod.containers.len() <= MOST_CONTAINERS, "{pod:?}");
    for said in said(pod) {
        assert!(said.len() < 2048 && !said.chars().any(char::is_control), "{said}");
    }
    for container in &pod.containers {
        assert!(container.id.iter().all(|id| !id.contains('/') && id.len() <= 128));
        assert!(container.spec.freeze_max.is_none_or(|most| most >= Span::secs(2)));
        if let Some(at) = &container.means.engine {
            assert!(at.only.is_some() && at.only == pod.ip && at.secret_file.is_none(), "{at:?}");
        }
        let means = &container.means;
        assert!(means.hook.is_none() && means.webhook.is_none() && means.signal.is_none());
        assert!(means.cuda_checkpoint.is_none());
    }
}

const MOST_CONTAINERS: usize = 64;

proptest! {
    #[test]
    fn no_object_is_too_strange(object in anything()) {
        sound(&kept(object));
    }

    #[test]
    fn one_odd_field_spoils_nothing_else(path in proptest::collection::vec(0_usize..12, 1..6), what in anything()) {
        let mut pod = value(KUBELET_1_36);
        planted(&mut pod, &path, what);
        sound(&kept(pod));
    }

    #[test]
    fn no_list_fails_as_a_whole(items in proptest::collection::vec(anything(), 0..4)) {
        let list = json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
        let read: kube::core::ObjectList<ApiPod> = serde_json::from_value(list).unwrap();
        prop_assert_eq!(read.items.len(), items.len());
    }
}
