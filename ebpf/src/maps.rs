//! Maps and settings, and the few ways in which the programs touch them.

use core::hint::black_box;

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use plimsoll_ebpf::{BUCKETS, Counters, Gate, Histogram, HostCounters, Offsets, Settings};

/// cgroups that can be counted at a time. More are counted in `no_room`.
const CGROUPS: u32 = 8192;

/// A hash, since cgroup ids are 64-bit inode numbers that grow without end. Not preallocated: an entry takes 72 bytes
/// on every possible CPU, and few cgroups ever stall. `cgroup_rmdir` takes entries out.
#[map]
static COUNTERS: PerCpuHashMap<u64, Counters> = PerCpuHashMap::with_max_entries(CGROUPS, BPF_F_NO_PREALLOC);

/// By cgroup id, as above.
#[map]
static HISTOGRAMS: PerCpuHashMap<u64, Histogram> =
    PerCpuHashMap::with_max_entries(CGROUPS, BPF_F_NO_PREALLOC);

#[map]
static HOST: PerCpuArray<HostCounters> = PerCpuArray::with_max_entries(1, 0);

#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(64 << 10, 0);

/// Last event by cgroup and kind. It may forget: the worst is an event too many.
#[map]
pub(crate) static EDGES: LruHashMap<[u64; 2], [u64; 2]> = LruHashMap::with_max_entries(8192, 0);

/// Tasks that wait just now, by thread id, which is sparse. Preallocated, as it is written when memory is short.
#[map]
static WAITS: HashMap<u32, Wait> = HashMap::with_max_entries(8192, 0);

/// Threads of other processes that reclaim on our behalf.
#[map]
static IGNORED: HashMap<u32, u8> = HashMap::with_max_entries(64, 0);

/// The only zeroed global: user space finds it as the map `.bss`. A global, since it is read at every page fault while
/// armed, and a look-up takes fifteen instructions more than a load.
#[unsafe(no_mangle)]
static mut GATE: Gate = Gate { armed: 0, window_ns: 0, raised_ns: 0 };

/// cgroup ids whose threads the gate stops.
#[map]
pub(crate) static TARGETS: HashMap<u64, u8> = HashMap::with_max_entries(CGROUPS, BPF_F_NO_PREALLOC);

/// cgroup ids whose own reclaim raises the gate.
#[map]
pub(crate) static PROTECTED: HashMap<u64, u8> = HashMap::with_max_entries(CGROUPS, BPF_F_NO_PREALLOC);

#[unsafe(no_mangle)]
static SETTINGS: Global<Settings> = Global::new(Settings {
    stall_edge_ns: 10_000_000,
    quiet_ns: 100_000_000,
    pause_ns: 10_000_000,
    own_tgid: 0,
    victim_is_task: 0,
});

#[unsafe(no_mangle)]
static OFFSETS: Global<Offsets> = Global::new(Offsets {
    mem_cgroup_cgroup: 0,
    cgroup_kn: 0,
    kernfs_node_id: 0,
    task_cgroups: 0,
    css_set_cgroup: 0,
    task_pid: 0,
    task_tgid: 0,
    reserved: 0,
});

/// The gate, which user space and the other CPUs write too: only by volatile access, a word at a time.
#[inline(always)]
pub(crate) fn gate() -> *mut Gate {
    &raw mut GATE
}

/// What one task waits for. Zero stands for "not now".
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Wait {
    /// Since when it reclaims.
    pub(crate) reclaim_ns: u64,
    /// The cgroup that it reclaims, where known.
    pub(crate) target: u64,
    /// Since when it is in the handler of `memory.high`.
    pub(crate) high_ns: u64,
    /// Time of that which it spent in reclaim.
    pub(crate) high_reclaim_ns: u64,
}

/// What entries start as. Statics, since the kernel takes them from read-only data as well as from the stack, which has
/// 512 bytes in all.
static NO_COUNTERS: Counters = Counters {
    direct_reclaims: 0,
    direct_reclaim_ns: 0,
    memcg_reclaims: 0,
    memcg_reclaim_ns: 0,
    vmscan_throttled_ns: 0,
    over_high_ns: 0,
    major_faults: 0,
    faults: 0,
    gate_stops: 0,
};
static NO_STALLS: Histogram = Histogram { sum_ns: 0, buckets: [0; BUCKETS] };
const NO_WAIT: Wait = Wait { reclaim_ns: 0, target: 0, high_ns: 0, high_reclaim_ns: 0 };

#[inline(always)]
pub(crate) fn settings() -> Settings {
    SETTINGS.load()
}

#[inline(always)]
pub(crate) fn offsets() -> Offsets {
    OFFSETS.load()
}

#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: takes nothing, returns a number.
    unsafe { bpf_ktime_get_ns() }
}

/// Process and thread of the current task.
#[inline(always)]
pub(crate) fn current() -> (u32, u32) {
    let both = bpf_get_current_pid_tgid();
    ((both >> 32) as u32, both as u32)
}

/// Whether the current task works for the controller: its reclaim is a cure, not a sign.
#[inline(always)]
pub(crate) fn is_ours() -> bool {
    let (tgid, tid) = current();
    tgid == settings().own_tgid || IGNORED.get_ptr(tid).is_some()
}

/// Adds to one counter of a cgroup.
#[inline(always)]
pub(crate) fn count(cgroup: u64, field: impl Fn(*mut Counters) -> *mut u64, amount: u64) {
    if let Some(counters) = entry(&COUNTERS, cgroup, &NO_COUNTERS) {
        add(field(counters), amount);
    }
}

/// Files a stall in the histogram of a cgroup.
#[inline(always)]
pub(crate) fn file(cgroup: u64, ns: u64) {
    let Some(histogram) = entry(&HISTOGRAMS, cgroup, &NO_STALLS) else { return };
    // The compiler would drop the mask as needless, and the verifier can't see why it is.
    let bucket = black_box(Histogram::bucket(ns)) & (BUCKETS - 1);
    // SAFETY: both stay inside the value; `bucket` is below the length.
    unsafe {
        add(&raw mut (*histogram).sum_ns, ns);
        add((&raw mut (*histogram).buckets).cast::<u64>().add(bucket), 1);
    }
}

/// Adds to one counter of the host.
#[inline(always)]
pub(crate) fn count_host(field: impl Fn(*mut HostCounters) -> *mut u64) {
    if let Some(host) = HOST.get_ptr_mut(0) {
        add(field(host), 1);
    }
}

/// The wait of a thread, if it is in one.
#[inline(always)]
pub(crate) fn wait(tid: u32) -> Option<*mut Wait> {
    WAITS.get_ptr_mut(tid)
}

/// The wait of a thread, begun if need be.
#[inline(always)]
pub(crate) fn begin_wait(tid: u32) -> Option<*mut Wait> {
    if let Some(wait) = WAITS.get_ptr_mut(tid) {
        return Some(wait);
    }
    if WAITS.insert(tid, NO_WAIT, 0).is_err() {
        count_host(no_room);
    }
    WAITS.get_ptr_mut(tid)
}

#[inline(always)]
pub(crate) fn end_wait(tid: u32) {
    // It fails only where there is nothing to remove.
    let _ = WAITS.remove(tid);
}

/// Forgets a cgroup that is gone.
#[inline(always)]
pub(crate) fn forget(cgroup: u64) {
    // They fail only where there is nothing to remove.
    let _ = COUNTERS.remove(cgroup);
    let _ = HISTOGRAMS.remove(cgroup);
}

#[inline(always)]
fn entry<V>(map: &PerCpuHashMap<u64, V>, cgroup: u64, zero: &V) -> Option<*mut V> {
    if let Some(value) = map.get_ptr_mut(cgroup) {
        return Some(value);
    }
    // Another CPU may have been quicker: then this fails, and the look-up finds that one's.
    let inserted = map.insert(cgroup, zero, u64::from(BPF_NOEXIST));
    let value = map.get_ptr_mut(cgroup);
    if inserted.is_err() && value.is_none() {
        count_host(no_room);
    }
    value
}

#[inline(always)]
fn no_room(host: *mut HostCounters) -> *mut u64 {
    // SAFETY: only the address is taken.
    unsafe { &raw mut (*host).no_room }
}

/// A plain addition: the value is this CPU's own, and tracepoint programs run with preemption off. The one that can be
/// preempted between load and store (`over_high_exit`) may lose a count once in a very long while.
#[inline(always)]
fn add(counter: *mut u64, amount: u64) {
    // SAFETY: the pointer is aligned and stays valid while the program runs, as map values do.
    unsafe { *counter = (*counter).wrapping_add(amount) };
}
