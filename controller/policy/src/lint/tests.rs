//! One broken plan for each rule, and what is left of it.

use super::*;
use crate::plan::{Evidence, Wanted};
use crate::sample::{Meminfo, MemoryStat, Preference, Rung, Spec, Workload};
use crate::units::{Bytes, Monotonic, Span};

/// Two expendables of unequal priority on 100 MiB of anon each, a protected and an untouchable one; no swap.
struct Bench {
    config: Config,
    sample: Sample,
    state: State,
    plan: Plan,
    tier: Tier,
    gpus: BTreeMap<GpuId, GpuAssessment>,
    eased: Option<Monotonic>,
}

fn id(name: &str) -> WorkloadId {
    WorkloadId { path: name.into(), inode: 7 }
}

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            config: Config { protect_priority: 100, ..Config::default() },
            sample: Sample { at: Monotonic(60_000_000_000), ..Sample::default() },
            state: State::default(),
            plan: Plan::default(),
            tier: Tier::Emergency,
            gpus: BTreeMap::new(),
            eased: Some(Monotonic(0)),
        };
        let gib = Bytes::mib(1024);
        bench.sample.host.meminfo = Some(Meminfo { total: gib, ..Meminfo::default() });
        for (name, priority, preference) in [
            ("low", 0, Preference::None),
            ("high", 10, Preference::None),
            ("protected", 100, Preference::None),
            ("omit", 0, Preference::Omit),
        ] {
            let spec = Spec { priority, preference, ..Spec::default() };
            let stat = MemoryStat { anon: Bytes::mib(100), ..MemoryStat::default() };
            let current = Some(Bytes::mib(100));
            let workload =
                Workload { spec, current, stat: Some(stat), populated: Some(true), ..Workload::default() };
            bench.sample.workloads.insert(id(name), workload);
            bench.state.workloads.insert(id(name), Track::default());
            bench.plan.workloads.insert(id(name), Wanted::default());
        }
        bench
    }

    fn want(mut self, name: &str, rung: Rung) -> Self {
        let wanted = self.plan.workloads.entry(id(name)).or_default();
        *wanted =
            Wanted { rung, frozen: rung == Rung::Freeze, kill: rung == Rung::Kill, ..Wanted::default() };
        self
    }

    fn held(mut self, name: &str, rung: Rung) -> Self {
        self.state.workloads.entry(id(name)).or_default().held.rung = rung;
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn seen(&mut self, name: &str) -> &mut Workload {
        self.sample.workloads.entry(id(name)).or_default()
    }

    fn wanted(&mut self, name: &str) -> &mut Wanted {
        self.plan.workloads.entry(id(name)).or_default()
    }

    /// Frozen for so many seconds, as the plan leaves it.
    fn frozen_for(mut self, name: &str, seconds: u64) -> Self {
        let since = self.sample.at - Span::secs(seconds);
        let held = &mut self.state.workloads.entry(id(name)).or_default().held;
        (held.rung, held.since) = (Rung::Freeze, since);
        self.seen(name).frozen = Some(true);
        self.want(name, Rung::Freeze)
    }

    /// The invariants found broken, and the plan that is left.
    fn lint(mut self) -> (Vec<u8>, Plan) {
        let before = Before::of(&self.state);
        let case = Case {
            config: &self.config,
            before: &before,
            sample: &self.sample,
            tier: self.tier,
            gpus: &self.gpus,
            eased: self.eased,
        };
        let findings = lint(case, &self.plan);
        block(case, &findings, &mut self.state, &mut self.plan);
        assert!(lint(case, &self.plan).iter().all(|f| !f.fatal), "what is left is sound");
        (findings.iter().map(|f| f.invariant).collect(), self.plan)
    }

    fn breaks(self, invariants: &[u8]) {
        assert_eq!(self.lint().0, invariants);
    }
}

#[test]
fn a_sound_plan_passes() {
    Bench::new().want("low", Rung::Kill).breaks(&[]);
    Bench::new().want("low", Rung::Freeze).breaks(&[]);
    Bench::new().want("low", Rung::Throttle).held("low", Rung::Trim).breaks(&[]);
}

#[test]
fn nobody_is_killed_before_his_turn() {
    Bench::new().want("high", Rung::Kill).breaks(&[1]);
    let gone = |b: &mut Bench| b.seen("low").populated = Some(false);
    Bench::new().want("high", Rung::Kill).with(gone).breaks(&[]);
}

#[test]
fn nobody_is_braked_while_a_lower_one_has_memory_to_give() {
    let swap = |b: &mut Bench| {
        b.sample.host.meminfo = Some(Meminfo { swap_free: Bytes::mib(500), ..Meminfo::default() });
    };
    Bench::new().want("high", Rung::Freeze).with(swap).breaks(&[1]);
    Bench::new().want("high", Rung::Freeze).want("low", Rung::Trim).with(swap).breaks(&[]);
    Bench::new().want("high", Rung::Freeze).breaks(&[]);
}

#[test]
fn some_are_out_of_bounds() {
    Bench::new().want("protected", Rung::Throttle).breaks(&[2]);
    Bench::new().want("omit", Rung::Trim).breaks(&[2]);
    let gate = |b: &mut Bench| b.plan.gate = Gate { targets: vec![id("low"), id("omit")], protected: vec![] };
    let (found, left) = Bench::new().with(gate).lint();
    assert_eq!((found.as_slice(), left.gate.armed()), (&[2][..], false));
}

#[test]
fn one_kill_at_a_time() {
    Bench::new().want("low", Rung::Kill).want("high", Rung::Kill).breaks(&[3]);
    let since = |b: &mut Bench| {
        let now = b.sample.at;
        b.state.workloads.entry(id("low")).or_default().held.since = now;
    };
    let (found, left) = Bench::new()
        .held("low", Rung::Kill)
        .with(since)
        .want("low", Rung::Kill)
        .want("high", Rung::Kill)
        .lint();
    assert_eq!(found, [3]);
    assert!(left.workloads[&id("low")].kill && !left.workloads[&id("high")].kill);
    Bench::new().held("low", Rung::Kill).want("low", Rung::Kill).want("high", Rung::Kill).breaks(&[]);
}

#[test]
fn memory_high_stays_above_the_floor() {
    let high = |mib| {
        move |b: &mut Bench| {
            let until = Some(b.sample.at + b.config.ladder.throttle_lease);
            *b.wanted("low") =
                Wanted { high: Some(Bytes::mib(mib)), until, rung: Rung::Throttle, ..Wanted::default() };
        }
    };
    Bench::new().want("low", Rung::Throttle).with(high(99)).breaks(&[4]);
    Bench::new().want("low", Rung::Throttle).with(high(101)).breaks(&[]);
    // It outgrew its limit. Raising that is the way out, though not as far as it would like.
    let outgrown = |b: &mut Bench| {
        b.state.workloads.entry(id("low")).or_default().held.high = Some(Bytes::mib(98));
    };
    let throttled = || Bench::new().held("low", Rung::Throttle).with(outgrown).want("low", Rung::Throttle);
    throttled().with(high(99)).breaks(&[]);
    throttled().with(high(97)).breaks(&[4]);
}

#[test]
fn nothing_is_set_beside_the_rung() {
    let set = |change: fn(&mut Wanted)| move |b: &mut Bench| change(b.wanted("low"));
    Bench::new().with(set(|w| w.frozen = true)).breaks(&[5]);
    Bench::new().with(set(|w| w.kill = true)).breaks(&[5]);
    Bench::new().with(set(|w| w.reclaim = Some(Bytes(1)))).breaks(&[5]);
}

#[test]
fn what_stops_a_workload_rests_on_fresh_readings() {
    let blind = |b: &mut Bench| b.sample.host.meminfo = None;
    Bench::new().want("low", Rung::Kill).with(blind).breaks(&[6]);
    Bench::new().want("low", Rung::Freeze).with(blind).breaks(&[6]);
    let stopped = |b: &mut Bench| b.seen("low").frozen = Some(true);
    Bench::new().want("low", Rung::Freeze).with(blind).with(stopped).breaks(&[]);
}

#[test]
fn calm_is_no_time_for_brakes_and_thaws_are_paced() {
    Bench::new().want("low", Rung::Throttle).with(|b| b.tier = Tier::Normal).breaks(&[7]);
    let (found, left) = Bench::new().held("low", Rung::Freeze).held("high", Rung::Freeze).lint();
    assert_eq!(found, [7]);
    assert_eq!(left.workloads.values().filter(|w| w.frozen).count(), 1);
}

#[test]
fn what_is_not_its_rung_is_not_done() {
    Bench::new().want("low", Rung::Offload).breaks(&[5]);
    let rungs = |b: &mut Bench| b.seen("low").spec.rungs = vec![Rung::Trim];
    Bench::new().want("low", Rung::Freeze).with(rungs).breaks(&[2]);
    let ladder = |b: &mut Bench| b.config.ladder.rungs = vec![Rung::Trim, Rung::Freeze];
    let (found, left) = Bench::new().want("low", Rung::Kill).with(ladder).lint();
    assert_eq!((found.as_slice(), left.workloads[&id("low")].kill), (&[2][..], false));
}

#[test]
fn the_gate_stops_the_lowest() {
    let gate = |name: &'static str| {
        move |b: &mut Bench| b.plan.gate = Gate { targets: vec![id(name)], protected: vec![] }
    };
    Bench::new().with(gate("low")).breaks(&[]);
    let (found, left) = Bench::new().with(gate("high")).lint();
    assert_eq!((found.as_slice(), left.gate.armed()), (&[1][..], false));
    Bench::new().with(gate("high")).want("low", Rung::Kill).breaks(&[]);
}

#[test]
fn a_lease_has_an_end() {
    let until = |seconds: Option<u64>| {
        move |b: &mut Bench| {
            let until = seconds.map(|s| b.sample.at + Span::secs(s));
            let high = Some(Bytes::mib(200));
            *b.wanted("low") = Wanted { rung: Rung::Throttle, high, until, ..Wanted::default() };
        }
    };
    Bench::new().with(until(Some(5))).breaks(&[]);
    Bench::new().with(until(Some(6))).breaks(&[4]);
    let (found, left) = Bench::new().with(until(None)).lint();
    assert_eq!((found.as_slice(), left.workloads[&id("low")].high), (&[4][..], None));
}

#[test]
fn protection_belongs_to_the_protected_and_reclaim_comes_in_steps() {
    let low = |name: &'static str| move |b: &mut Bench| b.wanted(name).low = Some(Bytes::mib(1));
    Bench::new().with(low("protected")).breaks(&[]);
    let (found, left) = Bench::new().with(low("high")).lint();
    assert_eq!((found.as_slice(), left.workloads[&id("high")].low), (&[5][..], None));
    let reclaim = |mib| move |b: &mut Bench| b.wanted("low").reclaim = Some(Bytes::mib(mib));
    Bench::new().want("low", Rung::Trim).with(reclaim(64)).breaks(&[]);
    Bench::new().want("low", Rung::Trim).with(reclaim(65)).breaks(&[5]);
}

#[test]
fn brakes_are_counted_except_where_survival_is_at_stake() {
    let spent = |tier| {
        move |b: &mut Bench| {
            let now = b.sample.at;
            b.tier = tier;
            b.config.ladder.actions_per_hour = 2;
            b.state.workloads.entry(id("low")).or_default().repeats.brakes = vec![now - Span::secs(50); 2];
        }
    };
    let (found, left) = Bench::new().want("low", Rung::Freeze).with(spent(Tier::Critical)).lint();
    assert_eq!((found.as_slice(), left.workloads[&id("low")].frozen), (&[7][..], false));
    Bench::new().want("low", Rung::Freeze).with(spent(Tier::Emergency)).breaks(&[]);
    Bench::new().want("low", Rung::Kill).with(spent(Tier::Emergency)).breaks(&[]);
    Bench::new().want("high", Rung::Freeze).with(spent(Tier::Critical)).breaks(&[]);
    let escalates = Bench::new().held("low", Rung::Throttle).want("low", Rung::Freeze);
    escalates.with(spent(Tier::Critical)).breaks(&[]);
}

#[test]
fn those_who_matter_more_are_thawed_first() {
    let both = || Bench::new().frozen_for("low", 20).frozen_for("high", 20);
    both().want("high", Rung::Free).breaks(&[]);
    let (found, left) = both().want("low", Rung::Free).lint();
    assert_eq!((found.as_slice(), left.workloads[&id("low")].frozen), (&[7][..], true));
    let overdue = Bench::new().with(|b| b.config.ladder.freeze_max = Span::secs(30));
    overdue.frozen_for("low", 31).frozen_for("high", 20).want("low", Rung::Free).breaks(&[]);
}

#[test]
fn a_freeze_ends() {
    let short = |b: &mut Bench| b.config.ladder.freeze_max = Span::secs(20);
    let frozen =
        |tier, seconds| Bench::new().with(short).with(move |b| b.tier = tier).frozen_for("low", seconds);
    frozen(Tier::Elevated, 31).breaks(&[]);
    let (found, left) = frozen(Tier::Elevated, 32).lint();
    assert_eq!((found.as_slice(), left.workloads[&id("low")].frozen), (&[7][..], false));
    frozen(Tier::Critical, 50).breaks(&[]);
    let eased = |b: &mut Bench| b.eased = Some(b.sample.at - Span::secs(11));
    frozen(Tier::Elevated, 50).with(eased).breaks(&[]);
}

#[test]
fn a_freeze_ends_before_a_probe_fails() {
    let probed = |b: &mut Bench| b.seen("low").spec.freeze_max = Some(Span::secs(20));
    let frozen = |seconds| Bench::new().frozen_for("low", seconds).with(probed);
    frozen(20).breaks(&[]);
    let (found, left) = frozen(21).lint();
    assert_eq!((found.as_slice(), left.workloads[&id("low")].frozen), (&[7][..], false));
    let again = |thawed: u64| {
        Bench::new().want("low", Rung::Freeze).with(probed).with(move |b| {
            let last = b.sample.at - Span::secs(thawed);
            let spell = Some(Spell { last, until: last });
            b.state.workloads.entry(id("low")).or_default().spell = spell;
        })
    };
    again(20).breaks(&[]);
    again(19).breaks(&[7]);
}

#[test]
fn an_eviction_needs_its_time_and_its_order() {
    let evict = |name: &'static str, tier| {
        Bench::new().held(name, Rung::Freeze).want(name, Rung::Freeze).with(move |b| {
            let kubernetes = &mut b.config.kubernetes;
            (kubernetes.enabled, kubernetes.evict_after) = (true, Span::secs(30));
            b.tier = tier;
            for pod in ["low", "high", "protected"] {
                b.seen(pod).spec.evictable = Some(Span::secs(5));
            }
            b.wanted(name).evict = true;
        })
    };
    let braked = |name: &'static str, seconds| {
        move |b: &mut Bench| {
            let eviction = Eviction { braked: Span::secs(seconds), ..Eviction::default() };
            b.state.workloads.entry(id(name)).or_default().eviction = Some(Box::new(eviction));
        }
    };
    let (tier, low) = (Tier::Critical, |b: &mut Bench| b.wanted("low").rung = Rung::Throttle);
    evict("low", tier).breaks(&[]);
    evict("high", tier).breaks(&[]);
    evict("high", tier).with(low).with(braked("low", 29)).breaks(&[]);
    evict("high", tier).with(low).with(braked("low", 30)).breaks(&[1]);
    evict("low", Tier::Emergency).breaks(&[7]);
    evict("low", tier).with(|b| b.config.kubernetes.evict = false).breaks(&[2]);
    evict("low", tier).with(|b| b.seen("low").spec.evictable = None).breaks(&[2]);
    let (found, left) = evict("low", tier).with(|b| b.wanted("high").evict = true).lint();
    assert_eq!((found.as_slice(), left.workloads.values().filter(|w| w.evict).count()), (&[3][..], 1));
}

#[test]
fn a_kill_for_a_gpu_needs_its_emergency_and_its_order() {
    let gpu = || GpuId::from("g");
    let on_gpu = |holders: &'static [(&str, u64)]| {
        move |b: &mut Bench| {
            b.tier = Tier::Normal;
            let reading = crate::gpu::Gpu { total: Some(Bytes::mib(1000)), ..crate::gpu::Gpu::default() };
            b.sample.gpus.insert(gpu(), reading);
            for (name, mib) in holders {
                b.seen(name).gpus.insert(gpu(), Some(Bytes::mib(*mib)));
            }
            let (tier, used) = (Tier::Emergency, Some(crate::units::Share::percent(99)));
            b.gpus.insert(gpu(), GpuAssessment { tier, used, contested: true, ..GpuAssessment::default() });
            b.wanted("high").evidence = vec![Evidence::Yield { expected: Bytes::mib(400) }.on(&gpu())];
        }
    };
    let kill = |holders| Bench::new().want("high", Rung::Kill).with(on_gpu(holders));
    let but = |change: fn(&mut GpuAssessment)| {
        kill(&[("high", 400)]).with(|b| b.gpus.values_mut().for_each(change))
    };
    kill(&[("high", 400)]).breaks(&[]);
    kill(&[("high", 400), ("low", 5)]).breaks(&[]);
    kill(&[("high", 400), ("low", 500)]).breaks(&[1]);
    kill(&[("low", 5)]).breaks(&[1]);
    but(|gpu| gpu.contested = false).breaks(&[7]);
    but(|gpu| gpu.used = None).breaks(&[6]);
    let (found, left) = but(|gpu| gpu.tier = Tier::Critical).lint();
    assert_eq!((found.as_slice(), left.workloads[&id("high")].kill), (&[7][..], false));
    let both = kill(&[("high", 400)]).want("low", Rung::Kill).with(|b| b.tier = Tier::Emergency);
    both.breaks(&[3]);
}
