//! What outlives a workload and the daemon: what was learned, by the path of the cgroup, and the number of the last action.
//!
//! An inode is new with every start of a service; what its predecessor of the same path showed is the best guess.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::learned::Learned;
use crate::sample::{Spec, WorkloadId};
use crate::state::{State, Track};
use crate::units::{Monotonic, Span};

/// Paths that are remembered without a workload; the one that was heard of longest ago is forgotten first.
const MOST: usize = 1024;

/// What is worth keeping. Moments are those of the clock that showed `taken`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// When it was taken.
    pub taken: Monotonic,
    /// Number of the last action.
    pub action: u64,
    /// What was learned, by path, or by name where the path does not last.
    pub workloads: BTreeMap<String, Learned>,
}

impl State {
    /// What another run of the daemon should know.
    #[must_use]
    pub fn remember(&self, now: Monotonic) -> Memory {
        let mut workloads = self.known.clone();
        for (id, track) in &self.workloads {
            keep(&mut workloads, track.key(id), track.learned.clone());
        }
        Memory { taken: now, action: self.action, workloads }
    }

    /// The state to begin with after a run that left this memory `away` ago.
    #[must_use]
    pub fn recall(memory: &Memory, away: Span, now: Monotonic) -> Self {
        let mut known = BTreeMap::new();
        for (path, learned) in &memory.workloads {
            keep(&mut known, path, learned.moved(memory.taken, away, now));
        }
        Self { action: memory.action, known, ..Self::default() }
    }

    /// Begins to track a workload, with what is known of its path, or of its name where its path does not last.
    pub(crate) fn welcome(&mut self, id: &WorkloadId, spec: &Spec) -> &mut Track {
        let key = spec.key(id);
        let name = (key != &*id.path).then(|| Box::from(key));
        let known = self.known.remove(key).into_iter().chain(self.twins(id, name.as_deref()));
        let learned = known.max_by_key(Learned::newest).unwrap_or_default();
        self.workloads.entry(id.clone()).or_insert(Track { learned, name, ..Track::default() })
    }

    /// What was learned of those who are tracked and known by the same.
    fn twins(&self, id: &WorkloadId, name: Option<&str>) -> Vec<Learned> {
        let learned = |track: &Track| track.learned.clone();
        if let Some(name) = name {
            let twins = self.workloads.values().filter(|track| track.name.as_deref() == Some(name));
            return twins.map(learned).collect();
        }
        let twin = |inode| WorkloadId { path: id.path.clone(), inode };
        self.workloads.range(twin(0)..=twin(u64::MAX)).map(|(_, track)| learned(track)).collect()
    }

    /// Forgets the workloads that are not to be kept, but not what was learned of them.
    pub(crate) fn forget(&mut self, keeps: impl Fn(&Track) -> bool) {
        let known = &mut self.known;
        self.workloads.retain(|id, track| {
            let stays = keeps(track);
            if !stays {
                let learned = std::mem::take(&mut track.learned);
                keep(known, track.key(id), learned);
            }
            stays
        });
    }
}

impl Track {
    /// What it is known by from one start to the next.
    fn key<'a>(&'a self, id: &'a WorkloadId) -> &'a str {
        self.name.as_deref().unwrap_or(&id.path)
    }
}

fn keep(known: &mut BTreeMap<String, Learned>, path: &str, learned: Learned) {
    if learned == Learned::default() {
        return;
    }
    let newer = known.get(path).is_none_or(|other| other.newest() < learned.newest());
    if newer {
        known.insert(path.to_owned(), learned);
    }
    if known.len() > MOST {
        let oldest = known.iter().min_by_key(|(_, learned)| learned.newest()).map(|(path, _)| path.clone());
        oldest.and_then(|path| known.remove(&path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Rung;
    use crate::units::{Bytes, Share};

    fn id(path: &str, inode: u64) -> WorkloadId {
        WorkloadId { path: path.into(), inode }
    }

    fn learn(state: &mut State, id: &WorkloadId, now: Monotonic) {
        let track = state.workloads.entry(id.clone()).or_default();
        track.learned.reclaimed(Rung::Trim, Bytes::mib(8), Bytes::ZERO, Span::secs(1), now);
    }

    fn ratio(state: &State, id: &WorkloadId) -> Share {
        let track = &state.workloads[id];
        track.learned.on(Rung::Trim, track.learned.newest()).worth.ratio
    }

    #[test]
    fn a_new_inode_of_the_same_path_inherits() {
        let mut state = State::default();
        let [old, new, third, other] = [id("a", 1), id("a", 2), id("a", 3), id("ab", 4)];
        learn(&mut state, &old, Monotonic(5));
        for next in [&new, &other] {
            state.welcome(next, &Spec::default());
        }
        assert_eq!((ratio(&state, &new), ratio(&state, &other)), (Share::percent(50), Share::ONE));
        state.forget(|_| false);
        state.welcome(&third, &Spec::default());
        assert_eq!(ratio(&state, &third), Share::percent(50));
        assert_eq!(state.known.len(), 0, "what lives is not remembered twice");
    }

    #[test]
    fn a_container_is_known_by_its_name_however_often_it_starts() {
        let mut state = State::default();
        let spec = Spec { name: "ns/pod/main".into(), by_name: true, ..Spec::default() };
        let [first, second, third] = [id("kubepods/a", 1), id("kubepods/b", 2), id("kubepods/c", 3)];
        state.welcome(&first, &spec);
        learn(&mut state, &first, Monotonic(5));
        state.welcome(&second, &spec);
        assert_eq!(ratio(&state, &second), Share::percent(50), "while the first one is still remembered");
        state.forget(|_| false);
        let memory = state.remember(Monotonic(6));
        let mut again = State::recall(&memory, Span::ZERO, Monotonic(0));
        again.welcome(&third, &spec);
        assert_eq!(ratio(&again, &third), Share::percent(50));
        again.welcome(&id("ns/pod/main", 4), &Spec::default());
    }

    #[test]
    fn a_restart_of_the_daemon_keeps_it_and_the_number_of_the_last_action() {
        let mut state = State { action: 41, ..State::default() };
        learn(&mut state, &id("a", 1), Monotonic(5));
        let memory = state.remember(Monotonic(6));
        let text = serde_json::to_string(&memory).unwrap_or_default();
        assert_eq!(serde_json::from_str::<Memory>(&text).ok(), Some(memory.clone()));
        let mut again = State::recall(&memory, Span::ZERO, Monotonic(0));
        again.welcome(&id("a", 9), &Spec::default());
        assert_eq!((again.action, ratio(&again, &id("a", 9))), (41, Share::percent(50)));
    }

    #[test]
    fn it_is_bounded() {
        let mut state = State::default();
        for n in 0..2000 {
            learn(&mut state, &id(&format!("w{n}"), n), Monotonic(n + 1));
        }
        let memory = state.remember(Monotonic(3000));
        assert_eq!(memory.workloads.len(), MOST);
        assert!(memory.workloads.contains_key("w1999") && !memory.workloads.contains_key("w0"));
    }
}
