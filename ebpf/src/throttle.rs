//! Sleep that the kernel imposes: by vmscan when reclaim makes no progress, and over `memory.high`.

use aya_ebpf::macros::{btf_tracepoint, fentry, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext};

use crate::cgroup;
use crate::maps::{begin_wait, count, current, end_wait, is_ours, now, wait};

/// A stay over `memory.high` shorter than this was no sleep: the kernel sleeps for at least 10 ms
/// (`mem_cgroup_handle_over_high`), and calls the handler in vain on most returns to user mode.
const LEAST_SLEEP_NS: u64 = 1_000_000;

#[btf_tracepoint(function = "mm_vmscan_throttled")]
fn vmscan_throttled(ctx: BtfTracePointContext) -> u32 {
    if is_ours() {
        return 0;
    }
    // (int nid, int usec_timeout, int usec_delayed, int reason)
    let usec: i32 = ctx.arg(2);
    let ns = u64::try_from(usec).unwrap_or(0) * 1000;
    // SAFETY: only the address is taken.
    count(cgroup::of_current(), |counters| unsafe { &raw mut (*counters).vmscan_throttled_ns }, ns);
    0
}

#[fentry(function = "mem_cgroup_handle_over_high")]
fn over_high_enter(_ctx: FEntryContext) -> u32 {
    if let Some(wait) = begin_wait(current().1) {
        // SAFETY: a map value, valid while the program runs and written by its own task only.
        unsafe {
            (*wait).high_ns = now();
            (*wait).high_reclaim_ns = 0;
        }
    }
    0
}

#[fexit(function = "mem_cgroup_handle_over_high")]
fn over_high_exit(_ctx: FExitContext) -> u32 {
    let (_, tid) = current();
    let Some(wait) = wait(tid) else { return 0 };
    // SAFETY: a map value, valid while the program runs and written by its own task only.
    let (entered, reclaim_ns) = unsafe { ((*wait).high_ns, (*wait).high_reclaim_ns) };
    end_wait(tid);
    if entered == 0 {
        return 0;
    }
    let ns = now().saturating_sub(entered).saturating_sub(reclaim_ns);
    if ns >= LEAST_SLEEP_NS {
        // SAFETY: only the address is taken.
        count(cgroup::of_current(), |counters| unsafe { &raw mut (*counters).over_high_ns }, ns);
    }
    0
}
