//! Who waits for an answer of the pass.

use std::collections::BTreeMap;

use plimsoll_policy::admission::{Answer, Reply, Request};
use tokio::sync::oneshot;

use crate::control::Asked;

/// Where answers go, by the number of the call.
#[derive(Debug, Default)]
pub(super) struct Callers(BTreeMap<u64, oneshot::Sender<Reply>>);

impl Callers {
    /// Remembers whom to answer, and gives what the policy has to know.
    pub(super) fn take(&mut self, asked: Asked) -> Request {
        let Asked { request, answer } = asked;
        self.0.insert(request.ticket, answer);
        request
    }

    /// Answers, and never waits. Whoever is gone has said so by another call.
    pub(super) fn tell(&mut self, answers: &[Answer]) {
        for Answer { ticket, reply } in answers {
            if let Some(caller) = self.0.remove(ticket) {
                let _ = caller.send(reply.clone());
            }
        }
        self.0.retain(|_, caller| !caller.is_closed());
    }
}
