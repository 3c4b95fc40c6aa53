//! The section `ladder`: how the rungs behave.

use super::Ladder;
use super::dry_run::Dry;
use super::scalar::{Flag, Memory, OneOf, Part, Time, Whole};
use super::section::Section;
use crate::sample::Rung;
use crate::units::{Bytes, Share, Span};

/// Rungs that one can ask for: `free` is always allowed.
pub(super) const RUNGS: OneOf<'static, Rung> =
    OneOf(&[Rung::Trim, Rung::Throttle, Rung::Offload, Rung::Freeze, Rung::Kill]);

/// As many brakes of a workload as are remembered.
pub(crate) const MOST_ACTIONS: u32 = 120;

/// From a page to what no kernel should be asked for at once: a large budget blocks the writer for seconds.
const STEP: Memory = Memory(Bytes(4096), Bytes::mib(1024));
const MARGIN: Memory = Memory(Bytes::ZERO, Bytes::mib(64 << 10));
const PORTION: Part = Part(Share::percent(1), Share::percent(50));
const LEASE: Time = Time(Span::millis(100), Span::secs(300));
const FREEZE_MAX: Time = Time(Span::secs(1), Span::secs(3600));
const HOLD: Time = Time(Span::millis(100), Span::secs(600));
const ACTIONS: Whole = Whole(1, MOST_ACTIONS as i128);
const HOLD_OFF: Time = Time(Span::ZERO, Span::secs(3600));
const DEADLINE: Time = Time(Span::millis(10), Span::secs(60));

pub(super) fn ladder(section: &mut Section<'_>) -> Ladder {
    let mut ladder = Ladder::default();
    if let Some(allowed) = rungs(section) {
        ladder.rungs = allowed;
    }
    section.set("reclaim_step", &mut ladder.reclaim_step, &STEP);
    section.set("throttle_step", &mut ladder.throttle_step, &PORTION);
    section.set("floor_margin", &mut ladder.floor_margin, &MARGIN);
    section.set("throttle_lease", &mut ladder.throttle_lease, &LEASE);
    section.set("freeze_max", &mut ladder.freeze_max, &FREEZE_MAX);
    section.set("hold", &mut ladder.hold, &HOLD);
    section.set("freeze_deadline", &mut ladder.freeze_deadline, &DEADLINE);
    section.set("kill_deadline", &mut ladder.kill_deadline, &DEADLINE);
    section.set("oom_order", &mut ladder.oom_order, &Flag);
    section.set("gate", &mut ladder.gate, &Flag);
    if let Some(number) = section.get("actions_per_hour", &ACTIONS).and_then(|n| u32::try_from(n).ok()) {
        ladder.actions_per_hour = number;
    }
    section.set("hold_off", &mut ladder.hold_off, &HOLD_OFF);
    section.set("dry_run", &mut ladder.dry_run, &Dry);
    if section.clean() {
        contradictions(section, &ladder);
    }
    ladder
}

/// Reads a list of rungs, gentlest first whatever the order it was written in.
pub(super) fn rungs(section: &mut Section<'_>) -> Option<Vec<Rung>> {
    let mut allowed = section.list("rungs", &RUNGS)?;
    allowed.sort();
    if let Some(pair) = allowed.windows(2).find(|pair| pair[0] == pair[1]) {
        section.conflict("rungs", format!("names {} twice", pair[0]));
    }
    Some(allowed)
}

fn contradictions(section: &mut Section<'_>, ladder: &Ladder) {
    if ladder.rungs.is_empty() {
        section.conflict("rungs", "is empty: to only watch, set `dry_run: true`".into());
    }
    if ladder.freeze_deadline >= ladder.freeze_max {
        section.conflict("freeze_deadline", "has to be shorter than `freeze_max`".into());
    }
}
