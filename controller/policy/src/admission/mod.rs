//! Promises of memory: who may load a model now, decided in one place and in order.
//!
//! A reservation is bytes that a model has been promised and has not yet allocated; they count as used, so that two loaders
//! which ask at the same time are not both told that there is room. It ends by itself: every byte that its holder is seen to
//! have got is no longer promised ([`settle`]), and what shows no sign of life expires. Nobody is taken anything from to serve a
//! request: it is granted, or waits, or is refused ([`queue`]).

mod answer;
mod calls;
mod claims;
mod desk;
mod device;
mod error;
mod queue;
mod request;
mod room;
pub(crate) mod settle;
#[cfg(test)]
mod tests;

pub use answer::{Answer, GpuRoom, Reason, Refusal, Reply, Room};
pub use desk::{Desk, Hold, Reservation, Stage, Waiting};
pub use error::ErrorMargin;
pub use request::{Call, Caller, Request, Reserve};

use std::collections::BTreeMap;

use self::device::Ahead;
use self::room::Vacancy;
use crate::assess::Assessed;
use crate::config::Config;
use crate::gpu::GpuId;
use crate::sample::{Sample, Trigger};
use crate::units::Bytes;

/// One pass at the desk.
struct Session<'a> {
    config: &'a Config,
    sample: &'a Sample,
    desk: &'a mut Desk,
    vacancy: Vacancy,
    /// The same of every GPU whose memory is its own.
    devices: BTreeMap<GpuId, Vacancy>,
    answers: Vec<Answer>,
}

impl Session<'_> {
    fn say(&mut self, ticket: u64, reply: Reply) {
        self.answers.push(Answer { ticket, reply });
    }
}

/// Answers what was asked, and whoever waited and has waited long enough, be it for room or in vain.
pub(crate) fn answer(config: &Config, desk: &mut Desk, sample: &Sample, assessed: &Assessed) -> Vec<Answer> {
    if sample.requests.is_empty() && desk.waiting.is_empty() {
        return Vec::new();
    }
    let vacancy = Vacancy::of(config, assessed, desk.reserved());
    let devices = device::vacancies(config, sample, assessed, |gpu| desk.reserved_on(gpu));
    let mut session = Session { config, sample, desk, vacancy, devices, answers: Vec::new() };
    if sample.trigger == Trigger::Shutdown {
        session.send_away();
        return session.answers;
    }
    session.obey();
    session.serve();
    session.inform();
    session.answers
}

impl Session<'_> {
    /// Nobody is left without an answer.
    fn send_away(&mut self) {
        let refusal = self.vacancy.refusal(Reason::Stopping, Bytes::ZERO, Bytes::ZERO);
        let waiting = std::mem::take(&mut self.desk.waiting);
        let tickets = waiting.iter().map(|w| w.ticket).chain(self.sample.requests.iter().map(|r| r.ticket));
        for ticket in tickets {
            self.say(ticket, Reply::Refused(refusal.clone()));
        }
    }

    /// Last, with everything granted that is to be granted now.
    fn inform(&mut self) {
        let sample = self.sample;
        let mut asked = sample.requests.iter().filter(|r| r.call == Call::Headroom).peekable();
        if asked.peek().is_none() {
            return;
        }
        let mut ahead = Ahead::default();
        for waiting in &self.desk.waiting {
            self.line_up(&waiting.wants, &mut ahead);
        }
        let room = Room { gpus: self.rooms(&ahead), ..self.vacancy.room(ahead.host) };
        for request in asked {
            self.say(request.ticket, Reply::Headroom(room.clone()));
        }
    }
}
