//! What is wanted of every workload, written down only where there is more to say than that it is free.

use std::collections::{BTreeMap, btree_map};
use std::ops::{Deref, DerefMut, Index};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::Wanted;
use crate::sample::WorkloadId;

/// What is wanted of a workload that is not named.
static FREE: LazyLock<Wanted> = LazyLock::new(Wanted::default);

/// The wanted end states. Of a thousand workloads nearly all are free and always were: they are not named, and asking for one of
/// them gives what is wanted of it all the same.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Wants(BTreeMap<WorkloadId, Wanted>);

impl Index<&WorkloadId> for Wants {
    type Output = Wanted;
    fn index(&self, id: &WorkloadId) -> &Wanted {
        self.0.get(id).unwrap_or(&FREE)
    }
}

impl Deref for Wants {
    type Target = BTreeMap<WorkloadId, Wanted>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Wants {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// Leaves out those of whom there is nothing to say.
impl FromIterator<(WorkloadId, Wanted)> for Wants {
    fn from_iter<I: IntoIterator<Item = (WorkloadId, Wanted)>>(wants: I) -> Self {
        Self(wants.into_iter().filter(|(_, wanted)| *wanted != *FREE).collect())
    }
}

impl IntoIterator for Wants {
    type Item = (WorkloadId, Wanted);
    type IntoIter = btree_map::IntoIter<WorkloadId, Wanted>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Wants {
    type Item = (&'a WorkloadId, &'a Wanted);
    type IntoIter = btree_map::Iter<'a, WorkloadId, Wanted>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::Rung;

    #[test]
    fn only_what_is_not_simply_free_is_written_down() {
        let id = |inode| WorkloadId { path: "w".into(), inode };
        let trimmed = Wanted { rung: Rung::Trim, ..Wanted::default() };
        let wants: Wants = [(id(1), Wanted::default()), (id(2), trimmed.clone())].into_iter().collect();
        assert_eq!((wants.len(), &wants[&id(1)], &wants[&id(2)]), (1, &Wanted::default(), &trimmed));
    }
}
