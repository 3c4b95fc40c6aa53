//! One machine as people read it: a line wherever the tier, a rung or the gate changed, and whenever somebody dies.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::time::Duration;

use plimsoll_model::fleet::{Fleet, Policy};
use plimsoll_model::judge::{Event, judge};
use plimsoll_policy::pass::Pass;
use plimsoll_policy::sample::{Rung, Sample};
use plimsoll_policy::units::Bytes;

/// Writes the story of machine `number` as it happens.
///
/// # Errors
/// Where `out` takes no more.
pub fn trace(
    fleet: &Fleet,
    number: u64,
    policy: &Policy,
    duration: Duration,
    out: &mut impl Write,
) -> io::Result<()> {
    let out = std::cell::RefCell::new((out, Ok(()), String::new()));
    let say = |line: &str| {
        let (out, result, _) = &mut *out.borrow_mut();
        if result.is_ok() {
            *result = writeln!(out, "{line}");
        }
    };
    let look = |sample: &Sample, pass: &Pass| {
        let standing = standing(sample, pass);
        if out.borrow().2 != standing || !pass.findings.is_empty() {
            say(&line(sample, pass, &standing));
            out.borrow_mut().2 = standing;
        }
    };
    let tell = |machine: &plimsoll_model::Machine, event| {
        say(&format!("{:>9}  {}", clock(machine.now_ms), words(&event)));
    };
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    judge(fleet, number, policy, millis, look, tell);
    out.into_inner().1
}

/// What changes are told of.
fn standing(sample: &Sample, pass: &Pass) -> String {
    let mut text = pass.assessment.tier.to_string();
    for (id, wanted) in pass.plan.workloads.iter().filter(|(_, w)| w.rung > Rung::Free) {
        let name = sample.workloads.get(id).map_or("?", |w| w.spec.name.as_str());
        let _ = write!(text, ", {name} {}", wanted.rung);
    }
    if pass.plan.gate.armed() {
        text.push_str(", gate");
    }
    text
}

fn line(sample: &Sample, pass: &Pass, standing: &str) -> String {
    let ms = (sample.at.0 / 1_000_000).saturating_sub(10_000);
    let used = pass.assessment.used.map_or("gap".into(), |u| u.to_string());
    let mut text = format!("{:>9}  {used:>6}  {standing}", clock(ms));
    if let Some(because) = &pass.assessment.because {
        let _ = write!(text, " ({because})");
    }
    let sizes = sample.workloads.values().filter_map(|w| Some((&w.spec, w.current?, w.swap?)));
    for (spec, current, swap) in sizes.filter(|(.., current, _)| *current >= Bytes::mib(64)) {
        let _ = write!(text, " {}={current}", spec.name);
        if swap >= Bytes::mib(1) {
            let _ = write!(text, "+{swap}");
        }
    }
    for finding in &pass.findings {
        let _ = write!(text, " FINDING: {}", finding.message);
    }
    text
}

fn words(event: &Event) -> String {
    match event {
        Event::Oom { name } => format!("the kernel kills {name}"),
        Event::Killed { name, needless, instead } => {
            let needless = if *needless { ", needlessly" } else { "" };
            let instead = instead.as_ref().map(|other| format!(", in the place of {other}"));
            format!("the policy kills {name}{needless}{}", instead.unwrap_or_default())
        }
    }
}

fn clock(ms: u64) -> String {
    format!("{}:{:02}.{:03}", ms / 60_000, ms / 1000 % 60, ms % 1000)
}
