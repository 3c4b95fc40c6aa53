//! What a scraper gets, and that all of it is documented.

use plimsoll_policy::concession::{Concession, Gains, Level, Offer};
use plimsoll_policy::config::Config;
use plimsoll_policy::plan::{Act, ActResult, Assessment, GpuAssessment, Outcome, Plan, Tier, Wanted};
use plimsoll_policy::sample::{Gap, Probes, Rung, Sample, Spec, Workload, WorkloadId};
use plimsoll_policy::units::{Bytes, Monotonic, Share, Span};

use super::*;
use crate::act::others::{File, Foreign, How, Others};
use crate::check::Capability;
use crate::report::{About, Record};

/// The page that explains every metric.
const PAGE: &str = include_str!("../../../../docs/metrics.md");

fn id() -> WorkloadId {
    WorkloadId { path: "models/batch".into(), inode: 7 }
}

fn record(at: u64) -> Record {
    let workload = Workload {
        spec: Spec { name: "batch".into(), priority: -10, ..Spec::default() },
        current: Some(Bytes::mib(300)),
        probes: Some(Probes { direct_reclaims: 3, over_high_ns: 1_500_000_000, ..Probes::default() }),
        ..Workload::default()
    };
    let outcome = Outcome {
        workload: id(),
        act: Act::Reclaim(Bytes::mib(64)),
        result: ActResult::Partial,
        begun: Monotonic(2_000_000),
        took: Span::millis(30),
        freed: Some(Bytes::mib(40)),
    };
    Record {
        sample: Sample {
            at: Monotonic(at),
            workloads: [(id(), workload)].into(),
            outcomes: if at > 1_000_000 { vec![outcome] } else { Vec::new() },
            gaps: vec![Gap { what: "memory.stat".into(), why: "EIO".into() }],
            ..Sample::default()
        },
        assessment: Assessment {
            tier: Tier::Constrained,
            used: Some(Share::percent(91)),
            ..Assessment::default()
        },
        plan: Plan {
            workloads: [(id(), Wanted { rung: Rung::Trim, ..Wanted::default() })].into_iter().collect(),
            ..Plan::default()
        },
        findings: Vec::new(),
        took: Span::millis(1),
        others: Arc::new(Others {
            writes: [((File::High, How::Reset), 2)].into(),
            set: [(id(), Foreign::NO_SWAP)].into(),
        }),
        ..Record::default()
    }
}

fn scrape(records: Vec<Record>) -> String {
    let about = About { capabilities: vec![Capability::there("psi", "")], ..About::default() };
    let mut state = State::new(&Config::default(), about, None);
    records.into_iter().for_each(|record| state.apply(Arc::new(record)));
    text(&Arc::new(Shared::new(state))).unwrap()
}

#[test]
fn a_pass_is_seen() {
    let text = scrape(vec![record(1_000_000), record(3_000_000)]);
    let check = |line: &str| assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    check("plimsoll_tier{resource=\"host\",tier=\"constrained\"} 1");
    check("plimsoll_tier{resource=\"host\",tier=\"normal\"} 0");
    check("plimsoll_used_ratio{resource=\"host\"} 0.91");
    check("plimsoll_workload_memory_bytes{workload=\"batch\"} 314572800");
    check("plimsoll_workload_rung{workload=\"batch\",rung=\"trim\"} 1");
    check("plimsoll_workload_priority{workload=\"batch\"} -10.0");
    check("plimsoll_workload_reclaims_total{workload=\"batch\",kind=\"direct\"} 3");
    check("plimsoll_workload_stall_seconds_total{workload=\"batch\",kind=\"high\"} 1.5");
    check("plimsoll_actions_total{act=\"reclaim\",result=\"partial\"} 1");
    check("plimsoll_freed_bytes_total{act=\"reclaim\"} 41943040");
    check("plimsoll_gaps_total{what=\"memory.stat\"} 2");
    check("plimsoll_foreign_writes_total{file=\"memory.high\",how=\"reset\"} 2");
    check("plimsoll_workload_foreign{workload=\"batch\",what=\"no_swap\"} 1");
    check("plimsoll_passes_total 2");
    check("plimsoll_reaction_seconds_bucket{le=\"0.001\"} 1");
    check("plimsoll_capability{capability=\"psi\"} 1");
    check(concat!("plimsoll_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"));
    assert!(text.ends_with("# EOF\n"));
    assert!(!text.contains("plimsoll_forecast_seconds{"), "no growth, no forecast");
}

#[test]
fn a_gpu_is_a_resource_like_the_host() {
    let gpu = |tier| {
        let mut record = record(1_000_000);
        record.sample.gpus.insert("GPU-7".into(), plimsoll_policy::gpu::Gpu::default());
        let (used, headroom) = (Some(Share::percent(96)), Some(Bytes::mib(900)));
        let seen = GpuAssessment { tier, used, headroom, contested: true, ..GpuAssessment::default() };
        record.assessment.gpus.insert("GPU-7".into(), seen);
        record
    };
    let text = scrape(vec![gpu(Tier::Constrained), gpu(Tier::Critical)]);
    let check = |line: &str| assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    check("plimsoll_tier{resource=\"gpu:GPU-7\",tier=\"critical\"} 1");
    check("plimsoll_tier{resource=\"host\",tier=\"constrained\"} 1");
    check("plimsoll_used_ratio{resource=\"gpu:GPU-7\"} 0.96");
    check("plimsoll_headroom_bytes{resource=\"gpu:GPU-7\"} 943718400");
    check("plimsoll_contested{resource=\"gpu:GPU-7\"} 1");
    check("plimsoll_reserved_bytes{resource=\"gpu:GPU-7\"} 0");
    check("plimsoll_tier_changes_total{resource=\"gpu:GPU-7\"} 1");
    assert!(!text.contains("plimsoll_contested{resource=\"host\"}"));
}

#[test]
fn what_workloads_gave_when_they_were_asked_is_counted() {
    let conceded = |level, result, host: i64| Concession {
        workload: id(),
        number: 3,
        level,
        by: "client+signal".into(),
        result,
        begun: Monotonic(1_000_000),
        took: Span::secs(2),
        freed: Gains { host, gpus: [("GPU-1".into(), Bytes(7))].into() },
        claimed: None,
    };
    let mut record = record(3_000_000);
    record.sample.conceded = vec![
        conceded(Level::Unload, ActResult::Done, 4096),
        conceded(Level::Unload, ActResult::Partial, -4096),
        conceded(Level::Nothing, ActResult::Failed("no".into()), 1),
    ];
    let offer = Offer { level: Some(Level::Unload), ..Offer::default() };
    record.sample.workloads.get_mut(&id()).unwrap().offer = Some(offer);
    let text = scrape(vec![record]);
    let check = |line: &str| assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    check("plimsoll_askings_total{level=\"unload\",way=\"client+signal\",result=\"done\"} 1");
    check("plimsoll_askings_total{level=\"unload\",way=\"client+signal\",result=\"partial\"} 1");
    check("plimsoll_askings_total{level=\"restore\",way=\"client+signal\",result=\"failed\"} 1");
    check("plimsoll_asking_freed_bytes_total{level=\"unload\",resource=\"host\"} 4096");
    check("plimsoll_asking_freed_bytes_total{level=\"unload\",resource=\"gpu:GPU-1\"} 14");
    check("plimsoll_asking_verify_failures_total 1");
    check("plimsoll_asking_duration_seconds_bucket{le=\"5.0\",level=\"unload\"} 2");
    check("plimsoll_workload_level{workload=\"batch\",level=\"unload\"} 1");
    check("plimsoll_workload_level{workload=\"batch\",level=\"gc\"} 0");
}

#[test]
fn a_workload_that_is_gone_has_no_series() {
    let mut gone = record(3_000_000);
    gone.sample.workloads.clear();
    assert!(!scrape(vec![record(1_000_000), gone]).contains("workload=\"batch\""));
}

#[test]
fn gaps_have_bounded_labels() {
    let many = (0..200).map(|n| {
        let mut record = record(1_000_000);
        record.sample.gaps[0].what = format!("sensor{n}");
        record
    });
    let text = scrape(many.collect());
    assert_eq!(text.lines().filter(|line| line.starts_with("plimsoll_gaps_total{")).count(), 65);
    assert!(text.contains("plimsoll_gaps_total{what=\"other\"} 136"), "{text}");
}

#[test]
fn the_page_explains_every_metric_and_no_other() {
    let families = ALL.concat_names();
    let explained: Vec<&str> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name)
        .collect();
    for name in &families {
        assert!(explained.contains(&name.as_str()), "docs/metrics.md does not explain {name}");
    }
    for name in explained {
        assert!(families.contains(&name.to_owned()), "docs/metrics.md explains {name}, which does not exist");
    }
}

/// Names as a scraper sees them.
trait Names {
    fn concat_names(&self) -> Vec<String>;
}

impl<const N: usize> Names for [&[Family]; N] {
    fn concat_names(&self) -> Vec<String> {
        let suffix = |kind| match kind {
            MetricType::Counter => "_total",
            MetricType::Info => "_info",
            _ => "",
        };
        self.iter()
            .copied()
            .flatten()
            .map(|family| format!("{}{}", family.name, suffix(family.kind)))
            .collect()
    }
}
