//! The section `pace`: how often to look.

use super::Pace;
use super::scalar::Time;
use super::section::Section;
use crate::units::Span;

/// Slower than ten seconds misses what a burst does between two looks.
const CALM: Time = Time(Span::millis(20), Span::secs(10));
/// Faster than 5 ms costs more than it sees: the events of the kernel wake a pass anyway.
const BUSY: Time = Time(Span::millis(5), Span::secs(2));
const STAT: Time = Time(Span::millis(100), Span::secs(60));
const DISCOVER: Time = Time(Span::millis(100), Span::secs(300));
/// Drivers take milliseconds for an answer, and slower than a second misses a model that is being loaded.
const GPU: Time = Time(Span::millis(20), Span::secs(1));

pub(super) fn pace(section: &mut Section<'_>) -> Pace {
    let mut pace = Pace::default();
    section.set("calm", &mut pace.calm, &CALM);
    section.set("busy", &mut pace.busy, &BUSY);
    section.set("stat", &mut pace.stat, &STAT);
    section.set("discover", &mut pace.discover, &DISCOVER);
    section.set("gpu", &mut pace.gpu, &GPU);
    if section.clean() && pace.busy > pace.calm {
        section.conflict("busy", "has to be at most `calm`".into());
    }
    pace
}
