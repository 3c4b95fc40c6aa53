//! GPUs as resources: their tiers, who contests them, and what is not known of them.

use plimsoll_policy::admission::{Call, Caller, Request};
use plimsoll_policy::assess::forecast::{Forecast, Source};
use plimsoll_policy::config::Config;
use plimsoll_policy::gpu::{Gpu, GpuId};
use plimsoll_policy::pass::{Pass, step};
use plimsoll_policy::plan::{Evidence, GpuAssessment, Tier};
use plimsoll_policy::sample::{Meminfo, MemoryStat, Sample, Spec, Workload, WorkloadId};
use plimsoll_policy::state::State;
use plimsoll_policy::units::{Bytes, Monotonic, Span};

use crate::properties::through_json;

pub(crate) const TOTAL: Bytes = Bytes::mib(24_000);

pub(crate) fn id(name: &str) -> WorkloadId {
    WorkloadId { path: format!("models/{name}").into(), inode: name.bytes().map(u64::from).sum() }
}

/// A node whose host is calm, with GPUs of 24000 MiB. Every look is half a second after the one before.
pub(crate) struct Node {
    pub(crate) config: Config,
    pub(crate) state: State,
    pub(crate) sample: Sample,
}

impl Node {
    pub(crate) fn new(gpus: &[&str]) -> Self {
        let free = Bytes::mib(50_000);
        let mut sample = Sample { at: Monotonic(60_000_000_000), ..Sample::default() };
        sample.host.meminfo =
            Some(Meminfo { total: Bytes::mib(64_000), free, available: free, ..Meminfo::default() });
        for gpu in gpus {
            let reading = Gpu { total: Some(TOTAL), used: Some(Bytes::ZERO), ..Gpu::default() };
            sample.gpus.insert((*gpu).into(), reading);
        }
        Self { config: Config::default(), state: State::default(), sample }
    }

    /// A workload with a gibibyte of host memory.
    pub(crate) fn add(&mut self, name: &str, priority: i32) -> &mut Workload {
        let anon = Bytes::mib(1024);
        let stat = MemoryStat { anon, ..MemoryStat::default() };
        let spec = Spec { name: name.into(), priority, ..Spec::default() };
        let (current, stat, populated) = (Some(anon), Some(stat), Some(true));
        let workload = Workload { spec, current, stat, populated, ..Workload::default() };
        self.sample.workloads.entry(id(name)).or_insert(workload)
    }

    /// What a workload holds of a GPU from now on, in MiB.
    pub(crate) fn hold(&mut self, name: &str, gpu: &str, mib: u64) {
        let workload = self.sample.workloads.get_mut(&id(name)).unwrap();
        workload.gpus.insert(gpu.into(), Some(Bytes::mib(mib)));
        let all = || self.sample.workloads.values().filter_map(|w| *w.gpus.get(&gpu.into())?);
        let used = all().sum();
        self.gpu(gpu).used = Some(used);
    }

    pub(crate) fn gpu(&mut self, gpu: &str) -> &mut Gpu {
        self.sample.gpus.get_mut(&GpuId::from(gpu)).unwrap()
    }

    pub(crate) fn ask(&mut self, name: &str, call: Call) {
        let ticket = self.state.action + 1000 + self.sample.requests.len() as u64;
        self.sample.requests.push(Request { ticket, caller: Caller::Cgroup(id(name)), call });
    }

    pub(crate) fn look(&mut self) -> Pass {
        self.sample.at = self.sample.at + Span::millis(500);
        let pass = step(&self.config, std::mem::take(&mut self.state), &self.sample);
        assert_eq!(pass.findings, []);
        self.sample.requests.clear();
        self.state = through_json(&pass.state);
        pass
    }

    /// Looks for so long, and gives the last pass.
    pub(crate) fn looks(&mut self, seconds: u64) -> Pass {
        (0..seconds * 2).map(|_| self.look()).last().unwrap()
    }
}

pub(crate) fn of<'a>(pass: &'a Pass, gpu: &str) -> &'a GpuAssessment {
    &pass.assessment.gpus[&GpuId::from(gpu)]
}

#[test]
fn every_gpu_has_a_tier_of_its_own() {
    let mut node = Node::new(&["a", "b"]);
    node.look();
    for (mib, tier) in [
        (19_100, Tier::Normal),
        (19_300, Tier::Elevated),
        (21_700, Tier::Constrained),
        (22_900, Tier::Critical),
        (23_600, Tier::Emergency),
    ] {
        node.gpu("a").used = Some(Bytes::mib(mib));
        let pass = node.looks(9);
        assert_eq!((of(&pass, "a").tier, of(&pass, "b").tier), (tier, Tier::Normal), "{mib} MiB");
        assert_eq!(pass.assessment.tier, Tier::Normal, "the host is another resource");
    }
    node.gpu("a").used = Some(Bytes::mib(4000));
    let tiers: Vec<_> = (0..5).map(|_| of(&node.looks(5), "a").tier).collect();
    assert!(tiers.is_sorted_by(|high, low| high >= low), "one at a time: {tiers:?}");
    assert_eq!(tiers.last(), Some(&Tier::Normal));
    assert!(tiers.contains(&Tier::Constrained), "{tiers:?}");
}

#[test]
fn a_forecast_is_told_and_a_model_that_is_loaded_is_no_emergency() {
    let mut node = Node::new(&["a"]);
    node.looks(2);
    for mib in [2000, 4000, 6000, 8000, 10_000, 12_000] {
        node.gpu("a").used = Some(Bytes::mib(mib));
        node.look();
    }
    let pass = node.look();
    let gpu = of(&pass, "a");
    assert_eq!(gpu.tier, Tier::Constrained, "4000 MiB/s, and 12000 left");
    assert!(matches!(gpu.because, Some(Evidence::Forecast { source: Source::Free, .. })), "{gpu:?}");
    for mib in [14_000, 16_000, 18_000, 20_000] {
        node.gpu("a").used = Some(Bytes::mib(mib));
        node.look();
    }
    node.gpu("a").used = Some(Bytes::mib(21_500));
    assert_eq!(of(&node.look(), "a").tier, Tier::Critical, "a step is no rate");
    node.gpu("a").used = Some(Bytes::mib(23_000));
    let gpu = of(&node.look(), "a").clone();
    assert_eq!(gpu.tier, Tier::Emergency, "a third of a second is left: {gpu:?}");
}

#[test]
fn what_is_not_known_is_neither_calm_nor_news() {
    let mut node = Node::new(&["a"]);
    node.gpu("a").used = Some(Bytes::mib(22_900));
    assert_eq!(of(&node.looks(2), "a").tier, Tier::Critical);
    node.gpu("a").used = None;
    let gpu = of(&node.looks(60), "a").clone();
    assert_eq!((gpu.tier, gpu.is_stale(), gpu.headroom), (Tier::Critical, true, None));
    assert_eq!(gpu.forecast, Forecast::Unknown(plimsoll_policy::assess::forecast::Unknown::Gap));
    node.gpu("a").lost = true;
    assert!(node.look().assessment.gpus.is_empty(), "nothing is known of one that is lost");
    node.gpu("a").lost = false;
    assert_eq!(of(&node.look(), "a").tier, Tier::Normal, "and nothing is remembered");
    node.gpu("a").unified = true;
    assert!(node.look().assessment.gpus.is_empty(), "its memory is the host's");
    assert!(node.state.gpus.is_empty());
}

#[test]
fn one_that_comes_again_soon_is_the_same() {
    let mut node = Node::new(&["a"]);
    node.gpu("a").used = Some(Bytes::mib(22_900));
    node.looks(2);
    let reading = node.sample.gpus.clone();
    node.sample.gpus.clear();
    assert!(node.looks(29).assessment.gpus.is_empty());
    node.sample.gpus = reading.clone();
    assert_eq!(of(&node.look(), "a").tier, Tier::Critical);
    node.sample.gpus.clear();
    node.looks(31);
    assert!(node.state.gpus.is_empty());
}

#[test]
fn a_gpu_that_is_merely_full_is_not_contested() {
    let mut node = Node::new(&["a", "b"]);
    node.add("engine", 0);
    node.hold("engine", "a", 23_700);
    let pass = node.looks(70);
    assert_eq!((of(&pass, "a").tier, of(&pass, "a").contested), (Tier::Emergency, false));
    node.hold("engine", "a", 23_900);
    assert!(!of(&node.look(), "a").contested, "less than one per cent");
    node.hold("engine", "a", 23_950);
    assert!(of(&node.look(), "a").contested, "more than one since it stood still");
    assert!(of(&node.looks(59), "a").contested);
    assert!(!of(&node.looks(1), "a").contested);
    node.hold("engine", "a", 10_000);
    assert!(!of(&node.look(), "a").contested, "who gives does not want");
}

#[test]
fn an_allocation_that_failed_contests_the_gpu() {
    let mut node = Node::new(&["a", "b"]);
    node.add("engine", 0);
    node.hold("engine", "a", 20_000);
    node.looks(70);
    let failed = |gpu: Option<&str>| Call::CudaOutOfMemory { cgroup: id("engine"), gpu: gpu.map(Into::into) };
    node.ask("engine", failed(None));
    let pass = node.look();
    assert_eq!((of(&pass, "a").contested, of(&pass, "b").contested), (true, false), "where it has memory");
    node.ask("engine", failed(Some("b")));
    assert!(of(&node.look(), "b").contested);
    assert!(!of(&node.looks(60), "b").contested);
}

#[test]
fn readings_that_are_only_repeated_are_no_growth() {
    let mut node = Node::new(&["a"]);
    // The driver is asked once in two seconds, and tells of 400 MiB/s.
    for second in 1..=10 {
        let at = node.sample.at;
        *node.gpu("a") = Gpu { at, used: Some(Bytes::mib(second * 800)), ..node.gpu("a").clone() };
        node.looks(2);
    }
    let Forecast::In { left, .. } = of(&node.look(), "a").forecast else { panic!("it fills") };
    assert!((38..42).contains(&(left.0 / 1_000_000_000)), "16000 MiB at 400 MiB/s: {left}");
}
