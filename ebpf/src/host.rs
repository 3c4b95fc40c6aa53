//! What happens to the host as a whole, and to cgroups as such.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use plimsoll_ebpf::{Event, Kind};

use crate::maps::{count_host, forget, now, settings};
use crate::{cgroup, edge};

#[btf_tracepoint(function = "mm_vmscan_kswapd_wake")]
fn kswapd_wake(ctx: BtfTracePointContext) -> u32 {
    // SAFETY: only the address is taken.
    count_host(|host| unsafe { &raw mut (*host).kswapd_wakes });
    // (int nid, int zid, int order)
    let node: i32 = ctx.arg(0);
    edge::after_quiet(Kind::KswapdWake, 0, u64::try_from(node).unwrap_or(0));
    0
}

/// The process that the OOM killer chose last; it chooses under a lock. Not zero at first: all of `.bss` is the gate's.
static mut LAST_VICTIM: u32 = u32::MAX;

/// Runs in whatever task asked for memory; the victim is an argument.
#[btf_tracepoint(function = "mark_victim")]
fn oom_victim(ctx: BtfTracePointContext) -> u32 {
    let (cgroup, tgid, tid) = if settings().victim_is_task == 1 {
        cgroup::of_task(ctx.arg(0)).unwrap_or((0, 0, 0))
    } else {
        // Older kernels tell the pid alone.
        (0, ctx.arg(0), ctx.arg(0))
    };
    // The kernel marks a victim again when it asks for memory on its way out.
    // SAFETY: an aligned word of a global; victims are chosen one at a time.
    unsafe {
        let last = &raw mut LAST_VICTIM;
        if last.read_volatile() == tgid {
            return 0;
        }
        last.write_volatile(tgid);
    }
    // SAFETY: only the address is taken.
    count_host(|host| unsafe { &raw mut (*host).oom_victims });
    // Not limited: the OOM killer kills one at a time and waits for it.
    let kind = Kind::OomVictim as u32;
    edge::output(&Event { time_ns: now(), cgroup, value: 0, tgid, tid, kind, suppressed: 0 });
    0
}

/// A cgroup is gone for good: its id never returns.
#[btf_tracepoint(function = "cgroup_rmdir")]
fn cgroup_rmdir(ctx: BtfTracePointContext) -> u32 {
    if let Some(cgroup) = cgroup::id(ctx.arg(0)) {
        forget(cgroup);
    }
    0
}
