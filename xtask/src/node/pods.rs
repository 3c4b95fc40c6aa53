//! Where a pod's containers are in the cgroup tree, by either of kubelet's drivers.

/// kubelet's `cgroupDriver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Driver {
    /// Slices and scopes, which systemd makes.
    Systemd,
    /// Directories, which the runtime makes.
    Cgroupfs,
}

impl Driver {
    /// As kubelet's configuration spells it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Cgroupfs => "cgroupfs",
        }
    }

    /// The cgroup of a pod of class Burstable.
    pub(super) fn pod(self, uid: &str) -> String {
        match self {
            Self::Systemd => format!("kubepods.slice/kubepods-burstable.slice/{}", slice(uid)),
            Self::Cgroupfs => format!("kubepods/burstable/pod{uid}"),
        }
    }

    /// The cgroup of a container of such a pod.
    pub(super) fn container(self, uid: &str, id: &str) -> String {
        let pod = self.pod(uid);
        match self {
            Self::Systemd => format!("{pod}/cri-containerd-{id}.scope"),
            Self::Cgroupfs => format!("{pod}/{id}"),
        }
    }

    /// How `ctr run` is told the same.
    pub(super) fn of_ctr(self, uid: &str, id: &str) -> String {
        match self {
            Self::Systemd => format!("--runc-systemd-cgroup --cgroup {}:cri-containerd:{id}", slice(uid)),
            Self::Cgroupfs => format!("--cgroup /{}", self.container(uid, id)),
        }
    }
}

/// A dash in the name of a slice is a level, so a UID has underscores there.
fn slice(uid: &str) -> String {
    format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"))
}
