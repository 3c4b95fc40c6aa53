//! Page faults: counted, and the place where the gate stops a thread.
//!
//! The gate is up from the first sign of reclaim after it was armed until none has been seen for its window. While it is
//! up, a thread of a target cgroup that faults gets SIGSTOP before it returns to user mode, so it touches no
//! further page. The signal goes to the thread: a second signal to a *process* is dropped while one is pending, and its other
//! threads would run on. Nothing is pinned: when the controller dies, the programs go with its descriptors.

use aya_ebpf::helpers::bpf_send_signal_thread;
use aya_ebpf::macros::{btf_tracepoint, fentry, perf_event};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, PerfEventContext};
use plimsoll_ebpf::Kind;

use crate::maps::{TARGETS, count, gate, now};
use crate::{cgroup, edge};

const SIGSTOP: u32 = 19;

/// One software event per major fault, on one CPU: minor faults cost nothing.
#[perf_event]
fn major_fault(_ctx: PerfEventContext) -> u32 {
    // SAFETY: only the address is taken.
    count(cgroup::of_current(), |counters| unsafe { &raw mut (*counters).major_faults }, 1);
    0
}

/// Attached only while the gate is armed.
#[btf_tracepoint(function = "page_fault_user")]
fn page_fault(_ctx: BtfTracePointContext) -> u32 {
    fault();
    0
}

/// For machines whose kernel has no `page_fault_user` (arm64).
#[fentry(function = "handle_mm_fault")]
fn handle_fault(_ctx: FEntryContext) -> u32 {
    fault();
    0
}

#[inline(always)]
fn fault() {
    let cgroup = cgroup::of_current();
    // SAFETY: only the address is taken.
    count(cgroup, |counters| unsafe { &raw mut (*counters).faults }, 1);
    // SAFETY: an aligned word of a global.
    let raised_ns = unsafe { (&raw const (*gate()).raised_ns).read_volatile() };
    if raised_ns != 0 {
        stop(cgroup, raised_ns);
    }
}

/// Stops the current thread if the gate is still up and it belongs to a target. Apart, so that a fault under an armed
/// gate saves no registers for it.
#[inline(never)]
fn stop(cgroup: u64, raised_ns: u64) {
    let age = now().saturating_sub(raised_ns);
    // SAFETY: an aligned word of a global.
    let window_ns = unsafe { (&raw const (*gate()).window_ns).read_volatile() };
    if age > window_ns || TARGETS.get_ptr(cgroup).is_none() {
        return;
    }
    // SAFETY: takes a number. -EBUSY (this CPU still delivers another signal) is made good at the next fault.
    if unsafe { bpf_send_signal_thread(SIGSTOP) } == 0 {
        // SAFETY: only the address is taken.
        count(cgroup, |counters| unsafe { &raw mut (*counters).gate_stops }, 1);
        edge::with_pauses(Kind::GateStop, cgroup, age);
    }
}

/// Reclaim was seen: an armed gate goes up, or stays up.
#[inline(always)]
pub(crate) fn raise() {
    let gate = gate();
    // SAFETY: aligned words of a global.
    unsafe {
        if (&raw const (*gate).armed).read_volatile() != 0 {
            (&raw mut (*gate).raised_ns).write_volatile(now());
        }
    }
}
