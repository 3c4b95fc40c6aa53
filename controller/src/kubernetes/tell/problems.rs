//! Mistakes in annotations: each is told once of each pod, however often the pod is seen.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use super::happening::{About, Happening, Reason, plain};
use crate::kubernetes::PodRef;
use crate::kubernetes::pods::{Pod, Pods};

/// So many of one pod; who makes more has enough to read.
const MOST: usize = 8;

/// What was told, by the UID of the pod.
#[derive(Debug, Default)]
pub(super) struct Problems(BTreeMap<String, BTreeSet<String>>);

impl Problems {
    /// Takes the pods as they are now; returns what is new.
    pub(super) fn look(&mut self, pods: &Pods) -> Vec<Happening> {
        self.0.retain(|uid, _| pods.pods.contains_key(uid));
        pods.pods.values().flat_map(|pod| self.of(pod)).collect()
    }

    /// How many mistakes there are.
    pub(super) fn count(pods: &Pods) -> usize {
        pods.pods.values().map(|pod| pod.problems.len()).sum()
    }

    fn of(&mut self, pod: &Pod) -> Vec<Happening> {
        if pod.problems.is_empty() {
            self.0.remove(&pod.uid);
            return Vec::new();
        }
        let told = self.0.entry(pod.uid.clone()).or_default();
        let notes: BTreeSet<_> =
            pod.problems.iter().take(MOST).map(|problem| plain(&problem.to_string())).collect();
        let new = notes.difference(told).map(|note| happening(pod, note.clone())).collect();
        // What was mended and broken again is told again.
        *told = notes;
        new
    }
}

fn happening(pod: &Pod, note: String) -> Happening {
    let about = PodRef {
        namespace: pod.namespace.clone(),
        pod: pod.name.clone(),
        uid: pod.uid.clone(),
        container: String::new(),
    };
    Happening { about: About::Pod(about), reason: Reason::InvalidAnnotation, note, at: Timestamp::now() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::pods::Problem;

    fn pods(mistakes: &[&str]) -> Pods {
        let problem = |why: &&str| Problem { annotation: "plimsoll.dev/priority".into(), why: (*why).into() };
        let problems = mistakes.iter().map(problem).collect();
        let pod = Pod { uid: "u".into(), name: "web".into(), problems, ..Pod::default() };
        Pods { pods: [("u".into(), pod)].into(), confirmed: true }
    }

    #[test]
    fn a_mistake_is_told_once_of_each_pod() {
        let mut problems = Problems::default();
        let mut check = |mistakes: &[&str], expected: &[&str]| {
            let notes: Vec<_> = problems.look(&pods(mistakes)).into_iter().map(|told| told.note).collect();
            let expected: Vec<_> =
                expected.iter().map(|why| format!("annotation plimsoll.dev/priority: {why}")).collect();
            assert_eq!(notes, expected);
        };
        check(&["high"], &["high"]);
        check(&["high"], &[]);
        check(&["high", "low"], &["low"]);
        check(&["low"], &[]);
        check(&[], &[]);
        check(&["low"], &["low"]);
        assert_eq!(problems.look(&Pods::default()), []);
        assert!(problems.0.is_empty());
    }
}
