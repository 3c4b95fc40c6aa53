//! From a kernel object to its cgroup id. rustc emits no CO-RE relocations, so user space passes the offsets.

use aya_ebpf::helpers::{bpf_get_current_cgroup_id, bpf_probe_read_kernel};

use crate::maps::offsets;

/// The cgroup of the current task: also the inode of its directory.
#[inline(always)]
pub(crate) fn of_current() -> u64 {
    // SAFETY: takes nothing, returns a number.
    unsafe { bpf_get_current_cgroup_id() }
}

/// Id of a `struct cgroup`.
#[inline(always)]
pub(crate) fn id(cgroup: *const u8) -> Option<u64> {
    let offsets = offsets();
    if offsets.kernfs_node_id == 0 {
        return None;
    }
    let kn: *const u8 = read(cgroup, offsets.cgroup_kn)?;
    read(kn, offsets.kernfs_node_id)
}

/// Cgroup id of a `struct mem_cgroup`.
#[inline(always)]
pub(crate) fn of_memcg(memcg: *const u8) -> Option<u64> {
    // Null stands for the whole host.
    if memcg.is_null() {
        return None;
    }
    id(read(memcg, offsets().mem_cgroup_cgroup)?)
}

/// Cgroup id, process and thread of a `struct task_struct`.
#[inline(always)]
pub(crate) fn of_task(task: *const u8) -> Option<(u64, u32, u32)> {
    let offsets = offsets();
    if offsets.task_tgid == 0 {
        return None;
    }
    let set: *const u8 = read(task, offsets.task_cgroups)?;
    let cgroup = id(read(set, offsets.css_set_cgroup)?)?;
    Some((cgroup, read(task, offsets.task_tgid)?, read(task, offsets.task_pid)?))
}

#[inline(always)]
fn read<T>(base: *const u8, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address and fails where nothing is mapped.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }.ok()
}
