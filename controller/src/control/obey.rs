//! What programs and operators call for is done: with the book of sessions, the pass, or the keeper of what is shown.

use std::sync::Arc;
use std::time::Instant;

use plimsoll_policy::admission::{Call, Caller};
use plimsoll_policy::concession::Level;
use plimsoll_policy::sample::{Rung, WorkloadId};
use tokio::time::timeout_at;

use super::advice::Advice;
use super::calls::Rejection;
use super::conditions::{Conditions, Known};
use super::connection::{Broken, Client, Refused};
use super::counts::{Counts, CudaError};
use super::notices::{News, Told};
use super::operator::{self, Operation};
use super::programs::{CudaFailure, ProgramCall};
use super::protocol::{How, Registered, Said};
use super::sessions::Offered;
use super::{Control, ControlRefusal};

impl Control {
    /// A session ended with its connection.
    pub(super) fn end(&self, session: u64) {
        self.sessions.close(session);
        Counts::take(&self.counts.sessions);
    }
}

impl Client {
    pub(super) async fn program(&mut self, call: ProgramCall) -> Result<Said, Refused> {
        if let ProgramCall::Register(offered) = call {
            return self.register(offered).await;
        }
        let (workload, known) = self.now().ok_or_else(|| self.stranger())?;
        let sessions = &self.control.sessions;
        match call {
            ProgramCall::Register(_) => {}
            ProgramCall::Acknowledge { session, request, said } => {
                tracing::debug!(workload = %workload, session, request, ?said, "a program answers");
                sessions.acknowledge(session, &workload, request, said)?;
            }
            ProgramCall::Inflight { session, requests } => sessions.serve(session, &workload, requests)?,
            ProgramCall::Failed(failure) => return self.failed(workload, failure).await,
            ProgramCall::Standing => return Ok(Said::How(self.standing(&workload, known))),
        }
        Ok(Said::Nothing {})
    }

    async fn register(&mut self, offered: Offered) -> Result<Said, Refused> {
        let (workload, known) = self.found().await.ok_or_else(|| self.stranger())?;
        let sessions = &self.control.sessions;
        let kept = self.session.filter(|id| sessions.replace(*id, &workload, offered.clone()).is_ok());
        let session = match kept {
            Some(session) => session,
            None => {
                // It was moved to another workload since: it is another program there.
                self.session.take().into_iter().for_each(|session| self.control.end(session));
                let session = sessions.open(&workload, self.peer.user, offered)?;
                Counts::add(&self.control.counts.sessions);
                session
            }
        };
        self.session = Some(session);
        tracing::debug!(workload = %workload, session, pid = self.peer.pid(), "a program registered");
        let Known { name, priority, protected } = known;
        Ok(Said::Registered(Registered { session, workload: name, priority, protected }))
    }

    /// The workload that the client is in now.
    fn now(&self) -> Option<(WorkloadId, Known)> {
        let how = self.control.conditions.borrow().clone();
        self.within(&how)
    }

    fn within(&self, how: &Conditions) -> Option<(WorkloadId, Known)> {
        let cgroup = self.peer.cgroup_now(self.control.cgroup_root())?;
        how.workload_of(&cgroup).map(|(id, known)| (id.clone(), known.clone()))
    }

    /// The same; a server that was started a moment ago may not be found yet.
    async fn found(&self) -> Option<(WorkloadId, Known)> {
        let mut how = self.control.conditions.clone();
        let end = tokio::time::Instant::now() + self.control.found_within;
        loop {
            let now = how.borrow_and_update().clone();
            if let Some(found) = self.within(&now) {
                return Some(found);
            }
            self.peer.cgroup_now(self.control.cgroup_root())?;
            timeout_at(end, how.changed()).await.ok()?.ok()?;
        }
    }

    fn stranger(&self) -> ControlRefusal {
        let message = match self.peer.cgroup_now(self.control.cgroup_root()) {
            Some(cgroup) => format!(
                "the caller's cgroup /{} is in no workload: start it with `plimsoll exec --name NAME -- COMMAND`, or name \
                 its cgroup, unit or command in a rule under `workloads` of the configuration",
                cgroup.path
            ),
            None => "it can't be seen which cgroup the caller is in: in a container, the daemon has to be in the host's \
                     pid namespace"
                .into(),
        };
        ControlRefusal::NotAWorkload { message }
    }

    fn standing(&self, workload: &WorkloadId, known: Known) -> How {
        let how = self.control.conditions.borrow().clone();
        let doing = how.doing.get(workload);
        How {
            workload: known.name,
            cgroup: workload.path.to_string(),
            priority: known.priority,
            protected: known.protected,
            rung: doing.map_or(Rung::Free, |doing| doing.rung).name(),
            level: doing.map_or(Level::Nothing, |doing| doing.level).name(),
            sessions: self.control.sessions.count(workload),
            tiers: how.tiers().map(|(resource, tier)| (resource, tier.name())).collect(),
            thrash: how.thrash.name(),
        }
    }

    /// The pass takes note of a lack of memory before anything is advised.
    async fn failed(&mut self, workload: WorkloadId, failure: CudaFailure) -> Result<Said, Refused> {
        let CudaFailure { gpu, error, kind, .. } = &failure;
        self.control.counts.failed(*kind);
        let whose = workload.clone();
        let device = gpu.as_ref().map(tracing::field::display);
        tracing::debug!(workload = %workload, device, error, kind = kind.name(), "a CUDA call failed");
        if *kind == CudaError::OutOfMemory {
            let call = Call::CudaOutOfMemory { cgroup: workload.clone(), gpu: gpu.clone() };
            // Of a GPU that is not seen from here nothing is learned; what can be said of it is said all the same.
            if let Err(Refused::Broken) = self.ask(Caller::Cgroup(workload), call, 0).await {
                return Err(Refused::Broken);
            }
        }
        let how = self.control.conditions.borrow().clone();
        let protected = how.workloads.get(&whose).is_some_and(|known| known.protected);
        Ok(Said::Advice(Advice::on(&failure, &how, protected)))
    }

    pub(super) async fn operate(&mut self, operation: Operation) -> Result<Said, Refused> {
        let how = self.control.conditions.borrow().clone();
        if let Some(call) = operator::call(&operation, &how).map_err(Rejection::from)? {
            tracing::info!(user = self.peer.user, pid = self.peer.pid(), ?operation, "an operator calls");
            return self.ask(Caller::Root, call, 0).await;
        }
        match operation {
            Operation::Explain { action } => {
                let (lines, story) = operator::story(&self.control, action).await?;
                Ok(Said::Story { lines, story })
            }
            Operation::Status { workload } => {
                Ok(Said::Status { status: operator::status(&self.control, workload).await? })
            }
            Operation::Release { .. } | Operation::Pause { .. } | Operation::Resume => Ok(Said::Nothing {}),
        }
    }

    /// Tells how it stands, and what is asked of the program that registered here, until one of both is gone.
    pub(super) async fn stream(&mut self) -> Result<(), Broken> {
        let control = Arc::clone(&self.control);
        let _counted = Counts::hold(&control.counts.streams);
        let (mut how, mut told) = (control.conditions.clone(), Told::default());
        let mut errand = self.session.and_then(|session| control.sessions.listen(session));
        loop {
            let now = how.borrow_and_update().clone();
            if now.stopping {
                self.tell(&News::stopping(), true).await?;
                return Err(Broken);
            }
            let asked = errand.as_mut().map(|errand| errand.borrow_and_update().clone());
            if let Some(news) = told.next(&now, &asked.unwrap_or_default(), Instant::now()) {
                self.tell(&news, false).await?;
                continue;
            }
            tokio::select! {
                changed = how.changed() => changed.map_err(|_| Broken)?,
                changed = async { errand.as_mut()?.changed().await.ok() }, if errand.is_some() => {
                    changed.ok_or(Broken)?;
                }
            }
        }
    }
}
