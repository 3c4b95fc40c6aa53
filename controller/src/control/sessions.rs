//! The programs that can be asked: who registered, what they offer, and what is asked of them at the moment.
//!
//! The lock is held for moments only, never over I/O or an await.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use plimsoll_policy::concession::{Level, Offer, Prospect};
use plimsoll_policy::sample::WorkloadId;
use tokio::sync::{oneshot, watch};

use super::protocol::ControlRefusal;
use super::way::ClientWay;
use crate::ask::way::{Answered, Asking, WayError};
use crate::ask::{Registered, Ways};

/// Programs in all. A node has tens of models, and a model a few workers.
const SESSIONS: usize = 256;
/// Of these, so many of one user that is not root.
const OF_A_USER: usize = 64;

/// What a program says when it is asked.
pub(super) type Said = Result<Answered, WayError>;

/// What is asked of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// With the level that this program has to offer.
    pub(super) asking: Asking,
    /// When the time for it is over.
    pub(super) until: Instant,
}

/// What there is to be told to one program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Errand {
    /// What it is asked.
    pub(super) wanted: Option<Wanted>,
    /// The number of the request that it answered last: of that one it need not be told that it is over.
    pub(super) answered: Option<u64>,
}

/// What a program wants to be known for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) levels: BTreeMap<Level, Prospect>,
    pub(super) gated: bool,
}

impl Offered {
    /// The most that it can do of this: a level includes those before it.
    fn at(&self, level: Level) -> Option<(Level, &Prospect)> {
        self.levels.range(..=level).next_back().map(|(level, prospect)| (*level, prospect))
    }

    /// Whether it can be on a level that has to be undone.
    fn can_leave(&self) -> bool {
        self.levels.range(Level::Offload..).next().is_some()
    }
}

#[derive(Debug)]
struct Session {
    workload: WorkloadId,
    user: u32,
    offered: Offered,
    inflight: Option<u32>,
    /// As it said last.
    level: Level,
    /// It has a stream on which it hears of requests.
    listens: bool,
    errand: watch::Sender<Errand>,
    answer: Option<oneshot::Sender<Said>>,
    /// What it said to the last request that it answered.
    said: Option<(u64, Said)>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Sessions {
    book: Mutex<Book>,
    ways: Ways,
}

#[derive(Debug, Default)]
struct Book {
    last: u64,
    all: BTreeMap<u64, Session>,
    /// The way to ask, of each workload that has a program here.
    ways: BTreeMap<WorkloadId, Registered>,
}

impl Book {
    fn of<'a>(&'a self, workload: &'a WorkloadId) -> impl Iterator<Item = &'a Session> {
        self.all.values().filter(move |session| session.workload == *workload)
    }

    /// What they offer together is another thing now.
    fn changed(&self, workload: &WorkloadId) {
        if let Some(way) = self.ways.get(workload) {
            way.changed();
        }
    }

    /// The session of this number, if it is one of this workload.
    fn find(&mut self, id: u64, workload: &WorkloadId) -> Result<&mut Session, ControlRefusal> {
        let session = self.all.get_mut(&id).filter(|session| session.workload == *workload);
        session.ok_or(ControlRefusal::NoSuchSession { session: id })
    }
}

impl Sessions {
    /// The programs are made known here.
    #[must_use]
    pub fn new(ways: Ways) -> Self {
        Self { book: Mutex::default(), ways }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a program in.
    pub(super) fn open(
        self: &Arc<Self>,
        workload: &WorkloadId,
        user: u32,
        offered: Offered,
    ) -> Result<u64, ControlRefusal> {
        let mut book = self.book();
        let of_user = book.all.values().filter(|session| session.user == user).count();
        let most = if user == 0 { SESSIONS } else { OF_A_USER };
        if book.all.len() >= SESSIONS || of_user >= most {
            let message = format!("there are {most} programs already");
            return Err(ControlRefusal::TooManySessions { message });
        }
        book.last += 1;
        let id = book.last;
        let session = Session {
            workload: workload.clone(),
            user,
            offered,
            inflight: None,
            level: Level::Nothing,
            listens: false,
            errand: watch::Sender::default(),
            answer: None,
            said: None,
        };
        book.all.insert(id, session);
        let way = || ClientWay { sessions: Arc::clone(self), workload: workload.clone() };
        let register = || self.ways.register(workload, Arc::new(way()));
        book.ways.entry(workload.clone()).or_insert_with(register).changed();
        Ok(id)
    }

    /// A program registers anew on its connection: its number and what it is on stay.
    pub(super) fn replace(
        &self,
        id: u64,
        workload: &WorkloadId,
        offered: Offered,
    ) -> Result<(), ControlRefusal> {
        let mut book = self.book();
        book.find(id, workload)?.offered = offered;
        book.changed(workload);
        Ok(())
    }

    /// Its connection is gone. Whoever waits for its answer hears of it.
    pub(super) fn close(&self, id: u64) {
        let mut book = self.book();
        let Some(Session { workload, .. }) = book.all.remove(&id) else { return };
        if book.of(&workload).next().is_none() {
            book.ways.remove(&workload);
        }
        book.changed(&workload);
    }

    /// It has a stream: what is asked of it comes here.
    pub(super) fn listen(&self, id: u64) -> Option<watch::Receiver<Errand>> {
        let mut book = self.book();
        let session = book.all.get_mut(&id)?;
        session.listens = true;
        let (workload, errand) = (session.workload.clone(), session.errand.subscribe());
        book.changed(&workload);
        Some(errand)
    }

    /// It answers.
    pub(super) fn acknowledge(
        &self,
        id: u64,
        workload: &WorkloadId,
        request: u64,
        said: Said,
    ) -> Result<(), ControlRefusal> {
        let mut book = self.book();
        let session = book.find(id, workload)?;
        let asked = session.errand.borrow().wanted.as_ref().map(|wanted| wanted.asking.clone());
        let asked = asked.filter(|asking| asking.number == request);
        let Some((asking, answer)) = asked.zip(session.answer.take()) else {
            return Err(ControlRefusal::NoSuchRequest { request });
        };
        // The gentler levels are done once, and nothing stays to be undone.
        if said.is_ok() && (asking.level == Level::Nothing || asking.level >= Level::Offload) {
            session.level = asking.level;
        }
        session.said = Some((request, said.clone()));
        session.errand.send_replace(Errand { wanted: None, answered: Some(request) });
        book.changed(workload);
        // Whoever asked may have lost his patience at this very moment.
        let _ = answer.send(said);
        Ok(())
    }

    /// How many requests it is serving.
    pub(super) fn serve(&self, id: u64, workload: &WorkloadId, requests: u32) -> Result<(), ControlRefusal> {
        let mut book = self.book();
        let before = book.find(id, workload)?.inflight.replace(requests);
        // How many they are is looked up now and then; whether it is busy at all is worth a look at once.
        if before.is_none_or(|before| (before == 0) != (requests == 0)) {
            book.changed(workload);
        }
        Ok(())
    }

    /// How many programs of a workload are registered.
    pub(super) fn count(&self, workload: &WorkloadId) -> usize {
        self.book().of(workload).count()
    }

    /// What all programs of a workload offer together; nothing where there is none.
    pub(super) fn offer(&self, workload: &WorkloadId) -> Offer {
        let book = self.book();
        let able = || book.of(workload).filter(|s| s.listens && !s.offered.levels.is_empty());
        let mut offer = Offer::default();
        for level in Level::ALL {
            if able().any(|session| session.offered.levels.contains_key(&level)) {
                let all = able().filter_map(|session| session.offered.at(level));
                let all: Vec<_> = all.map(|(_, prospect)| prospect).collect();
                offer.levels.insert(level, together(&all));
            }
        }
        let said = able().filter_map(|session| session.inflight);
        offer.inflight = said.reduce(u32::saturating_add);
        offer.level = able().filter(|session| session.offered.can_leave()).map(|session| session.level).min();
        offer.busy = able().find_map(|s| Some(s.errand.borrow().wanted.as_ref()?.asking.number));
        offer.gated = able().next().is_some() && able().all(|session| session.offered.gated);
        offer
    }

    /// Asks every program of a workload that has something to give. Whoever has answered this number already is not asked again.
    pub(super) fn ask(
        &self,
        workload: &WorkloadId,
        asking: &Asking,
    ) -> Result<Vec<oneshot::Receiver<Said>>, WayError> {
        let mut book = self.book();
        let until = Instant::now() + asking.deadline;
        let mut answers = Vec::new();
        let mut deaf = 0;
        for session in book.all.values_mut().filter(|session| session.workload == *workload) {
            let level = match asking.level {
                Level::Nothing => session.offered.can_leave().then_some(Level::Nothing),
                level => session.offered.at(level).map(|(level, _)| level),
            };
            let Some(level) = level else { continue };
            if !session.listens {
                deaf += 1;
                continue;
            }
            let (answer, told) = oneshot::channel();
            match &session.said {
                Some((number, said)) if *number == asking.number => drop(answer.send(said.clone())),
                _ => {
                    let asking = Asking { level, ..asking.clone() };
                    session.answer = Some(answer);
                    session.errand.send_modify(|errand| errand.wanted = Some(Wanted { asking, until }));
                }
            }
            answers.push(told);
        }
        match answers.is_empty() {
            false => Ok(answers),
            true if deaf > 0 => Err(WayError::Unreachable("it registered and does not listen".into())),
            true => Err(WayError::NotOffered(asking.level)),
        }
    }

    /// Nobody waits for the answers to this any more.
    pub(super) fn withdraw(&self, workload: &WorkloadId, number: u64) {
        for session in self.book().all.values_mut().filter(|session| session.workload == *workload) {
            let withdrawn = session.errand.send_if_modified(|errand| {
                errand.wanted.take_if(|wanted| wanted.asking.number == number).is_some()
            });
            if withdrawn {
                session.answer = None;
            }
        }
    }
}

/// What several give: the sum of what is known, and as long as the slowest takes.
fn together(all: &[&Prospect]) -> Prospect {
    let gains = all.iter().filter_map(|prospect| prospect.gains.clone()).reduce(super::way::sum);
    Prospect { gains, takes: all.iter().filter_map(|prospect| prospect.takes).max() }
}
