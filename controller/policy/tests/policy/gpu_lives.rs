//! GPUs over time: the whole ladder on two of them, and lives in which they appear, vanish, are lost and are not known.

use std::collections::BTreeMap;

use plimsoll_model::machine::Machine;
use plimsoll_policy::admission::{Call, Reserve};
use plimsoll_policy::concession::{Concession, Gains, Level, Offer, Prospect, Wish};
use plimsoll_policy::pass::Pass;
use plimsoll_policy::plan::{ActResult, Tier};
use plimsoll_policy::sample::{Preference, Rung, Sample, WorkloadId};
use plimsoll_policy::units::{Bytes, Monotonic, Span};
use proptest::prelude::*;

use crate::gpu::{Node, id};
use crate::properties::fixed;
use crate::stories::Story;

/// A node with servers that answer when they are asked, a second later.
struct Servers {
    node: Node,
    /// Wishes under way, since when.
    asked: BTreeMap<WorkloadId, (Wish, Monotonic)>,
    /// What they had before they gave it.
    had: BTreeMap<WorkloadId, BTreeMap<plimsoll_policy::gpu::GpuId, Option<Bytes>>>,
    willing: bool,
    samples: Vec<Sample>,
    said: Vec<String>,
}

impl Servers {
    fn new(gpus: &[&str]) -> Self {
        let mut node = Node::new(gpus);
        node.config.ladder.rungs = vec![Rung::Trim, Rung::Throttle, Rung::Offload, Rung::Freeze, Rung::Kill];
        let (asked, had) = (BTreeMap::new(), BTreeMap::new());
        Self { node, asked, had, willing: true, samples: Vec::new(), said: Vec::new() }
    }

    fn server(&mut self, name: &str, priority: i32, levels: &[Level]) {
        let workload = self.node.add(name, priority);
        workload.spec.rungs = vec![Rung::Trim, Rung::Offload, Rung::Kill];
        let levels = levels.iter().map(|level| (*level, Prospect::default())).collect();
        workload.offer = Some(Offer { levels, gated: true, ..Offer::default() });
    }

    /// Half a second, with the look at its end.
    fn tick(&mut self) -> Pass {
        self.answer();
        let mut seen = self.node.sample.clone();
        seen.at = seen.at + Span::millis(500);
        self.samples.push(seen);
        let pass = self.node.look();
        self.node.sample.conceded.clear();
        let at = self.node.sample.at;
        for (id, wanted) in &pass.plan.workloads {
            let name = id.path.rsplit('/').next().unwrap();
            if let Some(wish) = &wanted.wish
                && self.asked.get(id).is_none_or(|(known, _)| known.number != wish.number)
            {
                self.said.push(format!("{name} {}", wish.level));
                self.asked.insert(id.clone(), (wish.clone(), at));
            }
            if wanted.kill && self.node.sample.workloads.contains_key(id) {
                self.said.push(format!("{name} kill"));
                self.bury(id);
            }
        }
        pass
    }

    fn bury(&mut self, id: &WorkloadId) {
        let gone = self.node.sample.workloads.remove(id).unwrap();
        self.free(&gone.gpus);
    }

    fn free(&mut self, held: &BTreeMap<plimsoll_policy::gpu::GpuId, Option<Bytes>>) {
        for (gpu, bytes) in held {
            let reading = self.node.sample.gpus.get_mut(gpu).unwrap();
            reading.used = reading.used.map(|used| used.saturating_sub(bytes.unwrap_or_default()));
        }
    }

    fn answer(&mut self) {
        let now = self.node.sample.at;
        let due: Vec<_> = self.asked.iter().filter(|(_, (_, at))| now.since(*at) == Span::secs(1)).collect();
        let due: Vec<_> = due.into_iter().map(|(id, (wish, at))| (id.clone(), wish.clone(), *at)).collect();
        for (id, wish, begun) in due {
            let Some(workload) = self.node.sample.workloads.get_mut(&id) else { continue };
            let before = workload.gpus.clone();
            let keeps = match wish.level {
                Level::Nothing => 100,
                _ if !self.willing => 100,
                Level::Gc => 99,
                Level::Aggressive => 95,
                Level::Offload | Level::Unload => 10,
            };
            let back = self.had.remove(&id).filter(|_| wish.level == Level::Nothing);
            let left = before.iter().map(|(gpu, held)| (gpu.clone(), held.map(|b| Bytes(b.0 / 100 * keeps))));
            workload.gpus = back.unwrap_or_else(|| left.collect());
            if wish.level >= Level::Offload {
                self.had.entry(id.clone()).or_insert_with(|| before.clone());
            }
            let after = workload.gpus.clone();
            let freed = before.iter().map(|(gpu, held)| {
                let after = after.get(gpu).copied().flatten().unwrap_or_default();
                (gpu.clone(), held.unwrap_or_default().saturating_sub(after))
            });
            let result =
                if self.willing { ActResult::Done } else { ActResult::Failed("busy with 3 requests".into()) };
            let freed = Gains { host: 0, gpus: freed.collect() };
            self.node.sample.conceded.push(Concession {
                workload: id,
                number: wish.number,
                level: wish.level,
                by: "engine".into(),
                result,
                begun,
                took: Span::secs(1),
                freed,
                claimed: None,
            });
            self.recount();
        }
    }

    fn recount(&mut self) {
        let gpus: Vec<_> = self.node.sample.gpus.keys().cloned().collect();
        for gpu in gpus {
            let all = || self.node.sample.workloads.values().filter_map(|w| *w.gpus.get(&gpu)?);
            self.node.gpu(&gpu.0).used = Some(all().sum());
        }
    }

    /// One grows to so much at 400 MiB/s.
    fn grow(&mut self, name: &str, gpu: &str, to: u64) {
        while let Some(held) = self.node.sample.workloads[&id(name)].gpus[&gpu.into()]
            && held < Bytes::mib(to)
        {
            self.node.hold(name, gpu, ((held.0 >> 20) + 200).min(to));
            self.tick();
        }
    }

    fn ticks(&mut self, seconds: u64) {
        (0..seconds * 2).for_each(|_| drop(self.tick()));
    }
}

/// On two GPUs: `service` grows on the first, which `embed` and `rerank` make room on, and get it back when it is over. Then it grows
/// again, and nobody is willing.
fn ladder() -> Servers {
    let mut servers = Servers::new(&["GPU-0", "GPU-1"]);
    let all = [Level::Gc, Level::Aggressive, Level::Offload, Level::Unload];
    servers.server("embed", 0, &all);
    servers.server("rerank", 10, &all);
    servers.node.add("service", 50);
    for (name, gpu, mib) in [
        ("embed", "GPU-0", 8000),
        ("rerank", "GPU-0", 6000),
        ("rerank", "GPU-1", 8000),
        ("service", "GPU-0", 4000),
        ("service", "GPU-1", 8000),
    ] {
        servers.node.hold(name, gpu, mib);
    }
    servers.ticks(10);
    servers.grow("service", "GPU-0", 10_000);
    servers.ticks(3);
    servers.grow("service", "GPU-0", 17_000);
    servers.ticks(20);
    servers.node.hold("service", "GPU-0", 2000);
    servers.ticks(120);
    servers.willing = false;
    let others = servers.node.gpu("GPU-0").used.unwrap().0 >> 20;
    servers.grow("service", "GPU-0", 2000 + 23_700 - others);
    servers.ticks(50);
    servers
}

/// The same for the file that people read.
pub(crate) fn gpu_ladder() -> Story {
    let Servers { node, samples, .. } = ladder();
    let mut machine = Machine::new(1000, 0);
    machine.config = node.config;
    Story { machine, samples }
}

#[test]
fn the_ladder_of_a_gpu_is_climbed_and_left_again() {
    let Servers { said, node, .. } = ladder();
    let first = |what: &str| {
        said.iter().position(|it| it == what).unwrap_or_else(|| panic!("{what} is not in {said:?}"))
    };
    let order = [
        "embed aggressive",
        "embed offload",
        "rerank offload",
        "rerank nothing",
        "embed nothing",
        "embed kill",
    ];
    assert!(order.map(first).is_sorted(), "{said:?}");
    assert_eq!(said.iter().filter(|it| it.ends_with("kill")).count(), 1, "{said:?}");
    assert!(node.sample.workloads.contains_key(&id("rerank")));
}

/// What happens to a GPU or on it.
#[derive(Clone, Debug)]
enum Event {
    Hold { who: usize, gpu: usize, mib: Option<u64> },
    Leave { who: usize },
    Fail { who: usize, gpu: Option<usize> },
    Want { who: usize, gpu: usize, mib: u64 },
    Unread { gpu: usize },
    Lost { gpu: usize },
    Vanish { gpu: usize },
    Return { gpu: usize },
    Willing(bool),
    Wait { seconds: u64 },
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const GPUS: [&str; 3] = ["GPU-0", "GPU-1", "GPU-2"];

fn event() -> impl Strategy<Value = Event> {
    let (who, gpu) = (0..NAMES.len(), 0..GPUS.len());
    let mib = prop_oneof![3 => 0_u64..12_000, 1 => 12_000_u64..24_500];
    prop_oneof![
        8 => (who.clone(), gpu.clone(), prop::option::weighted(0.9, mib.clone()))
            .prop_map(|(who, gpu, mib)| Event::Hold { who, gpu, mib }),
        1 => who.clone().prop_map(|who| Event::Leave { who }),
        3 => (who.clone(), prop::option::of(gpu.clone())).prop_map(|(who, gpu)| Event::Fail { who, gpu }),
        2 => (who, gpu.clone(), mib).prop_map(|(who, gpu, mib)| Event::Want { who, gpu, mib }),
        1 => gpu.clone().prop_map(|gpu| Event::Unread { gpu }),
        1 => gpu.clone().prop_map(|gpu| Event::Lost { gpu }),
        1 => gpu.clone().prop_map(|gpu| Event::Vanish { gpu }),
        3 => gpu.prop_map(|gpu| Event::Return { gpu }),
        1 => any::<bool>().prop_map(Event::Willing),
        8 => (1_u64..20).prop_map(|seconds| Event::Wait { seconds }),
    ]
}

fn happen(servers: &mut Servers, event: &Event) {
    let node = &mut servers.node;
    let here = |node: &Node, who: usize, gpu: usize| {
        let known = node.sample.gpus.contains_key(&GPUS[gpu].into());
        known && node.sample.workloads.contains_key(&id(NAMES[who]))
    };
    match *event {
        Event::Hold { who, gpu, mib } if here(node, who, gpu) => {
            let workload = node.sample.workloads.get_mut(&id(NAMES[who])).unwrap();
            workload.gpus.insert(GPUS[gpu].into(), mib.map(Bytes::mib));
            servers.recount();
        }
        Event::Leave { who } if node.sample.workloads.contains_key(&id(NAMES[who])) => {
            servers.bury(&id(NAMES[who]));
        }
        Event::Fail { who, gpu } => {
            let gpu = gpu.map(|gpu| GPUS[gpu].into());
            node.ask(NAMES[who], Call::CudaOutOfMemory { cgroup: id(NAMES[who]), gpu });
        }
        Event::Want { who, gpu, mib } => {
            let gpus = [(GPUS[gpu].into(), Bytes::mib(mib))].into();
            let wait = Span::secs(20);
            node.ask(
                NAMES[who],
                Call::Reserve(Reserve { holder: id(NAMES[who]), gpus, wait, ..Reserve::default() }),
            );
        }
        Event::Unread { gpu } if node.sample.gpus.contains_key(&GPUS[gpu].into()) => {
            node.gpu(GPUS[gpu]).used = None;
        }
        Event::Lost { gpu } if node.sample.gpus.contains_key(&GPUS[gpu].into()) => {
            node.gpu(GPUS[gpu]).lost = true;
        }
        Event::Vanish { gpu } => {
            node.sample.gpus.remove(&GPUS[gpu].into());
            for workload in node.sample.workloads.values_mut() {
                workload.gpus.remove(&GPUS[gpu].into());
            }
        }
        Event::Return { gpu } => {
            let total = Some(crate::gpu::TOTAL);
            let fresh = plimsoll_policy::gpu::Gpu { total, ..plimsoll_policy::gpu::Gpu::default() };
            node.sample.gpus.insert(GPUS[gpu].into(), fresh);
            servers.recount();
        }
        Event::Willing(willing) => servers.willing = willing,
        Event::Wait { seconds } => (0..seconds * 2).for_each(|_| watch(servers)),
        _ => {}
    }
}

/// A look, and what has to hold of it. That the lint finds nothing is checked with every look.
fn watch(servers: &mut Servers) {
    let before = servers.node.sample.clone();
    let pass = servers.tick();
    let new: Vec<_> = pass.plan.workloads.iter().filter(|(_, w)| w.kill).collect();
    assert!(new.len() <= 1, "one kill at a time");
    for (id, wanted) in new {
        let gpu = wanted.killed_for().unwrap();
        let seen = &pass.assessment.gpus[gpu];
        assert!(seen.contested && seen.tier == Tier::Emergency && !seen.is_stale(), "{seen:?}");
        let spec = &before.workloads[id].spec;
        assert_ne!(spec.preference, Preference::Omit);
        assert!(before.workloads[id].gpus[gpu].is_some(), "what it holds is known");
        let lower = before.workloads.values().find(|w| {
            let open = w.spec.preference == Preference::None && w.spec.priority < spec.priority;
            open && w.gpus.get(gpu).copied().flatten() >= Some(Bytes::mib(500))
        });
        assert_eq!(lower, None, "nobody dies before one that matters less");
    }
    for (id, gpu) in &before.gpus {
        assert_eq!(pass.assessment.gpus.contains_key(id), gpu.is_resource());
    }
    let known = before.gpus.len() + GPUS.len();
    assert!(servers.node.state.gpus.len() <= known && pass.assessment.tier == Tier::Normal);
}

proptest! {
    #![proptest_config(fixed(60))]

    /// Whatever happens to GPUs and on them.
    #[test]
    fn lives_with_gpus(events in prop::collection::vec(event(), 1..60)) {
        let mut servers = Servers::new(&GPUS);
        for (n, name) in NAMES.into_iter().enumerate() {
            let levels: &[Level] = if n % 2 == 0 { &[Level::Aggressive, Level::Offload, Level::Unload] } else { &[] };
            servers.server(name, 10 * i32::try_from(n / 2).unwrap(), levels);
            servers.node.hold(name, GPUS[n % 3], 6000);
        }
        servers.node.add("d", 0).spec.preference = Preference::Omit;
        for event in &events {
            happen(&mut servers, event);
        }
        servers.ticks(40);
    }
}
