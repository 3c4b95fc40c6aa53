//! Samples that no machine gives: huge numbers, missing readings, clocks that go back.

use std::collections::BTreeMap;

use plimsoll_policy::admission::{Call, Caller, Request, Reserve};
use plimsoll_policy::gpu::{Gpu, GpuId};
use plimsoll_policy::plan::{Act, ActResult, Outcome};
use plimsoll_policy::sample::{
    Events, Host, Meminfo, MemoryStat, Preference, Probes, Psi, Qos, Rung, Sample, Spec, Trigger, Workload,
    WorkloadId,
};
use plimsoll_policy::units::{Bytes, Limit, Monotonic, Span};
use proptest::option::of;
use proptest::prelude::*;

fn number() -> BoxedStrategy<u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), any::<u64>(), (0_u64..4000).prop_map(|mib| mib << 20)]
        .boxed()
}

fn bytes() -> BoxedStrategy<Bytes> {
    number().prop_map(Bytes).boxed()
}

fn limit() -> BoxedStrategy<Limit> {
    prop_oneof![Just(Limit::Max), bytes().prop_map(Limit::Bytes)].boxed()
}

fn meminfo() -> BoxedStrategy<Meminfo> {
    prop::array::uniform8(bytes())
        .prop_map(|[total, free, available, file, shmem, reserved, swap_total, swap_free]| Meminfo {
            total,
            free,
            available,
            file,
            shmem,
            reserved,
            swap_total,
            swap_free,
        })
        .boxed()
}

fn stat() -> BoxedStrategy<MemoryStat> {
    (prop::array::uniform9(bytes()), prop::array::uniform6(number()))
        .prop_map(|(b, n)| MemoryStat {
            anon: b[0],
            file: b[1],
            shmem: b[2],
            file_mapped: b[3],
            inactive_file: b[4],
            active_file: b[5],
            kernel: b[6],
            slab_reclaimable: b[7],
            unevictable: b[8],
            refault_anon: n[0],
            refault_file: n[1],
            major_faults: n[2],
            faults: n[3],
            scan: n[4],
            steal: n[5],
        })
        .boxed()
}

fn spec() -> BoxedStrategy<Spec> {
    let preference = prop_oneof![Just(Preference::None), Just(Preference::Avoid), Just(Preference::Omit)];
    let priority = prop_oneof![Just(i32::MIN), Just(0), Just(5), Just(100), Just(i32::MAX)];
    let rungs = prop::sample::subsequence(Rung::ALL.to_vec(), 0..=6);
    let qos = prop_oneof![Just(Qos::BestEffort), Just(Qos::Burstable), Just(Qos::Guaranteed)];
    (priority, preference, rungs, number(), qos, (of(number().prop_map(Span)), of(number().prop_map(Span))))
        .prop_map(|(priority, preference, rungs, restart_cost_ms, qos, (freeze_max, evictable))| Spec {
            name: String::new(),
            priority,
            preference,
            rungs,
            restart_cost_ms,
            qos,
            freeze_max,
            by_name: false,
            evictable,
        })
        .boxed()
}

fn workload() -> BoxedStrategy<Workload> {
    let sizes = (of(bytes()), of(bytes()), of(stat()), number());
    let limits = prop::array::uniform4(of(limit()));
    let counts = (of(number()), of(number()), of(prop::array::uniform2(number())));
    (spec(), sizes, limits, counts, of(any::<bool>()), of(any::<bool>()))
        .prop_map(
            |(
                spec,
                (current, swap, stat, stat_at),
                [high, low, max, swap_max],
                counts,
                frozen,
                populated,
            )| {
                Workload {
                    spec,
                    current,
                    swap,
                    stat,
                    stat_at: Monotonic(stat_at),
                    high,
                    low,
                    max,
                    swap_max,
                    swap_ram: None,
                    events: counts.0.map(|high| Events { high, ..Events::default() }),
                    psi: counts.1.map(|some_us| Psi { some_us, full_us: some_us }),
                    frozen,
                    populated,
                    probes: counts.2.map(|[direct_reclaim_ns, major_faults]| Probes {
                        direct_reclaim_ns,
                        major_faults,
                        ..Probes::default()
                    }),
                    ..Workload::default()
                }
            },
        )
        .boxed()
}

pub(crate) fn id() -> BoxedStrategy<WorkloadId> {
    (0_u64..4).prop_map(|inode| WorkloadId { path: format!("w{}", inode % 3).into(), inode }).boxed()
}

fn outcome() -> BoxedStrategy<Outcome> {
    let act = prop_oneof![
        bytes().prop_map(Act::Reclaim),
        limit().prop_map(Act::High),
        Just(Act::Freeze),
        Just(Act::Kill)
    ];
    let result = prop_oneof![
        Just(ActResult::Done),
        Just(ActResult::Partial),
        Just(ActResult::Withdrawn),
        Just(ActResult::Failed("no".into()))
    ];
    (id(), act, result, number(), number(), of(bytes()))
        .prop_map(|(workload, act, result, begun, took, freed)| Outcome {
            workload,
            act,
            result,
            begun: Monotonic(begun),
            took: Span(took),
            freed,
        })
        .boxed()
}

/// Three GPUs, whichever of them a sample knows.
pub(crate) fn gpu_id() -> BoxedStrategy<GpuId> {
    (0_u8..3).prop_map(|n| format!("GPU-{n}").into()).boxed()
}

fn gpu() -> BoxedStrategy<Gpu> {
    let odd = prop_oneof![8 => Just((false, false)), 1 => Just((true, false)), 1 => Just((false, true))];
    let level = prop_oneof![2 => (0_u64..=100).prop_map(|percent| Bytes::mib(240 * percent)), 1 => bytes()];
    let total = prop_oneof![4 => Just(Bytes::mib(24_000)), 1 => bytes()];
    (of(number()), odd, of(total), of(level))
        .prop_map(|(at, (unified, lost), total, used)| Gpu {
            at: Monotonic(at.unwrap_or_default()),
            unified,
            lost,
            total,
            used,
            ..Gpu::default()
        })
        .boxed()
}

fn held() -> BoxedStrategy<BTreeMap<GpuId, Option<Bytes>>> {
    let level = prop_oneof![3 => (0_u64..24_000).prop_map(Bytes::mib), 1 => bytes()];
    prop::collection::btree_map(gpu_id(), of(level), 0..3).boxed()
}

fn wanted_of_gpus() -> BoxedStrategy<BTreeMap<GpuId, Bytes>> {
    let id = prop_oneof![3 => gpu_id(), 1 => Just(GpuId::from(GpuId::ANY))];
    let level = prop_oneof![3 => (0_u64..24_000).prop_map(Bytes::mib), 1 => bytes()];
    prop::collection::btree_map(id, level, 0..3).boxed()
}

fn reserve(size: BoxedStrategy<Bytes>) -> BoxedStrategy<Reserve> {
    let sizes = prop::collection::vec(size, 0..3);
    let ttl = of(number().prop_map(Span));
    let wait = prop_oneof![Just(0), number(), (0_u64..60_000).prop_map(|ms| ms * 1_000_000)];
    (id(), sizes, wanted_of_gpus(), bytes(), any::<i32>(), ttl, wait, any::<bool>())
        .prop_map(|(holder, sizes, gpus, current, priority, ttl, wait, detached)| Reserve {
            holder,
            sizes,
            gpus,
            current,
            priority,
            ttl,
            wait: Span(wait),
            populated: detached,
            detached,
        })
        .boxed()
}

fn request(size: BoxedStrategy<Bytes>) -> BoxedStrategy<Request> {
    let number_of = 0_u64..6;
    let call = prop_oneof![
        4 => reserve(size.clone()).prop_map(Call::Reserve),
        1 => (number_of.clone(), size.clone()).prop_map(|(id, bytes)| Call::Amend { id, bytes }),
        1 => (number_of.clone(), size).prop_map(|(id, measured)| Call::Commit { id, measured }),
        1 => number_of.clone().prop_map(|id| Call::Heartbeat { id }),
        1 => number_of.clone().prop_map(|id| Call::Release { id }),
        1 => number_of.clone().prop_map(|ticket| Call::Withdraw { ticket }),
        1 => id().prop_map(|cgroup| Call::ReportOom { cgroup }),
        1 => (id(), of(gpu_id())).prop_map(|(cgroup, gpu)| Call::CudaOutOfMemory { cgroup, gpu }),
        1 => Just(Call::Headroom),
        1 => (0_u64..20).prop_map(|s| Call::Pause { lasts: Span::secs(s) }),
        1 => Just(Call::Resume),
        1 => (of(id()), 0_u64..20).prop_map(|(workload, s)| Call::LetGo { workload, lasts: Span::secs(s) }),
    ];
    let caller = prop_oneof![Just(Caller::Root), id().prop_map(Caller::Cgroup)];
    (number_of, caller, call).prop_map(|(ticket, caller, call)| Request { ticket, caller, call }).boxed()
}

/// Requests for sizes up to this one.
pub(crate) fn calls(largest: Bytes) -> BoxedStrategy<Request> {
    request((0..=largest.0).prop_map(Bytes).boxed())
}

pub(crate) fn sample() -> BoxedStrategy<Sample> {
    let at = prop_oneof![number(), (0_u64..60_000).prop_map(|ms| ms * 1_000_000)];
    let trigger = prop_oneof![9 => Just(Trigger::Timer), 1 => Just(Trigger::Shutdown)];
    let workloads = prop::collection::btree_map(id(), (workload(), held()), 0..4);
    let workloads = workloads.prop_map(|all| {
        all.into_iter().map(|(id, (workload, gpus))| (id, Workload { gpus, ..workload })).collect()
    });
    let gpus = prop::collection::btree_map(gpu_id(), gpu(), 0..4);
    let outcomes = prop::collection::vec(outcome(), 0..3);
    let requests = prop::collection::vec(request(bytes()), 0..4);
    (at, trigger, of(meminfo()), of(number()), workloads, gpus, outcomes, requests)
        .prop_map(|(at, trigger, meminfo, psi, workloads, gpus, outcomes, requests)| Sample {
            at: Monotonic(at),
            trigger,
            host: Host {
                meminfo,
                psi: psi.map(|some_us| Psi { some_us, full_us: some_us }),
                ..Host::default()
            },
            workloads,
            gpus,
            outcomes,
            requests,
            ..Sample::default()
        })
        .boxed()
}
