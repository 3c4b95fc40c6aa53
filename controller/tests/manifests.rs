//! What `kubectl apply -k manifests/` brings is what the daemon needs, and nothing of it is forgotten.
#![expect(clippy::unwrap_used, reason = "helpers of tests: what can't go on shall say where, and no more")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use plimsoll::check::{self, HostPaths};
use plimsoll::config;
use plimsoll_policy::config::Config;
use rustix::thread::CapabilitySet;
use serde_json::Value;

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

fn documents(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The one object of a kind, in one file of the base.
fn object(file: &str, kind: &str) -> Value {
    let all = documents(&manifests().join("kubernetes").join(file));
    all.into_iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind} in {file}"))
}

fn daemon_set() -> Value {
    object("daemonset.yaml", "DaemonSet")
}

fn container() -> Value {
    daemon_set()["spec"]["template"]["spec"]["containers"][0].clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// The values that a container's environment has, without those that are filled in by kubelet.
fn environment(container: &Value) -> BTreeMap<String, String> {
    let all = container["env"].as_array().unwrap().iter();
    all.filter_map(|variable| Some((text(&variable["name"]).into(), variable["value"].as_str()?.into())))
        .collect()
}

/// The default configuration as the pod has it.
fn config() -> Config {
    let environment = environment(&container());
    let default = config::parse(Path::new("plimsoll.yaml"), config::DEFAULT).unwrap();
    config::overridden(default, |name| environment.get(name).cloned()).unwrap()
}

#[test]
fn the_kustomization_has_every_file_and_the_one_configuration() {
    let kustomization = &documents(&manifests().join("kustomization.yaml"))[0];
    let mut listed: Vec<&str> = kustomization["resources"].as_array().unwrap().iter().map(text).collect();
    listed.sort_unstable();
    let files = fs::read_dir(manifests().join("kubernetes")).unwrap();
    let mut there: Vec<String> = files
        .map(|file| format!("kubernetes/{}", file.unwrap().file_name().into_string().unwrap()))
        .collect();
    there.sort_unstable();
    assert_eq!(listed, there);
    assert_eq!(kustomization["configMapGenerator"][0]["files"][0], "plimsoll.yaml");
}

#[test]
fn everything_is_yaml_of_some_kind() {
    for dir in ["kubernetes", "monitoring", "nvidia", "examples"] {
        for file in fs::read_dir(manifests().join(dir)).unwrap() {
            let file = file.unwrap().path();
            for object in documents(&file) {
                assert!(object["kind"].is_string() && object["apiVersion"].is_string(), "{}", file.display());
            }
        }
    }
}

#[test]
fn the_image_is_the_one_of_this_version() {
    assert_eq!(container()["image"], concat!("localhost/plimsoll:", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_pod_has_pods_as_workloads_and_answers_its_probes() {
    let config = config();
    assert!(config.kubernetes.enabled);
    let listen = config.daemon.listen.unwrap();
    assert!(listen.ip().is_unspecified());
    let container = container();
    assert_eq!(container["ports"][0]["containerPort"], listen.port());
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    let service = object("service.yaml", "Service");
    assert_eq!(service["spec"]["ports"][0]["port"], listen.port());
    let policy = object("network-policy.yaml", "NetworkPolicy");
    assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], listen.port());
}

#[test]
fn what_is_written_is_written_to_the_host() {
    let Config { daemon, .. } = config();
    let container = container();
    let writable = |mount: &&Value| mount["readOnly"] != true;
    let mounts: Vec<(&str, &str)> = container["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(writable)
        .map(|mount| (text(&mount["name"]), text(&mount["mountPath"])))
        .collect();
    let volumes = daemon_set()["spec"]["template"]["spec"]["volumes"].clone();
    let on_host = |name: &str| {
        let volume = volumes.as_array().unwrap().iter().find(|volume| volume["name"] == name).unwrap();
        text(&volume["hostPath"]["path"]).to_owned()
    };
    let state = daemon.state.unwrap();
    let journal = daemon.journal.unwrap();
    for path in [&daemon.run_dir, &daemon.cgroup_root, &state, &journal] {
        let (name, place) = mounts
            .iter()
            .find(|(_, place)| Path::new(path).starts_with(place))
            .unwrap_or_else(|| panic!("nothing to be written is mounted at {path}"));
        assert_eq!(on_host(name), *place);
    }
}

#[test]
fn its_capabilities_are_all_that_it_looks_for() {
    let security = &container()["securityContext"];
    assert!(security.get("privileged").is_none());
    assert_eq!(security["capabilities"]["drop"][0], "ALL");
    let given = security["capabilities"]["add"].as_array().unwrap().iter().map(|name| {
        CapabilitySet::from_name(text(name)).unwrap_or_else(|| panic!("{name} is no capability"))
    });
    let given = given.fold(CapabilitySet::empty(), |all, one| all | one);
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("self");
    fs::create_dir(&own).unwrap();
    let status = format!("Uid:\t0\t0\t0\t0\nCapEff:\t{:016x}\n", given.bits());
    fs::write(own.join("status"), status).unwrap();
    fs::write(own.join("limits"), "Max locked memory         8388608   8388608   bytes\n").unwrap();
    let host = check::probe(&HostPaths { proc: dir.path().to_owned(), ..HostPaths::default() });
    for name in ["root", "bpf", "real_time", "memlock"] {
        let row = host.capabilities().iter().find(|row| row.name == name).unwrap();
        assert!(row.available(), "{row:?}");
    }
}

#[test]
fn the_cluster_role_is_what_the_daemon_asks_for() {
    let role = object("rbac.yaml", "ClusterRole");
    let list = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|item| text(item).to_owned()).collect()
    };
    let granted: BTreeSet<(Vec<String>, Vec<String>, Vec<String>)> = role["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| (list(&rule["apiGroups"]), list(&rule["resources"]), list(&rule["verbs"])))
        .collect();
    let one = |text: &str| vec![text.to_owned()];
    let verbs = |need: &check::Need| need.verbs.iter().map(|verb| (*verb).to_owned()).collect();
    let needed = check::NEEDS.iter().map(|need| (one(need.group), one(need.resource), verbs(need)));
    assert_eq!(granted, needed.collect());
}
