//! The list `workloads`: which cgroups or processes are a workload, and what they are worth.

use super::daemon::relative;
use super::ladder::rungs;
use super::read::priority;
use super::scalar::{Form, OneOf, OrNone, Time};
use super::section::Section;
use super::ways::means;
use super::{Find, Ladder, Rule};
use crate::sample::{Preference, Rung};
use crate::units::Span;

const NAME: Form = Form(name, "1 to 63 letters, digits, '-', '_' or '.'");
const GLOB: Form =
    Form(glob, "a cgroup path below the root, without a leading slash; '*' and '?' stay in a component");
const UNIT: Form = Form(unit, "the full name of a systemd unit, like vllm.service");
const COMMAND: Form = Form(|text| !text.trim().is_empty(), "part of a command line");
const USER: Form = Form(name, "the name or number of a user");
pub(super) const PREFERENCE: OneOf<'static, Preference> =
    OneOf(&[Preference::None, Preference::Avoid, Preference::Omit]);
pub(super) const RESTART: Time = Time(Span::ZERO, Span::secs(24 * 3600));

pub(super) fn rule(section: &mut Section<'_>) -> Rule {
    let name = section.need("name", &NAME).unwrap_or_default();
    let find = find(section).unwrap_or_default();
    let mut rule = Rule { name, find, ..Rule::default() };
    priority(section, "priority", &mut rule.priority);
    section.set("preference", &mut rule.preference, &PREFERENCE);
    rule.rungs = rungs(section);
    section.set("restart_cost", &mut rule.restart_cost, &RESTART);
    rule.ask = section.section("ask", means);
    if rule.preference == Preference::Omit && rule.rungs.is_some() {
        section.conflict("rungs", "says what may be done, but `preference: omit` says nothing may".into());
    }
    rule
}

/// Exactly one of the three ways to find a workload.
fn find(section: &mut Section<'_>) -> Option<Find> {
    const WAYS: [&str; 3] = ["cgroup", "unit", "process"];
    let given: Vec<&str> = WAYS.into_iter().filter(|way| section.has(way)).collect();
    let cgroup = section.get("cgroup", &GLOB).map(Find::Cgroup);
    let unit = section.get("unit", &UNIT).map(Find::Unit);
    let process = section.optional("process", process).flatten();
    match given.as_slice() {
        [] => section.conflict("", "needs one of `cgroup`, `unit` or `process` to find its workloads".into()),
        [_] => {}
        several => section.conflict("", format!("has {}, of which only one can be", several.join(" and "))),
    }
    cgroup.or(unit).or(process)
}

fn process(section: &mut Section<'_>) -> Option<Find> {
    let command = section.need("command", &COMMAND);
    let mut user = None;
    section.set("user", &mut user, &OrNone(USER));
    Some(Find::Process { command: command?, user })
}

/// What no rule by itself shows to be wrong.
pub(super) fn contradictions(root: &mut Section<'_>, rules: &[Rule], ladder: &Ladder) {
    for (at, rule) in rules.iter().enumerate() {
        let path = |key: &str| format!("workloads[{at}]{key}");
        if let Some(earlier) = rules[..at].iter().position(|earlier| earlier.name == rule.name) {
            root.conflict(&path(".name"), format!("is {:?}, as is that of workloads[{earlier}]", rule.name));
        }
        if let Some(earlier) = rules[..at].iter().find(|earlier| earlier.find == rule.find) {
            let sentence = format!("can never match: {:?} finds the same and comes first", earlier.name);
            root.conflict(&path(""), sentence);
        }
        if let Some(rung) = beyond(rule, ladder) {
            root.conflict(&path(".rungs"), format!("has {rung}, which `ladder.rungs` does not allow"));
        }
    }
}

/// A rung of the rule that the ladder as a whole leaves out.
fn beyond(rule: &Rule, ladder: &Ladder) -> Option<Rung> {
    rule.rungs.iter().flatten().copied().find(|rung| !ladder.rungs.contains(rung))
}

/// A name becomes a label of metrics and the name of a cgroup.
fn name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn glob(text: &str) -> bool {
    relative(text) && !text.contains("**") && !text.contains(['[', ']', '{', '}'])
}

fn unit(text: &str) -> bool {
    let (stem, suffix) = text.rsplit_once('.').unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    !stem.is_empty()
        && text.len() < 256
        && matches!(suffix, "service" | "scope" | "slice")
        && stem.chars().all(allowed)
}
