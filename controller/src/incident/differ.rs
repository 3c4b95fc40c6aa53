//! Where two values of one shape differ: a path and both leaves.

use serde::Serialize;
use serde_json::Value;

/// One leaf that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Field names and list positions on the way to it.
    pub path: Vec<String>,
    /// In the journal; `None` = not there.
    pub was: Option<Value>,
    /// Today; `None` = not there.
    pub now: Option<Value>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = |value: &Option<Value>| value.as_ref().map_or("nothing".into(), Value::to_string);
        write!(f, "{}: was {}, is {}", self.path.join(" "), said(&self.was), said(&self.now))
    }
}

/// Every difference of two values under a name; at most `most` of them.
pub(super) fn changes<T: Serialize + PartialEq + ?Sized>(
    name: &str,
    was: &T,
    now: &T,
    most: usize,
) -> Vec<Change> {
    let mut found = Vec::new();
    if was != now {
        let value = |value| serde_json::to_value(value).unwrap_or(Value::Null);
        walk(&mut vec![name.to_owned()], Some(&value(was)), Some(&value(now)), &mut found, most);
    }
    found
}

fn walk(
    path: &mut Vec<String>,
    was: Option<&Value>,
    now: Option<&Value>,
    found: &mut Vec<Change>,
    most: usize,
) {
    if was == now || found.len() == most {
        return;
    }
    let keys: Vec<String> = match (was, now) {
        (Some(Value::Object(was)), Some(Value::Object(now))) => {
            was.keys().chain(now.keys().filter(|key| !was.contains_key(*key))).cloned().collect()
        }
        (Some(Value::Array(was)), Some(Value::Array(now))) => {
            (0..was.len().max(now.len())).map(|at| at.to_string()).collect()
        }
        _ => {
            found.push(Change { path: path.clone(), was: was.cloned(), now: now.cloned() });
            return;
        }
    };
    for key in keys {
        path.push(key.clone());
        walk(path, part(was, &key), part(now, &key), found, most);
        path.pop();
    }
}

fn part<'a>(value: Option<&'a Value>, key: &str) -> Option<&'a Value> {
    match value? {
        Value::Object(map) => map.get(key),
        Value::Array(list) => list.get(key.parse::<usize>().ok()?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(was: &Value, now: &Value, expected: &[&str]) {
        let said: Vec<_> = changes("plan", was, now, 10).iter().map(ToString::to_string).collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn leaves_are_named_by_their_path() {
        check(&json!({"a": {"b": 1}, "c": 2}), &json!({"a": {"b": 1}, "c": 2}), &[]);
        check(
            &json!({"workloads": {"m/x#1": {"rung": "trim", "high": 5}}}),
            &json!({"workloads": {"m/x#1": {"rung": "freeze", "frozen": true}}}),
            &[
                "plan workloads m/x#1 high: was 5, is nothing",
                "plan workloads m/x#1 rung: was \"trim\", is \"freeze\"",
                "plan workloads m/x#1 frozen: was nothing, is true",
            ],
        );
        check(&json!([1, 2]), &json!([1, 3, 4]), &["plan 1: was 2, is 3", "plan 2: was nothing, is 4"]);
        check(&json!({"a": 1}), &json!(7), &["plan: was {\"a\":1}, is 7"]);
    }

    #[test]
    fn a_flood_is_cut() {
        assert_eq!(changes("x", &vec![0; 100], &vec![1; 100], 3).len(), 3);
    }
}
