//! Reclaim: who has to do it, whose memory it takes, how long it takes.

use aya_ebpf::macros::{btf_tracepoint, fentry};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext};
use plimsoll_ebpf::{Counters, Kind};

use crate::maps::{
    PROTECTED, begin_wait, count, count_host, current, end_wait, file, is_ours, now, settings, wait,
};
use crate::{cgroup, edge, fault};

/// A task found no free page on the whole host.
#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_begin")]
fn direct_reclaim_begin(_ctx: BtfTracePointContext) -> u32 {
    if is_ours() {
        return 0;
    }
    let cgroup = cgroup::of_current();
    begin();
    // SAFETY: only the address is taken.
    count(cgroup, |counters| unsafe { &raw mut (*counters).direct_reclaims }, 1);
    // SAFETY: only the address is taken.
    count_host(|host| unsafe { &raw mut (*host).direct_reclaims });
    fault::raise();
    edge::after_quiet(Kind::DirectReclaim, cgroup, 0);
    0
}

#[btf_tracepoint(function = "mm_vmscan_direct_reclaim_end")]
fn direct_reclaim_end(_ctx: BtfTracePointContext) -> u32 {
    // SAFETY: only the address is taken.
    if end(|counters| unsafe { &raw mut (*counters).direct_reclaim_ns }).is_some() {
        fault::raise();
    }
    0
}

/// Runs just before `memcg_reclaim_begin`, in the same task, and alone knows whose memory is taken: `current` may be
/// the writer of a limit, or a task far below the cgroup whose limit was met.
#[fentry(function = "try_to_free_mem_cgroup_pages")]
fn memcg_reclaim_target(ctx: FEntryContext) -> u32 {
    if is_ours() {
        return 0;
    }
    let Some(target) = cgroup::of_memcg(ctx.arg(0)) else { return 0 };
    if let Some(wait) = begin_wait(current().1) {
        // SAFETY: a map value, valid while the program runs and written by its own task only.
        unsafe { (*wait).target = target };
    }
    0
}

#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_begin")]
fn memcg_reclaim_begin(_ctx: BtfTracePointContext) -> u32 {
    if is_ours() {
        return 0;
    }
    let waiter = cgroup::of_current();
    // Without the target, the waiter is the best guess.
    let target = begin().unwrap_or(waiter);
    // SAFETY: only the address is taken.
    count(target, |counters| unsafe { &raw mut (*counters).memcg_reclaims }, 1);
    if PROTECTED.get_ptr(target).is_some() {
        fault::raise();
    }
    edge::after_quiet(Kind::MemcgReclaim, target, waiter);
    0
}

#[btf_tracepoint(function = "mm_vmscan_memcg_reclaim_end")]
fn memcg_reclaim_end(_ctx: BtfTracePointContext) -> u32 {
    // SAFETY: only the address is taken.
    if let Some(target) = end(|counters| unsafe { &raw mut (*counters).memcg_reclaim_ns })
        && PROTECTED.get_ptr(target).is_some()
    {
        fault::raise();
    }
    0
}

/// Notes the time; gives the cgroup that is reclaimed, where it is known.
#[inline(always)]
fn begin() -> Option<u64> {
    let wait = begin_wait(current().1)?;
    // SAFETY: a map value, valid while the program runs and written by its own task only.
    let wait = unsafe { &mut *wait };
    wait.reclaim_ns = now();
    (wait.target != 0).then_some(wait.target)
}

/// Charges the time to the cgroup of the task that waited; gives the target that [`begin`] saw (0: unknown).
/// `None` where no beginning was seen: the programs were attached in between, or it was ours.
#[inline(always)]
fn end(field: impl Fn(*mut Counters) -> *mut u64) -> Option<u64> {
    let (_, tid) = current();
    let wait = wait(tid)?;
    // SAFETY: a map value, valid while the program runs and written by its own task only.
    let wait = unsafe { &mut *wait };
    if wait.reclaim_ns == 0 {
        return None;
    }
    let ns = now().saturating_sub(wait.reclaim_ns);
    let target = wait.target;
    if wait.high_ns == 0 {
        end_wait(tid);
    } else {
        // Within the handler of memory.high: what it takes beyond this is sleep.
        wait.high_reclaim_ns += ns;
        wait.reclaim_ns = 0;
        wait.target = 0;
    }
    let waiter = cgroup::of_current();
    count(waiter, field, ns);
    file(waiter, ns);
    if ns >= settings().stall_edge_ns {
        edge::with_pauses(Kind::Stall, waiter, ns);
    }
    Some(target)
}
