//! Events: which of the many happenings are worth one, and how it is sent.

use plimsoll_ebpf::{Event, Kind};

use crate::maps::{EDGES, EVENTS, count_host, current, now, settings};

/// Sends an event if nothing of the kind has happened to the cgroup for the quiet time.
#[inline(always)]
pub(crate) fn after_quiet(kind: Kind, cgroup: u64, value: u64) {
    let now = now();
    let key = [cgroup, kind as u64];
    let Some(edge) = EDGES.get_ptr_mut(key) else {
        let _ = EDGES.insert(key, [now, 0], 0);
        return send(kind, cgroup, value, now, 0);
    };
    // SAFETY: a map value, valid while the program runs; a racing write costs at most one event.
    let last = unsafe { core::mem::replace(&mut (*edge)[0], now) };
    if now.wrapping_sub(last) >= settings().quiet_ns {
        send(kind, cgroup, value, now, 0);
    }
}

/// Sends an event unless one of the kind was sent for the cgroup a moment ago; then it is counted for the next.
#[inline(always)]
pub(crate) fn with_pauses(kind: Kind, cgroup: u64, value: u64) {
    let now = now();
    let key = [cgroup, kind as u64];
    let Some(edge) = EDGES.get_ptr_mut(key) else {
        let _ = EDGES.insert(key, [now, 0], 0);
        return send(kind, cgroup, value, now, 0);
    };
    // SAFETY: as above.
    let [sent, suppressed] = unsafe { *edge };
    if now.wrapping_sub(sent) < settings().pause_ns {
        // SAFETY: as above.
        unsafe { (*edge)[1] = suppressed + 1 };
        return;
    }
    // SAFETY: as above.
    unsafe { *edge = [now, 0] };
    send(kind, cgroup, value, now, suppressed as u32);
}

#[inline(always)]
fn send(kind: Kind, cgroup: u64, value: u64, time_ns: u64, suppressed: u32) {
    let (tgid, tid) = current();
    output(&Event { time_ns, cgroup, value, tgid, tid, kind: kind as u32, suppressed });
}

/// Puts an event into the ring buffer. The kernel wakes the reader if it had caught up.
#[inline(always)]
pub(crate) fn output(event: &Event) {
    if EVENTS.output::<Event>(*event, 0).is_err() {
        // SAFETY: only the address is taken.
        count_host(|host| unsafe { &raw mut (*host).lost_events });
    }
}
