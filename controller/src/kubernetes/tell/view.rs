//! What is read of a node: its taints, kept as they are, and our condition.

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::condition::CONDITION;
use super::taint::{Effect, TAINT};

/// A node as the API server has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct View {
    metadata: Metadata,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    resource_version: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    /// Whole and uninterpreted: other people's taints are given back as they came.
    taints: Option<Vec<Value>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Option<Vec<Condition>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Condition {
    r#type: String,
    status: String,
    last_transition_time: Option<Timestamp>,
}

impl View {
    /// What our taint does at present.
    pub(super) fn effect(&self) -> Option<Effect> {
        self.taints().iter().filter(|taint| is_ours(taint)).filter_map(Effect::of).max()
    }

    /// Whether our condition holds at present, and since when; `None` where there is none.
    pub(super) fn condition(&self) -> Option<(bool, Option<Timestamp>)> {
        let ours = self.status.conditions.iter().flatten().find(|condition| condition.r#type == CONDITION)?;
        Some((ours.status == "True", ours.last_transition_time))
    }

    /// The patch that makes our taint this one; `None` where it is so already. It names the version that it is made from, so that it
    /// fails where anybody changed the node meanwhile.
    pub(super) fn with(&self, effect: Option<Effect>) -> Option<Value> {
        let mut taints: Vec<Value> = self.taints().iter().filter(|taint| !is_ours(taint)).cloned().collect();
        taints.extend(effect.map(|effect| json!({ "key": TAINT, "effect": effect.name() })));
        let same = self.effect() == effect && taints.len() == self.taints().len();
        let version = &self.metadata.resource_version;
        (!same).then(|| json!({ "metadata": { "resourceVersion": version }, "spec": { "taints": taints } }))
    }

    fn taints(&self) -> &[Value] {
        self.spec.taints.as_deref().unwrap_or_default()
    }
}

fn is_ours(taint: &Value) -> bool {
    taint["key"] == TAINT
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(taints: &Value) -> View {
        serde_json::from_value(json!({
            "metadata": { "name": "n1", "resourceVersion": "77" }, "spec": { "taints": taints },
            "status": { "conditions": [
                { "type": "Ready", "status": "True" },
                { "type": CONDITION, "status": "True", "lastTransitionTime": "2026-11-22T11:14:00Z" },
            ] },
        }))
        .unwrap()
    }

    #[test]
    fn other_peoples_taints_are_given_back_as_they_came() {
        let theirs = json!({ "key": "a", "effect": "NoExecute", "timeAdded": "2026-11-22T11:14:00Z", "new": { "field": 1 } });
        let ours = |effect: &str| json!({ "key": TAINT, "effect": effect });
        let check = |before: Value, effect, after: Option<Value>| {
            let patch = node(&before).with(effect);
            assert_eq!(patch.as_ref().map(|patch| &patch["spec"]["taints"]), after.as_ref());
            assert!(patch.is_none_or(|patch| patch["metadata"]["resourceVersion"] == "77"));
        };
        check(json!([theirs]), None, None);
        check(Value::Null, None, None);
        check(Value::Null, Some(Effect::NoSchedule), Some(json!([ours("NoSchedule")])));
        check(json!([theirs]), Some(Effect::NoSchedule), Some(json!([theirs, ours("NoSchedule")])));
        check(json!([ours("PreferNoSchedule"), theirs]), Some(Effect::PreferNoSchedule), None);
        check(
            json!([ours("PreferNoSchedule"), theirs]),
            Some(Effect::NoSchedule),
            Some(json!([theirs, ours("NoSchedule")])),
        );
        check(json!([ours("NoSchedule"), theirs]), None, Some(json!([theirs])));
        // Somebody set ours with another effect beside it.
        check(
            json!([ours("NoSchedule"), ours("NoExecute")]),
            Some(Effect::NoSchedule),
            Some(json!([ours("NoSchedule")])),
        );
    }

    #[test]
    fn our_condition_is_found_among_others() {
        let (holds, since) = node(&Value::Null).condition().unwrap();
        assert!(holds && since.is_some());
        assert!(View::default().condition().is_none());
        serde_json::from_value::<View>(json!({ "spec": {}, "status": {} })).unwrap();
    }
}
