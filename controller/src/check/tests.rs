//! Hosts of every kind, as trees of files: what is found, and the sentences that say what to do.

use std::fs;
use std::path::Path;

use super::*;

/// A healthy host: root, 6.12, unified cgroups, PSI, BTF, zram.
struct Tree(tempfile::TempDir);

impl Tree {
    fn healthy() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.put("proc/self/status", "Name:\tplimsoll\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n");
        tree.put(
            "proc/self/limits",
            "Max locked memory         unlimited            unlimited            bytes\n",
        );
        tree.put("proc/sys/kernel/osrelease", "6.18.15-amd64\n");
        tree.put("proc/pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
        tree.put("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/zram0 partition 1 0 100\n");
        tree.put("proc/cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t1\t1\n");
        tree.put("sys/kernel/btf/vmlinux", "");
        tree.put("sys/fs/cgroup/cgroup.controllers", "cpu io memory pids\n");
        tree.put("sys/fs/cgroup/cgroup.subtree_control", "cpu memory\n");
        for file in ["memory.current", "memory.high", "memory.reclaim", "memory.pressure", "memory.peak"] {
            tree.put(&format!("sys/fs/cgroup/system.slice/{file}"), "0\n");
        }
        for file in ["cgroup.kill", "cgroup.freeze"] {
            tree.put(&format!("sys/fs/cgroup/system.slice/{file}"), "");
        }
        tree
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, path: &str) {
        let path = self.0.path().join(path);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn probe(&self) -> Host {
        let at = |name: &str| self.path().join(name);
        probe(&HostPaths { proc: at("proc"), sys: at("sys"), cgroup: at("sys/fs/cgroup") })
    }

    /// What `run` would say, with the tree's own path left out.
    fn refusal(&self) -> String {
        let error = self.probe().require().unwrap_err().to_string();
        error.replace(&self.path().display().to_string(), "")
    }
}

fn missing(host: &Host, name: &str) -> (String, Missing) {
    let found = host.capabilities().iter().find(|capability| capability.name == name).expect(name);
    (found.detail.clone(), found.missing.clone().expect("missing"))
}

#[test]
fn a_healthy_host_lacks_nothing() {
    let host = Tree::healthy().probe();
    assert_eq!(host.mode(), Mode::Full, "{}", render(&host));
    assert_eq!(host.require(), Ok(()));
    assert!(host.has("psi_triggers") && host.has("cgroup_kill") && host.has("nonblocking_high"));
}

#[test]
fn cgroup_v1_is_refused_with_how_to_enable_v2() {
    let tree = Tree::healthy();
    tree.remove("sys/fs/cgroup");
    tree.put("sys/fs/cgroup/memory/memory.limit_in_bytes", "1\n");
    assert_eq!(
        tree.refusal(),
        "this host can't be protected:\n  cgroup_v2: the cgroup hierarchy at /sys/fs/cgroup is v1; \
         boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line"
    );
}

#[test]
fn a_hybrid_hierarchy_is_refused_with_how_to_enable_v2() {
    let tree = Tree::healthy();
    tree.remove("sys/fs/cgroup");
    tree.put("sys/fs/cgroup/unified/cgroup.controllers", "\n");
    tree.put("sys/fs/cgroup/memory/memory.limit_in_bytes", "1\n");
    assert_eq!(
        tree.refusal(),
        "this host can't be protected:\n  cgroup_v2: the cgroup hierarchy at /sys/fs/cgroup is hybrid: the controllers \
         are in v1; boot with systemd.unified_cgroup_hierarchy=1 on the kernel command line"
    );
}

#[test]
fn no_hierarchy_and_no_controller_are_refused() {
    let tree = Tree::healthy();
    tree.put("sys/fs/cgroup/cgroup.controllers", "cpu io pids\n");
    assert!(
        tree.refusal().contains(
            "memory_controller: cgroup v2 has no memory controller; boot with cgroup_enable=memory"
        )
    );
    tree.put("proc/cgroups", "memory\t4\t1\t1\n");
    assert!(tree.refusal().contains("unmount the v1 hierarchy that has it"));
    tree.remove("sys/fs/cgroup");
    assert!(
        tree.refusal()
            .contains("no cgroup hierarchy at /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup")
    );
}

#[test]
fn who_is_not_root_is_refused() {
    let tree = Tree::healthy();
    tree.put("proc/self/status", "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n");
    assert!(tree.refusal().contains("root: not root (user id 1000); run it as root, or by its systemd unit"));
    let host = tree.probe();
    assert_eq!(host.mode(), Mode::Refused);
    assert!(!host.has("bpf") && !host.has("real_time"));
    assert!(host.has("memlock"), "an unlimited limit is enough");
}

#[test]
fn a_container_that_dropped_capabilities_is_told_which() {
    let tree = Tree::healthy();
    tree.put("proc/self/status", "Uid:\t0\t0\t0\t0\nCapEff:\t0000000000080020\n");
    let (detail, why) = missing(&tree.probe(), "root");
    assert_eq!(detail, "root without CAP_SYS_RESOURCE, CAP_DAC_OVERRIDE");
    assert_eq!(
        why.lost,
        "PSI windows below 2 s, and lowering oom_score_adj, oom_score_adj of processes of other users"
    );
    assert_eq!(tree.probe().require(), Ok(()));
}

#[test]
fn without_psi_the_tier_follows_the_other_signals() {
    let tree = Tree::healthy();
    tree.remove("proc/pressure");
    let (detail, why) = missing(&tree.probe(), "psi");
    assert_eq!(detail, "the kernel has no /proc/pressure");
    assert!(why.mend.contains("psi=1") && !why.required);
    assert!(matches!(tree.probe().mode(), Mode::Degraded(lost) if lost.len() == 1));
}

#[test]
fn without_btf_there_is_no_gate() {
    let tree = Tree::healthy();
    tree.remove("sys/kernel/btf");
    let (detail, why) = missing(&tree.probe(), "btf");
    assert_eq!(detail, "no /sys/kernel/btf/vmlinux");
    assert!(why.lost.contains("gate") && why.mend.contains("CONFIG_DEBUG_INFO_BTF=y"));
}

#[test]
fn an_old_kernel_is_named() {
    let tree = Tree::healthy();
    tree.put("proc/sys/kernel/osrelease", "5.10.0-30-amd64\n");
    for file in ["cgroup.kill", "memory.reclaim", "memory.peak"] {
        tree.remove(&format!("sys/fs/cgroup/system.slice/{file}"));
    }
    let host = tree.probe();
    assert_eq!(missing(&host, "kernel").0, "Linux 5.10");
    assert_eq!(missing(&host, "cgroup_kill").1.mend, "use Linux 5.14 or later");
    assert_eq!(missing(&host, "memory_reclaim").1.lost, "the rung trim, and reclaim while frozen");
    assert!(!host.has("nonblocking_high"));
    assert_eq!(host.require(), Ok(()), "it keeps killing in the right order in the poorest mode");
}

#[test]
fn without_swap_only_file_pages_can_be_had() {
    let tree = Tree::healthy();
    tree.put("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n");
    assert!(missing(&tree.probe(), "swap").1.lost.contains("file pages only"));
}

#[test]
fn a_controller_that_is_not_handed_on_is_named() {
    let tree = Tree::healthy();
    tree.put("sys/fs/cgroup/cgroup.subtree_control", "cpu\n");
    let mend = missing(&tree.probe(), "memory_delegated").1.mend;
    assert!(mend.ends_with("/sys/fs/cgroup/cgroup.subtree_control") && mend.starts_with("echo +memory > "));
}

#[test]
fn an_empty_host_panics_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let paths =
        HostPaths { proc: dir.path().join("a"), sys: dir.path().join("b"), cgroup: dir.path().join("c") };
    let host = probe(&paths);
    assert_eq!(host.mode(), Mode::Refused);
    assert!(render(&host).contains("REQUIRED  cgroup_v2"), "{}", render(&host));
}

#[test]
fn a_host_without_cgroups_is_looked_at_in_one_of_our_own() {
    let tree = Tree::healthy();
    tree.remove("sys/fs/cgroup/system.slice");
    assert!(!tree.probe().has("cgroup_kill"), "plain directories have no files of their own");
    let left = fs::read_dir(tree.path().join("sys/fs/cgroup")).unwrap().count();
    assert_eq!(left, 2, "the cgroup of our own is gone");
}
