//! Who gets room: the highest priority first, among equals who asked first. Nobody overtakes within the bytes that somebody
//! before him waits for, or a large model would wait for ever while small ones come and go.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::answer::{Reason, Reply};
use super::desk::{Hold, Reservation, Stage, Waiting};
use super::device::{Ahead, Denied};
use super::request::{Caller, Reserve};
use super::settle::{begin, workload_of};
use super::{Session, claims};
use crate::gpu::GpuId;
use crate::sample::WorkloadId;
use crate::units::{Bytes, Monotonic, Span};

/// Nobody keeps a place in the queue for longer.
pub(super) const LONGEST_WAIT: Span = Span::secs(3600);
/// Whoever needs heartbeats more often than this, or forgets them for longer, is mistaken.
const TTL: (Span, Span) = (Span::secs(1), Span::secs(3600));
/// Reservations of one holder, and requests that wait: a server loads one model at a time, or a few.
const OF_ONE: usize = 16;
/// Reservations in all, and requests that wait.
const IN_ALL: usize = 256;

/// What there is room for.
struct Found {
    size: Bytes,
    promised: Bytes,
    gpus: BTreeMap<GpuId, Hold>,
}

impl Session<'_> {
    /// Grants what fits, and refuses what fits not and waits no longer.
    pub(super) fn serve(&mut self) {
        let mut queue = std::mem::take(&mut self.desk.waiting);
        queue.sort_by_cached_key(|w| (Reverse(self.priority(&w.wants)), w.ticket));
        let mut ahead = Ahead::default();
        for mut waiting in queue {
            match self.choose(&waiting, &ahead) {
                Ok(room) => self.grant(&waiting, room),
                Err(denied) if denied.reason.may_pass() && waiting.deadline > self.sample.at => {
                    if denied.reason != Reason::Stranger {
                        self.line_up(&waiting.wants, &mut ahead);
                    }
                    waiting.lacks = denied.gpu;
                    self.desk.waiting.push(waiting);
                }
                Err(denied) => {
                    let refusal = self.refusal(&denied, &waiting.wants);
                    self.say(waiting.ticket, Reply::Refused(refusal));
                }
            }
        }
    }

    /// Adds what somebody waits for to what others have to leave to him.
    pub(super) fn line_up(&self, wants: &Reserve, ahead: &mut Ahead) {
        let (_, holds) = self.of_gpus(wants, ahead);
        ahead.add(self.least(wants).1, &holds);
    }

    /// The first size that fits, with what is to be held for it; of the GPUs all that is asked for.
    fn choose(&self, waiting: &Waiting, ahead: &Ahead) -> Result<Found, Denied> {
        let wants = &waiting.wants;
        let stranger = waiting.caller != Caller::Root && workload_of(self.sample, &wants.holder).is_none();
        if stranger {
            return Err(Reason::Stranger.into());
        }
        if self.has_too_many(&wants.holder) {
            return Err(Reason::TooMany.into());
        }
        let (unified, gpus) = self.of_gpus(wants, ahead);
        let admit = |size: Bytes| {
            let promised = self.promise(&wants.holder, size + unified);
            // Whoever asks for nothing but GPU memory need not wait for those who want the host's.
            let nothing = promised == Bytes::ZERO && !gpus.is_empty();
            let admitted = if nothing { Ok(()) } else { self.vacancy.admit(promised, ahead.host) };
            admitted.map(|()| (size, promised))
        };
        let fits = wants.sizes.iter().find_map(|&size| admit(size).ok());
        let host = fits.map_or_else(|| admit(least_size(wants)), Ok);
        match (host, self.admit_on_gpus(&gpus, ahead)) {
            (Ok((size, promised)), Ok(())) => Ok(Found { size, promised, gpus }),
            (Err(reason), Err(denied)) if reason.may_pass() => Err(denied),
            (Err(reason), _) => Err(reason.into()),
            (Ok(_), Err(denied)) => Err(denied),
        }
    }

    fn has_too_many(&self, holder: &WorkloadId) -> bool {
        let reserved = self.desk.reservations.iter().filter(|r| !r.stage.is_over()).map(|r| &r.holder);
        let all: Vec<_> = reserved.chain(self.desk.waiting.iter().map(|w| &w.wants.holder)).collect();
        all.len() >= IN_ALL || all.iter().filter(|h| **h == holder).count() >= OF_ONE
    }

    fn grant(&mut self, waiting: &Waiting, Found { size, promised, mut gpus }: Found) {
        let Waiting { ticket, wants, .. } = waiting;
        begin(self.config, self.desk, self.sample, &wants.holder, wants.current);
        claims::begin(self.desk, self.sample, &wants.holder, &mut gpus);
        for (gpu, hold) in &gpus {
            if let Some(vacancy) = self.devices.get_mut(gpu) {
                vacancy.reserved = vacancy.reserved + hold.promised;
            }
        }
        let held = gpus.iter().map(|(gpu, hold)| (gpu.clone(), hold.promised)).collect();
        self.desk.last = self.desk.last.saturating_add(1);
        let (id, at) = (self.desk.last, self.sample.at);
        let ttl = wants.ttl.unwrap_or(self.config.admission.ttl).clamp(TTL.0, TTL.1);
        self.desk.reservations.push(Reservation {
            id,
            ticket: *ticket,
            holder: wants.holder.clone(),
            stage: Stage::Granted,
            asked: size,
            promised,
            settled: Bytes::ZERO,
            gpus,
            since: at,
            grew: at,
            heard: at,
            until: at + ttl,
            ttl,
            detached: wants.detached,
            lived: wants.populated,
        });
        self.vacancy.reserved = self.vacancy.reserved + promised;
        self.say(*ticket, Reply::Granted { id, bytes: size, promised, gpus: held, ttl });
    }

    /// The least that would do, and what would be held for it.
    pub(super) fn least(&self, wants: &Reserve) -> (Bytes, Bytes) {
        let size = least_size(wants);
        let (unified, _) = self.of_gpus(wants, &Ahead::default());
        (size, self.promise(&wants.holder, size + unified))
    }

    /// A size with the error that its holder is known for.
    pub(super) fn promise(&self, holder: &WorkloadId, size: Bytes) -> Bytes {
        let path = workload_of(self.sample, holder).map_or(&holder.path, |(id, _)| &id.path);
        size + size.share(self.desk.error(path, self.at()))
    }

    /// What those wait for who are as important as this holder or more.
    pub(super) fn ahead_of(&self, holder: &WorkloadId) -> Bytes {
        let priority = workload_of(self.sample, holder).map_or(0, |(_, w)| w.spec.priority);
        let before = self.desk.waiting.iter().filter(|w| self.priority(&w.wants) >= priority);
        before.map(|w| self.least(&w.wants).1).sum()
    }

    fn priority(&self, wants: &Reserve) -> i32 {
        workload_of(self.sample, &wants.holder).map_or(wants.priority, |(_, w)| w.spec.priority)
    }

    fn at(&self) -> Monotonic {
        self.sample.at
    }
}

fn least_size(wants: &Reserve) -> Bytes {
    wants.sizes.iter().copied().min().unwrap_or_default()
}
