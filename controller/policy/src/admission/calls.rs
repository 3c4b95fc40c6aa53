//! The calls that need no room: they are obeyed in the order in which they came, before anything is granted.

use super::answer::{Reason, Reply};
use super::desk::{Reservation, Stage, Waiting};
use super::request::{Call, Caller, Request};
use super::settle::workload_of;
use super::{Session, queue};
use crate::sample::{Sample, WorkloadId};
use crate::units::Bytes;

impl Session<'_> {
    pub(super) fn obey(&mut self) {
        let sample = self.sample;
        for request in &sample.requests {
            if let Some(reply) = self.reply(request) {
                self.say(request.ticket, reply);
            }
        }
        self.vacancy.reserved = self.desk.reserved();
        for (gpu, vacancy) in &mut self.devices {
            vacancy.reserved = self.desk.reserved_on(gpu);
        }
    }

    /// `None` for what is answered later.
    fn reply(&mut self, request: &Request) -> Option<Reply> {
        match &request.call {
            Call::Reserve(wants) => {
                let since = self.sample.at;
                let waiting = Waiting {
                    ticket: request.ticket,
                    caller: request.caller.clone(),
                    wants: wants.clone(),
                    since,
                    deadline: since + wants.wait.min(queue::LONGEST_WAIT),
                    lacks: None,
                };
                self.desk.waiting.push(waiting);
                None
            }
            Call::Headroom | Call::Pause { .. } | Call::Resume | Call::LetGo { .. } => None,
            Call::Amend { id, bytes } => Some(self.amend(request, *id, *bytes)),
            Call::Commit { id, measured } => Some(self.with(request, *id, |r| {
                // Evidence decides; that it is loaded can only end a promise sooner.
                r.stage = Stage::Committed;
                r.promised = r.promised.min(*measured);
            })),
            Call::Heartbeat { id } => Some(self.with(request, *id, |_| {})),
            Call::Release { id } => Some(self.release(request, *id)),
            Call::Withdraw { ticket } => {
                self.withdraw(*ticket);
                Some(Reply::Released)
            }
            Call::ReportOom { cgroup } => Some(self.learn(request, cgroup)),
            Call::CudaOutOfMemory { .. } => Some(self.learn_of_gpu(request).map_or_else(
                || Reply::Refused(self.vacancy.refusal(Reason::Stranger, Bytes::ZERO, Bytes::ZERO)),
                |margin| Reply::Learned { margin },
            )),
        }
    }

    fn release(&mut self, request: &Request, id: u64) -> Reply {
        let Some(reservation) = self.find(&request.caller, id) else { return Reply::NoSuchReservation };
        reservation.stage = Stage::Released;
        Reply::Released
    }

    /// Of workloads only: whoever has many cgroups could fill what is remembered.
    fn learn(&mut self, request: &Request, cgroup: &WorkloadId) -> Reply {
        let known = workload_of(self.sample, cgroup).map(|(id, _)| id);
        if known.is_none() && request.caller != Caller::Root {
            return Reply::Refused(self.vacancy.refusal(Reason::Stranger, Bytes::ZERO, Bytes::ZERO));
        }
        let path = known.map_or(&cgroup.path, |id| &id.path);
        Reply::Learned { margin: self.desk.failed(path, 1, self.sample.at) }
    }

    /// Does something to the caller's own reservation, which is also a sign of life until it is committed.
    fn with(&mut self, request: &Request, id: u64, change: impl FnOnce(&mut Reservation)) -> Reply {
        let at = self.sample.at;
        let Some(reservation) = self.find(&request.caller, id) else { return Reply::NoSuchReservation };
        if reservation.stage == Stage::Granted {
            reservation.until = at + reservation.ttl;
            reservation.heard = at;
        }
        change(reservation);
        Reply::Done { unsettled: reservation.unsettled(), ttl: reservation.until.since(at) }
    }

    /// One that was committed and is to grow is being loaded again.
    fn amend(&mut self, request: &Request, id: u64, bytes: Bytes) -> Reply {
        let Some(holder) = self.find(&request.caller, id).map(|r| r.holder.clone()) else {
            return Reply::NoSuchReservation;
        };
        self.vacancy.reserved = self.desk.reserved();
        let (vacancy, ahead) = (self.vacancy, self.ahead_of(&holder));
        let promised = self.promise(&holder, bytes);
        let at = self.sample.at;
        let Some(reservation) = self.find(&request.caller, id) else { return Reply::NoSuchReservation };
        let unsettled = promised.saturating_sub(reservation.settled);
        let more = unsettled.saturating_sub(reservation.unsettled());
        if more > Bytes::ZERO {
            if let Err(reason) = vacancy.admit(more, ahead) {
                return Reply::Refused(vacancy.refusal(reason, bytes, more));
            }
            reservation.stage = Stage::Granted;
        }
        (reservation.asked, reservation.promised) = (bytes, promised);
        reservation.until = at + reservation.ttl;
        Reply::Done { unsettled, ttl: reservation.ttl }
    }

    fn withdraw(&mut self, ticket: u64) {
        self.desk.waiting.retain(|w| w.ticket != ticket);
        for reservation in self.desk.live().filter(|r| r.ticket == ticket && r.stage == Stage::Granted) {
            reservation.stage = Stage::Released;
        }
    }

    fn find(&mut self, caller: &Caller, id: u64) -> Option<&mut Reservation> {
        let sample = self.sample;
        self.desk.live().find(|r| r.id == id && may(sample, caller, &r.holder))
    }
}

/// Whether a caller speaks for a holder: the same cgroup, or both within the same workload.
fn may(sample: &Sample, caller: &Caller, holder: &WorkloadId) -> bool {
    let Caller::Cgroup(cgroup) = caller else { return true };
    let workload = |id| workload_of(sample, id).map(|(id, _)| id);
    cgroup == holder || workload(cgroup).is_some_and(|of| Some(of) == workload(holder))
}
