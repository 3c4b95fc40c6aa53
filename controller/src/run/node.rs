//! The daemon's one owner of state, and its pass: sense, assess, decide, lint, act, report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_policy::config::Config;
use plimsoll_policy::config::ways::Means;
use plimsoll_policy::pass::{Pass, step};
use plimsoll_policy::plan::Gate;
use plimsoll_policy::sample::{Trigger, WorkloadId};
use plimsoll_policy::state::State;
use plimsoll_policy::units::Monotonic;

use super::RunError;
use super::callers::Callers;
use super::gate::Gatekeeper;
use super::supervisor::Passed;
use super::voice::{Voice, say_unmet};
use crate::act::Actor;
use crate::act::mail::{Inbox, Message};
use crate::ask::{Asker, Told};
use crate::control::{Asked, Herald};
use crate::guardian::Guardian;
use crate::kubernetes::PodRef;
use crate::kubernetes::needs::{Needs, Unmet};
use crate::kubernetes::tell::{Evicted, Teller};
use crate::ledger::Ledger;
use crate::ledger::release::release;
use crate::memory::Keeper;
use crate::report::{Record, Reporter, Showing};
use crate::sense::cgroup::Cgroup;
use crate::sense::clock::now;
use crate::sense::discover::Discovery;
use crate::sense::probes::Probes;
use crate::sense::psi::Trigger as PsiTrigger;
use crate::sense::{Counted, News, Senses};

/// Everything that a pass needs.
pub(super) struct Node {
    config: Config,
    senses: Senses,
    probes: Option<Probes>,
    gate: Gatekeeper,
    actor: Actor,
    asker: Asker,
    /// On a node of a cluster.
    teller: Option<Teller>,
    reporter: Reporter,
    ledger: Arc<Ledger>,
    guardian: Guardian,
    psi: Option<PsiTrigger>,
    state: State,
    keeper: Option<Keeper>,
    news: News,
    callers: Callers,
    herald: Herald,
    refused: Vec<String>,
    /// The pods that workloads are containers of.
    pods: BTreeMap<WorkloadId, PodRef>,
    /// What pods will need; `None` where this is no node of a cluster.
    needs: Option<Needs>,
    dropped: u64,
    voice: Voice,
    stalls_shown: Monotonic,
}

impl Node {
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one owner, named by its fields, joined in one place"
    )]
    pub(super) fn new(
        config: &Config,
        senses: Senses,
        probes: Option<Probes>,
        actor: Actor,
        asker: Asker,
        reporter: Reporter,
        ledger: Arc<Ledger>,
        guardian: Guardian,
        psi: Option<PsiTrigger>,
    ) -> Self {
        Self {
            config: config.clone(),
            senses,
            probes,
            gate: Gatekeeper::default(),
            actor,
            asker,
            teller: None,
            reporter,
            ledger,
            guardian,
            psi,
            state: State::default(),
            keeper: None,
            news: News::default(),
            callers: Callers::default(),
            herald: Herald::default(),
            refused: Vec::new(),
            pods: BTreeMap::new(),
            needs: None,
            dropped: 0,
            voice: Voice::default(),
            stalls_shown: Monotonic::default(),
        }
    }

    /// Goes on with what an earlier run learned.
    pub(super) fn remember(&mut self, (keeper, state): (Keeper, State)) {
        self.state = state;
        self.keeper = Some(keeper);
    }

    /// Tells the API server from now on.
    pub(super) fn tells(&mut self, teller: Teller) {
        self.teller = Some(teller);
    }

    /// Has what pods will need reserved from now on.
    pub(super) fn promise(&mut self, needs: Needs) {
        self.needs = Some(needs);
    }

    /// Who tells clients how it stands.
    pub(super) fn herald(&self) -> Herald {
        self.herald.clone()
    }

    /// What is kept for those who ask.
    pub(super) fn showing(&self) -> Showing {
        self.reporter.showing()
    }

    /// How many workloads are watched.
    pub(super) fn workloads(&self) -> usize {
        self.senses.tracked().len()
    }

    /// Takes over what discovery found. True where a workload came or went.
    pub(super) fn take_workloads(&mut self, discovery: &Discovery) -> bool {
        let change = self.senses.update(&discovery.found);
        let mut refused = discovery.refused.clone();
        refused.extend(change.refused);
        for (cgroup, means) in &change.came {
            let psi = self.psi.and_then(|trigger| cgroup.psi_trigger(&trigger).ok());
            match self.actor.watch(cgroup, psi).and_then(|()| self.asker.watch(cgroup, means)) {
                Ok(()) => tracing::info!(workload = %cgroup.id, missing = ?cgroup.missing(), "workload came"),
                Err(error) => refused.push(error.to_string()),
            }
        }
        self.count_from_now(&change.came);
        for (id, tracked) in self.senses.tracked() {
            if let Some(found) = discovery.found.get(&*id.path).filter(|_| tracked.pod.is_some()) {
                self.asker.by(id, &found.means);
            }
        }
        self.tell_pods();
        if let Some(needs) = &mut self.needs {
            let tracked = self.senses.tracked().iter();
            needs.follow(tracked.filter_map(|(id, tracked)| Some((id, tracked.pod.as_ref()?))));
        }
        for id in &change.went {
            self.asker.forget(id);
            self.actor.forget(id);
            if let Some(probes) = &mut self.probes {
                probes.forget(id.inode);
            }
            tracing::info!(workload = %id, "workload went");
        }
        // Said once, not at every look.
        for new in refused.iter().filter(|text| !self.refused.contains(text)) {
            tracing::warn!(why = new, "not taken as a workload");
        }
        self.refused = refused;
        let specs = self.senses.tracked().iter().map(|(id, tracked)| (id, &tracked.spec));
        self.herald.workloads(specs, self.config.protect_priority);
        self.asker.refresh();
        if let Some(teller) = &mut self.teller {
            teller.take_workloads(&discovery.found);
        }
        !change.came.is_empty() || !change.went.is_empty()
    }

    /// Which workloads are containers of which pods is shown beside what passes say of them.
    fn tell_pods(&mut self) {
        let tracked = self.senses.tracked().iter();
        let pods: BTreeMap<_, _> =
            tracked.filter_map(|(id, tracked)| Some((id.clone(), tracked.pod.clone()?))).collect();
        if self.pods != pods && self.reporter.pods(pods.clone()) {
            self.pods = pods;
        }
    }

    /// Makes room for the counters of new workloads while there is memory for it.
    fn count_from_now(&mut self, came: &[(Arc<Cgroup>, Means)]) {
        let Some(probes) = &mut self.probes else { return };
        for (cgroup, _) in came {
            let ids = self.senses.tracked().get(&cgroup.id).map_or(&[][..], |tracked| &tracked.ids);
            if let Some(error) = ids.iter().find_map(|id| probes.watch(*id).err()) {
                tracing::warn!(workload = %cgroup.id, error = %error, "eBPF can't count for it");
            }
        }
    }

    /// Reads what the threads have to say. The trigger of the pass that it asks for, if it asks for one.
    pub(super) fn take_mail(&mut self, inbox: &Inbox) -> Option<Trigger> {
        let mut trigger = None;
        let dropped = inbox.dropped();
        if dropped > self.dropped {
            tracing::error!(
                dropped,
                "messages of the reaction thread found no room: this thread does not keep up"
            );
            self.dropped = dropped;
        }
        for message in inbox.drain() {
            match message {
                Message::Woke(woken) => trigger = Some(woken),
                Message::GateStopped { inode, at } => {
                    self.actor.reflex(inode);
                    tracing::info!(inode, after = %now().since(at), "the gate stopped a workload, freezing it");
                    trigger = Some(Trigger::Probe);
                }
                Message::OomVictim { pid, cgroup } => {
                    tracing::error!(pid, cgroup, "the kernel's OOM killer chose a victim");
                    trigger = Some(Trigger::Probe);
                }
                Message::Ended(ended) => {
                    self.news.outcomes.extend(self.actor.ended(&ended));
                    trigger = trigger.or(Some(Trigger::Outcome));
                }
            }
        }
        trigger
    }

    /// Takes a client's call into the next sample.
    pub(super) fn take_call(&mut self, asked: Asked) {
        let request = self.callers.take(asked);
        tracing::debug!(?request, "a client asks");
        self.news.requests.push(request);
    }

    /// Takes in what a workload that can be asked has to say. True where a pass should not wait for long.
    pub(super) fn take_told(&mut self, told: Told) -> bool {
        self.asker.take(told)
    }

    /// Takes the end of an eviction into the next sample.
    pub(super) fn take_evicted(&mut self, evicted: Evicted) {
        if let Some(teller) = &mut self.teller {
            self.news.outcomes.extend(teller.take_evicted(evicted));
        }
    }

    /// Who can be asked has changed.
    pub(super) fn take_ways(&mut self) {
        self.asker.refresh();
    }

    /// The least time between two passes that clients can bring about.
    pub(super) fn busy(&self) -> Duration {
        self.config.pace.busy.into()
    }

    /// A dead guardian is replaced; a dead reaction thread ends the daemon.
    pub(super) fn check_threads(&mut self) -> Result<(), RunError> {
        if self.actor.reaction().is_dead() {
            return Err(RunError::Thread("reaction"));
        }
        if let Some(status) = self.guardian.ended() {
            tracing::error!(%status, "the guardian ended, starting another");
            self.guardian = self
                .guardian
                .another(self.ledger.run_dir())
                .map_err(super::io_error("can't start the guardian again"))?;
        }
        Ok(())
    }

    /// One pass.
    pub(super) fn pass(&mut self, trigger: Trigger) -> Passed {
        let begun = now();
        let counted = self.count();
        let mut sample = self.senses.sample(trigger, std::mem::take(&mut self.news), &counted);
        self.asker.tell(&mut sample);
        if let Some(needs) = &mut self.needs {
            needs.ask(&mut sample, &self.config.admission);
        }
        let before = self.reporter.wants_state(sample.at).then(|| self.state.clone());
        let Pass { state, assessment, plan, findings } =
            step(&self.config, std::mem::take(&mut self.state), &sample);
        self.state = state;
        // Whoever is answered may look at how it stands.
        self.herald.pass(&assessment, &plan);
        self.callers.tell(&plan.answers);
        let unmet = self.needs.as_mut().map(|needs| needs.hear(&plan.answers, sample.at));
        unmet.into_iter().flatten().for_each(|unmet| self.tell_unmet(&unmet));
        self.voice.pass(&assessment, &plan, &findings);
        if let Some(probes) = &mut self.probes {
            self.gate.hold(&plan.gate, probes, &self.senses, &mut self.actor);
        }
        self.news.outcomes = self.actor.apply(&plan, &sample, assessment.deficit, &self.config.ladder);
        self.asker.apply(&plan, &sample, &assessment);
        if let Some(teller) = &mut self.teller {
            teller.pass(&sample, &assessment, &plan);
        }
        let passed = Passed {
            at: begun,
            next: plan.next.into(),
            saw: sample.host.meminfo.is_some(),
            tier: assessment.tier,
            workloads: sample.workloads.len(),
        };
        let took = now().since(begun);
        let others = self.actor.others();
        self.reporter.pass(Record { before, sample, assessment, plan, findings, others, took });
        self.show_stalls(begun);
        if let Some(keeper) = &mut self.keeper {
            keeper.pass(&self.state, begun);
        }
        passed
    }

    fn count(&mut self) -> Counted {
        let Some(probes) = &mut self.probes else { return Counted::default() };
        let cgroups =
            probes.read().map_err(|error| tracing::debug!(error = %error, "can't read the probes")).ok();
        Counted { cgroups, host: probes.host().ok() }
    }

    /// Histograms are for people, no decision needs them: they are read as seldom as `memory.stat`.
    fn show_stalls(&mut self, now: Monotonic) {
        if now.since(self.stalls_shown) < self.config.pace.stat {
            return;
        }
        self.stalls_shown = now;
        if let Some(Ok(stalls)) = self.probes.as_mut().map(Probes::histograms) {
            self.reporter.stalls(stalls);
        }
    }

    /// The scheduler has placed it already: it is started all the same.
    fn tell_unmet(&self, unmet: &Unmet) {
        say_unmet(unmet);
        if let Some(teller) = &self.teller {
            teller.unmet(unmet);
        }
    }

    /// Releases everything, then lets the guardian go. What was asked of workloads is left to take back, and the API server to tell.
    pub(super) fn shut_down(mut self) -> (Asker, Option<Teller>) {
        if let Some(probes) = &mut self.probes {
            self.gate.hold(&Gate::default(), probes, &self.senses, &mut self.actor);
        }
        // No order is carried out after this, so what is released stays released.
        self.actor.stop();
        let released = release(&self.ledger);
        if !released.is_empty() {
            tracing::info!(?released, "released");
        }
        self.ledger.set_controller(0);
        self.guardian.dismiss();
        if let Some(keeper) = self.keeper {
            keeper.end(&self.state, now());
        }
        self.reporter.drain();
        (self.asker, self.teller)
    }
}
