//! A supervisor starts again what was killed, within seconds, and it takes back what others needed.
//!
//! So the next one of the same name begins on a leash at what it has: it comes up as fast as the memory lasts, and no faster. The
//! leash is not taken off for half a minute, and twice as long with each kill within ten minutes.

use super::{Turn, leash};
use crate::plan::{Evidence, Tier};
use crate::roles;
use crate::sample::{Rung, Workload, WorkloadId};
use crate::state::{Killed, State};
use crate::units::{Bytes, Monotonic, Span};

/// Kills are forgotten after so long without another one.
const MEMORY: Span = Span::secs(600);
/// The leash stays on for 30 s, 60 s, and so on, but not for longer than [`MEMORY`].
const HELD: Span = Span::secs(30);
/// Names that are remembered; the one killed longest ago is forgotten first.
const MOST: usize = 256;
/// So many kills are no accident any more: this node can't hold it.
pub(crate) const AGAIN: u32 = 3;

impl State {
    /// Counts a kill, by what the next one will be known by.
    pub(crate) fn killed(&mut self, workload: &Workload, id: &WorkloadId, at: Monotonic) {
        let times = self.kills(workload, id, at).map_or(0, |killed| killed.times);
        self.killed.insert(workload.spec.key(id).to_owned(), Killed { times: times.saturating_add(1), at });
        if self.killed.len() > MOST {
            let oldest = self.killed.iter().min_by_key(|(_, killed)| killed.at).map(|(key, _)| key.clone());
            oldest.and_then(|key| self.killed.remove(&key));
        }
    }

    /// It was not killed after all.
    pub(crate) fn spared(&mut self, workload: &Workload, id: &WorkloadId) {
        if let Some(killed) = self.killed.get_mut(workload.spec.key(id)) {
            killed.times = killed.times.saturating_sub(1);
        }
    }

    /// How often what goes by its name was killed lately.
    pub(crate) fn kills(&self, workload: &Workload, id: &WorkloadId, at: Monotonic) -> Option<Killed> {
        let killed = self.killed.get(workload.spec.key(id)).copied()?;
        (killed.times > 0 && killed.at <= at && at.since(killed.at) < MEMORY).then_some(killed)
    }
}

/// Puts those on a leash who are here again.
pub(crate) fn receive(turn: &mut Turn<'_>) {
    let at = turn.at();
    for id in std::mem::take(&mut turn.state.newcomers) {
        let Some(workload) = turn.sample.workloads.get(&id).filter(|_| turn.tier() > Tier::Normal) else {
            continue;
        };
        let Some(killed) = turn.state.kills(workload, &id, at) else { continue };
        let free = turn.state.workloads.get(&id).is_some_and(|track| track.held.rung == Rung::Free);
        if free && roles::is_eligible(turn.config, workload) && leash::possible(turn, workload) {
            let until = at + held(killed.times);
            let evidence = vec![Evidence::Restarted { kills: killed.times, until }];
            leash::put_on(turn, &id, Bytes::ZERO, evidence);
            if let Some(track) = turn.state.workloads.get_mut(&id) {
                track.held_off = track.held_off.max(until);
            }
        }
    }
}

fn held(kills: u32) -> Span {
    Span(HELD.0.saturating_mul(1 << kills.saturating_sub(1).min(8))).min(MEMORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kill_doubles_the_time_and_ten_quiet_minutes_forget_them() {
        let seconds: Vec<u64> = [1, 2, 3, 4, 5, 6, 60].map(|n| held(n).0 / 1_000_000_000).to_vec();
        assert_eq!(seconds, [30, 60, 120, 240, 480, 600, 600]);
        let (mut state, workload) = (State::default(), Workload::default());
        let id = |inode| WorkloadId { path: "a".into(), inode };
        let at = |seconds| Monotonic(0) + Span::secs(seconds);
        state.killed(&workload, &id(1), at(10));
        state.killed(&workload, &id(2), at(400));
        let times = |state: &State, seconds| state.kills(&workload, &id(3), at(seconds)).map(|it| it.times);
        assert_eq!([times(&state, 401), times(&state, 999), times(&state, 1000)], [Some(2), Some(2), None]);
        state.spared(&workload, &id(2));
        assert_eq!(times(&state, 401), Some(1));
    }

    #[test]
    fn names_are_bounded() {
        let (mut state, workload) = (State::default(), Workload::default());
        for n in 0..1000 {
            state.killed(&workload, &WorkloadId { path: format!("w{n}").into(), inode: 1 }, Monotonic(n));
        }
        assert_eq!(state.killed.len(), MOST);
        assert!(state.killed.contains_key("w999") && !state.killed.contains_key("w0"));
    }
}
