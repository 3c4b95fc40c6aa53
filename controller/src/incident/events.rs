//! The last actions in a journal.

use std::collections::VecDeque;

use plimsoll_policy::journal::Entry;
use plimsoll_policy::plan::Tier;
use plimsoll_policy::sample::Rung;
use serde::Serialize;

use super::actions::{Actions, Kind};
use super::read::{Journal, Read, ReadError};
use super::wall::Wall;

/// One action, in short.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Its number: `plimsoll explain` tells more.
    pub action: u64,
    /// When, as people call it.
    pub time: String,
    /// Name of the workload.
    pub workload: String,
    /// The rung that it was put on.
    pub rung: Rung,
    /// Whether nothing was done, since the rung is dry.
    pub dry: bool,
    /// Tier of the host.
    pub tier: Tier,
    /// The first reason, in words.
    pub because: Option<String>,
}

/// Reads a journal to its end and gives the last actions, oldest first.
///
/// # Errors
/// When a file can't be read. What is damaged is passed over: `plimsoll replay` names it.
pub fn events(journal: Journal, last: usize) -> Result<Vec<Event>, ReadError> {
    let (mut actions, mut wall) = (Actions::default(), Wall::default());
    let mut events = VecDeque::new();
    for next in journal {
        match next?.1 {
            Read::Whole(Entry::Head(head)) | Read::Salvaged(Entry::Head(head), _) => wall.head(&head),
            Read::Whole(Entry::Line(line)) | Read::Salvaged(Entry::Line(line), _) => {
                events.extend(actions.line(&line).into_iter().map(|action| Event {
                    action: action.id,
                    time: wall.say(action.at),
                    because: action.evidence.first().map(|it| it.at(action.at).to_string()),
                    workload: action.name,
                    rung: action.to,
                    dry: action.kind == Kind::Dry,
                    tier: action.tier,
                }));
                events.drain(..events.len().saturating_sub(last));
            }
            Read::Damaged(_) => {}
        }
    }
    Ok(events.into())
}
