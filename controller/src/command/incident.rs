//! The sub-commands that read journals: replay, explain, events.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use plimsoll::config;
use plimsoll::control::client::ExplainReply;
use plimsoll::incident::compare::Policy;
use plimsoll::incident::read::{Journal, Place};
use plimsoll::incident::replay::{Remark, Verdict};
use plimsoll::incident::{compare, events, explain, plot, replay, say};
use plimsoll::report::journal_files;
use serde::Serialize;

use super::{load, operator, print};
use crate::cli::{ConfigFile, JournalFiles, ReplayArgs};

/// Passes that are named; more than these tell nothing new.
const NAMED: usize = 50;

/// Decisions came out differently: an answer, with a status of its own.
#[derive(Debug, thiserror::Error)]
#[error("the journal comes out differently")]
pub(crate) struct Differs;

fn open(named: Vec<PathBuf>, file: &ConfigFile) -> Result<Journal> {
    if !named.is_empty() {
        return Ok(Journal::of(named));
    }
    let daemon = load(file)?.daemon;
    let path = daemon.journal.clone().context("the configuration has no journal: name a file")?;
    let files = journal_files(&daemon);
    ensure!(!files.is_empty(), "there is no journal at {path}");
    Ok(Journal::of(files))
}

/// One line to stdout; the verdict will say if that is gone.
fn answer(text: &str) {
    let _ = print(&format!("{text}\n"));
}

#[derive(Serialize)]
struct Difference {
    place: Place,
    at: String,
    changes: serde_json::Value,
}

#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    verdict: &'a Verdict,
    /// The first ones; `different` and `strayed` count them all.
    differences: Vec<Difference>,
}

pub(crate) fn replay(arguments: ReplayArgs) -> Result<()> {
    let ReplayArgs { journal, policy, plot, json, file } = arguments;
    let mut journal = open(journal, &file)?;
    if policy.is_some() || plot.is_some() {
        return compared(&mut journal, policy.as_deref(), plot.as_deref(), json);
    }
    again(journal, json)
}

/// With another policy, on a plot, or both.
fn compared(journal: &mut Journal, policy: Option<&Path>, plot: Option<&Path>, json: bool) -> Result<()> {
    let read =
        |path: &Path| Ok::<_, config::LoadError>(Policy { path: path.into(), config: config::load(path)? });
    let other = policy.map(read).transpose()?;
    let compared = compare::compare(journal, other, progress())?;
    ensure!(compared.passes > 0, "there is no pass in the journal that can be decided again");
    if let Some(file) = plot {
        let svg = plot::svg(&compared)?;
        std::fs::write(file, svg).with_context(|| format!("cannot write {}", file.display()))?;
    }
    match policy {
        _ if json => print(&format!("{}\n", serde_json::to_string_pretty(&compared)?)),
        Some(policy) => print(&say::comparison(&compared, &policy.display().to_string())),
        None => Ok(()),
    }
}

fn again(mut journal: Journal, json: bool) -> Result<()> {
    let mut differences = Vec::new();
    let mut named = 0;
    let verdict = replay::replay(
        &mut journal,
        |place, remark| {
            named += 1;
            match remark {
                _ if named > NAMED => {}
                Remark::Different { at, changes } if json => differences.push(Difference {
                    place: place.clone(),
                    at,
                    changes: serde_json::to_value(changes).unwrap_or_default(),
                }),
                // What differs is the answer; what can't be read is none.
                Remark::Different { .. } => answer(&say::remark(place, &remark)),
                Remark::Damaged(_) | Remark::Adrift(_) => eprintln!("{}", say::remark(place, &remark)),
            }
        },
        progress(),
    )?;
    if named > NAMED && !json {
        eprintln!("and {} more", named - NAMED);
    }
    ensure!(verdict.passes > 0, "there is no pass in the journal");
    if json {
        let report = Report { verdict: &verdict, differences };
        print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
    } else {
        print(&say::verdict(&verdict, env!("CARGO_PKG_VERSION")))?;
    }
    if verdict.agrees() { Ok(()) } else { Err(Differs.into()) }
}

/// Says how far it is, where somebody waits for a large file.
fn progress() -> impl FnMut(&Journal) {
    let watched = std::io::stderr().is_terminal();
    let mut said = None;
    move |journal| {
        let percent = journal.percent();
        if !watched || !journal.is_large() || said == Some(percent) {
            return;
        }
        said = Some(percent);
        let _ =
            write!(std::io::stderr(), "\r{percent:>3} %{}", if percent == 100 { "\r     \r" } else { "" });
    }
}

pub(crate) fn explain(id: u64, journal: JournalFiles, json: bool) -> Result<()> {
    let JournalFiles { journal, file } = journal;
    if journal.is_empty()
        && let Some(ExplainReply { lines, story }) = operator::explained(id, &file)?
    {
        return match json {
            true => print(&format!("{}\n", serde_json::to_string_pretty(&story)?)),
            false => print(&(lines.join("\n") + "\n")),
        };
    }
    let story = explain::explain(open(journal, &file)?, id)?;
    if json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&story)?));
    }
    print(&say::story(&story))
}

pub(crate) fn events(journal: JournalFiles, last: usize, json: bool) -> Result<()> {
    let JournalFiles { journal, file } = journal;
    let events = events::events(open(journal, &file)?, last)?;
    if json {
        return events.iter().try_for_each(|event| print(&format!("{}\n", serde_json::to_string(event)?)));
    }
    print(&say::events(&events))
}
