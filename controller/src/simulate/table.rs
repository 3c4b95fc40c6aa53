//! The result as a table for people, one column for each policy, and as JSON.

use std::fmt::Write as _;

use plimsoll_model::judge::Tally;
use serde::Serialize;

use super::{Outcome, Simulation};

/// The result for programs.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    seed: u64,
    machines: u64,
    hours: f64,
    policies: Vec<Column<'a>>,
}

#[derive(Debug, Serialize)]
struct Column<'a> {
    policy: &'a str,
    #[serde(flatten)]
    tally: &'a Tally,
    /// Thousandths of a second that 99 and 99.9 per cent of all seconds of the protected do not wait longer than.
    stall_p99: u64,
    stall_p999: u64,
}

impl<'a> Report<'a> {
    /// Puts the policies side by side.
    #[must_use]
    pub fn new(simulation: &'a Simulation, outcome: &'a Outcome) -> Self {
        let columns = simulation.policies.iter().zip(&outcome.tallies);
        Self {
            seed: simulation.fleet.seed,
            machines: simulation.machines.end - simulation.machines.start,
            hours: simulation.duration.as_secs_f64() / 3600.0,
            policies: columns
                .map(|(policy, tally)| Column {
                    policy: &policy.name,
                    tally,
                    stall_p99: tally.stall_share(990),
                    stall_p999: tally.stall_share(999),
                })
                .collect(),
        }
    }
}

type Row = (&'static str, fn(&Tally) -> String);

/// What is told of every policy.
const ROWS: [Row; 17] = [
    ("killed by the kernel", |t| t.oom_kills.to_string()),
    ("  of them protected", |t| t.oom_protected.to_string()),
    ("  of them the wrong one", |t| t.oom_wrong.to_string()),
    ("killed by the policy", |t| t.kills.to_string()),
    ("  of them needlessly", |t| t.needless.to_string()),
    ("  of them the wrong one", |t| t.wrong.to_string()),
    ("  of them forbidden", |t| t.forbidden.to_string()),
    ("protected: waiting, s/h", |t| per_hour(t.stall_us, t.served_us)),
    ("protected: p99 of a second", |t| share(t.stall_share(990))),
    ("protected: p99.9", |t| share(t.stall_share(999))),
    ("protected: down, s/h", |t| per_hour(t.down_us, t.served_us)),
    ("expendable: work done", |t| percent(t.done_us, t.wanted_us)),
    ("expendable: frozen, s/h", |t| per_hour(t.frozen_us, t.time_us)),
    ("expendable: limited, s/h", |t| per_hour(t.throttled_us, t.time_us)),
    ("flaps per 1000 h", |t| per_1000_h(t.flaps, t.time_us)),
    ("lint findings", |t| t.findings.to_string()),
    ("panics", |t| t.panics.to_string()),
];

/// The table, and the machines that are worth a look.
#[must_use]
pub fn render(simulation: &Simulation, outcome: &Outcome) -> String {
    let names: Vec<&str> = simulation.policies.iter().map(|p| p.name.as_str()).collect();
    let width = names.iter().map(|n| n.len()).max().unwrap_or(0).max(12);
    let mut text = format!("{:<28}", "");
    for name in names {
        let _ = write!(text, "  {name:>width$}");
    }
    text.push('\n');
    for (what, of) in ROWS {
        let _ = write!(text, "{what:<28}");
        for tally in &outcome.tallies {
            let _ = write!(text, "  {:>width$}", of(tally));
        }
        text.push('\n');
    }
    text + &worth_a_look(simulation, outcome)
}

/// At most this many machines are named; `--json` and `--machine` tell of the others.
const NAMED: usize = 12;

fn worth_a_look(simulation: &Simulation, outcome: &Outcome) -> String {
    let mut text = String::new();
    for ((policy, machine), notable) in outcome.notable.iter().take(NAMED) {
        let name = &simulation.policies[*policy].name;
        let mut facts = notable.events.clone();
        facts.truncate(3);
        facts.extend((notable.findings > 0).then(|| format!("{} findings", notable.findings)));
        facts.extend(notable.panicked.then(|| "a panic".to_owned()));
        let _ = writeln!(text, "machine {machine} under {name}: {}", facts.join("; "));
    }
    if outcome.notable.len() > NAMED {
        let _ = writeln!(text, "and {} more", outcome.notable.len() - NAMED);
    }
    if text.is_empty() { text } else { format!("\nWorth a look with --machine N --trace:\n{text}") }
}

fn per_hour(us: u64, of_us: u64) -> String {
    ratio(u128::from(us) * 3600, of_us, 1_000)
}

fn per_1000_h(count: u64, time_us: u64) -> String {
    ratio(u128::from(count) * 3_600_000_000_000, time_us, 10)
}

fn percent(part: u64, whole: u64) -> String {
    ratio(u128::from(part) * 100, whole, 100) + " %"
}

fn share(thousandths: u64) -> String {
    format!("{}.{} %", thousandths / 10, thousandths % 10)
}

/// A quotient with as many digits after the point as `scale` has zeros.
fn ratio(part: u128, whole: u64, scale: u128) -> String {
    let scaled = (part * scale).checked_div(u128::from(whole)).unwrap_or(0);
    let digits = scale.ilog10() as usize;
    format!("{}.{:0digits$}", scaled / scale, scaled % scale)
}
