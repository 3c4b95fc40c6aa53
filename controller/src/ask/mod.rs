//! Asks workloads to give memory back, and to take it again: before anything is frozen or killed.
//!
//! The [`Asker`] belongs to the pass, which hands it every plan and never waits for it. What waits for models and servers is a task
//! on tokio for each workload that can be asked; what it finds out comes back as a message, like everything that a pass learns.

mod asking;
mod attend;
mod attended;
mod checkpoint;
mod group;
mod hook;
mod means;
mod meter;
mod offers;
mod signal;
#[cfg(test)]
mod tests;
pub mod watch;
pub mod way;
mod ways;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_policy::concession::{Concession, Level, Offer};
use plimsoll_policy::config::Config;
use plimsoll_policy::config::ask::Ask;
use plimsoll_policy::config::ways::Means;
use plimsoll_policy::plan::{Assessment, Plan, Tier};
use plimsoll_policy::sample::{Sample, WorkloadId};
use plimsoll_policy::units::{Monotonic, Span};
use tokio::sync::{mpsc, watch as latest};

use self::attend::Wished;
use self::attended::{Attended, Known};
use self::way::Asking;
pub use self::ways::{Registered, Ways};
use crate::ledger::{Flags, Ledger, LedgerError};
use crate::sense::cgroup::Cgroup;

/// Messages that may be on their way to the pass. Workloads that can be asked send one when something about them changes.
const WAITING: usize = 256;
/// How long a workload that is away has to be wanted by nobody before it is brought back.
const ORPHANED: Span = Span::secs(5);
/// Before it is tried again; doubles with each failure.
const AGAIN: Span = Span::secs(10);
/// The longest that this becomes.
const AGAIN_AT_MOST: Span = Span::secs(300);
/// How long the end of the daemon waits for what it offloaded or unloaded to be asked back.
const FAREWELL: Duration = Duration::from_secs(2);

/// What a workload's task tells the pass.
#[derive(Debug)]
pub struct Told {
    workload: WorkloadId,
    news: News,
}

#[derive(Debug)]
enum News {
    /// What it can be asked for is another than before.
    Offer(Option<Offer>),
    /// How an asking ended.
    Conceded(Concession),
}

/// Asks. One owner, the pass.
pub struct Asker {
    config: Ask,
    /// Nobody is asked for anything.
    dry: bool,
    ledger: Arc<Ledger>,
    ways: Ways,
    told: mpsc::Sender<Told>,
    attended: BTreeMap<WorkloadId, Attended>,
    conceded: Vec<Concession>,
    orphan: Option<Orphan>,
    tier: Tier,
    /// Whether the host is so short that no program should be started.
    short: latest::Sender<bool>,
}

/// The one workload that is away, though nobody wants it to be: a predecessor died, or its restoring failed.
struct Orphan {
    workload: WorkloadId,
    since: Monotonic,
    attempts: u64,
    next: Monotonic,
}

impl Asker {
    /// An asker of no workload yet, and where its news arrive.
    #[must_use]
    pub fn new(config: &Config, ledger: Arc<Ledger>, ways: Ways) -> (Self, mpsc::Receiver<Told>) {
        let (told, news) = mpsc::channel(WAITING);
        let asker = Self {
            config: config.ask.clone(),
            dry: config.ladder.dry_run.is_whole(),
            ledger,
            ways,
            told,
            attended: BTreeMap::new(),
            conceded: Vec::new(),
            orphan: None,
            tier: Tier::Normal,
            short: latest::Sender::new(false),
        };
        (asker, news)
    }

    /// Where those register who can be asked by themselves.
    #[must_use]
    pub fn ways(&self) -> Ways {
        self.ways.clone()
    }

    /// Takes a workload in. Call it on the runtime.
    ///
    /// # Errors
    /// When the ledger has no room: what can't be written down is not asked.
    pub fn watch(&mut self, cgroup: &Arc<Cgroup>, means: &Means) -> Result<(), LedgerError> {
        let slot = self.ledger.claim(&cgroup.id)?;
        let configured = means::ways(means, &self.config, cgroup, &self.ledger.cgroup_root(), &self.short);
        let attended = Attended {
            cgroup: Arc::clone(cgroup),
            slot,
            means: means.clone(),
            configured,
            version: 0,
            ways: Vec::new(),
            offer: None,
            asked: None,
            answered: 0,
            task: None,
        };
        self.attended.insert(cgroup.id.clone(), attended);
        Ok(())
    }

    /// It can be asked by these means from now on: somebody changed an annotation, or its pod has got an address.
    pub fn by(&mut self, id: &WorkloadId, means: &Means) {
        let Some(attended) = self.attended.get_mut(id).filter(|attended| attended.means != *means) else {
            return;
        };
        let root = self.ledger.cgroup_root();
        attended.configured = means::ways(means, &self.config, &attended.cgroup, &root, &self.short);
        attended.means = means.clone();
        attended.version += 1;
    }

    /// Lets go of a workload that is no longer one, with its ways.
    pub fn forget(&mut self, id: &WorkloadId) {
        self.attended.remove(id);
    }

    /// Gives every workload the ways that there are now. Workloads without any cost nothing.
    pub fn refresh(&mut self) {
        let mut registered: BTreeMap<WorkloadId, Vec<Known>> = BTreeMap::new();
        for (cgroup, known) in self.ways.all() {
            if let Some(id) = self.workload_of(&cgroup) {
                registered.entry(id).or_default().push(known);
            }
        }
        for (id, attended) in &mut self.attended {
            let version = attended.version;
            let of_its_own =
                attended.configured.iter().zip(0..).map(|(way, n)| (n, version, Arc::clone(way)));
            let ways = of_its_own.chain(registered.remove(id).unwrap_or_default()).collect();
            let unheard = attended.take_ways(ways, &self.config, &self.ledger, &self.told);
            self.conceded.extend(unheard);
        }
    }

    /// The workload that a cgroup is, or is within.
    fn workload_of(&self, cgroup: &WorkloadId) -> Option<WorkloadId> {
        if self.attended.contains_key(cgroup) {
            return Some(cgroup.clone());
        }
        let within =
            |id: &WorkloadId| cgroup.path.strip_prefix(&*id.path).is_some_and(|rest| rest.starts_with('/'));
        self.attended.keys().find(|id| within(id)).cloned()
    }

    /// Takes a message in. True where the next pass should not wait.
    pub fn take(&mut self, told: Told) -> bool {
        let Some(attended) = self.attended.get_mut(&told.workload) else { return false };
        match told.news {
            News::Offer(offer) => {
                let matters = |offer: &Option<Offer>| {
                    offer.as_ref().map(|offer| (offer.level, offer.gated, offer.levels.clone()))
                };
                let changed = matters(&attended.offer) != matters(&offer);
                attended.offer = offer;
                changed
            }
            News::Conceded(concession) => {
                attended.asked.take_if(|(wish, _)| wish.number == concession.number);
                attended.answered = attended.answered.max(concession.number);
                said(&concession);
                self.conceded.push(concession);
                true
            }
        }
    }

    /// Puts into a sample what workloads offer and what came of earlier wishes.
    pub fn tell(&mut self, sample: &mut Sample) {
        sample.conceded = std::mem::take(&mut self.conceded);
        for (id, attended) in &self.attended {
            let (Some(offer), Some(workload)) = (&attended.offer, sample.workloads.get_mut(id)) else {
                continue;
            };
            let busy = attended.asked.as_ref().map(|(wish, _)| wish.number);
            workload.offer = Some(Offer { busy, ..offer.clone() });
        }
    }

    /// Hands the wishes of a plan on. What has been asked already is not asked again.
    pub fn apply(&mut self, plan: &Plan, sample: &Sample, assessment: &Assessment) {
        if self.dry {
            return;
        }
        self.short.send_if_modified(|short| {
            let is_short = assessment.tier >= Tier::Constrained;
            std::mem::replace(short, is_short) != is_short
        });
        self.poke(assessment.tier);
        let calm =
            assessment.tier == Tier::Normal && assessment.gpus.values().all(|gpu| gpu.tier == Tier::Normal);
        let orphan = self.orphan(plan, sample, calm);
        for (id, attended) in &mut self.attended {
            if let (Some(task), Some(seen)) = (&attended.task, sample.workloads.get(id)) {
                meter::show(&task.gpus, &seen.gpus);
            }
            let back = orphan.as_ref().filter(|(whose, _)| whose == id).map(|(_, attempt)| *attempt);
            let unheard = attended.wish(plan.workloads[id].wish.as_ref(), back, sample.at);
            self.conceded.extend(unheard);
        }
    }

    /// Those that listen to `MEMORY_PRESSURE_WATCH` and want to know of this tier are told when it is entered, or a worse one.
    fn poke(&mut self, tier: Tier) {
        let from = std::mem::replace(&mut self.tier, tier);
        if tier <= from {
            return;
        }
        for attended in self.attended.values() {
            if attended.means.watch.tier().is_none_or(|least| tier < least) {
                continue;
            }
            for (_, _, way) in attended.ways.iter().filter(|(_, _, way)| way.name() == "watch") {
                let (way, asking) = (Arc::clone(way), hint(tier));
                tokio::spawn(async move { way.ask(&asking).await });
            }
        }
    }

    /// The workload that is to be brought back though no plan says so, and the number of the attempt. One at a time, the one of
    /// the highest priority first, and only while nothing is short.
    fn orphan(&mut self, plan: &Plan, sample: &Sample, calm: bool) -> Option<(WorkloadId, u64)> {
        let away = |id: &WorkloadId, attended: &Attended| {
            attended.task.is_some()
                && plan.workloads[id].wish.is_none()
                && self.ledger.flags(attended.slot).contains(Flags::AWAY)
        };
        let priority = |id: &WorkloadId| sample.workloads.get(id).map(|workload| workload.spec.priority);
        let still = self.orphan.as_ref().map(|orphan| &orphan.workload);
        let still = still.filter(|id| self.attended.get(*id).is_some_and(|attended| away(id, attended)));
        if still.is_none() {
            let all = self.attended.iter().filter(|(id, attended)| away(id, attended));
            let first = all.map(|(id, _)| id).max_by_key(|id| priority(id));
            self.orphan = first.map(|id| Orphan {
                workload: id.clone(),
                since: sample.at,
                attempts: 0,
                next: sample.at + ORPHANED,
            });
        }
        let orphan = self.orphan.as_mut()?;
        if calm && sample.at >= orphan.next {
            orphan.attempts += 1;
            orphan.next = sample.at + again(orphan.attempts);
            tracing::warn!(
                workload = %orphan.workload, attempt = orphan.attempts, away = %sample.at.since(orphan.since),
                "a workload is away and nobody wants it to be, bringing it back"
            );
        }
        (orphan.attempts > 0).then(|| (orphan.workload.clone(), orphan.attempts))
    }

    /// Asks back what was offloaded or unloaded, all at once and for two seconds at most: what takes longer goes on by itself, or
    /// is for the next start. Everything else has been released before.
    pub async fn farewell(self) {
        let away = |attended: &&Attended| self.ledger.flags(attended.slot).contains(Flags::AWAY);
        let left: Vec<_> = self.attended.values().filter(away).collect();
        for task in left.iter().filter_map(|attended| attended.task.as_ref()) {
            // The last plan may have asked it back already; one asking is enough.
            task.wish.send_if_modified(|now| {
                let other = !matches!(now, Wished::For(wish) if wish.level == Level::Nothing);
                if other {
                    *now = Wished::Back(u64::MAX);
                }
                other
            });
        }
        let back = async {
            while left.iter().any(away) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if !left.is_empty() && !self.dry && tokio::time::timeout(FAREWELL, back).await.is_err() {
            let away: Vec<_> =
                left.iter().filter(|left| away(left)).map(|left| left.cgroup.id.to_string()).collect();
            tracing::warn!(?away, "workloads were asked to come back and have not said yet that they did");
        }
    }
}

fn again(attempts: u64) -> Span {
    let doubled = AGAIN.0.saturating_mul(1 << attempts.saturating_sub(1).min(10));
    Span(doubled.min(AGAIN_AT_MOST.0))
}

/// What those are told that only listen.
fn hint(tier: Tier) -> Asking {
    Asking {
        number: 0,
        level: Level::Gc,
        gpus: Vec::new(),
        wanted: 0,
        deadline: Duration::from_secs(1),
        reason: format!("the host is {tier}"),
    }
}

fn said(concession: &Concession) {
    let Concession { workload, number, level, by, result, took, freed, claimed, begun: _ } = concession;
    let gpus: u64 = freed.gpus.values().map(|bytes| bytes.0).sum();
    tracing::info!(
        %workload, number, %level, by, ?result, %took, freed.host = freed.host, freed.gpus = gpus, ?claimed,
        "a workload was asked"
    );
}
