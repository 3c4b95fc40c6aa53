//! One offer of all the ways of a workload, and which of them serves a level.

use std::collections::BTreeMap;

use plimsoll_policy::concession::{Gains, Level, Offer, Prospect};
use plimsoll_policy::units::Bytes;

/// The words for ways, in the order in which they are asked: who knows the model best first. Moving a process's GPU memory behind its
/// back comes last.
const ORDER: [&str; 7] = ["client", "engine", "watch", "signal", "webhook", "hook", "checkpoint"];

/// What one way offers: its word and its offer; `None` where it could not be had.
pub(super) type Heard = (&'static str, Option<Offer>);

/// The ways of one word, by their places in what was heard.
pub(super) type Group = Vec<usize>;

/// What a workload can be asked for by all its ways together; levels of a gentler way count before those of a later one.
pub(super) fn merge(heard: &[Heard]) -> Offer {
    let mut merged = Offer::default();
    let groups = ORDER.iter().filter_map(|word| together(heard, word));
    for offer in groups {
        for (level, prospect) in offer.levels {
            merged.levels.entry(level).or_insert(prospect);
        }
        // Whoever says that something is away is believed: it is asked back, which harms nobody.
        merged.level = merged.level.max(offer.level);
        // Two ways to the same server see the same requests.
        merged.inflight = merged.inflight.max(offer.inflight);
        merged.gated |= offer.gated;
    }
    merged
}

/// The offer of all the ways of one word: several programs of a workload, each of which is asked. `None` where there is none.
fn together(heard: &[Heard], word: &str) -> Option<Offer> {
    let mut each = heard.iter().filter(|(name, _)| *name == word).filter_map(|(_, offer)| offer.clone());
    let mut all = each.next()?;
    for offer in each {
        for (level, prospect) in offer.levels {
            match all.levels.get_mut(&level) {
                Some(sum) => add(sum, &prospect),
                None => drop(all.levels.insert(level, prospect)),
            }
        }
        all.level = all.level.max(offer.level);
        all.inflight = match (all.inflight, offer.inflight) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
        all.gated &= offer.gated;
    }
    if word == "checkpoint" {
        all.levels.retain(|level, _| *level == Level::Offload);
    }
    Some(all)
}

fn add(sum: &mut Prospect, other: &Prospect) {
    sum.gains = match (sum.gains.take(), &other.gains) {
        (Some(mut gains), Some(more)) => {
            plus(&mut gains, more);
            Some(gains)
        }
        // Nobody knows the sum of something and something unknown.
        _ => None,
    };
    sum.takes = sum.takes.max(other.takes);
}

/// Adds gains.
pub(super) fn plus(sum: &mut Gains, more: &Gains) {
    sum.host = sum.host.saturating_add(more.host);
    for (gpu, bytes) in &more.gpus {
        let place = sum.gpus.entry(gpu.clone()).or_default();
        *place = Bytes(place.0.saturating_add(bytes.0));
    }
}

/// The ways that serve a level, in the order in which they are tried. Those that are tried together are one step: what merely
/// listens for a hint is given it along with whoever is asked to trim.
pub(super) fn serving(heard: &[Heard], level: Level) -> Vec<Vec<(&'static str, Group)>> {
    let offers = |word: &'static str, level: Level| -> Group {
        let serves = |(name, offer): &Heard| {
            *name == word && offer.as_ref().is_some_and(|offer| offer.levels.contains_key(&level))
        };
        (0..heard.len()).filter(|at| serves(&heard[*at])).collect()
    };
    let listening = if level <= Level::Aggressive { offers("watch", Level::Gc) } else { Vec::new() };
    let mut steps: Vec<Vec<(&'static str, Group)>> = ORDER
        .into_iter()
        .filter(|word| *word != "watch" && (*word != "checkpoint" || level == Level::Offload))
        .map(|word| (word, offers(word, level)))
        .filter(|(_, group)| !group.is_empty())
        .map(|step| vec![step])
        .collect();
    if !listening.is_empty() {
        match steps.first_mut() {
            Some(first) => first.push(("watch", listening)),
            None => steps.push(vec![("watch", listening)]),
        }
    }
    steps
}

/// The ways that can take back what was given: those that gave it, or where that is not known, those that say that something is
/// away. Where nobody says so and it is written down all the same, all that could have given it.
pub(super) fn restoring(heard: &[Heard], gave: &[&'static str], away: bool) -> Vec<(&'static str, Group)> {
    let of = |pick: &dyn Fn(&Heard) -> bool| -> Vec<(&'static str, Group)> {
        let mut groups: BTreeMap<usize, (&'static str, Group)> = BTreeMap::new();
        for (at, one) in heard.iter().enumerate().filter(|(_, one)| pick(one)) {
            let rank = ORDER.iter().position(|word| *word == one.0).unwrap_or(ORDER.len());
            groups.entry(rank).or_insert((one.0, Group::new())).1.push(at);
        }
        groups.into_values().collect()
    };
    let says_so = |offer: &Offer| offer.level.is_some_and(|level| level >= Level::Offload);
    let could = |offer: &Offer| away && offer.levels.keys().any(|level| *level >= Level::Offload);
    let picks: [&dyn Fn(&Heard) -> bool; 3] =
        [&|(name, _)| gave.contains(name), &|(_, offer)| offer.as_ref().is_some_and(says_so), &|(
            _,
            offer,
        )| {
            offer.as_ref().is_some_and(could)
        }];
    picks.into_iter().map(of).find(|groups| !groups.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(levels: &[Level], inflight: Option<u32>, gain: Option<i64>) -> Option<Offer> {
        let prospect = Prospect { gains: gain.map(|host| Gains { host, ..Gains::default() }), takes: None };
        let levels = levels.iter().map(|level| (*level, prospect.clone())).collect();
        Some(Offer { levels, inflight, ..Offer::default() })
    }

    fn words(heard: &[Heard], level: Level) -> Vec<String> {
        let step = |step: Vec<(&'static str, Group)>| {
            step.iter().map(|(word, group)| format!("{word}{}", group.len())).collect::<Vec<_>>().join("+")
        };
        serving(heard, level).into_iter().map(step).collect()
    }

    #[test]
    fn levels_are_united_and_the_best_informed_way_counts() {
        use Level::{Gc, Offload, Unload};
        let heard = [
            ("checkpoint", offer(&[Gc, Offload], None, Some(9))),
            ("engine", offer(&[Offload, Unload], Some(3), Some(5))),
            ("client", offer(&[Gc, Offload], Some(2), Some(7))),
            ("signal", None),
        ];
        let merged = merge(&heard);
        assert_eq!(merged.levels.keys().copied().collect::<Vec<_>>(), [Gc, Offload, Unload]);
        let host = |level| merged.levels[&level].gains.as_ref().map(|gains| gains.host);
        assert_eq!((host(Offload), host(Unload), merged.inflight), (Some(7), Some(5), Some(3)));
        assert_eq!(words(&heard, Offload), ["client1", "engine1", "checkpoint1"]);
        assert_eq!(words(&heard, Gc), ["client1"], "a checkpoint is no way to trim");
        assert!(words(&heard, Level::Aggressive).is_empty());
    }

    #[test]
    fn programs_of_one_workload_are_asked_together() {
        use Level::{Gc, Unload};
        let heard = [
            ("client", offer(&[Gc, Unload], Some(2), Some(7))),
            ("watch", offer(&[Gc], None, None)),
            ("client", offer(&[Unload], Some(1), Some(4))),
            ("client", offer(&[Gc], None, None)),
        ];
        let merged = merge(&heard);
        let host = |level| merged.levels[&level].gains.as_ref().map(|gains| gains.host);
        assert_eq!((host(Unload), host(Gc), merged.inflight), (Some(11), None, Some(3)));
        assert_eq!(words(&heard, Gc), ["client2+watch1"]);
        assert_eq!(words(&heard, Level::Aggressive), ["watch1"], "who only listens knows no levels");
        assert_eq!(words(&heard, Unload), ["client2"]);
    }

    #[test]
    fn who_gave_takes_back() {
        let level = |level| {
            Some(Offer { level: Some(level), ..offer(&[Level::Unload], None, None).unwrap_or_default() })
        };
        let heard = [("hook", level(Level::Nothing)), ("engine", level(Level::Unload)), ("client", None)];
        let names = |gave: &[&'static str]| {
            restoring(&heard, gave, true).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(&["hook"]), ["hook"]);
        assert_eq!(names(&["client"]), ["client"]);
        assert_eq!(names(&[]), ["engine"], "by its own word");
        assert_eq!(restoring(&heard[..1], &[], true).len(), 1, "nobody says so: whoever could have");
        assert_eq!(restoring(&heard[..1], &[], false).len(), 0, "nothing is away");
    }
}
