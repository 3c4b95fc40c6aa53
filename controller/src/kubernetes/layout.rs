//! How kubelet and the container runtimes name cgroups, by either cgroup driver. Pure: a path goes in, what it is comes out.
//!
//! systemd:  `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<UID>.slice/cri-containerd-<ID>.scope`
//! cgroupfs: `kubepods/burstable/pod<UID>/<ID>`
//!
//! Guaranteed pods have no level for their class. systemd's names can't hold the dashes of a UID and have `_` in their place. A
//! kubelet with `--cgroup-root=/kubelet`, as kind starts it, has all of it below `kubelet/`, with systemd `kubelet.slice/` and every
//! name of a slice begun with `kubelet-`.

use plimsoll_policy::sample::Qos;

/// What a cgroup below the root is to Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place<'a> {
    /// All pods are below it: `kubepods`, or the level of a class.
    Pods,
    /// A pod's.
    Pod(Pod),
    /// A container's, or its sandbox's.
    Container(Pod, &'a str),
    /// Below a container's: what the container made for itself, or crun for it.
    Within(Pod, &'a str),
}

/// Which pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Its class.
    pub qos: Qos,
    /// Its UID with dashes. A static pod's is a hash without any, and not the one that the API server knows it by.
    pub uid: String,
}

impl Pod {
    /// Whether kubelet has it from a file or a URL of its own: such a UID is an MD5 sum.
    #[must_use]
    pub fn is_static(&self) -> bool {
        self.uid.len() == 32 && self.uid.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

/// The two ways of naming; systemd's with the name of the parent slice, which every child repeats.
#[derive(Clone, Copy)]
enum Driver<'a> {
    Systemd(&'a str),
    Cgroupfs,
}

/// What runtimes put before the ID. conmon is a process that watches a container, beside it.
const RUNTIMES: [&str; 5] = ["cri-containerd-", "crio-", "docker-", "libpod-", "containerd-"];
const BESIDE: &str = "conmon-";
/// kubelet's UIDs have 36 characters; the API server takes what it is given.
const UID_AT_MOST: usize = 64;
/// Runtimes' have 64.
const ID_AT_MOST: usize = 128;

/// What a cgroup is, by its path below the root of cgroups; `None` where it is nothing of Kubernetes'.
#[must_use]
pub fn place(path: &str) -> Option<Place<'_>> {
    let mut names = path.split('/').filter(|name| !name.is_empty());
    let driver = names.find_map(kubepods)?;
    let Some(mut name) = names.next() else { return Some(Place::Pods) };
    let (mut driver, mut qos) = (driver, Qos::Guaranteed);
    if let Some(class) = class(driver, name) {
        (driver, qos) = class;
        match names.next() {
            Some(next) => name = next,
            None => return Some(Place::Pods),
        }
    }
    let pod = Pod { qos, uid: uid(driver, name)? };
    let Some(name) = names.next() else { return Some(Place::Pod(pod)) };
    let id = id(driver, name)?;
    Some(if names.next().is_none() { Place::Container(pod, id) } else { Place::Within(pod, id) })
}

/// Whether this is where all pods are.
fn kubepods(name: &str) -> Option<Driver<'_>> {
    if name == "kubepods" {
        return Some(Driver::Cgroupfs);
    }
    let stem = name.strip_suffix(".slice")?;
    (stem == "kubepods" || stem.ends_with("-kubepods")).then_some(Driver::Systemd(stem))
}

/// Whether this is the level of a class.
fn class<'a>(driver: Driver<'_>, name: &'a str) -> Option<(Driver<'a>, Qos)> {
    let (driver, class) = match driver {
        Driver::Cgroupfs => (Driver::Cgroupfs, name),
        Driver::Systemd(parent) => {
            let stem = name.strip_suffix(".slice")?;
            (Driver::Systemd(stem), stem.strip_prefix(parent)?.strip_prefix('-')?)
        }
    };
    match class {
        "burstable" => Some((driver, Qos::Burstable)),
        "besteffort" => Some((driver, Qos::BestEffort)),
        _ => None,
    }
}

/// The UID of the pod that this is the cgroup of.
fn uid(driver: Driver<'_>, name: &str) -> Option<String> {
    let uid = match driver {
        Driver::Cgroupfs => name.strip_prefix("pod")?.to_owned(),
        Driver::Systemd(parent) => {
            let own = name.strip_suffix(".slice")?.strip_prefix(parent)?;
            own.strip_prefix("-pod")?.replace('_', "-")
        }
    };
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    ((1..=UID_AT_MOST).contains(&uid.len()) && uid.bytes().all(known)).then_some(uid)
}

/// The ID of the container that this is the cgroup of.
fn id<'a>(driver: Driver<'_>, name: &'a str) -> Option<&'a str> {
    let name = match driver {
        Driver::Cgroupfs => name,
        Driver::Systemd(_) => name.strip_suffix(".scope")?,
    };
    let of_a_runtime = RUNTIMES.iter().find_map(|runtime| name.strip_prefix(runtime));
    let id = match (of_a_runtime, driver) {
        (Some(id), _) => id,
        (None, Driver::Cgroupfs) => name,
        // A runtime that we do not know: IDs themselves have no dash.
        (None, Driver::Systemd(_)) => name.rsplit_once('-').map_or(name, |(_, id)| id),
    };
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let named = (1..=ID_AT_MOST).contains(&id.len()) && id.bytes().all(known);
    (named && !id.starts_with(BESIDE) && !id.starts_with('.')).then_some(id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "3b2f4f6e-0a55-4ad0-9f0a-5b1c7b3d2e11";
    const ID: &str = "0f3c5a0e7b3d9d6f0f3c5a0e7b3d9d6f0f3c5a0e7b3d9d6f0f3c5a0e7b3d9d6f";

    fn pod(qos: Qos) -> Pod {
        Pod { qos, uid: UID.into() }
    }

    #[test]
    fn both_drivers_of_both_kinds_of_nodes() {
        let uid_ = UID.replace('-', "_");
        let burstable = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod";
        let cases = [
            (format!("{burstable}{uid_}.slice/cri-containerd-{ID}.scope"), Qos::Burstable),
            (format!("kubepods.slice/kubepods-pod{uid_}.slice/crio-{ID}.scope"), Qos::Guaranteed),
            (format!("/kubepods/besteffort/pod{UID}/{ID}"), Qos::BestEffort),
            (format!("kubelet/kubepods/pod{UID}/crio-{ID}"), Qos::Guaranteed),
            (
                format!(
                    "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/\
                     kubelet-kubepods-besteffort-pod{uid_}.slice/docker-{ID}.scope"
                ),
                Qos::BestEffort,
            ),
        ];
        for (path, qos) in cases {
            assert_eq!(place(&path), Some(Place::Container(pod(qos), ID)), "{path}");
            assert_eq!(place(&format!("{path}/container")), Some(Place::Within(pod(qos), ID)));
            assert_eq!(place(path.rsplit_once('/').unwrap().0), Some(Place::Pod(pod(qos))));
        }
    }

    #[test]
    fn what_is_no_container() {
        let uid_ = UID.replace('-', "_");
        let pods = format!("kubepods.slice/kubepods-pod{uid_}.slice");
        for path in [
            format!("{pods}/crio-conmon-{ID}.scope"),
            format!("{pods}/something.service"),
            format!("kubepods/pod{UID}/crio-conmon-{ID}"),
            format!("kubepods.slice/kubepods-besteffort.slice/kubepods-pod{uid_}.slice"),
            "kubepods/burstable/podx y".into(),
            "kubepods/burstable/pod".into(),
            "system.slice/containerd.service".into(),
            String::new(),
        ] {
            assert_eq!(place(&path), None, "{path}");
        }
        assert_eq!(place("kubepods.slice/kubepods-burstable.slice"), Some(Place::Pods));
        assert_eq!(place("kubelet/kubepods"), Some(Place::Pods));
    }

    #[test]
    fn a_static_pod_is_known_by_its_uid() {
        let path = "kubepods/burstable/pod0123456789abcdef0123456789abcdef";
        assert!(matches!(place(path), Some(Place::Pod(pod)) if pod.is_static()));
        assert!(!pod(Qos::Burstable).is_static());
    }

    fn written(systemd: bool, prefix: &str, pod: &Pod, id: &str) -> String {
        let class = match pod.qos {
            Qos::Guaranteed => None,
            Qos::Burstable => Some("burstable"),
            Qos::BestEffort => Some("besteffort"),
        };
        if !systemd {
            let above = class.map_or_else(String::new, |class| format!("{class}/"));
            let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
            return format!("{prefix}kubepods/{above}pod{}/{id}", pod.uid);
        }
        let (dir, stem) = match prefix {
            "" => (String::new(), "kubepods".to_owned()),
            prefix => (format!("{prefix}.slice/"), format!("{prefix}-kubepods")),
        };
        let (above, inner) = class.map_or_else(
            || (String::new(), stem.clone()),
            |class| (format!("{stem}-{class}.slice/"), format!("{stem}-{class}")),
        );
        let uid = pod.uid.replace('-', "_");
        format!("{dir}{stem}.slice/{above}{inner}-pod{uid}.slice/cri-containerd-{id}.scope")
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            systemd: bool,
            prefix in "(|[a-z]{1,8})",
            qos in prop::sample::select(vec![Qos::Guaranteed, Qos::Burstable, Qos::BestEffort]),
            uid in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}",
            id in "[0-9a-f]{64}",
        ) {
            let pod = Pod { qos, uid };
            let path = written(systemd, &prefix, &pod, &id);
            prop_assert_eq!(place(&path), Some(Place::Container(pod, id.as_str())), "{}", path);
        }

        #[test]
        fn anything_is_read_without_a_panic(path in "(/?(kubepods|kubepods-|\\.slice|pod|-|_|burstable|crio-|\\PC){0,9}){0,6}") {
            let _ = place(&path);
        }
    }
}
