//! What is read from journals, as text for people.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use plimsoll_policy::plan::Tier;
use plimsoll_policy::sample::Rung;
use plimsoll_policy::units::Span;

use super::compare::Comparison;
use super::course::{Course, First};
use super::events::Event;
use super::explain::{Followed, Measured, Story};
use super::read::Place;
use super::replay::{Remark, Verdict};

/// One action with all that belongs to it.
#[must_use]
pub fn story(story: &Story) -> String {
    let mut text = String::new();
    // Writing to a string can't fail.
    let _ = write_story(story, &mut text);
    text
}

fn write_story(story: &Story, out: &mut String) -> fmt::Result {
    let Story { action, workload, cgroup, from, rung, kind, .. } = story;
    let how = match *kind {
        "gate" => ", stopped by the kernel's gate and taken over by the plan",
        "dry" => ", not done: the rung is dry",
        _ => "",
    };
    writeln!(out, "action {action}: {rung} of {workload} ({cgroup}){how}")?;
    writeln!(out, "  when      {} ({})", story.time, story.place)?;
    writeln!(out, "  before    {}", from.map_or("not in the journal", |it| it.name()))?;
    writeln!(out, "  host      {}", story.host)?;
    list(out, "because", &story.evidence, "no reason is given")?;
    if *rung > Rung::Free {
        list(out, "expected", story.expected.as_slice(), "nothing")?;
        list(out, "not", &story.refused, "nothing else was weighed")?;
    }
    let measured: Vec<_> = story.measured.iter().map(|(act, it)| self::measured(act, it)).collect();
    list(out, "measured", &measured, "nothing yet")?;
    let followed: Vec<_> = story.followed.iter().map(self::followed).collect();
    list(out, "followed", &followed, "nothing: the journal ends")?;
    if story.earlier > 0 {
        writeln!(out, "  (the number was given {} times before, to actions of earlier runs)", story.earlier)?;
    }
    Ok(())
}

fn list(out: &mut String, name: &str, lines: &[String], none: &str) -> fmt::Result {
    let Some((first, rest)) = lines.split_first() else { return writeln!(out, "  {name:<10}{none}") };
    writeln!(out, "  {name:<10}{first}")?;
    rest.iter().try_for_each(|line| writeln!(out, "  {:<10}{line}", ""))
}

fn measured(act: &str, measured: &Measured) -> String {
    let Measured { times, results, freed, gave, claimed, within } = measured;
    let mut freed = freed.map(|bytes| format!(", freed {bytes}")).unwrap_or_default();
    if let Some(gave) = gave {
        freed += &format!(", {gave}");
    }
    if let Some(claimed) = claimed {
        freed += &format!(" (it claims {claimed})");
    }
    let ended = match results.first_key_value() {
        Some((only, _)) if results.len() == 1 => only.clone(),
        _ => results.iter().map(|(how, n)| format!("{n} {how}")).collect::<Vec<_>>().join(", "),
    };
    let times = if *times == 1 { String::new() } else { format!(" {times} times") };
    format!("{act}{times}: {ended}{freed}, {within} after the decision")
}

fn followed(followed: &Followed) -> String {
    let Followed { action, after, rung, evidence, .. } = followed;
    let because = evidence.join("; ");
    format!("+{after} {rung} (action {action}){}{because}", if because.is_empty() { "" } else { ": " })
}

/// Actions, one a line.
#[must_use]
pub fn events(events: &[Event]) -> String {
    let width = events.iter().map(|it| it.workload.len()).max().unwrap_or(0);
    let line = |event: &Event| {
        let Event { action, time, workload, rung, dry, tier, because } = event;
        let rung = if *dry { format!("({rung})") } else { rung.to_string() };
        let because = because.as_deref().unwrap_or("-");
        format!("{time}  {action:>5}  {workload:<width$}  {rung:<10}  {tier:<11}  {because}\n")
    };
    events.iter().map(line).collect()
}

/// What is to be said of one line.
#[must_use]
pub fn remark(place: &Place, remark: &Remark) -> String {
    match remark {
        Remark::Damaged(damage) => format!("{place}: {damage}"),
        Remark::Adrift(why) => format!("{place}: {why}: not decided again up to the next keyframe"),
        Remark::Different { at, changes } => {
            let lines: Vec<_> = changes.iter().map(|change| format!("  {change}")).collect();
            format!("{place}: the pass of {at} comes out differently\n{}", lines.join("\n"))
        }
    }
}

/// What came of a replay, in one line and perhaps some more.
#[must_use]
pub fn verdict(verdict: &Verdict, this: &str) -> String {
    let Verdict { passes, decided, different, strayed, adrift, damaged, salvaged, programs } = verdict;
    let mut said = format!("{decided} of {passes} passes decided again: ");
    said += &match (different, strayed) {
        (0, 0) => "no differences".to_owned(),
        (different, 0) => format!("{different} come out differently"),
        (different, strayed) => {
            format!("{different} come out differently, and {strayed} keyframes have another state")
        }
    };
    for (n, what) in [
        (adrift, "passes without a known state before them"),
        (damaged, "lines that can't be read"),
        (salvaged, "passes of which only the sample can be read: not compared"),
    ] {
        if *n > 0 {
            said += &format!("\n{n} {what}");
        }
    }
    let others: Vec<_> = programs.iter().filter(|it| *it != this).map(String::as_str).collect();
    if !others.is_empty() {
        said += &format!("\nwritten by version {}, this is {this}", others.join(" and "));
    }
    said + "\n"
}

/// What every comparison has to say of itself.
const CAVEAT: &str = "The samples are what happened under the recorded policy. Memory that the other one would have freed earlier, \
                      or not at all, is not in\nthem: after its first other action its column says what it would have wanted, not what would have become of it.";

/// Two courses side by side.
#[must_use]
pub fn comparison(compared: &Comparison, name: &str) -> String {
    let empty = Course::default();
    let (was, other) = (&compared.recorded, compared.other.as_ref().unwrap_or(&empty));
    let mut rows = Vec::new();
    let mut row = |what: String, of: &dyn Fn(&Course) -> String| rows.push((what, of(was), of(other)));
    for tier in Tier::ALL {
        row(format!("time in {tier}"), &|course| span(course.tiers.get(&tier)));
    }
    row("gate armed".into(), &|course| span(Some(&course.gate)));
    for rung in Rung::ALL {
        if [was, other].iter().any(|course| course.actions.contains_key(&rung)) {
            let count = |course: &Course| course.actions.get(&rung).map_or("-".into(), u64::to_string);
            row(format!("actions: {rung}"), &count);
        }
    }
    row("workloads killed".into(), &|course| course.killed.len().to_string());
    row("first action".into(), &|course| match &course.first {
        Some(First { after, rung, workload }) => format!("+{after} {rung} of {workload}"),
        None => "-".into(),
    });
    let names: BTreeSet<_> = was.workloads.keys().chain(other.workloads.keys()).collect();
    for workload in names {
        for rung in Rung::ALL {
            let of = |course: &Course| course.workloads.get(workload).and_then(|it| it.get(&rung)).copied();
            if of(was).or(of(other)).is_some() {
                row(format!("{workload}: {rung}"), &|course| span(of(course).as_ref()));
            }
        }
    }
    let wide = |of: fn(&(String, String, String)) -> &String, least: usize| {
        rows.iter().map(|row| of(row).len()).chain([least]).max().unwrap_or(least)
    };
    let (a, b) = (wide(|row| &row.0, 0), wide(|row| &row.1, 8));
    let mut text = format!("{} passes, {}\n\n", compared.passes, compared.span);
    text += &format!("{:<a$}  {:<b$}  {name}\n", "", "recorded");
    for (what, was, other) in &rows {
        let mark = if was == other { ' ' } else { '*' };
        text += &format!("{what:<a$} {mark}{was:<b$}  {other}\n");
    }
    text + "\n" + CAVEAT + "\n"
}

fn span(span: Option<&Span>) -> String {
    span.filter(|it| **it > Span::ZERO).map_or("-".into(), ToString::to_string)
}
