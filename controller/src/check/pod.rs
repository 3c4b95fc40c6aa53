//! What a pod has to be given besides capabilities, and how the DaemonSet gives it.

use std::fs;
use std::path::Path;

use plimsoll_policy::config::Config;

use super::{Capability, HostPaths};

/// Where kubelet puts what a pod needs to speak to the API server.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Rows for who runs as a pod of a cluster; none elsewhere. `variable` looks into the environment.
#[must_use]
pub fn pod(
    paths: &HostPaths,
    account: &Path,
    config: &Config,
    variable: impl Fn(&str) -> Option<String>,
) -> Vec<Capability> {
    if variable("KUBERNETES_SERVICE_HOST").is_none() {
        return Vec::new();
    }
    let mut rows = vec![run_dir(paths, Path::new(&config.daemon.run_dir))];
    rows.extend(apparmor(paths));
    if config.kubernetes.enabled {
        let name = config.kubernetes.node.clone().or_else(|| variable("NODE_NAME"));
        rows.push(node_name(name.as_deref().unwrap_or_default()));
        if config.kubernetes.kubeconfig.is_none() {
            rows.push(service_account(account));
        }
    } else {
        rows.push(disabled());
    }
    rows
}

fn disabled() -> Capability {
    Capability::there("kubernetes", "runs in a pod, and `kubernetes.enabled` is false").lost(
        "pods as workloads, and all that the API server would be told",
        "set PLIMSOLL_KUBERNETES=true in the DaemonSet's environment, or `kubernetes.enabled` in the configuration",
    )
}

fn node_name(name: &str) -> Capability {
    if !name.is_empty() {
        return Capability::there("node_name", name);
    }
    Capability::there("node_name", "nobody says what the node is called; the host's name is taken for it")
        .lost(
            "pods as workloads, should the node be called otherwise",
            "give the container the variable NODE_NAME by a fieldRef of spec.nodeName",
        )
}

fn service_account(account: &Path) -> Capability {
    let missing: Vec<&str> =
        ["token", "ca.crt"].into_iter().filter(|file| fs::File::open(account.join(file)).is_err()).collect();
    if missing.is_empty() {
        return Capability::there("service_account", account.display().to_string());
    }
    let detail = format!("no {} in {}", missing.join(" and no "), account.display());
    Capability::there("service_account", detail).lost(
        "pods as workloads, and all that the API server would be told",
        "give the pod its serviceAccountName, and leave automountServiceAccountToken as it is",
    )
}

/// The ledger has to be there for the next pod, and for whoever repairs from the host.
fn run_dir(paths: &HostPaths, dir: &Path) -> Capability {
    let text = fs::read_to_string(paths.proc.join("self/mountinfo")).unwrap_or_default();
    let at = dir.display();
    let found = |detail: String| Capability::there("run_dir", detail);
    let lost = "what a pod that dies has set is undone by its guardian only, and never if that dies too";
    let mend = format!("mount the host's {at} there: a hostPath of type DirectoryOrCreate, on a tmpfs");
    match mount_of(&text, dir) {
        None => found(format!("{at} is part of the container and goes with it")).lost(lost, mend),
        // A whole tmpfs is an emptyDir in memory: kubelet makes one for each pod. The host's is a directory of /run.
        Some(Mount { kind: "tmpfs", root: "/" }) => {
            found(format!("{at} is a tmpfs of this pod, and goes with it")).lost(lost, mend)
        }
        Some(Mount { kind: "tmpfs", .. }) => found(format!("{at} is the host's, on a tmpfs")),
        Some(Mount { kind, .. }) => found(format!("{at} is on {kind}")).lost(
            "reaction without delay: writing down what is set may wait for a disk, and what it says is stale after a reboot",
            mend,
        ),
    }
}

/// What lies at a place.
struct Mount<'a> {
    /// The directory of its file system that was mounted.
    root: &'a str,
    kind: &'a str,
}

/// The mount that a directory is in; none where that is the root's.
fn mount_of<'a>(mountinfo: &'a str, dir: &Path) -> Option<Mount<'a>> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        Some((place, Mount { root, kind: rest.split(' ').next()? }))
    });
    let around = mounts.filter(|(place, _)| *place != "/" && dir.starts_with(place));
    // Of two at the same place the later one hides the other.
    around.max_by_key(|(place, _)| place.len()).map(|(_, mount)| mount)
}

/// The profile that this process is confined by, where there is one.
fn apparmor(paths: &HostPaths) -> Option<Capability> {
    let text = fs::read_to_string(paths.proc.join("self/attr/apparmor/current")).ok();
    let text = text.or_else(|| fs::read_to_string(paths.proc.join("self/attr/current")).ok())?;
    let profile = text.trim_end_matches(['\0', '\n']);
    let enforced = profile.strip_suffix(" (enforce)")?;
    Some(Capability::there("apparmor", format!("confined by the profile {enforced}")).lost(
        "signals to processes of other profiles: killing one by one, and asking by signal",
        "the annotation container.apparmor.security.beta.kubernetes.io/plimsoll: unconfined, or, since Kubernetes 1.30, \
         appArmorProfile: {type: Unconfined} in the container's securityContext",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "700 690 0:26 /plimsoll /run/plimsoll rw,nosuid - tmpfs tmpfs rw,size=400k\n";
    const ROOT: &str = "690 1 0:50 / / ro,relatime - overlay overlay rw\n";

    /// The rows of a pod with these mounts, environment and files of a service account: what is missing, by name.
    fn missing(mounts: &str, environment: &[&str], account: &[&str], profile: &str) -> Vec<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path().join("proc");
        fs::create_dir_all(proc.join("self/attr")).unwrap();
        fs::write(proc.join("self/mountinfo"), mounts).unwrap();
        fs::write(proc.join("self/attr/current"), profile).unwrap();
        account.iter().for_each(|file| fs::write(dir.path().join(file), "x").unwrap());
        let paths = HostPaths { proc, ..HostPaths::default() };
        let mut config = Config::default();
        config.kubernetes.enabled = true;
        let rows =
            pod(&paths, dir.path(), &config, |name| environment.contains(&name).then(|| "node-1".to_owned()));
        let lost = rows.into_iter().filter(|row| !row.available());
        lost.map(|row| (row.name, row.detail.replace(&dir.path().display().to_string(), ""))).collect()
    }

    const IN_A_POD: [&str; 2] = ["KUBERNETES_SERVICE_HOST", "NODE_NAME"];

    #[test]
    fn a_host_is_no_pod_and_a_pod_as_it_should_be_lacks_nothing() {
        assert_eq!(missing("", &["NODE_NAME"], &[], ""), []);
        let mounts = format!("{ROOT}{HOST}");
        assert_eq!(missing(&mounts, &IN_A_POD, &["token", "ca.crt"], "unconfined\n"), []);
    }

    #[test]
    fn what_the_daemon_set_forgot_is_named() {
        let found =
            missing(ROOT, &["KUBERNETES_SERVICE_HOST"], &["token"], "cri-containerd.apparmor.d (enforce)\n");
        let names: Vec<&str> = found.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, ["run_dir", "apparmor", "node_name", "service_account"]);
        assert_eq!(found[0].1, "/run/plimsoll is part of the container and goes with it");
        assert!(found[1].1.ends_with("cri-containerd.apparmor.d") && found[3].1.starts_with("no ca.crt in"));
    }

    #[test]
    fn a_run_directory_that_does_not_outlive_the_pod_or_is_slow_is_named() {
        let all = ["token", "ca.crt"];
        let memory = "701 690 0:60 / /run/plimsoll rw - tmpfs tmpfs rw\n";
        let disk = "701 690 8:1 /var/lib/kubelet/pods/x /run/plimsoll rw - ext4 /dev/sda1 rw\n";
        let detail = |mounts: &str| missing(mounts, &IN_A_POD, &all, "").remove(0).1;
        assert_eq!(detail(memory), "/run/plimsoll is a tmpfs of this pod, and goes with it");
        assert_eq!(detail(&format!("{HOST}{disk}")), "/run/plimsoll is on ext4");
        assert_eq!(
            detail("no mount\n - \n1 2 3 4"),
            "/run/plimsoll is part of the container and goes with it"
        );
    }
}
