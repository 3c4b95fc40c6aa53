//! Decides a journal again and says where the decisions differ. The same version and the same policy never do.

use plimsoll_policy::journal::{Entry, Line};
use plimsoll_policy::replay::{Adrift, Redone, Replay};
use serde::Serialize;

use super::differ::{Change, changes};
use super::read::{Damage, Journal, Place, Read, ReadError};
use super::wall::Wall;

/// Differences that are named of one pass. A first one has others in its wake.
const NAMED: usize = 12;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// Passes in the journal.
    pub passes: u64,
    /// Those that were decided again.
    pub decided: u64,
    /// Those of them that came out differently.
    pub different: u64,
    /// Keyframes whose state is not what the passes before it lead to.
    pub strayed: u64,
    /// Passes whose state is not known, since lines before them are missing.
    pub adrift: u64,
    /// Lines that can't be read.
    pub damaged: u64,
    /// Passes of another version, of which only what was seen can be read: decided, but not compared.
    pub salvaged: u64,
    /// Versions of the program that wrote it.
    pub programs: Vec<String>,
}

impl Verdict {
    /// Whether everything that could be compared came out the same.
    #[must_use]
    pub const fn agrees(&self) -> bool {
        self.different == 0 && self.strayed == 0
    }
}

/// Something to be said of a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Remark {
    /// It can't be read in full.
    Damaged(Damage),
    /// From here on nothing can be decided until the next keyframe.
    Adrift(Adrift),
    /// The pass comes out differently.
    Different {
        /// When it was.
        at: String,
        /// How.
        changes: Vec<Change>,
    },
}

/// Decides every line again; remarks are given as they come, in the order of the journal.
///
/// # Errors
/// When a file can't be read.
pub fn replay(
    journal: &mut Journal,
    mut say: impl FnMut(&Place, Remark),
    mut progress: impl FnMut(&Journal),
) -> Result<Verdict, ReadError> {
    let (mut again, mut wall, mut verdict) = (Replay::default(), Wall::default(), Verdict::default());
    let mut adrift = false;
    while let Some(next) = journal.next() {
        let (place, read) = next?;
        progress(journal);
        let line = match take(read, &mut verdict, |damage| say(&place, Remark::Damaged(damage))) {
            Some(Entry::Line(line)) => line,
            Some(Entry::Head(head)) => {
                wall.head(&head);
                verdict.programs.extend(head.program.clone().filter(|it| !verdict.programs.contains(it)));
                again.head(*head);
                continue;
            }
            None => {
                again.lose();
                continue;
            }
        };
        verdict.passes += 1;
        match again.line(&line) {
            Ok(redone) => {
                adrift = false;
                verdict.decided += 1;
                let changes = compare(&line, &redone, &mut verdict);
                if !changes.is_empty() {
                    say(&place, Remark::Different { at: wall.say(line.sample.at), changes });
                }
            }
            Err(why) => {
                verdict.adrift += 1;
                if !std::mem::replace(&mut adrift, true) {
                    say(&place, Remark::Adrift(why));
                }
            }
        }
    }
    Ok(verdict)
}

/// What can be read of a line.
pub(super) fn take(read: Read, verdict: &mut Verdict, damaged: impl FnOnce(Damage)) -> Option<Entry> {
    match read {
        Read::Whole(entry) => Some(entry),
        Read::Salvaged(entry, damage) => {
            verdict.salvaged += 1;
            damaged(damage);
            Some(entry)
        }
        Read::Damaged(damage) => {
            verdict.damaged += 1;
            damaged(damage);
            None
        }
    }
}

fn compare(line: &Line<'_>, redone: &Redone, verdict: &mut Verdict) -> Vec<Change> {
    let mut all = Vec::new();
    if let (Some(mine), Some(frame)) = (&redone.strayed, &line.state) {
        verdict.strayed += 1;
        all.extend(changes("state", &**frame, &**mine, NAMED));
    }
    let before = all.len();
    if let Some(was) = &line.assessment {
        all.extend(changes("assessment", &**was, &redone.assessment, NAMED));
    }
    if let Some(was) = &line.plan {
        all.extend(changes("plan", &**was, &redone.plan, NAMED));
    }
    if let Some(was) = &line.findings {
        all.extend(changes("findings", &**was, &redone.findings[..], NAMED));
    }
    verdict.different += u64::from(all.len() > before);
    all
}

#[cfg(test)]
mod tests;
