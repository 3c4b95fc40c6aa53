//! What a subscriber is told: the difference between what he was told last and how it stands now, one notice at a time.
//!
//! It is worked out when he is ready to read, so a slow one is spared what came and went meanwhile, and nothing has to be kept for him.

use std::collections::BTreeMap;
use std::time::Instant;

use plimsoll_policy::assess::thrashing::ThrashState;
use plimsoll_policy::concession::Level;
use plimsoll_policy::plan::Tier;
use serde::Serialize;

use super::conditions::Conditions;
use super::sessions::{Errand, Wanted};

/// The parameters of one reply to `Subscribe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct News {
    notice: Notice,
}

/// One notice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Notice {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<OtherTier>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thrash: Option<OtherThrash>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Request>,
    #[serde(skip_serializing_if = "Option::is_none")]
    withdrawn: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shutdown: Option<Shutdown>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct OtherTier {
    resource: String,
    tier: &'static str,
    previous: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct OtherThrash {
    state: &'static str,
    previous: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    id: u64,
    level: &'static str,
    resources: Vec<String>,
    bytes: u64,
    deadline_milliseconds: u64,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Shutdown {
    seconds: u64,
    reason: &'static str,
}

impl News {
    /// The last one of every stream that the daemon ends.
    pub(super) fn stopping() -> Self {
        let shutdown = Some(Shutdown { seconds: 0, reason: "plimsoll stops" });
        Self { notice: Notice { kind: "shutdown", shutdown, ..Notice::default() } }
    }

    fn request(wanted: &Wanted, now: Instant) -> Self {
        let asking = &wanted.asking;
        let gpus = asking.gpus.iter().map(|gpu| format!("gpu:{gpu}"));
        let host = asking.gpus.is_empty().then(|| "host".to_owned());
        let left = wanted.until.saturating_duration_since(now);
        let request = Some(Request {
            id: asking.number,
            level: if asking.level == Level::Nothing { "restore" } else { asking.level.name() },
            resources: gpus.chain(host).collect(),
            bytes: asking.wanted,
            deadline_milliseconds: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            reason: asking.reason.clone(),
        });
        Self { notice: Notice { kind: "request", request, ..Notice::default() } }
    }
}

/// What one subscriber knows.
#[derive(Debug, Default)]
pub(super) struct Told {
    tiers: BTreeMap<String, Tier>,
    thrash: Option<ThrashState>,
    request: Option<u64>,
}

impl Told {
    /// The next thing to be told, which counts as told from now on; `None` where nothing is left. What is asked comes first: it
    /// has a deadline.
    pub(super) fn next(&mut self, how: &Conditions, errand: &Errand, now: Instant) -> Option<News> {
        self.of_request(errand, now).or_else(|| self.of_thrash(how)).or_else(|| self.of_tier(how))
    }

    fn of_request(&mut self, errand: &Errand, now: Instant) -> Option<News> {
        let wanted = errand.wanted.as_ref();
        let number = wanted.map(|wanted| wanted.asking.number);
        if number == self.request {
            return None;
        }
        if let Some(withdrawn) = self.request.take().filter(|told| errand.answered != Some(*told)) {
            let notice = Notice { kind: "withdrawn", withdrawn: Some(withdrawn), ..Notice::default() };
            return Some(News { notice });
        }
        self.request = number;
        wanted.map(|wanted| News::request(wanted, now))
    }

    fn of_thrash(&mut self, how: &Conditions) -> Option<News> {
        let before = self.thrash.replace(how.thrash);
        if before == Some(how.thrash) {
            return None;
        }
        let previous = before.unwrap_or(how.thrash).name();
        let thrash = Some(OtherThrash { state: how.thrash.name(), previous });
        Some(News { notice: Notice { kind: "thrash", thrash, ..Notice::default() } })
    }

    fn of_tier(&mut self, how: &Conditions) -> Option<News> {
        // A GPU that is lost has no tier; should it come back, that is news.
        self.tiers.retain(|resource, _| how.tiers().any(|(known, _)| known == *resource));
        let (resource, tier) = how.tiers().find(|(resource, tier)| self.tiers.get(resource) != Some(tier))?;
        let previous = self.tiers.insert(resource.clone(), tier).unwrap_or(tier).name();
        let tier = Some(OtherTier { resource, tier: tier.name(), previous });
        Some(News { notice: Notice { kind: "tier", tier, ..Notice::default() } })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::ask::way::Asking;

    fn all(told: &mut Told, how: &Conditions, errand: &Errand, now: Instant) -> Vec<Value> {
        std::iter::from_fn(|| told.next(how, errand, now))
            .map(|news| serde_json::to_value(news).unwrap()["notice"].clone())
            .collect()
    }

    fn tier(resource: &str, tier: &str, previous: &str) -> Value {
        json!({ "kind": "tier", "tier": { "resource": resource, "tier": tier, "previous": previous } })
    }

    #[test]
    fn everything_is_told_once_and_then_what_changes() {
        let (mut told, now) = (Told::default(), Instant::now());
        let mut how = Conditions { gpus: [("GPU-a".into(), Tier::Elevated)].into(), ..Conditions::default() };
        let thrash =
            |state, previous| json!({ "kind": "thrash", "thrash": { "state": state, "previous": previous } });
        let first = [
            thrash("healthy", "healthy"),
            tier("host", "normal", "normal"),
            tier("gpu:GPU-a", "elevated", "elevated"),
        ];
        assert_eq!(all(&mut told, &how, &Errand::default(), now), first);
        assert_eq!(all(&mut told, &how, &Errand::default(), now), [] as [Value; 0]);
        // It went by way of critical; whoever did not look then is told where it is.
        how.host = Tier::Critical;
        how.host = Tier::Elevated;
        how.thrash = ThrashState::Thrashing;
        let then = [thrash("thrashing", "healthy"), tier("host", "elevated", "normal")];
        assert_eq!(all(&mut told, &how, &Errand::default(), now), then);
        how.gpus.clear();
        assert_eq!(all(&mut told, &how, &Errand::default(), now), [] as [Value; 0]);
    }

    #[test]
    fn a_request_is_told_with_what_is_left_of_its_time_and_taken_back() {
        let (mut told, now) = (Told::default(), Instant::now());
        let how = Conditions::default();
        all(&mut told, &how, &Errand::default(), now);
        let asking = |number, level, gpus| Asking {
            number,
            level,
            gpus,
            wanted: 5,
            deadline: Duration::from_secs(9),
            reason: "short".into(),
        };
        let wanted = |asking, answered| Errand {
            wanted: Some(Wanted { asking, until: now + Duration::from_secs(9) }),
            answered,
        };
        let one = wanted(asking(1, Level::Gc, vec![]), None);
        let later = now + Duration::from_secs(2);
        let request = json!({ "kind": "request", "request": {
            "id": 1, "level": "gc", "resources": ["host"], "bytes": 5, "deadlineMilliseconds": 7000, "reason": "short",
        }});
        assert_eq!(all(&mut told, &how, &one, later), [request]);
        let two = wanted(asking(2, Level::Nothing, vec!["GPU-a".into()]), None);
        let notices = all(&mut told, &how, &two, later);
        assert_eq!(notices[0], json!({ "kind": "withdrawn", "withdrawn": 1 }));
        assert_eq!(
            (&notices[1]["request"]["level"], &notices[1]["request"]["resources"]),
            (&json!("restore"), &json!(["gpu:GPU-a"]))
        );
        assert_eq!(
            all(&mut told, &how, &Errand::default(), later),
            [json!({ "kind": "withdrawn", "withdrawn": 2 })]
        );
        let three = wanted(asking(3, Level::Gc, vec![]), None);
        assert_eq!(all(&mut told, &how, &three, later).len(), 1);
        let answered = Errand { wanted: None, answered: Some(3) };
        assert_eq!(all(&mut told, &how, &answered, later), [] as [Value; 0], "it knows that it answered");
    }
}
