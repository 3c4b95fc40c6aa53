//! What admission promised, to whom, and whom it refused: for `/status` and for totals.

use std::collections::BTreeMap;

use plimsoll_policy::admission::{Reason, Reply, Reservation, Stage, Waiting};
use plimsoll_policy::plan::Plan;
use plimsoll_policy::units::{Monotonic, Span};
use serde::{Deserialize, Serialize};

use super::state::State;

/// Admission at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdmissionStatus {
    /// Promised and not used yet.
    pub reserved_bytes: u64,
    /// Every reservation.
    pub reservations: Vec<ReservationStatus>,
    /// Who waits for room, whoever comes first at the top.
    pub waiting: Vec<WaitingStatus>,
    /// Requests granted since the start.
    pub granted: u64,
    /// Requests refused since the start, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// One reservation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReservationStatus {
    /// Its number.
    pub id: u64,
    /// The cgroup that will be charged.
    pub cgroup: String,
    /// Where it stands.
    pub stage: Stage,
    /// What was granted.
    pub size_bytes: u64,
    /// What of it is not used yet.
    pub unsettled_bytes: u64,
    /// Until it ends without a sign of life.
    pub expires_seconds: f64,
}

/// One request that waits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaitingStatus {
    /// The cgroup that would be charged.
    pub cgroup: String,
    /// The least that would do.
    pub size_bytes: u64,
    /// For so long it has waited.
    pub since_seconds: f64,
    /// Until it is refused.
    pub left_seconds: f64,
}

/// Sums since the start.
#[derive(Debug, Default)]
pub(super) struct AdmissionTotals {
    pub(super) granted: u64,
    pub(super) refused: BTreeMap<Reason, u64>,
    /// By how they ended.
    pub(super) ended: BTreeMap<Stage, u64>,
}

impl AdmissionTotals {
    pub(super) fn pass(&mut self, plan: &Plan) {
        for answer in &plan.answers {
            match &answer.reply {
                Reply::Granted { .. } => self.granted += 1,
                Reply::Refused(refusal) => *self.refused.entry(refusal.reason).or_default() += 1,
                _ => {}
            }
        }
        // One that ended is in the plan of one pass only.
        for reservation in plan.reservations.iter().filter(|r| r.stage.is_over()) {
            *self.ended.entry(reservation.stage).or_default() += 1;
        }
    }
}

impl From<&State> for AdmissionStatus {
    fn from(state: &State) -> Self {
        let totals = &state.totals.admission;
        let refused = totals.refused.iter().map(|(reason, count)| (reason.name().to_owned(), *count));
        let totals = Self { granted: totals.granted, refused: refused.collect(), ..Self::default() };
        let Some((_, record)) = &state.last else { return totals };
        let (now, plan) = (record.sample.at, &record.plan);
        let live = plan.reservations.iter().filter(|r| !r.stage.is_over());
        Self {
            reserved_bytes: plan.reservations.iter().map(|r| r.unsettled().0).sum(),
            reservations: live.map(|r| reservation(r, now)).collect(),
            waiting: plan.waiting.iter().map(|w| waiting(w, now)).collect(),
            ..totals
        }
    }
}

fn reservation(reservation: &Reservation, now: Monotonic) -> ReservationStatus {
    ReservationStatus {
        id: reservation.id,
        cgroup: reservation.holder.path.to_string(),
        stage: reservation.stage,
        size_bytes: reservation.asked.0,
        unsettled_bytes: reservation.unsettled().0,
        expires_seconds: seconds(reservation.until.since(now)),
    }
}

fn waiting(waiting: &Waiting, now: Monotonic) -> WaitingStatus {
    WaitingStatus {
        cgroup: waiting.wants.holder.path.to_string(),
        size_bytes: waiting.wants.sizes.iter().min().map_or(0, |size| size.0),
        since_seconds: seconds(now.since(waiting.since)),
        left_seconds: seconds(waiting.deadline.since(now)),
    }
}

fn seconds(span: Span) -> f64 {
    span.as_secs_f64()
}
