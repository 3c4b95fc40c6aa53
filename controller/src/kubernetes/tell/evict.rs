//! Handing a pod to another node: the Eviction API, which honours disruption budgets.

use hyper::Method;
use plimsoll_policy::plan::ActResult;
use plimsoll_policy::units::{Monotonic, Span};
use serde_json::{Value, json};

use super::call::{Call, CallError, JSON};
use super::counts::What;
use crate::kubernetes::PodRef;

/// What the pass wants to have evicted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Order {
    pub(super) pod: PodRef,
    /// How long it may take to end.
    pub(super) grace: Option<Span>,
    pub(super) begun: Monotonic,
}

/// How that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Evicted {
    pub(super) uid: String,
    pub(super) result: ActResult,
    pub(super) begun: Monotonic,
    pub(super) took: Span,
}

impl Order {
    /// The request. Its body says no version, so that servers before and after policy/v1 take it; kube's own writes
    /// `delete_options`, which servers pass over, and with it the UID and the grace.
    pub(super) fn call(&self) -> Call {
        let PodRef { namespace, pod, uid, .. } = &self.pod;
        let mut options = json!({ "preconditions": { "uid": uid } });
        if let Some(grace) = self.grace {
            // None at all would be a kill.
            options["gracePeriodSeconds"] = grace.0.div_ceil(1_000_000_000).max(1).into();
        }
        Call {
            what: What::Evict,
            method: Method::POST,
            path: format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction"),
            content: JSON,
            body: json!({ "metadata": { "name": pod, "namespace": namespace }, "deleteOptions": options }),
        }
    }
}

/// What an answer means.
pub(super) fn result(answer: &Result<Value, CallError>) -> ActResult {
    match answer {
        Ok(_) => ActResult::Done,
        Err(CallError::Answered { code: 429, status, .. }) => match status.budget() {
            Some(budget) => ActResult::Blocked(budget.into()),
            None => ActResult::Failed("the API server is busy".into()),
        },
        Err(CallError::Answered { code: 404, .. }) => ActResult::Gone,
        Err(CallError::Answered { code: 409, status, .. }) if status.said().contains("precondition") => {
            ActResult::Gone
        }
        Err(error) => ActResult::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16, body: &str) -> ActResult {
        let status = serde_json::from_str(body).unwrap();
        result(&Err(CallError::Answered { code, status, after: None }))
    }

    /// The words are those of a real API server.
    #[test]
    fn answers_are_understood() {
        assert_eq!(result(&Ok(Value::Null)), ActResult::Done);
        let budget = r#"{"message":"Cannot evict pod as it would violate the pod's disruption budget.","details":{"causes":[
            {"reason":"DisruptionBudget","message":"The disruption budget web needs 1 healthy pods and has 1 currently"}]}}"#;
        let said = "The disruption budget web needs 1 healthy pods and has 1 currently";
        assert_eq!(answered(429, budget), ActResult::Blocked(said.into()));
        assert!(matches!(answered(429, r#"{"reason":"TooManyRequests"}"#), ActResult::Failed(_)));
        assert_eq!(answered(404, r#"{"message":"pods \"nobody\" not found"}"#), ActResult::Gone);
        let another = r#"{"message":"Operation cannot be fulfilled on Pod \"batch\": the UID in the precondition (a) does not match the UID in record (b)."}"#;
        assert_eq!(answered(409, another), ActResult::Gone);
        let conflict =
            r#"{"message":"the object has been modified; please apply your changes to the latest version"}"#;
        assert!(matches!(answered(409, conflict), ActResult::Failed(_)));
        let several = r#"{"message":"This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."}"#;
        assert!(matches!(answered(500, several), ActResult::Failed(why) if why.contains("more than one")));
    }

    #[test]
    fn the_pod_is_named_by_its_uid_and_given_at_least_a_second() {
        let pod = PodRef { namespace: "a".into(), pod: "b".into(), uid: "u".into(), container: "c".into() };
        let order = |grace| Order { pod: pod.clone(), grace, begun: Monotonic(0) }.call();
        assert_eq!(order(None).path, "/api/v1/namespaces/a/pods/b/eviction");
        assert_eq!(order(None).body["deleteOptions"], json!({ "preconditions": { "uid": "u" } }));
        for (grace, seconds) in [(Span::ZERO, 1), (Span::millis(1500), 2), (Span::secs(30), 30)] {
            assert_eq!(order(Some(grace)).body["deleteOptions"]["gracePeriodSeconds"], seconds);
        }
    }
}
